//! What a long run tells while it runs, and hears.

use crate::error::{Error, Result};

/// Receives progress; called from many threads.
pub trait Progress: Sync {
    /// A phase of `total_bytes` of source data begins.
    fn begin(&self, phase: &'static str, total_bytes: u64);
    /// `bytes` more of the phase are done.
    fn advance(&self, bytes: u64);
    /// One tensor is finished; `line` says what became of it.
    fn tensor(&self, line: &str);
    /// Whether a run that can go on later should store itself and end.
    fn stopped(&self) -> bool {
        false
    }
    /// For work of which nothing is stored that a later run could go on with.
    ///
    /// # Errors
    /// [`Error::StoppedEarly`] if the run is to end.
    fn check_stopped(&self) -> Result<()> {
        if self.stopped() { Err(Error::StoppedEarly) } else { Ok(()) }
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _phase: &'static str, _total_bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn tensor(&self, _line: &str) {}
}
