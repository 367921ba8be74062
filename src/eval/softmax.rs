//! Distributions over the vocabulary: one position of one model, or of two models side by side.
//!
//! With a = x - max x and b = y - max y, Zx = Σ exp(a) and Zy = Σ exp(b), the divergence needs
//! one exponential an entry and model: KLD(x‖y) = Σ exp(a)·(a - b) / Zx - ln Zx + ln Zy.
//! Entries are added in f32 in lanes, blocks of lanes in f64: the order depends on nothing but
//! the vocabulary's size, so the figures do not depend on threads or on the processor.

use super::top::Top;
use crate::model::exp;

/// Entries worked on at once; the compiler turns each loop over them into vector instructions.
const LANES: usize = 16;

/// Entries added in f32 before the sum goes on in f64.
const BLOCK: usize = 32 * LANES;

/// What one model says at one position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Prediction {
    /// -ln of the probability of the true token.
    pub(super) nll: f64,
    /// Its most probable tokens.
    pub(super) top: Top,
}

/// What two models say at the same position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PairPrediction {
    /// The model that is judged.
    pub(super) model: Prediction,
    /// The original.
    pub(super) against: Prediction,
    /// KLD(original‖model) in nats.
    pub(super) kld: f64,
    /// KLD(model‖original) in nats.
    pub(super) kld_reverse: f64,
}

/// Reads one position of one model; `None` if a logit is not finite.
pub(super) fn predict(logits: &[f32], token: u32) -> Option<Prediction> {
    let top = Top::of(logits)?;
    let mut normaliser = 0.0;
    for block in logits.chunks(BLOCK) {
        normaliser += sum_exp(block, top.peak());
    }
    Some(Prediction { nll: nll(logits, token, top.peak(), f64::ln(normaliser)), top })
}

/// Reads one position of two models; `None` if a logit is not finite.
pub(super) fn compare(model: &[f32], against: &[f32], token: u32) -> Option<PairPrediction> {
    let (top, top_against) = (Top::of(model)?, Top::of(against)?);
    let mut sums = [0.0; 4];
    for (x, y) in against.chunks(BLOCK).zip(model.chunks(BLOCK)) {
        let block = pair_sums(x, top_against.peak(), y, top.peak());
        sums.iter_mut().zip(block).for_each(|(sum, part)| *sum += part);
    }
    let [z_against, z_model, cross, cross_reverse] = sums;
    let (ln_against, ln_model) = (f64::ln(z_against), f64::ln(z_model));
    let against_nll = nll(against, token, top_against.peak(), ln_against);
    Some(PairPrediction {
        model: Prediction { nll: nll(model, token, top.peak(), ln_model), top },
        against: Prediction { nll: against_nll, top: top_against },
        // Rounding can take a divergence of nearly nothing below zero.
        kld: (cross / z_against - ln_against + ln_model).max(0.0),
        kld_reverse: (cross_reverse / z_model - ln_model + ln_against).max(0.0),
    })
}

/// ln of each probability is logit - peak - `ln_normaliser`.
fn nll(logits: &[f32], token: u32, peak: f32, ln_normaliser: f64) -> f64 {
    f64::from(peak) + ln_normaliser - f64::from(logits[token as usize])
}

