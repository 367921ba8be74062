//! Choosing the next token.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use serde::Serialize;

use crate::error::{Error, Result};

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most probable token always. Default: 0.
    pub temperature: f64,
    /// Only the most probable tokens that together reach this probability. Default: 1, all.
    pub top_p: f64,
    /// Only this many of the most probable tokens; 0 for all. Default: 0.
    pub top_k: usize,
    /// Seed of the random numbers. Default: 0.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0 }
    }
}

/// Draws tokens; equal settings and logits give equal tokens.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    random: Pcg64Mcg,
}

impl Sampler {
    /// A sampler at the start of its random numbers.
    ///
    /// # Errors
    /// [`Error::Usage`] for a negative temperature or a `top_p` outside (0, 1].
    pub fn new(sampling: Sampling) -> Result<Self> {
        let Sampling { temperature, top_p, .. } = sampling;
        if !temperature.is_finite() || temperature < 0.0 {
            return Err(Error::Usage(format!("a temperature of {temperature}: not 0 or more")));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(Error::Usage(format!("a top-p of {top_p}: not over 0 and at most 1")));
        }
        Ok(Self { sampling, random: Pcg64Mcg::seed_from_u64(sampling.seed) })
    }

    /// Chooses a token from its logits \[vocab_size\]; equal logits go to the lower token.
    pub fn next(&mut self, logits: &[f32]) -> u32 {
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        // Ties broken, so that the order is one whatever the sorting does.
        let by_logit =
            |&a: &u32, &b: &u32| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b));
        let Sampling { temperature, top_p, top_k, .. } = self.sampling;
        if temperature == 0.0 {
            return order.into_iter().min_by(by_logit).unwrap_or(0);
        }
        if top_k > 0 && top_k < order.len() {
            order.select_nth_unstable_by(top_k - 1, by_logit);
            order.truncate(top_k);
        }
        order.sort_unstable_by(by_logit);
        let peak = f64::from(logits[order[0] as usize]);
        let weight =
            |token: &u32| ((f64::from(logits[*token as usize]) - peak) / temperature).exp();
        let weights: Vec<f64> = order.iter().map(weight).collect();
        let all: f64 = weights.iter().sum();
        // The token that reaches top_p still belongs to the kept ones.
        let mut kept = 0;
        let mut sum = 0.0;
        while kept < weights.len() && (kept == 0 || sum < top_p * all) {
            sum += weights[kept];
            kept += 1;
        }
        let mut left = self.uniform() * sum;
        for (token, weight) in order.iter().zip(&weights[..kept]) {
            left -= weight;
            if left < 0.0 {
                return *token;
            }
        }
        order[kept - 1]
    }

    /// A number in [0, 1) of 53 random bits.
    fn uniform(&mut self) -> f64 {
        (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(sampling: Sampling, logits: &[f32], draws: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(sampling).unwrap();
        let mut counts = vec![0; logits.len()];
        (0..draws).for_each(|_| counts[sampler.next(logits) as usize] += 1);
        counts
    }

    /// Probabilities 1/8, 1/2, 1/4, 1/8.
    fn logits() -> [f32; 4] {
        [1.0_f32, 4.0, 2.0, 1.0].map(f32::ln)
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let mut sampler = Sampler::new(Sampling::default()).unwrap();
        assert_eq!(sampler.next(&[1.0, 3.0, 2.0, 3.0]), 1);
    }

    #[test]
    fn frequencies_follow_probabilities() {
        let warm = Sampling { temperature: 1.0, seed: 3, ..Sampling::default() };
        let found = counts(warm, &logits(), 8000);
        for (count, expected) in found.iter().zip([1000.0, 4000.0, 2000.0, 1000.0]) {
            assert!((*count as f64 - expected).abs() < 5.0 * f64::sqrt(expected), "{found:?}");
        }
        assert_eq!(found, counts(warm, &logits(), 8000), "a seed gives the same tokens");
        // Temperature 2 takes square roots: 1 : 2 : sqrt 2 : 1.
        let hot = counts(Sampling { temperature: 2.0, ..warm }, &logits(), 8000);
        assert!((hot[1] as f64 / hot[0] as f64 - 2.0).abs() < 0.2, "{hot:?}");
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let warm = Sampling { temperature: 1.0, ..Sampling::default() };
        let k = counts(Sampling { top_k: 3, ..warm }, &logits(), 400);
        assert!(k[0] > 0 && k[3] == 0, "of equal tokens the lower stays: {k:?}");
        let p = counts(Sampling { top_p: 0.6, ..warm }, &logits(), 400);
        assert!(p[1] > 0 && p[2] > 0 && p[0] == 0 && p[3] == 0, "{p:?}");
        assert_eq!(counts(Sampling { top_p: 0.01, ..warm }, &logits(), 9)[1], 9);
    }

    #[test]
    fn settings_that_make_no_sense() {
        let default = Sampling::default;
        for bad in [
            Sampling { temperature: -1.0, ..default() },
            Sampling { temperature: f64::NAN, ..default() },
            Sampling { top_p: 0.0, ..default() },
            Sampling { top_p: 1.5, ..default() },
        ] {
            assert!(matches!(Sampler::new(bad), Err(Error::Usage(_))));
        }
    }
}
