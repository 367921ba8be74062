//! Progress of an evaluation on stderr: a bar with tokens a second and the figures so far.

use std::cell::RefCell;

use indicatif::ProgressBar;

use super::{Common, bar};
use crate::eval::EvalProgress;

/// Shows an evaluation's progress on a terminal.
#[derive(Debug)]
pub(super) struct TokenBar {
    bar: RefCell<ProgressBar>,
    visible: bool,
}

impl TokenBar {
    pub(super) fn new(common: &Common) -> Self {
        Self { bar: RefCell::new(ProgressBar::hidden()), visible: bar::visible(common) }
    }
}

impl Drop for TokenBar {
    fn drop(&mut self) {
        self.bar.borrow().finish_and_clear();
    }
}

impl EvalProgress for TokenBar {
    fn begin(&self, phase: &'static str, tokens: u64) {
        let style = "{prefix:>13} [{bar:30}] {pos}/{len} tokens {per_sec} eta {eta} {msg}";
        let bar = bar::bar(self.visible, tokens, style).with_prefix(phase);
        self.bar.replace(bar).finish_and_clear();
    }

    fn advance(&self, tokens: u64, figures: &str) {
        let bar = self.bar.borrow();
        bar.set_message(figures.to_owned());
        bar.inc(tokens);
        tracing::info!("{figures}");
    }
}
