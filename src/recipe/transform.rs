//! `[transform]` of a recipe: changes of the weights that leave the model's function as it is.

use serde::{Deserialize, Serialize};

/// Which function-preserving transforms a checkpoint goes through before it is coded: rotations
/// first, then scaling, then permutations.
///
/// ```toml
/// [transform]
/// rotation = "hadamard"
/// untie_head = true
/// head_rotation = "hadamard"
/// sort = ["channels", "values"]
///
/// [transform.scaling]
/// pairs = ["norms", "values", "channels"]
/// weights = 0.5
/// activations = 0.5
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Transform {
    /// Rotates the residual stream; the gains of the norms that read it are folded into the layers
    /// behind them first (SliceGPT, arXiv 2401.15024; QuaRot, arXiv 2404.00456).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationKind>,
    /// A head that is tied to the embedding table gets a weight of its own where the rotation
    /// takes one, because the final norm's gains differ from channel to channel.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub untie_head: bool,
    /// Rotates the values within each head, and the columns of the output projection with them
    /// (SpinQuant's R2, arXiv 2405.16406).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_rotation: Option<RotationKind>,
    /// Permutes features so that neighbours are of similar scale.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sort: Vec<Sort>,
    /// Scales single features, undone where they are made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
}

/// How an orthogonal matrix is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RotationKind {
    /// A Hadamard matrix with random signs; widths without a known one get a Hadamard matrix of
    /// the largest power of two times a random orthogonal block.
    Hadamard,
    /// A random orthogonal matrix.
    Orthogonal,
}

/// Features that can be permuted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    /// The inner channels of feed-forward blocks: rows of gate and up, columns of down.
    Channels,
    /// The values of each head: rows of value, columns of output.
    Values,
}

/// Features that can be scaled, by who undoes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pair {
    /// Columns of query, key and value, and of gate, up and router: the norm before them.
    Norms,
    /// Columns of output: the rows of value.
    Values,
    /// Columns of down: the rows of up.
    Channels,
}

/// Column j of a layer's weights is multiplied by s = a^activations · w^-weights, a the root mean
/// square of the layer's input j and w that of the column, both over their geometric means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scaling {
    /// Which features. Default: all.
    #[serde(default = "all_pairs")]
    pub pairs: Vec<Pair>,
    /// Share of the differences between the columns' scales that is taken out, 0 to 1. Default: 0.
    #[serde(default)]
    pub weights: f64,
    /// Power of the inputs' scales that goes into the columns, 0 to 1 (AWQ, arXiv 2306.00978).
    /// Anything but 0 takes a calibration. Default: 0.
    #[serde(default)]
    pub activations: f64,
}

fn all_pairs() -> Vec<Pair> {
    vec![Pair::Norms, Pair::Values, Pair::Channels]
}

impl Transform {
    /// Reads the table.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(table: toml::Table) -> Result<Self, String> {
        let read: Self = table.try_into().map_err(|e: toml::de::Error| e.message().to_owned())?;
        if read == Self::default() {
            return Err("names no transform".to_owned());
        }
        if read.untie_head && read.rotation.is_none() {
            return Err("untie_head goes with rotation".to_owned());
        }
        let Some(scaling) = &read.scaling else { return Ok(read) };
        for (name, value) in [("weights", scaling.weights), ("activations", scaling.activations)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(format!("scaling.{name} must be 0 to 1, not {value}"));
            }
        }
        if scaling.pairs.is_empty() || (scaling.weights == 0.0 && scaling.activations == 0.0) {
            return Err("scaling does nothing: it needs pairs, and weights or activations".into());
        }
        Ok(read)
    }

    /// Whether it depends on what the layers see of a calibration text.
    #[must_use]
    pub fn needs_calibration(&self) -> bool {
        self.scaling.as_ref().is_some_and(|scaling| scaling.activations > 0.0)
    }
}
