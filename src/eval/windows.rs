//! The windows of a text that are scored, as llama.cpp's perplexity tool cuts them.

use std::ops::Range;
use std::path::PathBuf;

use serde::Serialize;

use super::pieces::Pieces;
use super::text::TextTokenizer;
use super::text_file::Text;
use crate::error::{Error, Result};

/// Shortest window: one token of context, one that scores and the one that it predicts.
pub const MIN_CTX: usize = 3;

/// What a report says about the text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextReport {
    /// File.
    pub file: PathBuf,
    /// BLAKE3 of its bytes.
    pub blake3: String,
    /// Tokens of the whole file, or those of the windows if it was not read to its end.
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
        let most = limit.map_or(usize::MAX, |limit| limit.saturating_mul(ctx));
        let mut tokens: Vec<u32> = tokenizer.bos().into_iter().collect();
        let mut pieces = Pieces::new(text, tokenizer);
        let mut whole = false;
        while !whole && tokens.len() < most {
            match pieces.next()? {
                Some(piece) => tokens.extend(piece),
                None => whole = true,
            }
        }
        let total = tokens.len();
        let count = (total / ctx).min(limit.unwrap_or(usize::MAX));
        if count == 0 {
            return Err(too_short(text, total, ctx));
        }
        tokens.truncate(count * ctx);
        let windows = Self { tokens, ctx, bos: tokenizer.bos() };
        let report = TextReport {
            file: text.path().to_path_buf(),
            blake3: text.blake3().to_owned(),
            tokens: if whole { total } else { count * ctx },
            windows: count,
            scored_tokens: count * windows.scored().len(),
        };
        Ok((windows, report))
    }

    /// `count` windows of `text`, spread evenly over its bytes: each starts after the first space or
    /// line end behind its place, and only what it needs is read. None if the text has too few tokens
    /// behind one of these places.
    ///
    /// # Errors
    /// As reading and tokenising.
    pub(crate) fn spread(
        text: &Text,
        tokenizer: &TextTokenizer,
        ctx: usize,
        count: usize,
    ) -> Result<Option<Self>> {
        let bos = tokenizer.bos();
        let mut tokens = Vec::with_capacity(count * ctx);
        for k in 0..count {
            let place = (u128::from(text.bytes()) * k as u128 / count as u128) as u64;
            let start = if place == 0 { 0 } else { word_start(text, place)? };
            let Some(window) = tokens_from(text, tokenizer, start, ctx)? else { return Ok(None) };
            tokens.extend(window);
        }
        Ok(Some(Self { tokens, ctx, bos }))
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

    /// None.
    pub(crate) fn empty(ctx: usize) -> Self {
        Self { tokens: Vec::new(), ctx, bos: None }
    }

    #[cfg(test)]
    pub(super) fn of_tokens(tokens: Vec<u32>, ctx: usize, bos: Option<u32>) -> Self {
        Self { tokens, ctx, bos }
    }
}

fn too_short(text: &Text, tokens: usize, ctx: usize) -> Error {
    let message = format!(
        "is {tokens} tokens long, shorter than one window of {ctx}; give a longer text or a smaller \
         --ctx"
    );
    Error::input(text.path(), message)
}

/// Bytes in which a place looks for the end of its word.
const WORD: u64 = 1 << 10;

/// The first byte after a space or line end behind `place`, or the first character there if the word is
/// very long.
fn word_start(text: &Text, place: u64) -> Result<u64> {
    let (first, piece) = text.piece(place, WORD)?;
    let space = piece.char_indices().find(|(_, c)| c.is_whitespace());
    Ok(space.map_or(first, |(at, c)| first + (at + c.len_utf8()) as u64))
}

/// Bytes of text that a token stands for, at first guess.
const BYTES_PER_TOKEN: u64 = 8;
/// Bytes at the end of what is read whose tokens are not whole.
const UNSURE: u64 = 1 << 10;

/// The first `count` tokens of `text` from byte `start` on, if there are as many.
fn tokens_from(
    text: &Text,
    tokenizer: &TextTokenizer,
    start: u64,
    count: usize,
) -> Result<Option<Vec<u32>>> {
    let mut bytes = count as u64 * BYTES_PER_TOKEN + UNSURE;
    loop {
        let tokens = tokenizer.encode_placed(text, start, bytes)?;
        let whole = start + bytes >= text.bytes();
        let sure = start + bytes - UNSURE;
        let sure = tokens.iter().take_while(|token| whole || token.bytes.end <= sure).count();
        if sure >= count {
            return Ok(Some(tokens[..count].iter().map(|token| token.id).collect()));
        }
        if whole {
            return Ok(None);
        }
        bytes *= 2;
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
