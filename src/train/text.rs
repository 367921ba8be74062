//! The windows that a model is trained on, and those that are held out.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::calibrate::{CalibrationText, TextSettings};
use crate::error::{Error, Result};

/// Windows of one or more texts, cut one after another; training mixes them all. Every so many
/// windows one is held out, spread evenly over the texts.
#[derive(Debug, Clone, Serialize)]
pub struct TrainingText {
    /// Tokens a window.
    pub ctx: usize,
    /// BLAKE3 of the text of each file.
    pub files: Vec<(PathBuf, String)>,
    /// Windows to train on.
    #[serde(skip)]
    pub(crate) windows: Vec<Vec<u32>>,
    /// Windows to evaluate on.
    #[serde(skip)]
    pub(crate) held_out: Vec<Vec<u32>>,
    /// What reading it took, in bytes.
    #[serde(skip)]
    pub(crate) memory: u64,
}

impl TrainingText {
    /// Reads `files` with the tokenizer of the model in `folder` and holds out `held_out` windows,
    /// but no more than a tenth of all.
    ///
    /// # Errors
    /// [`Error::Input`] for a text without a whole window, or one window in all; a tokenizer whose
    /// tokens the model, of `vocab_size` tokens, does not have; what reading gives.
    pub fn read(
        folder: &Path,
        files: &[PathBuf],
        ctx: usize,
        held_out: usize,
        vocab_size: usize,
    ) -> Result<Self> {
        let settings = TextSettings { ctx, windows: usize::MAX };
        let text = CalibrationText::read(folder, files, settings)?;
        let largest = text.windows().iter().flatten().max().copied().unwrap_or(0);
        if largest as usize >= vocab_size {
            let message = format!(
                "its tokenizer gives token {largest}, but the model has only {vocab_size}: they \
                 do not belong together"
            );
            return Err(Error::Model { folder: folder.to_path_buf(), message });
        }
        let all = text.windows();
        if all.len() < 2 {
            let path = files.first().map_or(Path::new(""), PathBuf::as_path);
            let message = format!("gives only one window of {ctx} tokens; training needs two");
            return Err(Error::input(path, message));
        }
        let count = all.len();
        let held_out = held_out.min(count / 10);
        let is_held_out = |i: usize| {
            // Window i is the middle of one of `held_out` equal parts.
            let part = i * held_out / count;
            held_out > 0 && (2 * part + 1) * count / (2 * held_out) == i
        };
        let (files, memory) = (text.files.clone(), text.memory());
        let (mut windows, mut held) = (Vec::new(), Vec::new());
        for (i, window) in text.into_windows().into_iter().enumerate() {
            if is_held_out(i) { held.push(window) } else { windows.push(window) }
        }
        Ok(Self { ctx, files, windows, held_out: held, memory })
    }

    /// Tokens to train on.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.windows.len() * self.ctx
    }
}
