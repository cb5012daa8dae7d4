//! How many vector registers the convolution microkernels spill.
//!
//! A microkernel is fast because its accumulators never leave the registers. One more live vector than the machine
//! has, and the compiler quietly adds a store and a load to the stack for each turn of the inner loop. This command
//! compiles the kernels with symbols that show generic arguments, reads the machine code, and counts them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Lines `PATTERN MOVES`: most moves to or from the stack in the inner loops of a kernel whose name contains PATTERN.
const LIMITS: &str = "xtask/spills.limits";
/// Generic code of the convolutions, compiled for one instruction set.
const KERNELS: [&str; 2] = ["::run_avx", "::conv::"];

/// What one instruction is, as far as this command cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A vector goes to the stack, or comes back.
    Spill,
    /// A multiply-add.
    Fma,
    /// A jump to the address.
    Jump(u64),
    Other,
}

/// The figures of one function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    /// Innermost loops that multiply and add.
    loops: usize,
    /// Multiply-adds in those loops.
    fmas: usize,
    /// Moves of vectors to or from the stack in those loops: each is paid at every turn.
    in_loops: usize,
    /// Such moves in the whole function.
    anywhere: usize,
}

/// Compiles, disassembles, prints the table; true if every kernel is within its limit.
pub(crate) fn run_spills(root: &Path) -> Result<bool, String> {
    let folder = root.join("target/spills");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--lib", "--package", "striate-kernels", "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", "-Csymbol-mangling-version=v0")
        .current_dir(root)
        .status()
        .map_err(|e| format!("cannot run cargo build: {e}"))?;
    if !built.success() {
        return Err("the kernels do not compile".into());
    }
    let done = Command::new("objdump")
        .args(["--disassemble", "--no-show-raw-insn", "--demangle"])
        .arg(folder.join("release/libstriate_kernels.rlib"))
        .output()
        .map_err(|e| format!("cannot run objdump (Debian: apt install binutils): {e}"))?;
    let limits = std::fs::read_to_string(root.join(LIMITS)).map_err(|e| format!("{LIMITS}: {e}"))?;
    let limits = parse_limits(&limits)?;
    let counts = count_spills(&String::from_utf8_lossy(&done.stdout));
    if counts.is_empty() {
        return Err(format!("objdump shows no function whose name has {KERNELS:?}"));
    }
    let mut fine = true;
    println!("{:>6} {:>6} {:>9} {:>6} {:>9}  kernel", "loops", "FMAs", "in loops", "limit", "anywhere");
    for (name, count) in counts {
        let limit = limits.iter().find(|(pattern, _)| name.contains(pattern.as_str())).map_or(0, |(_, limit)| *limit);
        let mark = if count.in_loops > limit { "  <- over its limit" } else { "" };
        fine &= count.in_loops <= limit;
        let Count { loops, fmas, in_loops, anywhere } = count;
        println!("{loops:>6} {fmas:>6} {in_loops:>9} {limit:>6} {anywhere:>9}  {name}{mark}");
    }
    Ok(fine)
}

fn parse_limits(text: &str) -> Result<Vec<(String, usize)>, String> {
    let lines = text.lines().map(|l| l.split('#').next().unwrap_or_default().trim()).filter(|l| !l.is_empty());
    let parse = |line: &str| {
        let (pattern, limit) = line.rsplit_once(char::is_whitespace)?;
        Some((pattern.trim().to_string(), limit.parse().ok()?))
    };
    lines.map(|line| parse(line).ok_or_else(|| format!("{LIMITS}: `{line}` is not PATTERN MOVES"))).collect()
}

