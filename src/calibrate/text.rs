//! The windows that a model is calibrated on.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::eval::{TOKENIZER_FILE, Text, TextTokenizer, Windows};

/// Tokens that run through a block at once, if windows are not longer.
const BATCH_TOKENS: usize = 4096;

/// How a calibration text is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextSettings {
    /// Tokens a window. Default: 512.
    pub ctx: usize,
    /// Most windows, spread evenly over the text. Default: 128.
    pub windows: usize,
}

impl Default for TextSettings {
    fn default() -> Self {
        Self { ctx: 512, windows: 128 }
    }
}

/// Token windows of one or more texts, each text with its fair share of them.
#[derive(Debug, Clone, Serialize)]
pub struct CalibrationText {
    /// Tokens a window.
    pub ctx: usize,
    /// BLAKE3 of the text of each file.
    pub files: Vec<(PathBuf, String)>,
    #[serde(skip)]
    windows: Vec<Vec<u32>>,
    /// What reading it took, in bytes.
    #[serde(skip)]
    memory: u64,
}

/// Bytes of a text from which on it is not read as a whole, if its windows are few.
const LONG: u64 = 16 << 20;
/// Bytes for each token of the windows that a long text must have.
const ROOM: u64 = 64;

/// Where windows are taken from.
enum Source<'a> {
    /// All windows of a text, one after another.
    Whole(Windows),
    /// A long text, of which a few windows are read.
    Long(&'a Text),
}

impl<'a> Source<'a> {
    fn of(text: &'a Text, tokenizer: &TextTokenizer, settings: TextSettings) -> Result<Self> {
        let wanted = (settings.windows as u64).saturating_mul(settings.ctx as u64);
        if text.bytes() >= LONG && text.bytes() >= wanted.saturating_mul(ROOM) {
            return Ok(Self::Long(text));
        }
        Ok(Self::Whole(Windows::cut(text, tokenizer, settings.ctx, None)?.0))
    }

    /// Windows that it can give, at least.
    fn count(&self) -> usize {
        match self {
            Self::Whole(windows) => windows.count(),
            Self::Long(_) => usize::MAX,
        }
    }

    /// Tokens that are in memory.
    fn tokens(&self) -> u64 {
        match self {
            Self::Whole(windows) => windows.tokens().len() as u64,
            Self::Long(_) => 0,
        }
    }

    /// Adds up to `share` windows, spread evenly, to `windows`, and lets go of the others.
    fn take(
        &mut self,
        share: usize,
        tokenizer: &TextTokenizer,
        ctx: usize,
        windows: &mut Vec<Vec<u32>>,
    ) -> Result<()> {
        if let Self::Long(text) = *self {
            let few = Windows::spread(text, tokenizer, ctx, share)?;
            let all = || Ok::<_, Error>(Windows::cut(text, tokenizer, ctx, None)?.0);
            *self = Self::Whole(few.map_or_else(all, Ok)?);
        }
        if let Self::Whole(all) = std::mem::replace(self, Self::Whole(Windows::empty(ctx))) {
            let count = share.min(all.count());
            windows.extend((0..count).map(|k| all.input(k * all.count() / count)));
        }
        Ok(())
    }
}

/// Bytes that a tokenizer takes for each of its file, there being two.
const TOKENIZER_COPIES: u64 = 24;
/// Bytes for the piece of a text that is tokenised at a time.
const PIECE_MEMORY: u64 = 24 << 20;
/// Bytes of a token, and of the room that a growing list of them leaves.
const TOKEN: u64 = 2 * size_of::<u32>() as u64;

impl CalibrationText {
    /// Reads `files` with the tokenizer of the model in `folder`.
    ///
    /// # Errors
    /// [`crate::Error::Input`] for a text shorter than one window, what reading gives.
    pub fn read(folder: &Path, files: &[PathBuf], settings: TextSettings) -> Result<Self> {
        let tokenizer = TextTokenizer::open(folder)?;
        let texts: Vec<Text> = files.iter().map(|file| Text::read(file)).collect::<Result<_>>()?;
        let mut sources: Vec<Source<'_>> = texts
            .iter()
            .map(|text| Source::of(text, &tokenizer, settings))
            .collect::<Result<_>>()?;
        let tokenizer_bytes =
            std::fs::metadata(folder.join(TOKENIZER_FILE)).map_or(0, |file| file.len());
        let mut memory = TOKENIZER_COPIES * tokenizer_bytes + PIECE_MEMORY;
        memory += TOKEN * sources.iter().map(Source::tokens).sum::<u64>();
        let mut windows = Vec::new();
        // The shortest texts first: what they cannot give falls to the longer ones.
        let mut order: Vec<usize> = (0..sources.len()).collect();
        order.sort_by_key(|&i| sources[i].count());
        for (done, &i) in order.iter().enumerate() {
            let share = (settings.windows - windows.len()) / (order.len() - done);
            sources[i].take(share, &tokenizer, settings.ctx, &mut windows)?;
        }
        let files = texts
            .iter()
            .map(|text| (text.path().to_path_buf(), text.blake3().to_owned()))
            .collect();
        memory += TOKEN * (windows.len() * settings.ctx) as u64;
        Ok(Self { ctx: settings.ctx, files, windows, memory })
    }

    /// At most `count` of `windows`, each of `ctx` tokens, spread evenly over them.
    pub(crate) fn spread(ctx: usize, windows: &[Vec<u32>], count: usize) -> Self {
        let count = count.min(windows.len());
        let windows = (0..count).map(|k| windows[k * windows.len() / count].clone()).collect();
        Self { ctx, files: Vec::new(), windows, memory: 0 }
    }

    /// Windows that no tokenizer made.
    #[cfg(test)]
    pub(crate) fn of_windows(windows: Vec<Vec<u32>>) -> Self {
        Self { ctx: windows[0].len(), files: Vec::new(), windows, memory: 0 }
    }

    /// The windows, each of [`Self::ctx`] tokens.
    #[must_use]
    pub fn windows(&self) -> &[Vec<u32>] {
        &self.windows
    }

    /// The windows, to be kept elsewhere.
    pub(crate) fn into_windows(self) -> Vec<Vec<u32>> {
        self.windows
    }

    /// Upper estimate of the resident memory that reading it took, in bytes; it may be there still.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// Windows that run at once.
    fn batch_windows(&self) -> usize {
        (BATCH_TOKENS / self.ctx).max(1)
    }

    /// Tokens that run at once: whole windows.
    pub(crate) fn batch_tokens(&self) -> usize {
        self.batch_windows() * self.ctx
    }

    /// The tokens of each batch.
    pub(crate) fn batches(&self) -> impl Iterator<Item = Vec<u32>> {
        self.windows.chunks(self.batch_windows()).map(<[Vec<u32>]>::concat)
    }

    /// Tokens of all windows.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.windows.len() * self.ctx
    }
}
