//! Progress on stderr: a bar on a terminal, a log line a tensor with `--verbose`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use indicatif::ProgressBar;

use super::{Common, bar};
use crate::pipeline::Progress;

/// Shows a run's progress.
#[derive(Debug)]
pub(super) struct Display {
    bar: Mutex<ProgressBar>,
    visible: bool,
    /// Set to have the run store itself and end.
    stop: Arc<AtomicBool>,
}

impl Display {
    pub(super) fn new(common: &Common) -> Self {
        Self::stoppable(common, Arc::default())
    }

    /// Shows a run that stores itself and ends when `stop` is set.
    pub(super) fn stoppable(common: &Common, stop: Arc<AtomicBool>) -> Self {
        Self { bar: Mutex::new(ProgressBar::hidden()), visible: bar::visible(common), stop }
    }

    fn bar(&self) -> ProgressBar {
        self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.bar().finish_and_clear();
    }
}

impl Progress for Display {
    fn begin(&self, phase: &'static str, total_bytes: u64) {
        self.bar().finish_and_clear();
        let style = "{msg:>13} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} eta {eta}";
        let bar = bar::bar(self.visible, total_bytes, style).with_message(phase);
        *self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = bar;
    }

    fn advance(&self, bytes: u64) {
        self.bar().inc(bytes);
    }

    fn tensor(&self, line: &str) {
        self.bar().suspend(|| tracing::info!("{line}"));
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
