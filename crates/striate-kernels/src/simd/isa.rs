//! Which instruction set to run.

#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512};
use super::{Kernel, Portable, Simd};
use std::sync::OnceLock;

/// An instruction set that kernels are compiled for, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust that the compiler vectorises for the target's baseline (SSE2, NEON).
    Portable,
    /// AVX2 and FMA, 8 floats.
    Avx2,
    /// AVX-512 F, VL, DQ and BW, 16 floats.
    Avx512,
}

impl Isa {
    /// The name that `STRIATE_ISA` and kernel names use.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }

    /// Floats in one vector.
    pub fn lanes(self) -> usize {
        match self {
            Isa::Portable | Isa::Avx2 => 8,
            Isa::Avx512 => 16,
        }
    }

    /// True where this CPU can run it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Avx2::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Avx512::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// Runs `kernel` with this instruction set, or with the best below it that the CPU has.
    #[inline]
    pub fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        {
            if self == Isa::Avx512
                && let Some(s) = Avx512::detect()
            {
                return s.vectorize(kernel);
            }
            if self >= Isa::Avx2
                && let Some(s) = Avx2::detect()
            {
                return s.vectorize(kernel);
            }
        }
        Portable::new().vectorize(kernel)
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// `STRIATE_ISA` cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IsaError {
    /// The value names no instruction set.
    Unknown(String),
    /// This CPU lacks it.
    Unavailable(Isa),
}

impl std::fmt::Display for IsaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            IsaError::Unknown(value) => {
                write!(f, "STRIATE_ISA is `{value}`, which is no instruction set; use avx512, avx2 or portable")
            }
            IsaError::Unavailable(isa) => {
                let have: Vec<_> = available_isas().into_iter().map(Isa::name).collect();
                write!(f, "STRIATE_ISA is `{isa}`, which this CPU lacks; it has {}", have.join(", "))
            }
        }
    }
}

impl std::error::Error for IsaError {}

/// The instruction sets of this CPU, best first.
pub fn available_isas() -> Vec<Isa> {
    [Isa::Avx512, Isa::Avx2, Isa::Portable].into_iter().filter(|isa| isa.is_available()).collect()
}

/// What `STRIATE_ISA` asks for: `None` where it is unset or empty.
///
/// # Errors
/// The variable names an instruction set that does not exist or that this CPU lacks.
pub fn check_isa_env() -> Result<Option<Isa>, IsaError> {
    let value = match std::env::var("STRIATE_ISA") {
        Ok(value) if !value.is_empty() => value,
        _ => return Ok(None),
    };
    let isa = [Isa::Avx512, Isa::Avx2, Isa::Portable].into_iter().find(|isa| isa.name() == value);
    match isa {
        Some(isa) if isa.is_available() => Ok(Some(isa)),
        Some(isa) => Err(IsaError::Unavailable(isa)),
        None => Err(IsaError::Unknown(value)),
    }
}

/// The instruction set to use: `STRIATE_ISA` where it can be honoured (see [`check_isa_env`]), else the best of this CPU.
/// Decided at the first call.
pub fn isa() -> Isa {
    static CHOSEN: OnceLock<Isa> = OnceLock::new();
    *CHOSEN.get_or_init(|| check_isa_env().ok().flatten().unwrap_or_else(|| available_isas()[0]))
}
