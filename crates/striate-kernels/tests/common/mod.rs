//! What the tests of the simple kernels share.

use striate_kernels::rng;
use striate_kernels::simd::{Isa, available_isas};
use striate_kernels::threads::Team;

/// Uniform numbers in [-2, 2).
pub fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut x = vec![0.0; len];
    rng::fill_uniform(&mut x, rng::stream_key(seed, "test noise"), 0, 0);
    x.iter_mut().for_each(|v| *v = *v * 4.0 - 2.0);
    x
}

/// The same numbers in double precision.
pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

/// Runs on every instruction set with 1, 2 and 3 threads; all thread counts must agree to the bit. Gives each ISA's result.
pub fn on_all(run: impl Fn(&Team, Isa) -> Vec<f32>) -> Vec<(Isa, Vec<f32>)> {
    let teams = [Team::new(1), Team::new(2), Team::new(3)];
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let on = |isa: Isa| {
        let first = run(&teams[0], isa);
        for team in &teams[1..] {
            assert_eq!(bits(&first), bits(&run(team, isa)), "{isa}: {} threads", team.threads());
        }
        (isa, first)
    };
    available_isas().into_iter().map(on).collect()
}

/// Each result is within `tolerance` of what is wanted, relative to the element and to the root mean square of all.
pub fn check(what: &str, got: &[(Isa, Vec<f32>)], want: &[f64], tolerance: f64) {
    let rms = (want.iter().map(|w| w * w).sum::<f64>() / want.len().max(1) as f64).sqrt().max(1e-6);
    let scale: Vec<f64> = want.iter().map(|w| rms + w.abs()).collect();
    check_against(what, got, want, &scale, tolerance);
}

/// Each result is within `tolerance` of what is wanted, relative to each element's own scale.
pub fn check_against(what: &str, got: &[(Isa, Vec<f32>)], want: &[f64], scale: &[f64], tolerance: f64) {
    for (isa, got) in got {
        assert_eq!(got.len(), want.len(), "{what}");
        for (i, ((g, w), scale)) in got.iter().zip(want).zip(scale).enumerate() {
            let error = (f64::from(*g) - w).abs();
            let same = f64::from(*g) == *w || g.is_nan() && w.is_nan();
            assert!(same || error <= tolerance * scale, "{what} on {isa}: element {i} is {g}, should be {w}");
        }
    }
}
