//! Progress of an evaluation on stderr: a bar with tokens a second and the figures so far.

use std::cell::RefCell;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Common;
use crate::eval::EvalProgress;

/// Shows an evaluation's progress on a terminal.
#[derive(Debug)]
pub(super) struct TokenBar {
    bar: RefCell<ProgressBar>,
    visible: bool,
}

impl TokenBar {
    pub(super) fn new(common: &Common) -> Self {
        let visible = !common.quiet && std::io::stderr().is_terminal();
        Self { bar: RefCell::new(ProgressBar::hidden()), visible }
    }
}

impl Drop for TokenBar {
    fn drop(&mut self) {
        self.bar.borrow().finish_and_clear();
    }
}

impl EvalProgress for TokenBar {
    fn begin(&self, phase: &'static str, tokens: u64) {
        let target =
            if self.visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(tokens), target).with_prefix(phase);
        let style = "{prefix:>13} [{bar:30}] {pos}/{len} tokens {per_sec} eta {eta} {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            let style = style.with_key(
                "per_sec",
                |state: &indicatif::ProgressState, text: &mut dyn std::fmt::Write| {
                    let _ = write!(text, "{:.0}/s", state.per_sec());
                },
            );
            bar.set_style(style.progress_chars("=> "));
        }
        self.bar.replace(bar).finish_and_clear();
    }

    fn advance(&self, tokens: u64, figures: &str) {
        let bar = self.bar.borrow();
        bar.set_message(figures.to_owned());
        bar.inc(tokens);
        tracing::info!("{figures}");
    }
}
