//! Moving average of the scales while the weights are trained.
//!
//! The least-squares scale of weights W_t jumps whenever a weight crosses a threshold. Training
//! follows it smoothly instead: s starts at the optimum s*(W_0) and after each update of the
//! weights s ← β·s + (1 - β)·s*(W_t).

/// A decay outside 0 <= β < 1.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("the decay of a scale average has to be at least 0 and below 1, not {0}")]
pub struct DecayError(pub f32);

/// Scales of a matrix that follow the optimum of weights in training.
///
/// For a constant optimum s* the distance to it shrinks by β each step: after t steps
/// s = s* + βᵗ·(s_0 - s*). The average always lies between its last value and the new optimum, so
/// that positive optima keep it positive.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleEma {
    decay: f32,
    scales: Vec<f32>,
}

impl ScaleEma {
    /// Starts at `scales`, one for each row or group, with decay β = `decay`.
    ///
    /// # Errors
    /// [`DecayError`] unless 0 <= β < 1.
    pub fn new(decay: f32, scales: Vec<f32>) -> Result<Self, DecayError> {
        if (0.0..1.0).contains(&decay) {
            Ok(Self { decay, scales })
        } else {
            Err(DecayError(decay))
        }
    }

    /// One step towards `optima`, the least-squares scales of the weights as they are now.
    ///
    /// # Panics
    /// If there is not one optimum for each scale.
    pub fn update(&mut self, optima: &[f32]) {
        assert_eq!(optima.len(), self.scales.len(), "one optimum for each scale");
        for (scale, optimum) in self.scales.iter_mut().zip(optima) {
            *scale = self.decay * *scale + (1.0 - self.decay) * optimum;
        }
    }

    /// The scales as they are now.
    #[must_use]
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The decay β.
    #[must_use]
    pub fn decay(&self) -> f32 {
        self.decay
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_constant_optimum_is_approached_by_the_closed_form() {
        let mut ema = ScaleEma::new(0.9, vec![1.0, 0.25]).unwrap();
        let optima = [0.5_f32, 2.0];
        for step in 1..=200 {
            ema.update(&optima);
            for (k, (start, optimum)) in [1.0_f64, 0.25].iter().zip(optima).enumerate() {
                let optimum = f64::from(optimum);
                let expected = optimum + 0.9_f64.powi(step) * (start - optimum);
                assert!((f64::from(ema.scales()[k]) - expected).abs() < 2e-6);
            }
        }
        assert!((ema.scales()[0] - 0.5).abs() < 1e-6);
        assert!((ema.scales()[1] - 2.0).abs() < 1e-6);
    }

    #[test]
    fn one_step_by_hand() {
        let mut ema = ScaleEma::new(0.75, vec![2.0]).unwrap();
        ema.update(&[6.0]);
        assert_eq!(ema.scales(), [3.0]);
        ema.update(&[-1.0]);
        assert_eq!(ema.scales(), [2.0]);
    }

    #[test]
    fn decay_zero_is_the_optimum_itself() {
        let mut ema = ScaleEma::new(0.0, vec![7.0]).unwrap();
        ema.update(&[0.3]);
        assert_eq!(ema.scales(), [0.3]);
    }

    #[test]
    fn decays_outside_the_range_are_refused() {
        for decay in [-0.1, 1.0, 1.5, f32::INFINITY] {
            assert_eq!(ScaleEma::new(decay, vec![1.0]), Err(DecayError(decay)));
        }
        assert!(ScaleEma::new(f32::NAN, vec![1.0]).is_err());
    }

    proptest! {
        #[test]
        fn the_average_stays_between_the_extremes_and_keeps_its_sign(
            decay in 0.0_f32..0.9999,
            start in 1e-6_f32..1e3,
            optima in prop::collection::vec(1e-6_f32..1e3, 1..40),
        ) {
            let mut ema = ScaleEma::new(decay, vec![start]).unwrap();
            let (mut low, mut high) = (start, start);
            for &optimum in &optima {
                (low, high) = (low.min(optimum), high.max(optimum));
                ema.update(&[optimum]);
                let scale = ema.scales()[0];
                prop_assert!(scale > 0.0);
                prop_assert!(scale >= low * (1.0 - 1e-5) && scale <= high * (1.0 + 1e-5));
            }
        }
    }
}
