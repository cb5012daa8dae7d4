//! What this machine can do: measured, not looked up.

use crate::conv;
use crate::mem::DisjointMut;
use crate::simd::{Isa, Kernel, Simd};
use crate::threads::Team;
use std::time::{Duration, Instant};

/// Multiply-adds with nothing else: 12 independent chains hide the latency (4 cycles, 2 a cycle) and leave registers free.
struct Chains(f32);

impl Chains {
    const COUNT: usize = 12;
    const STEPS: usize = 40_000;
}

impl Kernel for Chains {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (a, b) = (s.splat(self.0), s.splat(1.0 - self.0));
        let mut acc: [S::V; Chains::COUNT] = std::array::from_fn(|i| s.splat(i as f32));
        for _ in 0..Chains::STEPS {
            for v in &mut acc {
                *v = s.mul_add(*v, a, b);
            }
        }
        let sum = acc.into_iter().reduce(|x, y| s.add(x, y));
        sum.map_or(0.0, |v| s.reduce_add(v))
    }
}

/// The rate of multiply-adds (2 operations each) that all threads of `team` reach together with the vectors of `isa`, in
/// GFLOP/s: the best run of about a millisecond within 60 ms. Portable vectors are measured by the convolution's tile, with
/// all operands in the first cache.
///
/// It is what the clock of this moment allows, so compare only with rates measured in the same run.
pub fn measure_peak(team: &Team, isa: Isa) -> f64 {
    let threads = team.threads();
    let factor = std::hint::black_box(0.75f32);
    let mut sink = vec![0.0f32; threads];
    let mut best = f64::INFINITY;
    let _awake = team.enter();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(60) {
        let results = DisjointMut::new(&mut sink);
        let start = Instant::now();
        team.run(|index, _| {
            let result = match isa {
                // In chains of arrays the compiler sees that all lanes are equal, and computes one.
                Isa::Portable => conv::run_portable_tiles(),
                _ => isa.dispatch(Chains(factor)),
            };
            // SAFETY: each thread has its own element.
            unsafe { results.slice_mut(index..index + 1)[0] = result };
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    std::hint::black_box(&sink);
    let multiply_adds = match isa {
        Isa::Portable => conv::PORTABLE_TILES_MULTIPLY_ADDS,
        _ => Chains::STEPS * Chains::COUNT,
    };
    (threads * multiply_adds * isa.lanes() * 2) as f64 / best / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_is_a_rate() {
        for isa in crate::simd::available_isas() {
            let peak = measure_peak(&Team::new(1), isa);
            assert!(peak > 0.1 && peak < 10_000.0, "{isa} {peak}");
        }
    }
}
