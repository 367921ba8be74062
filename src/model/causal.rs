//! What evaluation and generation ask of a model.

use std::ops::Range;

use crate::error::Result;

/// A causal language model that scores windows of token ids.
pub trait CausalModel {
    /// Number of token ids, and of logits a position.
    fn vocab_size(&self) -> usize;

    /// Width of a final hidden state.
    fn hidden_size(&self) -> usize;

    /// Longest window that the model was made for, in tokens.
    fn max_positions(&self) -> usize;

    /// Final hidden states, after the last norm, of the positions `scored` of each window: f32
    /// [windows · scored.len(), hidden_size]. Every window starts from an empty context.
    ///
    /// Windows of a call are of equal length and run as one batch; memory grows with their number.
    ///
    /// # Errors
    /// [`crate::Error::Model`] for a token outside the vocabulary, a window over
    /// [`Self::max_positions`], or a value that is not finite, with the layer that made it; what
    /// reading weights gives.
    fn hidden(&mut self, windows: &[&[u32]], scored: Range<usize>) -> Result<Vec<f32>>;

    /// Logits of the next token for each row of `hidden` [n, hidden_size], into `logits`
    /// [n, vocab_size].
    ///
    /// # Errors
    /// As [`Self::hidden`].
    fn logits(&self, hidden: &[f32], logits: &mut [f32]) -> Result<()>;
}

/// One growing sequence, its keys and values cached.
pub trait Continuation {
    /// Number of tokens so far.
    fn position(&self) -> usize;

    /// Appends `tokens` and gives the `vocab_size` logits of the token after them.
    ///
    /// # Errors
    /// As [`CausalModel::hidden`].
    fn extend(&mut self, tokens: &[u32]) -> Result<Vec<f32>>;
}
