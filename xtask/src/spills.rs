//! How many vector registers the convolution microkernels spill.
//!
//! A microkernel is fast because its accumulators never leave the registers. One more live vector than the machine
//! has, and the compiler quietly adds a store and a load to the stack for each turn of the inner loop. This command
//! reads the machine code of the release binary and counts them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// A line `PATTERN STORES` each: most stores to the stack that a kernel whose name contains PATTERN may have.
const LIMITS: &str = "xtask/spills.limits";
/// The kernels' grammar: `conv2d_f32_12x32_avx512`.
const KERNELS: &str = "conv2d_f32_";

/// Vector moves between registers and the stack in one function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    stores: usize,
    loads: usize,
    instructions: usize,
}

/// Disassembles `binary` (default `target/release/striate`), prints the table; true if every kernel is within its limit.
pub(crate) fn run_spills(root: &Path, binary: Option<&Path>) -> Result<bool, String> {
    let default = root.join("target/release/striate");
    let binary = binary.unwrap_or(&default);
    if !binary.exists() {
        return Err(format!("{} is not there; build it with `cargo build --release`", binary.display()));
    }
    let done = Command::new("objdump")
        .args(["--disassemble", "--no-show-raw-insn", "--demangle"])
        .arg(binary)
        .output()
        .map_err(|e| format!("cannot run objdump (Debian: apt install binutils): {e}"))?;
    if !done.status.success() {
        return Err(format!("objdump failed: {}", String::from_utf8_lossy(&done.stderr)));
    }
    let path = root.join(LIMITS);
    let limits = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let limits = parse_limits(&limits)?;
    let counts = count_spills(&String::from_utf8_lossy(&done.stdout));
    if counts.is_empty() {
        return Err(format!("no function of {} is named {KERNELS}*; is it stripped?", binary.display()));
    }
    let mut fine = true;
    println!("{:>7} {:>7} {:>7} {:>13}  kernel", "stores", "loads", "limit", "instructions");
    for (name, count) in counts {
        let limit = limits.iter().find(|(pattern, _)| name.contains(pattern.as_str())).map_or(0, |(_, limit)| *limit);
        let mark = if count.stores > limit { "  <- over its limit" } else { "" };
        fine &= count.stores <= limit;
        println!("{:>7} {:>7} {limit:>7} {:>13}  {name}{mark}", count.stores, count.loads, count.instructions);
    }
    Ok(fine)
}

fn parse_limits(text: &str) -> Result<Vec<(String, usize)>, String> {
    let lines = text.lines().map(|l| l.split('#').next().unwrap_or_default().trim()).filter(|l| !l.is_empty());
    lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [pattern, limit] => limit.parse().ok().map(|limit| (pattern.to_string(), limit)),
                _ => None,
            }
            .ok_or_else(|| format!("{LIMITS}: `{line}` is not PATTERN STORES"))
        })
        .collect()
}

/// The spills of every function named `conv2d_f32_*` in the output of objdump.
fn count_spills(disassembly: &str) -> BTreeMap<String, Count> {
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in disassembly.lines() {
        if let Some(name) = line.strip_suffix(">:").and_then(|l| l.split_once(" <")).map(|(_, name)| name) {
            current = name.contains(KERNELS).then(|| name.to_string());
        } else if let (Some(name), Some((_, code))) = (&current, line.split_once(":\t")) {
            let count = counts.entry(name.clone()).or_default();
            count.instructions += 1;
            let (mnemonic, operands) = code.trim().split_once(char::is_whitespace).unwrap_or((code, ""));
            let vector = operands.contains("%zmm") || operands.contains("%ymm");
            if mnemonic.starts_with("vmov") && vector && operands.contains("(%rsp") {
                // AT&T order: source, destination
                if operands.trim().starts_with('%') { count.stores += 1 } else { count.loads += 1 }
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
0000000000001000 <striate_kernels::conv::conv2d_f32_12x32_avx512>:
    1000:\tvmovups 0x40(%rdi),%zmm0
    1008:\tvmovups %zmm0,0x80(%rsp)
    1010:\tvfmadd231ps (%rsi){1to16},%zmm1,%zmm2
    1018:\tvmovaps 0x80(%rsp),%zmm0
    1020:\tvmovups %zmm2,(%rdx)
    1028:\tret

0000000000002000 <main>:
    2000:\tvmovups %zmm0,(%rsp)
";

    #[test]
    fn moves_to_the_stack_are_counted() {
        let counts = count_spills(TEXT);
        assert_eq!(counts.len(), 1);
        let count = counts["striate_kernels::conv::conv2d_f32_12x32_avx512"];
        assert_eq!(count, Count { stores: 1, loads: 1, instructions: 6 });
    }

    #[test]
    fn limits_are_read() {
        let limits = parse_limits("# none\n\nconv2d_f32_8x48 2 # why\n").unwrap();
        assert_eq!(limits, [("conv2d_f32_8x48".to_string(), 2)]);
        assert!(parse_limits("a b\n").unwrap_err().contains("`a b`"));
    }
}
