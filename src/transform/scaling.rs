//! Scales of single features, undone where the features are made.

use super::columns::{add_squares, over_groups, value_of};
use super::edits::Edits;
use super::factor::Factor;
use super::layers::{gated, readers};
use super::{Context, Inputs};
use crate::error::Result;
use crate::model::LinearPlan;
use crate::recipe::{Pair, Scaling};

const NORMS: &str = "scaled against norms";
const VALUES: &str = "scaled against values";
const CHANNELS: &str = "scaled against up";

/// Scales stay within this factor of their geometric mean.
const MOST: f64 = 64.0;

/// Scales the columns of layers, and undoes it in the norm, the value projection or up before
/// them.
///
/// # Errors
/// [`crate::Error::Io`]; statistics that cannot be read.
pub(super) fn scale(
    edits: &mut Edits<'_>,
    context: &Context<'_>,
    scaling: &Scaling,
    inputs: Option<&dyn Inputs>,
) -> Result<()> {
    let measure = Measure { scaling, inputs };
    for block in &context.plan.blocks {
        if scaling.pairs.contains(&Pair::Norms) {
            for (norm, layers) in readers(block) {
                let (columns, features) = measure.of(edits, &layers)?;
                let scales = measure.scales(&columns, features.as_deref());
                let gains = context.gains(edits, norm)?;
                let gains: Vec<f64> = gains.iter().zip(&scales).map(|(g, s)| g / s).collect();
                context.set_gains(edits, norm, &gains, NORMS);
                let factor = Factor::Scale(scales.into());
                layers.iter().for_each(|layer| edits.input(layer, &factor, NORMS));
            }
        }
        if scaling.pairs.contains(&Pair::Values) {
            let (columns, features) = measure.of(edits, &[&block.output])?;
            let over = |columns: &[f64]| over_groups(columns, context);
            let scales = measure.scales(&over(&columns), features.as_deref().map(over).as_deref());
            let of_columns: Vec<f64> = value_of(context).iter().map(|&v| scales[v]).collect();
            edits.output(&block.value, &inverse(&scales), VALUES);
            edits.input(&block.output, &Factor::Scale(of_columns.into()), VALUES);
        }
        if scaling.pairs.contains(&Pair::Channels) {
            for gated in gated(block) {
                let (columns, features) = measure.of(edits, &[&gated.down])?;
                let scales = measure.scales(&columns, features.as_deref());
                edits.output(&gated.up, &inverse(&scales), CHANNELS);
                edits.input(&gated.down, &Factor::Scale(scales.into()), CHANNELS);
            }
        }
    }
    Ok(())
}

fn inverse(scales: &[f64]) -> Factor {
    Factor::Scale(scales.iter().map(|s| 1.0 / s).collect())
}

struct Measure<'a> {
    scaling: &'a Scaling,
    inputs: Option<&'a dyn Inputs>,
}

impl Measure<'_> {
    /// Root mean squares of the columns of `layers`, which read the same features, and of the
    /// features where they count and are known.
    fn of(
        &self,
        edits: &Edits<'_>,
        layers: &[&LinearPlan],
    ) -> Result<(Vec<f64>, Option<Vec<f64>>)> {
        let width = layers[0].shape.1;
        let mut sums = vec![0.0; width];
        let mut rows = 0;
        if self.scaling.weights > 0.0 {
            for layer in layers {
                rows += add_squares(&mut sums, &edits.weights(layer)?, width);
            }
        }
        let root = |sum: &f64| (sum / rows.max(1) as f64).sqrt();
        let columns = sums.iter().map(root).collect();
        let features = match self.inputs.filter(|_| self.scaling.activations > 0.0) {
            Some(inputs) => inputs.root_mean_squares(edits, layers[0])?,
            None => None,
        };
        Ok((columns, features))
    }

    /// The scale of each column.
    fn scales(&self, columns: &[f64], features: Option<&[f64]>) -> Vec<f64> {
        let mut logarithms = vec![0.0; columns.len()];
        let mut add = |values: &[f64], power: f64| {
            // What is zero keeps its scale.
            let known = values.iter().filter(|value| **value > 0.0);
            let mean = known.clone().map(|v| v.ln()).sum::<f64>() / known.count().max(1) as f64;
            for (sum, value) in logarithms.iter_mut().zip(values) {
                *sum += if *value > 0.0 { power * (value.ln() - mean) } else { 0.0 };
            }
        };
        add(columns, -self.scaling.weights);
        if let Some(features) = features {
            add(features, self.scaling.activations);
        }
        logarithms.iter().map(|l| rounded(l.exp().clamp(1.0 / MOST, MOST))).collect()
    }
}

/// `scale` with as many bits as an f16 has: logarithms of different systems differ in their last.
fn rounded(scale: f64) -> f64 {
    half::f16::from_f64(scale).to_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_by_hand() {
        let scaling = Scaling { pairs: vec![Pair::Norms], weights: 0.5, activations: 1.0 };
        let measure = Measure { scaling: &scaling, inputs: None };
        assert_eq!(
            measure.scales(&[1.0, 4.0, 0.0], None),
            [rounded(2f64.sqrt()), rounded(0.5f64.sqrt()), 1.0]
        );
        let both = measure.scales(&[1.0, 4.0], Some(&[1.0, 16.0]));
        let root = 2f64.sqrt();
        assert_eq!(both, [rounded(root / 4.0), rounded(4.0 / root)]);
        assert_eq!(measure.scales(&[1.0, 1.0], Some(&[1e-9, 1e9])), [1.0 / MOST, MOST]);
    }
}
