//! Progress of a run over weights, with a log line a tensor under `--verbose`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Common;
use super::bar::Bar;
use crate::pipeline::Progress;

/// Shows a run's progress.
#[derive(Debug)]
pub(super) struct Display {
    bar: Bar,
    /// Set to have the run store itself and end.
    stop: Arc<AtomicBool>,
}

impl Display {
    pub(super) fn new(common: &Common) -> Self {
        Self::stoppable(common, Arc::default())
    }

    /// Shows a run that stores itself and ends when `stop` is set.
    pub(super) fn stoppable(common: &Common, stop: Arc<AtomicBool>) -> Self {
        Self { bar: Bar::new(common), stop }
    }
}

impl Progress for Display {
    fn begin(&self, phase: &'static str, total_bytes: u64) {
        let style = "{prefix:>13} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} eta {eta}";
        self.bar.begin(phase, total_bytes, style);
    }

    fn advance(&self, bytes: u64) {
        self.bar.get().inc(bytes);
    }

    fn tensor(&self, line: &str) {
        self.bar.get().suspend(|| tracing::info!("{line}"));
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
