//! Progress on stderr: a bar on a terminal, a log line a tensor with `--verbose`.

use std::io::IsTerminal;
use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Common;
use crate::pipeline::Progress;

/// Shows a run's progress.
#[derive(Debug)]
pub(super) struct Display {
    bar: Mutex<ProgressBar>,
    visible: bool,
}

impl Display {
    pub(super) fn new(common: &Common) -> Self {
        let visible = !common.quiet && std::io::stderr().is_terminal();
        Self { bar: Mutex::new(ProgressBar::hidden()), visible }
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
        let target =
            if self.visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total_bytes), target).with_message(phase);
        let style = "{msg:>13} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} eta {eta}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        *self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = bar;
    }

    fn advance(&self, bytes: u64) {
        self.bar().inc(bytes);
    }

    fn tensor(&self, line: &str) {
        self.bar().suspend(|| tracing::info!("{line}"));
    }
}
