//! Random numbers of one sample.

use striate_kernels::rng;

/// The random numbers of one sample, one after the other: a function of (seed, purpose, step, element) and of how many were
/// drawn before. Nothing is shared between samples, so order and threads do not matter.
#[derive(Clone, Debug)]
pub struct Draws {
    key: [u32; 2],
    noise: [u32; 2],
    step: u64,
    element: u64,
    drawn: u64,
}

impl Draws {
    /// Number of draws that one sample may make before it would meet those of the next.
    const PER_ELEMENT: u64 = 1 << 20;

    /// For augmentation `step` is the epoch and `element` the sample's index in the data set.
    pub fn new(seed: u64, purpose: &str, step: u64, element: u64) -> Self {
        Self {
            key: rng::stream_key(seed, purpose),
            noise: rng::stream_key(seed ^ 0x6E6F_6973_6500_0000, purpose),
            step,
            element,
            drawn: 0,
        }
    }

    /// The numbers of another step and element of the same stream.
    pub fn at(&self, step: u64, element: u64) -> Self {
        Self { step, element, drawn: 0, ..self.clone() }
    }

    fn next(&mut self) -> u64 {
        let at = self.element * Self::PER_ELEMENT + self.drawn % Self::PER_ELEMENT;
        self.drawn += 1;
        at
    }

    /// A number in `[0, 1)` with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        let at = self.next();
        rng::uniform_f64(self.key, self.step, at)
    }

    /// A number in `[low, high)`; `low` if they are equal.
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// An integer in `0..n`; 0 for `n == 0`.
    pub fn below(&mut self, n: usize) -> usize {
        let at = self.next();
        rng::below(self.key, self.step, at, n as u64) as usize
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Fills with standard normal numbers.
    pub fn fill_normal(&mut self, out: &mut [f32], offset: u64) {
        rng::fill_normal(out, self.noise, self.step, (self.element << 32) + offset);
    }

    /// A number of the beta distribution with both parameters `alpha`, by Jöhnk's method (1964) where `alpha < 1`,
    /// else by Cheng's BB (1978).
    pub fn beta(&mut self, alpha: f64) -> f64 {
        if alpha < 1.0 {
            // Accepts at least 78 % of the pairs; the bound only guards against a broken parameter.
            for _ in 0..1000 {
                let x = self.unit().powf(1.0 / alpha);
                let y = self.unit().powf(1.0 / alpha);
                if x + y > 0.0 && x + y <= 1.0 {
                    return x / (x + y);
                }
            }
            return 0.5;
        }
        // With equal parameters BB's root of (2a - 2) / (2a² - 2a) is this.
        let beta = 1.0 / alpha.sqrt();
        let gamma = alpha + 1.0 / beta;
        for _ in 0..1000 {
            let (u1, u2) = (self.unit(), self.unit());
            let v = beta * (u1 / (1.0 - u1)).ln();
            let w = alpha * v.exp();
            let z = u1 * u1 * u2;
            let r = gamma * v - 4.0f64.ln();
            let s = alpha + r - w;
            let t = z.ln();
            if s + 1.0 + 5.0f64.ln() >= 5.0 * z || s >= t || r + 2.0 * alpha * (2.0 * alpha / (alpha + w)).ln() >= t {
                return w / (alpha + w);
            }
        }
        0.5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beta_has_the_right_mean_and_variance() {
        for alpha in [0.2, 0.5, 1.0, 2.0, 8.0] {
            let n = 20_000u64;
            let draws = Draws::new(1, "test", 0, 0);
            let values: Vec<f64> = (0..n).map(|i| draws.at(0, i).beta(alpha)).collect();
            let mean = values.iter().sum::<f64>() / n as f64;
            let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!((mean - 0.5).abs() < 0.01, "alpha {alpha}: mean {mean}");
            assert!((var / expected - 1.0).abs() < 0.05, "alpha {alpha}: variance {var}, expected {expected}");
            assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
        }
    }

    #[test]
    fn samples_do_not_share_numbers() {
        let draws = Draws::new(1, "test", 0, 0);
        let a: Vec<f64> = (0..100).map(|i| draws.at(0, i).unit()).collect();
        let mut sorted = a.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.dedup();
        assert_eq!(sorted.len(), 100);
        assert_ne!(draws.at(1, 0).unit(), draws.at(0, 0).unit());
    }
}
