//! What training minimises, and its gradient.
//!
//! Per token: KLD(original‖model) = Σ p·(ln p - ln q), the cross entropy -ln q[next], and
//! ‖h - h'‖² / ‖h'‖² of the last hidden states. With z the model's logits the gradient of the first
//! is q - p and of the second q minus one at the next token. Logits are there for a few hundred
//! tokens at a time, and both models' heads are applied here.

use compress_model_qat::train::Losses;
use rayon::prelude::*;

use crate::error::Result;
use crate::model::{CausalModel, Model, exp};

/// How much each part of the loss counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LossWeights {
    /// KLD from the original, in nats.
    pub(crate) divergence: f32,
    /// Cross entropy, in nats.
    pub(crate) cross_entropy: f32,
    /// Relative squared difference of the last hidden states.
    pub(crate) hidden: f32,
}

/// Tokens whose logits are there at once.
pub(super) const CHUNK_TOKENS: usize = 512;
const LANES: usize = 16;

/// One token, all sums not weighted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct TokenLosses {
    divergence: f64,
    cross_entropy: f64,
    hidden: f64,
}

/// A model and the original side by side: final hidden states [n, hidden] of the same tokens.
pub(super) struct Sides<'a> {
    pub(super) model: &'a Model,
    pub(super) original: &'a Model,
    pub(super) hidden: &'a [f32],
    pub(super) hidden_original: &'a [f32],
    /// The token after each; `None` at the end of a window.
    pub(super) next: &'a [Option<u32>],
}

/// The token after each of `windows`; `None` at their ends.
pub(super) fn next_tokens(windows: &[&[u32]]) -> Vec<Option<u32>> {
    windows
        .iter()
        .flat_map(|window| window[1..].iter().map(|&token| Some(token)).chain([None]))
        .collect()
}

impl Sides<'_> {
    /// Mean losses; with `gradient` the gradient of the mean total with respect to the model's
    /// hidden states.
    ///
    /// # Errors
    /// What the heads give.
    pub(super) fn losses(
        &self,
        weights: LossWeights,
        gradient: bool,
    ) -> Result<(Losses, Vec<f32>)> {
        let (width, vocab) = (self.model.hidden_size(), self.model.vocab_size());
        let tokens = self.next.len();
        let share = 1.0 / tokens as f32;
        let mut all = Vec::with_capacity(tokens);
        let mut slopes = vec![0.0; if gradient { self.hidden.len() } else { 0 }];
        let mut logits = Vec::new();
        let mut original = Vec::new();
        for first in (0..tokens).step_by(CHUNK_TOKENS) {
            let count = (tokens - first).min(CHUNK_TOKENS);
            let rows = first * width..(first + count) * width;
            logits.resize(count * vocab, 0.0);
            original.resize(count * vocab, 0.0);
            self.model.logits(&self.hidden[rows.clone()], &mut logits)?;
            self.original.logits(&self.hidden_original[rows.clone()], &mut original)?;
            let found: Vec<TokenLosses> = logits
                .par_chunks_exact_mut(vocab)
                .zip(original.par_chunks_exact_mut(vocab))
                .zip(&self.next[first..first + count])
                .map(|((logits, original), next)| {
                    token(logits, original, *next, weights, gradient.then_some(share))
                })
                .collect();
            all.extend(found);
            if gradient {
                self.model.logits_gradient(&logits, &mut slopes[rows])?;
            }
        }
        self.hidden_losses(weights.hidden * share, &mut all, &mut slopes);
        Ok((mean(&all, weights), slopes))
    }

    /// Fills in the losses of hidden states, and adds their gradients times `factor`.
    fn hidden_losses(&self, factor: f32, all: &mut [TokenLosses], slopes: &mut [f32]) {
        let width = self.model.hidden_size();
        let pairs = self.hidden.chunks_exact(width).zip(self.hidden_original.chunks_exact(width));
        for (row, ((h, original), losses)) in pairs.zip(all).enumerate() {
            let square = |x: f32| f64::from(x) * f64::from(x);
            let norm: f64 = original.iter().map(|&x| square(x)).sum::<f64>().max(1e-30);
            let distance: f64 = h.iter().zip(original).map(|(a, b)| square(a - b)).sum();
            losses.hidden = distance / norm;
            if factor > 0.0 && !slopes.is_empty() {
                let factor = 2.0 * factor / norm as f32;
                let slopes = slopes[row * width..][..width].iter_mut();
                for (slope, (a, b)) in slopes.zip(h.iter().zip(original)) {
                    *slope += factor * (a - b);
                }
            }
        }
    }
}

fn mean(all: &[TokenLosses], weights: LossWeights) -> Losses {
    let share = 1.0 / all.len().max(1) as f64;
    let of = |part: fn(&TokenLosses) -> f64| all.iter().map(part).sum::<f64>() * share;
    let (divergence, cross_entropy) = (of(|t| t.divergence), of(|t| t.cross_entropy));
    let hidden = of(|t| t.hidden);
    Losses {
        total: f64::from(weights.divergence) * divergence
            + f64::from(weights.cross_entropy) * cross_entropy
            + f64::from(weights.hidden) * hidden,
        divergence,
        cross_entropy,
        hidden,
        tokens: all.len() as u64,
    }
}

