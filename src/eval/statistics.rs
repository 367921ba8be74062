//! Means, quantiles and intervals. All sums are f64 in the order of the values.

use serde::Serialize;

/// A mean with its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Standard error of the mean: sqrt of (variance / (n - 1)); 0 for fewer than two values.
    pub error: f64,
}

impl Estimate {
    /// Mean of `values`, which must not be empty.
    pub(super) fn of(values: impl ExactSizeIterator<Item = f64> + Clone) -> Self {
        let count = values.len() as f64;
        let mean = values.clone().sum::<f64>() / count;
        let variance = values.map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
        let error = if count > 1.0 { (variance / (count - 1.0)).sqrt() } else { 0.0 };
        Self { mean, error }
    }

    /// exp of the mean, its error carried along to first order.
    pub(super) fn exp(self) -> Self {
        let mean = self.mean.exp();
        Self { mean, error: mean * self.error }
    }

    /// sqrt of the mean, its error carried along to first order.
    pub(super) fn sqrt(self) -> Self {
        let mean = self.mean.sqrt();
        Self { mean, error: if mean > 0.0 { 0.5 * self.error / mean } else { 0.0 } }
    }
}

/// The quantile `fraction` of ascending `sorted`, linear between neighbours.
pub(super) fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let position = fraction * (sorted.len() - 1) as f64;
    let below = position as usize;
    let above = (below + 1).min(sorted.len() - 1);
    let weight = position - below as f64;
    sorted[below] * (1.0 - weight) + sorted[above] * weight
}

/// A share of successes with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Share {
    /// Successes over trials.
    pub value: f64,
    /// Lower end of the Wilson score interval at 95 %.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Share {
    /// `successes` of `trials`, at least one.
    pub(super) fn of(successes: usize, trials: usize) -> Self {
        // The normal distribution's 97.5 % quantile.
        const Z: f64 = 1.959_963_984_540_054;
        let n = trials as f64;
        let value = successes as f64 / n;
        let centre = value + Z * Z / (2.0 * n);
        let spread = Z * (value * (1.0 - value) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        let (low, high) = ((centre - spread) / scale, (centre + spread) / scale);
        Self { value, low: low.max(0.0), high: high.min(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn means_by_hand() {
        // Variance 1.25 over 4 values: sqrt(1.25 / 3).
        let estimate = Estimate::of([1.0, 2.0, 3.0, 4.0].into_iter());
        assert!(close(estimate.mean, 2.5) && close(estimate.error, 0.645_497_224_367_902_8));
        assert_eq!(Estimate::of([3.0].into_iter()), Estimate { mean: 3.0, error: 0.0 });
        let root = Estimate { mean: 4.0, error: 0.4 }.sqrt();
        assert!(close(root.mean, 2.0) && close(root.error, 0.1));
        let exp = Estimate { mean: 0.0, error: 0.25 }.exp();
        assert_eq!(exp, Estimate { mean: 1.0, error: 0.25 });
    }

    #[test]
    fn quantiles_by_hand() {
        let sorted = [0.0, 1.0, 2.0, 10.0];
        assert!(close(quantile(&sorted, 0.5), 1.5));
        assert!(close(quantile(&sorted, 0.9), 2.0 + 0.7 * 8.0));
        assert_eq!((quantile(&sorted, 0.0), quantile(&sorted, 1.0)), (0.0, 10.0));
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
    }

    /// From R: `binom::binom.wilson(8, 10)` and `(0, 5)`.
    #[test]
    fn wilson_intervals() {
        let share = Share::of(8, 10);
        assert!((share.low - 0.490_162_5).abs() < 1e-6, "{share:?}");
        assert!((share.high - 0.943_317_8).abs() < 1e-6, "{share:?}");
        let none = Share::of(0, 5);
        assert_eq!((none.value, none.low), (0.0, 0.0));
        assert!((none.high - 0.434_481_8).abs() < 1e-6, "{none:?}");
    }
}
