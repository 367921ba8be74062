//! The windows that a model is calibrated on.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::Result;
use crate::eval::{Text, TextTokenizer, Windows};

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
}

impl CalibrationText {
    /// Reads `files` with the tokenizer of the model in `folder`.
    ///
    /// # Errors
    /// [`crate::Error::Input`] for a text shorter than one window, what reading gives.
    pub fn read(folder: &Path, files: &[PathBuf], settings: TextSettings) -> Result<Self> {
        let tokenizer = TextTokenizer::open(folder)?;
        let mut read = Vec::new();
        for file in files {
            let text = Text::read(file)?;
            let (windows, report) = Windows::cut(&text, &tokenizer, settings.ctx, None)?;
            read.push((windows, (file.clone(), report.blake3)));
        }
        let mut windows = Vec::new();
        // The shortest texts first: what they cannot give falls to the longer ones.
        let mut order: Vec<usize> = (0..read.len()).collect();
        order.sort_by_key(|&i| read[i].0.count());
        for (done, &i) in order.iter().enumerate() {
            let all = &read[i].0;
            let share = (settings.windows - windows.len()) / (order.len() - done);
            let count = share.min(all.count());
            windows.extend((0..count).map(|k| all.input(k * all.count() / count)));
        }
        let files = read.into_iter().map(|(_, file)| file).collect();
        Ok(Self { ctx: settings.ctx, files, windows })
    }

    /// At most `count` of `windows`, each of `ctx` tokens, spread evenly over them.
    pub(crate) fn spread(ctx: usize, windows: &[Vec<u32>], count: usize) -> Self {
        let count = count.min(windows.len());
        let windows = (0..count).map(|k| windows[k * windows.len() / count].clone()).collect();
        Self { ctx, files: Vec::new(), windows }
    }

    /// Windows that no tokenizer made.
    #[cfg(test)]
    pub(crate) fn of_windows(windows: Vec<Vec<u32>>) -> Self {
        Self { ctx: windows[0].len(), files: Vec::new(), windows }
    }

    /// The windows, each of [`Self::ctx`] tokens.
    #[must_use]
    pub fn windows(&self) -> &[Vec<u32>] {
        &self.windows
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
