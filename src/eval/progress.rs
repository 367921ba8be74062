//! What an evaluation tells while it runs.

/// Receives progress.
pub trait EvalProgress {
    /// Work on `tokens` tokens begins.
    fn begin(&self, phase: &'static str, tokens: u64);
    /// `tokens` more are done; `figures` are the results so far, in words.
    fn advance(&self, tokens: u64, figures: &str);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl EvalProgress for Silent {
    fn begin(&self, _phase: &'static str, _tokens: u64) {}
    fn advance(&self, _tokens: u64, _figures: &str) {}
}