/// The figures of every convolution kernel in the output of objdump.
fn count_spills(disassembly: &str) -> BTreeMap<String, Count> {
    let mut functions: BTreeMap<String, Vec<(u64, Kind)>> = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in disassembly.lines() {
        if let Some((_, name)) = line.strip_suffix(">:").and_then(|l| l.split_once(" <")) {
            let wanted = KERNELS.iter().all(|part| name.contains(part));
            current = wanted.then(|| name.replace("striate_kernels::", "").replace("simd::x86::", ""));
        } else if let (Some(name), Some((address, code))) = (&current, line.split_once(":\t"))
            && let Ok(address) = u64::from_str_radix(address.trim(), 16)
        {
            functions.entry(name.clone()).or_default().push((address, kind(code.trim())));
        }
    }
    functions.into_iter().map(|(name, code)| (name, count(&code))).collect()
}

/// Reads one instruction in AT&T syntax.
fn kind(code: &str) -> Kind {
    let (mnemonic, operands) = code.split_once(char::is_whitespace).unwrap_or((code, ""));
    let operands = operands.trim();
    let vector = operands.contains("%zmm") || operands.contains("%ymm");
    if mnemonic.starts_with('j') {
        let target = operands.split_whitespace().next().and_then(|t| u64::from_str_radix(t, 16).ok());
        return target.map_or(Kind::Other, Kind::Jump);
    }
    match vector {
        true if mnemonic.starts_with("vfmadd") || mnemonic.starts_with("vfnmadd") => Kind::Fma,
        true if mnemonic.starts_with("vmov") && operands.contains("(%rsp") => Kind::Spill,
        _ => Kind::Other,
    }
}

fn count(code: &[(u64, Kind)]) -> Count {
    let backward = code.iter().filter_map(|&(at, kind)| match kind {
        Kind::Jump(to) if to <= at => Some((to, at)),
        _ => None,
    });
    let ranges: Vec<(u64, u64)> = backward.collect();
    let inside = |(from, to): (u64, u64), wanted: Kind| {
        code.iter().filter(|(at, kind)| (from..=to).contains(at) && *kind == wanted).count()
    };
    let innermost = |range: &&(u64, u64)| {
        let within = |other: &&(u64, u64)| other != range && other.0 >= range.0 && other.1 <= range.1;
        inside(**range, Kind::Fma) > 0 && !ranges.iter().any(|other| within(&other))
    };
    let mut total = Count { anywhere: inside((0, u64::MAX), Kind::Spill), ..Count::default() };
    for &range in ranges.iter().filter(innermost) {
        total.loops += 1;
        total.fmas += inside(range, Kind::Fma);
        total.in_loops += inside(range, Kind::Spill);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
0000000000000000 <striate_kernels::simd::x86::run_avx512::<striate_kernels::conv::micro::Tile<12, 2>>>:
   0:\tvmovups %zmm1,0x80(%rsp)
  10:\tvmovups 0x40(%rdi),%zmm0
  18:\tvmovups %zmm0,0xc0(%rsp)
  20:\tvfmadd231ps (%rsi){1to16},%zmm1,%zmm2
  28:\tvmovaps 0xc0(%rsp),%zmm0
  30:\tjne    10 <striate_kernels::simd::x86::run_avx512+0x10>
  38:\tvmovups %zmm2,(%rdx)
  40:\tjne    0 <striate_kernels::simd::x86::run_avx512>
  48:\tret

0000000000000000 <striate_kernels::simd::x86::run_avx512::<striate_kernels::pool::Max>>:
   0:\tvmovups %zmm0,(%rsp)
";

    #[test]
    fn moves_in_the_inner_loop_are_counted() {
        let counts = count_spills(TEXT);
        assert_eq!(counts.len(), 1);
        let count = counts["run_avx512::<conv::micro::Tile<12, 2>>"];
        assert_eq!(count, Count { loops: 1, fmas: 1, in_loops: 2, anywhere: 3 });
    }

    #[test]
    fn limits_are_read() {
        let limits = parse_limits("# none\n\nTile<8, 3> 2 # why\n").unwrap();
        assert_eq!(limits, [("Tile<8, 3>".to_string(), 2)]);
        assert!(parse_limits("ab\n").unwrap_err().contains("`ab`"));
    }
}
