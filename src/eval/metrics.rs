//! From what was found at each position to the figures of a report. Names and definitions are
//! those of llama.cpp's perplexity tool where it has them.

use serde::Serialize;

use super::softmax::Prediction;
use super::statistics::{Estimate, quantile};
use super::stream::Predictions;

/// How well the model predicts the text, alone and beside the original.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextScores {
    /// exp of [`Self::ln_perplexity`]; infinite, null in JSON, where f64 does not hold it.
    pub perplexity: Estimate,
    /// The mean negative log-likelihood of the scored tokens, in nats.
    pub ln_perplexity: Estimate,
    /// Beside the original, if there is one.
    #[serde(flatten)]
    pub comparison: Option<Comparison>,
}

/// The model beside the original. Divergences are in nats, shares and probabilities in 0..1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The original's perplexity.
    pub perplexity_against: Estimate,
    /// Its ln.
    pub ln_perplexity_against: Estimate,
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
        let ln_perplexity = mean_nll(&found.model);
        Self { perplexity: ln_perplexity.exp(), ln_perplexity, comparison }
    }
}

impl Comparison {
    fn of(found: &Predictions) -> Self {
        let pairs = || found.model.iter().zip(&found.against);
        let each = |value: fn(&Prediction, &Prediction) -> f64| {
            Estimate::of(pairs().map(move |(model, against)| value(model, against)))
        };
        let ln_perplexity_against = mean_nll(&found.against);
        let ln_perplexity_ratio = each(|model, against| model.nll - against.nll);
        Self {
            perplexity_against: ln_perplexity_against.exp(),
            ln_perplexity_against,
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::progress::Silent;
    use super::super::stream::stream;
    use super::super::table_model::TableModel;
    use super::super::windows::Windows;
    use super::*;

    fn numbers(golden: &Value, key: &str) -> Vec<f64> {
        golden[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    }

    fn table(golden: &Value, key: &str) -> TableModel {
        let table = numbers(golden, key).into_iter().map(|x| x as f32).collect();
        let vocabulary = golden["vocabulary"].as_u64().unwrap() as usize;
        TableModel { table, vocabulary, max_positions: 16 }
    }

    /// Every figure as numpy has it: `fixtures/golden/make_metrics.py`.
    #[test]
    fn figures_by_their_definitions() {
        let golden = include_str!("../../fixtures/golden/eval-metrics.json");
        let golden: Value = serde_json::from_str(golden).unwrap();
        let tokens = numbers(&golden, "tokens").into_iter().map(|x| x as u32).collect();
        let windows = Windows::of_tokens(tokens, 16, None);
        let mut model = table(&golden, "model").subject("model");
        let mut against = table(&golden, "against").subject("against");
        let found = stream(&mut model, Some(&mut against), &windows, 3, &Silent).unwrap();
        let scores = TextScores::of(&found);
        let c = scores.comparison.unwrap();
        let estimate = |e: Estimate| vec![e.mean, e.error];
        let spread = |s: Spread| vec![s.mean, s.error, s.median, s.p90, s.p95, s.p99, s.max];
        for (key, found) in [
            ("perplexity", estimate(scores.perplexity)),
            ("perplexity_against", estimate(c.perplexity_against)),
            ("ln_perplexity_ratio", estimate(c.ln_perplexity_ratio)),
            ("perplexity_ratio", estimate(c.perplexity_ratio)),
            ("kld", spread(c.kld)),
            ("kld_reverse", spread(c.kld_reverse)),
            ("top1", estimate(c.top1)),
            ("top5", estimate(c.top5)),
            ("probability_change", estimate(c.probability_change)),
            ("probability_change_rms", estimate(c.probability_change_rms)),
        ] {
            let expected = numbers(&golden, key);
            assert_eq!(found.len(), expected.len(), "{key}");
            for (found, expected) in found.iter().zip(&expected) {
                let close = (found - expected).abs() < 2e-6 * expected.abs().max(0.01);
                assert!(close, "{key}: {found}, not {expected}");
            }
        }
        let alone = stream(&mut model, None, &windows, 1, &Silent).unwrap();
        let alone = TextScores::of(&alone).perplexity.mean;
        assert!((alone / scores.perplexity.mean - 1.0).abs() < 1e-7);
    }
}
