//! How near a net's numbers are.

/// Sums of one number's errors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RegressionFigures {
    /// Mean absolute error.
    pub mae: f64,
    /// Root of the mean squared error.
    pub rmse: f64,
    /// The part of the variance that is explained: 1 is perfect, 0 is as good as the mean, below is worse. 0 where the truth does
    /// not vary.
    pub r2: f64,
}

/// Given and true numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct RegressionMetrics {
    outputs: usize,
    /// [sample, number]: given, true.
    pairs: Vec<(f64, f64)>,
}

impl RegressionMetrics {
    /// For so many numbers a sample.
    pub fn new(outputs: usize) -> Self {
        Self { outputs, pairs: Vec::new() }
    }

    /// Takes in a batch [N, numbers].
    pub fn update(&mut self, given: &[f64], truth: &[f32]) {
        self.pairs.extend(given.iter().zip(truth).map(|(g, t)| (*g, f64::from(*t))));
    }

    /// Number of samples.
    pub fn total(&self) -> u64 {
        (self.pairs.len() / self.outputs.max(1)) as u64
    }

    /// Of one number.
    pub fn figures(&self, output: usize) -> RegressionFigures {
        let column = || self.pairs.iter().skip(output).step_by(self.outputs);
        let n = column().count().max(1) as f64;
        let mean = column().map(|(_, t)| t).sum::<f64>() / n;
        let squares = column().map(|(g, t)| (g - t).powi(2)).sum::<f64>();
        let spread = column().map(|(_, t)| (t - mean).powi(2)).sum::<f64>();
        let r2 = if spread > 0.0 { 1.0 - squares / spread } else { 0.0 };
        RegressionFigures { mae: column().map(|(g, t)| (g - t).abs()).sum::<f64>() / n, rmse: (squares / n).sqrt(), r2 }
    }

    /// Means over the numbers; the root is of the mean over all of them.
    pub fn overall(&self) -> RegressionFigures {
        let all: Vec<RegressionFigures> = (0..self.outputs).map(|output| self.figures(output)).collect();
        let mean = |of: fn(&RegressionFigures) -> f64| all.iter().map(of).sum::<f64>() / all.len().max(1) as f64;
        RegressionFigures { mae: mean(|f| f.mae), rmse: mean(|f| f.rmse * f.rmse).sqrt(), r2: mean(|f| f.r2) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_definition() {
        let mut m = RegressionMetrics::new(2);
        m.update(&[1.0, 5.0, 2.0, 5.0], &[1.0, 4.0, 4.0, 4.0]);
        let first = m.figures(0);
        assert_eq!((first.mae, first.rmse), (1.0, 2f64.sqrt()));
        assert!((first.r2 - (1.0 - 4.0 / 4.5)).abs() < 1e-12);
        assert_eq!(m.figures(1), RegressionFigures { mae: 1.0, rmse: 1.0, r2: 0.0 });
        let all = m.overall();
        assert!(all.mae == 1.0 && (all.rmse - 1.5f64.sqrt()).abs() < 1e-12 && m.total() == 2, "{all:?}");
    }
}