/// Σ exp(x - peak).
fn sum_exp(block: &[f32], peak: f32) -> f64 {
    let (lanes, rest) = block.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for chunk in lanes {
        for i in 0..LANES {
            sums[i] += exp(chunk[i] - peak);
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += exp(x - peak);
    }
    total(&sums)
}

/// Σ exp(a), Σ exp(b), Σ exp(a)·(a - b) and Σ exp(b)·(b - a).
fn pair_sums(x: &[f32], peak_x: f32, y: &[f32], peak_y: f32) -> [f64; 4] {
    let (x_lanes, x_rest) = x.as_chunks::<LANES>();
    let (y_lanes, y_rest) = y.as_chunks::<LANES>();
    let mut sums = [[0.0_f32; LANES]; 4];
    for (x, y) in x_lanes.iter().zip(y_lanes) {
        for i in 0..LANES {
            let terms = pair_terms(x[i] - peak_x, y[i] - peak_y);
            for (sum, term) in sums.iter_mut().zip(terms) {
                sum[i] += term;
            }
        }
    }
    for (lane, (x, y)) in x_rest.iter().zip(y_rest).enumerate() {
        let terms = pair_terms(x - peak_x, y - peak_y);
        for (sum, term) in sums.iter_mut().zip(terms) {
            sum[lane] += term;
        }
    }
    sums.each_ref().map(total)
}

#[inline(always)]
fn pair_terms(a: f32, b: f32) -> [f32; 4] {
    let (exp_a, exp_b) = (exp(a), exp(b));
    [exp_a, exp_b, exp_a * (a - b), exp_b * (b - a)]
}

fn total(lanes: &[f32; LANES]) -> f64 {
    lanes.iter().map(|&lane| f64::from(lane)).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, in f64.
    fn log_softmax(logits: &[f32]) -> Vec<f64> {
        let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&x| f64::from(x - peak).exp()).sum();
        logits.iter().map(|&x| f64::from(x - peak) - sum.ln()).collect()
    }

    fn kld(p: &[f64], q: &[f64]) -> f64 {
        p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum()
    }

    #[test]
    fn two_distributions_by_hand() {
        // Probabilities 1/2 1/4 1/4 against 1/4 1/2 1/4: ln 2 / 4 both ways.
        let against = [2.0_f32.ln(), 0.0, 0.0];
        let model = [1.0, 1.0 + 2.0_f32.ln(), 1.0];
        let found = compare(&model, &against, 1).unwrap();
        let expected = std::f64::consts::LN_2 / 4.0;
        assert!((found.kld - expected).abs() < 1e-7, "{found:?}");
        assert!((found.kld_reverse - expected).abs() < 1e-7, "{found:?}");
        assert!((found.model.nll - std::f64::consts::LN_2).abs() < 1e-7);
        assert!((found.against.nll - 4.0_f64.ln()).abs() < 1e-7);
        assert_eq!((found.model.top.first(), found.against.top.first()), (1, 0));
    }

    #[test]
    fn equal_models_do_not_diverge() {
        let logits: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 613) as f32 * 0.02).collect();
        let found = compare(&logits, &logits, 7).unwrap();
        assert_eq!((found.kld, found.kld_reverse), (0.0, 0.0));
        assert_eq!(Some(found.model), predict(&logits, 7));
    }

    #[test]
    fn values_that_are_not_finite_are_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 77, 99] {
                let mut logits = vec![0.5; 100];
                logits[at] = bad;
                assert_eq!(predict(&logits, 1), None);
                assert_eq!(compare(&logits, &[0.5; 100], 1), None);
                assert_eq!(compare(&[0.5; 100], &logits, 1), None);
            }
        }
    }

    proptest! {
        #[test]
        fn as_the_definition(
            pairs in prop::collection::vec((-30.0_f32..30.0, -30.0_f32..30.0), 1..1200),
            at in any::<prop::sample::Index>(),
        ) {
            let (model, against): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let token = at.index(model.len());
            let found = compare(&model, &against, token as u32).unwrap();
            let (q, p) = (log_softmax(&model), log_softmax(&against));
            prop_assert!((found.kld - kld(&p, &q)).abs() < 1e-5 * (1.0 + kld(&p, &q)));
            prop_assert!((found.kld_reverse - kld(&q, &p)).abs() < 1e-5 * (1.0 + kld(&q, &p)));
            prop_assert!((found.model.nll + q[token]).abs() < 1e-5);
            prop_assert!((found.against.nll + p[token]).abs() < 1e-5);
        }
    }
}
