//! Names of search efforts.

/// Search effort of the native encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Preset {
    /// Few partition patterns of the most useful configuration.
    Fast,
    /// Most of the gain of a full search.
    Default,
    /// Nearly every pattern of every useful configuration.
    Best,
}
