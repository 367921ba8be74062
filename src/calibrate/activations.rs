//! Hidden states of all calibration tokens, in memory or in a file.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::checkpoint::positioned::{read_exact_at, write_all_at};
use crate::error::{IoContext, Result};

/// Rows of f32 for every token, read and replaced a batch of tokens at a time. A batch may have
/// rows of any width up to the most; it is read as it was written.
#[derive(Debug)]
pub(crate) enum Activations {
    /// The batches.
    Memory(Vec<RefCell<Vec<f32>>>),
    /// A file of them.
    File(ActivationFile),
}

/// Batches in a file, which is removed when the value is dropped, unless it is to be kept.
#[derive(Debug)]
pub(crate) struct ActivationFile {
    path: PathBuf,
    file: File,
    slot_bytes: u64,
    /// Values in each batch.
    lengths: Vec<Cell<usize>>,
    temporary: bool,
}

impl Activations {
    /// Room in memory for `tokens` rows, worked on `batch_tokens` at a time.
    pub(crate) fn in_memory(tokens: usize, batch_tokens: usize) -> Self {
        Self::Memory(vec![RefCell::default(); tokens.div_ceil(batch_tokens)])
    }

    /// Number of batches.
    pub(crate) fn batches(&self) -> usize {
        match self {
            Self::Memory(batches) => batches.len(),
            Self::File(file) => file.batches(),
        }
    }

    /// Batch `index` as it was last written.
    pub(crate) fn read(&self, index: usize) -> Result<Vec<f32>> {
        match self {
            Self::Memory(batches) => Ok(batches[index].borrow().clone()),
            Self::File(file) => file.read(index),
        }
    }

    /// Replaces batch `index`.
    pub(crate) fn write(&self, index: usize, values: &[f32]) -> Result<()> {
        match self {
            Self::Memory(batches) => {
                let mut batch = batches[index].borrow_mut();
                batch.clear();
                batch.extend_from_slice(values);
                Ok(())
            }
            Self::File(file) => file.write(index, values),
        }
    }
}

impl ActivationFile {
    /// Room for `tokens` rows of at most `width`, worked on `batch_tokens` at a time.
    pub(crate) fn create(
        path: &Path,
        tokens: usize,
        width: usize,
        batch_tokens: usize,
    ) -> Result<Self> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(true).open(path);
        let file = file.at("create", path)?;
        let slot_bytes = (batch_tokens * width * size_of::<f32>()) as u64;
        let lengths = vec![Cell::new(0); tokens.div_ceil(batch_tokens)];
        Ok(Self { path: path.to_path_buf(), file, slot_bytes, lengths, temporary: true })
    }

    /// A file that [`Self::keep`] left, all batches of rows of `width`; or a new one.
    pub(crate) fn open_or_create(
        path: &Path,
        tokens: usize,
        width: usize,
        batch_tokens: usize,
    ) -> Result<Self> {
        if !path.exists() {
            return Self::create(path, tokens, width, batch_tokens);
        }
        let file = File::options().read(true).write(true).open(path).at("open", path)?;
        let slot_bytes = (batch_tokens * width * size_of::<f32>()) as u64;
        let length = |batch| batch_tokens.min(tokens - batch * batch_tokens) * width;
        let lengths = (0..tokens.div_ceil(batch_tokens)).map(|b| Cell::new(length(b))).collect();
        Ok(Self { path: path.to_path_buf(), file, slot_bytes, lengths, temporary: true })
    }

    /// Leaves the file there when the value is dropped.
    pub(crate) fn keep(mut self) -> Self {
        self.temporary = false;
        self
    }

    /// Waits until everything is on the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().at("write", &self.path)
    }

    /// Number of batches.
    pub(crate) fn batches(&self) -> usize {
        self.lengths.len()
    }

    /// Reads batch `index` as it was last written.
    pub(crate) fn read(&self, index: usize) -> Result<Vec<f32>> {
        let mut values = vec![0.0f32; self.lengths[index].get()];
        let bytes = bytemuck::cast_slice_mut(&mut values);
        read_exact_at(&self.file, bytes, index as u64 * self.slot_bytes).at("read", &self.path)?;
        Ok(values)
    }

    /// Replaces batch `index`.
    pub(crate) fn write(&self, index: usize, values: &[f32]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        assert!(bytes.len() as u64 <= self.slot_bytes, "invariant: rows of at most the width");
        self.lengths[index].set(values.len());
        write_all_at(&self.file, bytes, index as u64 * self.slot_bytes).at("write", &self.path)
    }
}

impl Drop for ActivationFile {
    fn drop(&mut self) {
        if self.temporary {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
