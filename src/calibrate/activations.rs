//! Hidden states of all calibration tokens, in a file.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::checkpoint::positioned::{read_exact_at, write_all_at};
use crate::error::{IoContext, Result};

/// Hidden states [tokens, width] as f32, read and replaced a batch of windows at a time. The file
/// is removed when the value is dropped.
#[derive(Debug)]
pub(crate) struct Activations {
    path: PathBuf,
    file: File,
    batch_values: usize,
    total_values: usize,
}

impl Activations {
    /// Room for `tokens` rows of `width`, worked on `batch_tokens` at a time.
    pub(crate) fn create(
        path: &Path,
        tokens: usize,
        width: usize,
        batch_tokens: usize,
    ) -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .at("create", path)?;
        let (batch_values, total_values) = (batch_tokens * width, tokens * width);
        Ok(Self { path: path.to_path_buf(), file, batch_values, total_values })
    }

    /// Number of batches.
    pub(crate) fn batches(&self) -> usize {
        self.total_values.div_ceil(self.batch_values)
    }

    /// Reads batch `index`.
    pub(crate) fn read(&self, index: usize) -> Result<Vec<f32>> {
        let first = index * self.batch_values;
        let mut values = vec![0.0f32; self.batch_values.min(self.total_values - first)];
        let bytes = bytemuck::cast_slice_mut(&mut values);
        read_exact_at(&self.file, bytes, 4 * first as u64).at("read", &self.path)?;
        Ok(values)
    }

    /// Replaces batch `index`.
    pub(crate) fn write(&self, index: usize, values: &[f32]) -> Result<()> {
        let first = 4 * (index * self.batch_values) as u64;
        write_all_at(&self.file, bytemuck::cast_slice(values), first).at("write", &self.path)
    }
}

impl Drop for Activations {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
