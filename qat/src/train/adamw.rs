//! AdamW: Adam with decoupled weight decay (arXiv 1711.05101).

use multiversion::multiversion;

/// First and second moments of the gradients of some parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamW {
    /// Moving averages of the gradients.
    pub first: Vec<f32>,
    /// Moving averages of their squares.
    pub second: Vec<f32>,
}

/// One step of the optimiser, the same for all parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Number of the step, from 1.
    pub number: u64,
    /// What gradients are multiplied by, for the mean over batches and clipping.
    pub factor: f32,
    /// Decay of the first moments.
    pub beta1: f32,
    /// Decay of the second moments.
    pub beta2: f32,
    /// Added to the root of the second moments.
    pub epsilon: f32,
    /// Decoupled weight decay a step, in multiples of the rate.
    pub decay: f32,
}

impl AdamW {
    /// For `count` parameters.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { first: vec![0.0; count], second: vec![0.0; count] }
    }

    /// Moves `parameters` against `gradients`, each by at most about `rate`.
    ///
    /// # Panics
    /// If there is not one gradient for each parameter.
    pub fn update(&mut self, parameters: &mut [f32], gradients: &[f32], rate: f32, step: &Step) {
        let corrections = self.corrections(parameters, gradients, step);
        update(self, parameters, gradients, rate, step, corrections);
    }

    /// The same with a rate of `rate` times its unit for each parameter.
    ///
    /// # Panics
    /// If there is not one gradient and one unit for each parameter.
    pub fn update_in_units(
        &mut self,
        parameters: &mut [f32],
        gradients: &[f32],
        (rate, units): (f32, &[f32]),
        step: &Step,
    ) {
        assert_eq!(parameters.len(), units.len(), "one unit for each parameter");
        let corrections = self.corrections(parameters, gradients, step);
        update_in_units(self, parameters, gradients, (rate, units), step, corrections);
    }

    /// What the moments are multiplied by for having started at zero, with the lengths checked.
    fn corrections(&self, parameters: &[f32], gradients: &[f32], step: &Step) -> (f32, f32) {
        assert_eq!(parameters.len(), gradients.len(), "one gradient for each parameter");
        assert_eq!(parameters.len(), self.first.len(), "the parameters that it was made for");
        let t = step.number.min(1 << 24) as i32;
        (1.0 / (1.0 - step.beta1.powi(t)), 1.0 / (1.0 - step.beta2.powi(t)))
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2+fma"))]
fn update(
    state: &mut AdamW,
    parameters: &mut [f32],
    gradients: &[f32],
    rate: f32,
    step: &Step,
    corrections: (f32, f32),
) {
    advance(state, parameters, gradients, std::iter::repeat(rate), step, corrections);
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2+fma"))]
fn update_in_units(
    state: &mut AdamW,
    parameters: &mut [f32],
    gradients: &[f32],
    (rate, units): (f32, &[f32]),
    step: &Step,
    corrections: (f32, f32),
) {
    let rates = units.iter().map(|unit| rate * unit);
    advance(state, parameters, gradients, rates, step, corrections);
}

/// The arithmetic of both, compiled into each for its instructions.
#[inline(always)]
fn advance(
    state: &mut AdamW,
    parameters: &mut [f32],
    gradients: &[f32],
    rates: impl Iterator<Item = f32>,
    step: &Step,
    (first_factor, second_factor): (f32, f32),
) {
    let Step { factor, beta1, beta2, epsilon, decay, .. } = *step;
    let moments = state.first.iter_mut().zip(&mut state.second);
    for (((p, g), rate), (m, v)) in parameters.iter_mut().zip(gradients).zip(rates).zip(moments) {
        let g = g * factor;
        *m = beta1 * *m + (1.0 - beta1) * g;
        *v = beta2 * *v + (1.0 - beta2) * g * g;
        let direction = *m * first_factor / ((*v * second_factor).sqrt() + epsilon);
        *p = *p * (1.0 - rate * decay) - rate * direction;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Step =
        Step { number: 1, factor: 1.0, beta1: 0.9, beta2: 0.99, epsilon: 1e-12, decay: 0.0 };

    #[test]
    fn by_hand() {
        let mut adam = AdamW::new(2);
        let mut p = [1.0, -1.0];
        // The first step is the sign of the gradient.
        adam.update(&mut p, &[3.0, -0.02], 0.1, &STEP);
        assert!((p[0] - 0.9).abs() < 1e-6 && (p[1] + 0.9).abs() < 1e-6, "{p:?}");
        // m = 0.27 + 0.1, v = 0.0891 + 0.01; m' = m / 0.19, v' = v / 0.0199.
        adam.update(&mut p, &[1.0, 0.0], 0.1, &Step { number: 2, ..STEP });
        let direction = (0.37 / 0.19) / (0.0991_f64 / 0.0199).sqrt();
        assert!((f64::from(p[0]) - (0.9 - 0.1 * direction)).abs() < 1e-6, "{p:?}");
    }

    #[test]
    fn decay_is_apart_from_the_gradient_and_the_factor_scales_it() {
        let mut adam = AdamW::new(1);
        let mut p = [2.0];
        adam.update(&mut p, &[0.0], 0.1, &Step { decay: 0.5, ..STEP });
        assert!((p[0] - 1.9).abs() < 1e-6);
        let (mut a, mut b) = (AdamW::new(1), AdamW::new(1));
        let (mut x, mut y) = ([1.0], [1.0]);
        a.update(&mut x, &[0.5], 0.1, &Step { factor: 4.0, ..STEP });
        b.update(&mut y, &[2.0], 0.1, &STEP);
        assert_eq!((a, x), (b, y));
    }

    #[test]
    fn it_finds_the_minimum_of_a_bowl() {
        let mut adam = AdamW::new(2);
        let mut p = [4.0, -3.0];
        for number in 1..=2000 {
            let g = [2.0 * (p[0] - 1.0), 20.0 * (p[1] - 2.0)];
            adam.update(&mut p, &g, 0.01, &Step { number, ..STEP });
        }
        assert!((p[0] - 1.0).abs() < 1e-2 && (p[1] - 2.0).abs() < 1e-2, "{p:?}");
    }
}
