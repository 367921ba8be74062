//! Why a GPU could not do its work.

/// What went wrong on which adapter.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// No driver is installed, or none of them has an adapter.
    #[error("no GPU adapter: no Vulkan, GL, Metal or Direct3D 12 driver on this machine has one")]
    NoAdapter,
    /// No adapter has the name or index asked for.
    #[error("no GPU adapter matches '{wanted}'; there is {}", seen.join(", "))]
    UnknownAdapter {
        /// The name or index.
        wanted: String,
        /// Every adapter, as `index: backend: name`.
        seen: Vec<String>,
    },
    /// The adapter is there, but its results are wrong or it lacks what decoding needs.
    #[error("adapter '{adapter}' is refused: {reason}")]
    Refused {
        /// Backend and name of the adapter.
        adapter: String,
        /// Why.
        reason: String,
    },
    /// The driver gave up: it was reset, unplugged or updated.
    #[error("adapter '{adapter}': the device was lost while trying to {action}: {reason}")]
    DeviceLost {
        /// Backend and name of the adapter.
        adapter: String,
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// The driver's words.
        reason: String,
    },
    /// The adapter's memory is used up.
    #[error("adapter '{adapter}': out of memory while trying to {action}")]
    OutOfMemory {
        /// Backend and name of the adapter.
        adapter: String,
        /// What was attempted, as a verb phrase.
        action: &'static str,
    },
    /// A matrix is past a limit of the adapter.
    #[error("adapter '{adapter}': {what} of {needed} is over the limit of {limit}")]
    OverLimit {
        /// Backend and name of the adapter.
        adapter: String,
        /// What is too large.
        what: &'static str,
        /// How large it would be.
        needed: u64,
        /// How large it may be.
        limit: u64,
    },
    /// The driver refused a call for another reason.
    #[error("adapter '{adapter}': cannot {action}: {message}")]
    Driver {
        /// Backend and name of the adapter.
        adapter: String,
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// The driver's words.
        message: String,
    },
    /// Slices that do not fit the matrix's shape.
    #[error(transparent)]
    Shape(#[from] crate::Error),
    /// A slice of a product has the wrong length.
    #[error("{what} of {found} values, but the layer and the batch need {expected}")]
    Operand {
        /// Which slice.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length it must have.
        expected: usize,
    },
    /// The text names no decode path.
    #[error("unknown GPU path '{0}': use auto, sampled or computed")]
    UnknownPath(String),
}
