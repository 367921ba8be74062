//! What keeps a row from being coded.

/// Weights that a format cannot hold. The message leaves the row out: a caller that cuts a matrix
/// into panels has to count it from the start of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The best scale of a group is above 65504, the largest fp16 number.
    #[error(
        "group {group} needs a scale past the fp16 limit of 65504 (its largest weight is \
         {magnitude:e}); keep this tensor uncompressed or rescale it"
    )]
    ScaleOverflow {
        /// Row, counted from the start of the weights given.
        row: usize,
        /// Group within the row; 0 where a row has one scale.
        group: usize,
        /// Largest |w| of the group.
        magnitude: f32,
    },
    /// The minimum of a 4-bit group is beyond ±65504.
    #[error(
        "group {group} needs a minimum past the fp16 limit of 65504 (its largest weight is \
         {magnitude:e}); keep this tensor uncompressed or rescale it"
    )]
    MinOverflow {
        /// Row, counted from the start of the weights given.
        row: usize,
        /// Group within the row.
        group: usize,
        /// Largest |w| of the group.
        magnitude: f32,
    },
}

impl Error {
    /// Row of the fault, counted from the start of the weights given.
    #[must_use]
    pub fn row(&self) -> usize {
        match *self {
            Self::ScaleOverflow { row, .. } | Self::MinOverflow { row, .. } => row,
        }
    }
}
