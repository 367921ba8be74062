//! From what was found at each position to the figures of a report. Names and definitions are
//! those of llama.cpp's perplexity tool where it has them.

use serde::Serialize;

use super::softmax::Prediction;
use super::statistics::{Estimate, quantile};
use super::stream::Predictions;

/// How well the model predicts the text, alone and beside the original.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextScores {
    /// exp of the mean negative log-likelihood of the scored tokens.
    pub perplexity: Estimate,
    /// Beside the original, if there is one.
    #[serde(flatten)]
    pub comparison: Option<Comparison>,
}

/// The model beside the original. Divergences are in nats, shares and probabilities in 0..1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The original's perplexity.
    pub perplexity_against: Estimate,
    /// ln of the ratio of the perplexities. Its error is that of the mean difference a token,
    /// so that what both models find hard does not count.
    pub ln_perplexity_ratio: Estimate,
    /// The ratio itself, model over original.
    pub perplexity_ratio: Estimate,
    /// KLD(original‖model) of the next-token distributions.
    pub kld: Spread,
    /// KLD(model‖original).
    pub kld_reverse: Spread,
    /// Share of positions at which both hold the same token for the most probable.
    pub top1: Estimate,
    /// Mean share of the original's five most probable tokens that are among the model's five.
    pub top5: Estimate,
    /// Mean change of the true token's probability, model minus original.
    pub probability_change: Estimate,
    /// Root of the mean squared change.
    pub probability_change_rms: Estimate,
}

/// A mean and how the values are spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard error of the mean.
    pub error: f64,
    /// Half of the positions are below.
    pub median: f64,
    /// 90 % are below.
    pub p90: f64,
    /// 95 % are below.
    pub p95: f64,
    /// 99 % are below.
    pub p99: f64,
    /// Largest value.
    pub max: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let Estimate { mean, error } = Estimate::of(values.iter().copied());
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let [median, p90, p95, p99, max] =
            [0.5, 0.9, 0.95, 0.99, 1.0].map(|fraction| quantile(&sorted, fraction));
        Self { mean, error, median, p90, p95, p99, max }
    }
}

impl TextScores {
    pub(super) fn of(found: &Predictions) -> Self {
        let comparison = (!found.against.is_empty()).then(|| Comparison::of(found));
        Self { perplexity: mean_nll(&found.model).exp(), comparison }
    }
}

impl Comparison {
    fn of(found: &Predictions) -> Self {
        let pairs = || found.model.iter().zip(&found.against);
        let each = |value: fn(&Prediction, &Prediction) -> f64| {
            Estimate::of(pairs().map(move |(model, against)| value(model, against)))
        };
        let ln_perplexity_ratio = each(|model, against| model.nll - against.nll);
        Self {
            perplexity_against: mean_nll(&found.against).exp(),
            ln_perplexity_ratio,
            perplexity_ratio: ln_perplexity_ratio.exp(),
            kld: Spread::of(&found.kld),
            kld_reverse: Spread::of(&found.kld_reverse),
            top1: each(|model, against| f64::from(model.top.first() == against.top.first())),
            top5: each(|model, against| against.top.overlap(&model.top)),
            probability_change: each(probability_change),
            probability_change_rms: each(|model, against| {
                let change = probability_change(model, against);
                change * change
            })
            .sqrt(),
        }
    }
}

fn mean_nll(predictions: &[Prediction]) -> Estimate {
    Estimate::of(predictions.iter().map(|p| p.nll))
}

fn probability_change(model: &Prediction, against: &Prediction) -> f64 {
    (-model.nll).exp() - (-against.nll).exp()
}
