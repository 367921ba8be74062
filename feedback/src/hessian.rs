//! A Hessian that can be factored: checked, damped, its dead inputs known.

use faer::Mat;

use crate::Error;
use crate::triangle::cholesky;

/// How much is added to the diagonal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Damping {
    /// Share of the mean diagonal that is always added. Default: 0.01, as GPTQ does.
    pub share: f64,
    /// The share grows tenfold until H has a Cholesky factor, up to this. Default: 10.
    pub most: f64,
}

impl Default for Damping {
    fn default() -> Self {
        Self { share: 0.01, most: 10.0 }
    }
}

/// Mean diagonals between 2 to the power of minus this and of this are worked with as they are.
const USUAL_EXPONENT: f64 = 40.0;

/// H with its damping: f32 [n, n], symmetric and positive definite.
#[derive(Debug, Clone)]
pub struct Hessian {
    n: usize,
    values: Vec<f32>,
    dead: usize,
    damping: f64,
}

impl Hessian {
    /// Damps `values`, a mean of x·xᵀ [n, n].
    ///
    /// An input that is always zero (a dead channel) has no say in the output; its weights are
    /// coded as if its mean square were the mean of all. A mean over fewer tokens than inputs
    /// has no Cholesky factor of its own; damping gives it one.
    ///
    /// # Errors
    /// [`Error::NotFinite`], [`Error::Negative`], [`Error::Indefinite`].
    ///
    /// # Panics
    /// If `values` is not square.
    pub fn new(mut values: Vec<f32>, n: usize, damping: Damping) -> Result<Self, Error> {
        assert_eq!(values.len(), n * n, "H is square");
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            let value = f64::from(values[index]);
            return Err(Error::NotFinite { row: index / n, column: index % n, value });
        }
        let diagonal = |values: &[f32], i: usize| f64::from(values[i * n + i]);
        if let Some(index) = (0..n).find(|&i| diagonal(&values, i) < 0.0) {
            return Err(Error::Negative { index, value: diagonal(&values, index) });
        }
        let sum: f64 = (0..n).map(|i| diagonal(&values, i)).sum();
        let mean = if sum > 0.0 { sum / n as f64 } else { 1.0 };
        let mut dead = 0;
        for i in 0..n {
            if values[i * n + i] == 0.0 {
                dead += 1;
                values[i * n..(i + 1) * n].fill(0.0);
                values[i * n + i] = mean as f32;
            }
        }
        let mut share = damping.share;
        loop {
            let mut damped = values.clone();
            for i in 0..n {
                damped[i * n + i] += (share * mean) as f32;
            }
            let lower = Mat::from_fn(n, n, |i, j| f64::from(damped[i * n + j]));
            if cholesky(lower).is_some() {
                return Ok(Self { n, values: damped, dead, damping: share });
            }
            share = if share > 0.0 { share * 10.0 } else { 1e-6 };
            if share > damping.most {
                return Err(Error::Indefinite { damping: share / 10.0 });
            }
        }
    }

    /// What a mean of x·xᵀ [n, n] should be divided by before it is worked with: a power of four near
    /// its mean diagonal, or 1 where that is of a usual size. Dividing everything that is linear in it
    /// by the same power changes no solution, and keeps squares and inverses of very quiet or very
    /// loud inputs in the range of f32.
    #[must_use]
    pub fn unit(values: &[f32], n: usize) -> f64 {
        let sum: f64 = (0..n).map(|i| f64::from(values[i * n + i])).sum();
        let mean = sum / n.max(1) as f64;
        let usual = (-USUAL_EXPONENT..USUAL_EXPONENT).contains(&mean.log2());
        // A root of the unit has to be a power of two as well.
        if mean > 0.0 && !usual { 4.0f64.powi((mean.log2() / 2.0).floor() as i32) } else { 1.0 }
    }

    /// The width.
    #[must_use]
    pub fn width(&self) -> usize {
        self.n
    }

    /// H, row-major.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Diagonal entry `i`.
    #[must_use]
    pub fn diagonal(&self, i: usize) -> f32 {
        self.values[i * self.n + i]
    }

    /// Inputs that were always zero.
    #[must_use]
    pub fn dead(&self) -> usize {
        self.dead
    }

    /// Share of the mean diagonal that was added.
    #[must_use]
    pub fn damping(&self) -> f64 {
        self.damping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_inputs_and_rank_deficiency_are_damped() {
        // One token: rank 1, and the last input is dead.
        let x = [1.0f32, 2.0, 0.0];
        let values = (0..9).map(|i| x[i / 3] * x[i % 3]).collect();
        let hessian = Hessian::new(values, 3, Damping::default()).unwrap();
        assert_eq!(hessian.dead(), 1);
        assert_eq!(hessian.damping(), 0.01);
        let mean = 5.0 / 3.0;
        assert!((hessian.diagonal(2) - 1.01 * mean).abs() < 1e-6);
        assert!((hessian.diagonal(0) - (1.0 + 0.01 * mean)).abs() < 1e-6);
    }

    #[test]
    fn units_are_powers_of_four_of_unusual_means_only() {
        let of = |mean: f32| Hessian::unit(&[mean, 0.0, 0.0, mean], 2);
        for usual in [0.0, 1e-12, 0.3, 1.0, 1e12] {
            assert_eq!(of(usual), 1.0, "{usual}");
        }
        assert_eq!(of(2.0f32.powi(-100)), 2.0f64.powi(-100));
        assert_eq!(of(1.5 * 2.0f32.powi(-101)), 2.0f64.powi(-102));
        assert_eq!(of(3.0 * 2.0f32.powi(60)), 2.0f64.powi(60));
        assert_eq!(of(f32::from_bits(1)), 2.0f64.powi(-150));
    }

    #[test]
    fn damping_grows_until_there_is_a_factor() {
        let values = vec![1.0, 1.04, 1.04, 1.0];
        let hessian = Hessian::new(values.clone(), 2, Damping::default()).unwrap();
        assert_eq!(hessian.damping(), 0.1);
        let hopeless = Damping { share: 0.01, most: 0.05 };
        let error = Hessian::new(values, 2, hopeless).unwrap_err();
        assert_eq!(error, Error::Indefinite { damping: 0.01 });
    }

    #[test]
    fn what_is_no_sum_of_squares_is_refused() {
        let new = |values| Hessian::new(values, 2, Damping::default()).unwrap_err();
        let nan = new(vec![1.0, f32::NAN, 0.0, 1.0]);
        assert!(matches!(nan, Error::NotFinite { row: 0, column: 1, .. }));
        assert!(matches!(new(vec![1.0, 0.0, 0.0, -1.0]), Error::Negative { index: 1, .. }));
    }
}
