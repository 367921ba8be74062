//! The crate's error type.

use crate::Footprint;

/// Why a matrix could not be encoded or decoded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text names none of the 14 two-dimensional footprints.
    #[error(
        "unknown ASTC footprint '{0}': use 4x4, 5x4, 5x5, 6x5, 6x6, 8x5, 8x6, 8x8, 10x5, 10x6, 10x8, 10x10, 12x10 or 12x12"
    )]
    UnknownFootprint(String),
    /// A slice does not have the length that the matrix shape asks for.
    #[error("{what}: {found} elements, but {rows} x {cols} weights at {footprint} need {expected}")]
    Length {
        /// Which argument.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length it must have.
        expected: usize,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
        /// Footprint of the blocks.
        footprint: Footprint,
    },
    /// A weight is NaN or infinite.
    #[error("row {row}, column {col}: weight {value} is not finite")]
    NotFinite {
        /// Row of the weight, counted from the first row passed in.
        row: usize,
        /// Column of the weight.
        col: usize,
        /// The weight.
        value: f32,
    },
    /// The largest magnitude of a row is past 65504, the largest f16.
    #[error("row {row}: largest weight {max_abs} is past the f16 range of a row scale (65504)")]
    ScaleOverflow {
        /// Row, counted from the first row passed in.
        row: usize,
        /// Largest magnitude of the row.
        max_abs: f32,
    },
    /// The weights of a block are past ±65504, or their range is.
    #[error(
        "row {row}, column {col}: the weights of this HDR block lie in {low}..={high}; an fp16 offset and fp16 texels reach ±65504 and 65504 apart"
    )]
    HdrRange {
        /// First row of the block, counted from the first row passed in.
        row: usize,
        /// First column of the block.
        col: usize,
        /// Its smallest weight.
        low: f32,
        /// Its largest weight.
        high: f32,
    },
    /// The chosen encoder is not part of this build.
    #[error("encoder '{0}' is not part of this build: enable the feature 'astcenc'")]
    NoEncoder(&'static str),
    /// ARM's library refused a call.
    #[error("astcenc: {0}")]
    Astcenc(String),
}

impl Error {
    /// The row at fault, counted from the first row passed in, where one is.
    pub fn row(&self) -> Option<usize> {
        match self {
            Self::NotFinite { row, .. }
            | Self::ScaleOverflow { row, .. }
            | Self::HdrRange { row, .. } => Some(*row),
            _ => None,
        }
    }
}