/// The losses of one token. With a `share`, `logits` become the gradient of the weighted loss times
/// it; `original` is overwritten.
fn token(
    logits: &mut [f32],
    original: &mut [f32],
    next: Option<u32>,
    weights: LossWeights,
    share: Option<f32>,
) -> TokenLosses {
    let (peak, peak_original) = (largest(logits), largest(original));
    let next_logit = next.map(|next| f64::from(logits[next as usize] - peak));
    let [z, z_original, cross] = exponentials(logits, original, peak, peak_original);
    let (ln_z, ln_original) = (z.ln(), z_original.ln());
    if let Some(share) = share {
        let cross_entropy = if next.is_some() { weights.cross_entropy } else { 0.0 };
        let own = share * (weights.divergence + cross_entropy) / z as f32;
        let other = share * weights.divergence / z_original as f32;
        for (logit, original) in logits.iter_mut().zip(original.iter()) {
            *logit = *logit * own - original * other;
        }
        if let Some(next) = next {
            logits[next as usize] -= share * cross_entropy;
        }
    }
    TokenLosses {
        divergence: cross / z_original - ln_original + ln_z,
        cross_entropy: next_logit.map_or(0.0, |logit| ln_z - logit),
        hidden: 0.0,
    }
}

fn largest(x: &[f32]) -> f32 {
    x.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Turns both into exponentials of their distance to the peak and gives their sums, and
/// Σ exp(original)·(original - model) of the distances.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn exponentials(x: &mut [f32], original: &mut [f32], peak: f32, peak_original: f32) -> [f64; 3] {
    let mut sums = [0.0_f64; 3];
    // Sums of 32 lanes in f32 go on in f64.
    for (x, original) in x.chunks_mut(32 * LANES).zip(original.chunks_mut(32 * LANES)) {
        let mut lanes = [[0.0_f32; LANES]; 3];
        for (x, original) in x.chunks_mut(LANES).zip(original.chunks_mut(LANES)) {
            for (lane, (x, original)) in x.iter_mut().zip(original).enumerate() {
                let (a, b) = (*original - peak_original, *x - peak);
                let (exp_a, exp_b) = (exp(a), exp(b));
                lanes[0][lane] += exp_b;
                lanes[1][lane] += exp_a;
                lanes[2][lane] += exp_a * (a - b);
                (*x, *original) = (exp_b, exp_a);
            }
        }
        for (sum, lanes) in sums.iter_mut().zip(&lanes) {
            *sum += f64::from(lanes.iter().sum::<f32>());
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEIGHTS: LossWeights = LossWeights { divergence: 0.7, cross_entropy: 0.4, hidden: 0.0 };

    fn logits(seed: f32) -> Vec<f32> {
        (0..700).map(|i| 3.0 * (i as f32 * seed).sin()).collect()
    }

    fn total(logits: &[f32], original: &[f32]) -> f64 {
        let (mut x, mut y) = (logits.to_vec(), original.to_vec());
        let found = token(&mut x, &mut y, Some(5), WEIGHTS, None);
        0.7 * found.divergence + 0.4 * found.cross_entropy
    }

    #[test]
    fn two_distributions_by_hand() {
        // 1/2 1/4 1/4 against 1/4 1/2 1/4.
        let (mut x, mut y) = ([1.0, 1.0 + 2f32.ln(), 1.0], [2f32.ln(), 0.0, 0.0]);
        let found = token(&mut x, &mut y, Some(0), WEIGHTS, Some(2.0));
        assert!((found.divergence - std::f64::consts::LN_2 / 4.0).abs() < 1e-6, "{found:?}");
        assert!((found.cross_entropy - 4f64.ln()).abs() < 1e-6);
        // 2·(0.7·(q - p) + 0.4·(q - [1, 0, 0])), q = 1/4 1/2 1/4.
        for (found, expected) in x.iter().zip([-0.95, 0.75, 0.2]) {
            assert!((found - expected).abs() < 1e-6, "{x:?}");
        }
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let (x, y) = (logits(0.37), logits(0.71));
        let (mut slopes, mut original) = (x.clone(), y.clone());
        token(&mut slopes, &mut original, Some(5), WEIGHTS, Some(1.0));
        for place in [0, 5, 100, 699] {
            let moved = |step: f32| {
                let mut x = x.clone();
                x[place] += step;
                total(&x, &y)
            };
            let slope = (moved(0.05) - moved(-0.05)) / 0.1;
            assert!((slope - f64::from(slopes[place])).abs() < 2e-5, "{place}: {slope}");
        }
        let sum: f32 = slopes.iter().sum();
        assert!(sum.abs() < 1e-5, "shifting all logits changes nothing: {sum}");
    }

    #[test]
    fn the_end_of_a_window_has_no_next_token() {
        let (mut x, mut y) = (logits(0.37), logits(0.71));
        let found = token(&mut x, &mut y, None, WEIGHTS, Some(1.0));
        assert_eq!(found.cross_entropy, 0.0);
        assert!(x.iter().sum::<f32>().abs() < 1e-5);
    }
}
