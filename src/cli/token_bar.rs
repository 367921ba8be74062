//! Progress of an evaluation: tokens a second and the figures so far.

use super::Common;
use super::bar::Bar;
use crate::eval::EvalProgress;

/// Shows an evaluation's progress.
#[derive(Debug)]
pub(super) struct TokenBar(Bar);

impl TokenBar {
    pub(super) fn new(common: &Common) -> Self {
        Self(Bar::new(common))
    }
}

impl EvalProgress for TokenBar {
    fn begin(&self, phase: &'static str, tokens: u64) {
        let style = "{prefix:>13} [{bar:30}] {pos}/{len} tokens {per_sec} eta {eta} {msg}";
        self.0.begin(phase, tokens, style);
    }

    fn advance(&self, tokens: u64, figures: &str) {
        let bar = self.0.get();
        bar.set_message(figures.to_owned());
        bar.inc(tokens);
        tracing::info!("{figures}");
    }
}
