//! Codecs: how a weight matrix becomes bytes and comes back.
//!
//! A codec turns a matrix [rows, columns] of f32 weights into a fixed set of parts (codes, scales,
//! blocks ...), each an array of known size that is stored as one tensor. It works on panels, runs
//! of whole rows that start at a multiple of [`Codec::row_multiple`], and the parts of a matrix
//! are the parts of its panels joined in order. So a matrix never has to be in memory as a whole,
//! and the bytes do not depend on how it was cut.
//!
//! A new format is one file here and one line in its registry.

mod astc;
mod astc_hdr;
mod bc4;
#[cfg(feature = "model")]
mod columns;
mod grid2;
mod halves;
mod int4;
mod pool;

use std::fmt::Debug;
use std::sync::Arc;

use compress_model_astc::{Footprint, TexelMode};
use safetensors::Dtype;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

#[cfg(feature = "model")]
pub use columns::PanelCoder;
pub use pool::{WorkerPool, WorkerPools};

/// Parameters of a codec, as a recipe gives them and a manifest records them.
pub type Params = Map<String, Value>;

/// One array that a codec stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Suffix of the stored tensor's name: the tensor of weight `w` is `w.<suffix>`, but for the
    /// first part, which is `w`.
    pub suffix: &'static str,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions.
    pub shape: Vec<usize>,
}

impl Part {
    /// Bytes of the array.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// Why a panel cannot be coded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// A row does not fit the format.
    #[error("row {row}: {message}")]
    Row {
        /// Row, counted from the start of the panel.
        row: usize,
        /// What is wrong with it.
        message: String,
    },
    /// The codec itself cannot run.
    #[error("{0}")]
    Unavailable(String),
}

/// A weight format with its parameters fixed.
pub trait Codec: Debug + Send + Sync {
    /// Name in recipes and manifests.
    fn name(&self) -> &'static str;

    /// All parameters, defaults filled in: enough to build the same codec again.
    fn params(&self) -> Params;

    /// Panels start at multiples of this many rows.
    fn row_multiple(&self) -> usize;

    /// The arrays that hold a matrix of `rows` x `cols`; their sizes fix the bits per weight.
    fn parts(&self, rows: usize, cols: usize) -> Vec<Part>;

    /// Footprint and texels, if a GPU can read the parts: ASTC LDR or BC4 blocks and row scales, or
    /// ASTC HDR blocks and their offsets.
    fn texture(&self) -> Option<(Footprint, TexelMode)> {
        None
    }

    /// State for one thread.
    ///
    /// # Errors
    /// [`CodecError::Unavailable`] if what it needs cannot be set up.
    fn worker(&self) -> Result<Box<dyn Worker>, CodecError>;

    /// Columns that [`Worker::column_coder`] codes together; None for a format, or settings of one,
    /// that only codes whole panels.
    #[cfg(feature = "model")]
    fn column_unit(&self) -> Option<usize> {
        None
    }

    /// Bytes of the parts of a matrix.
    fn coded_bytes(&self, rows: usize, cols: usize) -> u64 {
        self.parts(rows, cols).iter().map(|p| p.byte_len() as u64).sum()
    }
}

/// Codes and decodes panels; reused from panel to panel, one a thread.
pub trait Worker: Send {
    /// Codes a panel of finite weights, row-major with `cols` columns, into `parts`, which have
    /// the sizes that [`Codec::parts`] gives for the panel's rows.
    ///
    /// # Errors
    /// [`CodecError::Row`] for weights that the format cannot hold.
    fn encode(
        &mut self,
        panel: &[f32],
        cols: usize,
        parts: &mut [Vec<u8>],
    ) -> Result<(), CodecError>;

    /// A coder of `panel`, row-major with `cols` columns, that error feedback can drive column by
    /// column; the error of column i counts `importance[i]` times when scales are chosen.
    ///
    /// # Errors
    /// As [`Self::encode`]; [`CodecError::Unavailable`] if [`Codec::column_unit`] is None.
    #[cfg(feature = "model")]
    fn column_coder<'w>(
        &'w mut self,
        panel: &[f32],
        cols: usize,
        importance: &[f32],
    ) -> Result<Box<dyn PanelCoder + 'w>, CodecError> {
        let _ = (panel, cols, importance);
        Err(CodecError::Unavailable("codes whole panels only".to_owned()))
    }

    /// Decodes the parts of a panel of `cols` columns into `panel`.
    ///
    /// # Errors
    /// [`CodecError`] if the decoder cannot run.
    fn decode(
        &mut self,
        parts: &[Vec<u8>],
        cols: usize,
        panel: &mut [f32],
    ) -> Result<(), CodecError>;
}

type Build = fn(Params) -> Result<Arc<dyn Codec>, String>;

/// Every codec: name, and how to build it from its parameters.
const REGISTRY: &[(&str, Build)] = &[
    (grid2::NAME, grid2::build),
    (int4::NAME, int4::build),
    (astc::NAME, astc::build),
    (bc4::NAME, bc4::build),
];

/// Builds codec `name`.
///
/// # Errors
/// A message for the user if there is no such codec or a parameter is unknown or out of range.
pub fn build(name: &str, params: Params) -> Result<Arc<dyn Codec>, String> {
    match REGISTRY.iter().find(|(known, _)| *known == name) {
        Some((_, build)) => build(params).map_err(|e| format!("codec {name:?}: {e}")),
        None => {
            let known: Vec<&str> = names().collect();
            Err(format!("unknown codec {name:?}; known are keep, {}", known.join(", ")))
        }
    }
}

/// Names of all codecs.
pub fn names() -> impl Iterator<Item = &'static str> {
    REGISTRY.iter().map(|&(name, _)| name)
}

/// Reads a codec's parameters into its own type.
fn parse_params<T: DeserializeOwned>(params: Params) -> Result<T, String> {
    serde_path_to_error::deserialize(Value::Object(params)).map_err(|e| e.to_string())
}

/// Writes a codec's parameters, all of them.
fn write_params(params: &impl serde::Serialize) -> Params {
    match serde_json::to_value(params) {
        Ok(Value::Object(map)) => map,
        other => unreachable!("invariant: parameters are a struct, not {other:?}"),
    }
}
