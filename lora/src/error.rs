//! What can go wrong with adapters and their files.

use std::io;
use std::path::PathBuf;

use crate::panels::PanelError;

/// Why an adapter could not be made, written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The matrix could not be read.
    #[error("cannot read the matrix: {0}")]
    Panel(#[source] PanelError),
    /// NaN or infinity in the matrix.
    #[error("the matrix holds NaN or infinity between rows {first} and {last}")]
    NonFinite {
        /// First row of the panel.
        first: usize,
        /// Last row of the panel.
        last: usize,
    },
    /// LAPACK gave up on a full SVD.
    #[error("the singular value iteration did not converge")]
    NoConvergence,
    /// A factor is past the range of fp16.
    #[error("a factor holds {0}, beyond fp16 (65504)")]
    FactorOverflow(f32),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file that is no PEFT adapter.
    #[error("{}: {message}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, and with which key.
        message: String,
    },
    /// The writer was not used as planned.
    #[error("adapter of {module:?}: {message}")]
    Plan {
        /// The module.
        module: String,
        /// What is wrong.
        message: String,
    },
}
