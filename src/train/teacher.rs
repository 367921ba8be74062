//! The original model's final hidden states of the training windows.
//!
//! They are computed when a window first comes, and kept in a file: from the second epoch on the
//! original need not run. Hidden states hold the whole distribution in 576 numbers a token where
//! its logits are 49,152 (SmolLM2), and the head turns them into the same bits again.

use std::cell::RefCell;
use std::path::Path;

use crate::calibrate::ActivationFile;
use crate::error::Result;
use crate::model::{CausalModel, KvCache, Model, ModelOptions};

/// The original model, which is learnt from.
#[derive(Debug)]
pub(super) struct Teacher {
    model: RefCell<Model>,
    file: ActivationFile,
    known: RefCell<Vec<bool>>,
    ctx: usize,
}

impl Teacher {
    /// Opens the original in `folder`; hidden states of `windows` windows of `ctx` tokens go to the
    /// file `cache`.
    ///
    /// # Errors
    /// As [`Model::open`]; I/O.
    pub(super) fn open(folder: &Path, cache: &Path, windows: usize, ctx: usize) -> Result<Self> {
        let options =
            ModelOptions { kv_cache: KvCache::F32, resident: true, ..ModelOptions::default() };
        let model = Model::open(folder, options)?;
        let width = model.hidden_size();
        let file = ActivationFile::create(cache, windows * ctx, width, ctx)?;
        let known = RefCell::new(vec![false; windows]);
        Ok(Self { model: RefCell::new(model), file, known, ctx })
    }

    /// The model.
    pub(super) fn with_model<T>(&self, f: impl FnOnce(&Model) -> T) -> T {
        f(&self.model.borrow())
    }

    /// Final hidden states of `windows`, which have these `numbers`: [tokens, hidden].
    ///
    /// # Errors
    /// As running the model; I/O.
    pub(super) fn hidden(&self, numbers: &[usize], windows: &[&[u32]]) -> Result<Vec<f32>> {
        let mut known = self.known.borrow_mut();
        let missing: Vec<usize> = (0..numbers.len()).filter(|&i| !known[numbers[i]]).collect();
        if !missing.is_empty() {
            let windows: Vec<&[u32]> = missing.iter().map(|&i| windows[i]).collect();
            let found = self.model.borrow_mut().hidden(&windows, 0..self.ctx)?;
            let each = found.len() / missing.len();
            for (&i, hidden) in missing.iter().zip(found.chunks_exact(each)) {
                self.file.write(numbers[i], hidden)?;
                known[numbers[i]] = true;
            }
        }
        let parts = numbers.iter().map(|&number| self.file.read(number));
        Ok(parts.collect::<Result<Vec<_>>>()?.concat())
    }
}
