//! What can be wrong with a Hessian.

/// Why a Hessian cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An entry is NaN or infinite.
    #[error("H[{row}, {column}] is {value}")]
    NotFinite {
        /// Row.
        row: usize,
        /// Column.
        column: usize,
        /// The entry.
        value: f64,
    },
    /// A diagonal entry of XᵀX below zero: this is no sum of squares.
    #[error("H[{index}, {index}] is {value}, below zero")]
    Negative {
        /// Which.
        index: usize,
        /// The entry.
        value: f64,
    },
    /// No damping up to the limit makes the matrix positive definite.
    #[error("H has no Cholesky factor even with {damping} of its mean diagonal added")]
    Indefinite {
        /// The largest damping tried.
        damping: f64,
    },
}
