//! The windows of a text that are scored, as llama.cpp's perplexity tool cuts them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::text::{Markup, TextTokenizer};
use crate::error::{Error, IoContext, Result};

/// Shortest window: one token of context, one that scores and the one that it predicts.
pub const MIN_CTX: usize = 3;

/// A text to evaluate on.
#[derive(Debug, Clone)]
pub struct Text {
    /// Where it came from.
    pub path: PathBuf,
    /// Its contents.
    pub text: String,
}

impl Text {
    /// Reads a UTF-8 file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Input`] if it is not UTF-8.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).at("read", path)?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            Error::input(path, format!("not UTF-8 at byte {at}"))
        })?;
        Ok(Self { path: path.to_path_buf(), text })
    }
}

/// What a report says about the text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextReport {
    /// File.
    pub file: PathBuf,
    /// BLAKE3 of its bytes.
    pub blake3: String,
    /// Tokens of the whole file.
    pub tokens: usize,
    /// Windows that were scored.
    pub windows: usize,
    /// Tokens that were scored.
    pub scored_tokens: usize,
}

/// Consecutive windows of `ctx` tokens. Of each the second half is scored: the positions
/// ctx/2 .. ctx-1, each by how well it predicts the token after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Windows {
    tokens: Vec<u32>,
    ctx: usize,
    bos: Option<u32>,
}

impl Windows {
    /// Cuts `text`: the first `limit` windows, or all whole ones. A model that expects a token
    /// before every text (BOS) gets it before the text and instead of the first token of each
    /// window.
    ///
    /// # Errors
    /// [`Error::Input`] if the text is shorter than one window.
    ///
    /// # Panics
    /// If `ctx` is under [`MIN_CTX`].
    pub fn cut(
        text: &Text,
        tokenizer: &TextTokenizer,
        ctx: usize,
        limit: Option<usize>,
    ) -> Result<(Self, TextReport)> {
        assert!(ctx >= MIN_CTX, "invariant: a window scores something");
        let mut tokens: Vec<u32> = tokenizer.bos().into_iter().collect();
        tokens.extend(tokenizer.encode(&text.text, Markup::Literal)?);
        let total = tokens.len();
        let count = (total / ctx).min(limit.unwrap_or(usize::MAX));
        if count == 0 {
            let message = format!(
                "is {total} tokens long, shorter than one window of {ctx}; give a longer text or \
                 a smaller --ctx"
            );
            return Err(Error::input(&text.path, message));
        }
        tokens.truncate(count * ctx);
        let windows = Self { tokens, ctx, bos: tokenizer.bos() };
        let report = TextReport {
            file: text.path.clone(),
            blake3: blake3::hash(text.text.as_bytes()).to_hex().to_string(),
            tokens: total,
            windows: count,
            scored_tokens: count * windows.scored().len(),
        };
        Ok((windows, report))
    }

    /// Tokens a window.
    #[must_use]
    pub fn ctx(&self) -> usize {
        self.ctx
    }

    /// Number of windows.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tokens.len() / self.ctx
    }

    /// Positions of a window whose prediction is scored.
    #[must_use]
    pub fn scored(&self) -> Range<usize> {
        self.ctx / 2..self.ctx - 1
    }

    /// Window `index` as the model reads it.
    #[must_use]
    pub fn input(&self, index: usize) -> Vec<u32> {
        let mut window = self.window(index).to_vec();
        if let Some(bos) = self.bos {
            window[0] = bos;
        }
        window
    }

    /// The true next token of each scored position of window `index`.
    #[must_use]
    pub fn targets(&self, index: usize) -> &[u32] {
        let scored = self.scored();
        &self.window(index)[scored.start + 1..scored.end + 1]
    }

    /// All tokens of the windows.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The largest token id.
    #[must_use]
    pub fn largest_token(&self) -> u32 {
        self.tokens.iter().copied().chain(self.bos).max().unwrap_or(0)
    }

    fn window(&self, index: usize) -> &[u32] {
        &self.tokens[index * self.ctx..][..self.ctx]
    }

    #[cfg(test)]
    pub(super) fn of_tokens(tokens: Vec<u32>, ctx: usize, bos: Option<u32>) -> Self {
        Self { tokens, ctx, bos }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_half_is_scored() {
        let windows = Windows::of_tokens((10..26).collect(), 8, None);
        assert_eq!((windows.count(), windows.scored()), (2, 4..7));
        assert_eq!(windows.input(1), [18, 19, 20, 21, 22, 23, 24, 25]);
        assert_eq!(windows.targets(1), [23, 24, 25]);
        // An odd window and the shortest.
        assert_eq!(Windows::of_tokens((0..7).collect(), 7, None).targets(0), [4, 5, 6]);
        assert_eq!(Windows::of_tokens((0..3).collect(), MIN_CTX, None).targets(0), [2]);
    }

    #[test]
    fn bos_takes_the_first_place_of_every_window() {
        let windows = Windows::of_tokens((10..18).collect(), 4, Some(1));
        assert_eq!(windows.input(0), [1, 11, 12, 13]);
        assert_eq!(windows.input(1), [1, 15, 16, 17]);
        assert_eq!(windows.targets(1), [17]);
    }
}
