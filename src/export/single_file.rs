//! An output file that appears only when it is complete.

use std::path::{Path, PathBuf};

use crate::error::{IoContext, Result};

/// A file beside the target that becomes the target when [`SingleFile::commit`] is called, and is
/// removed if it never is.
#[derive(Debug)]
pub(super) struct SingleFile {
    partial: PathBuf,
    target: PathBuf,
}

impl SingleFile {
    /// Names the temporary file beside `target`; the caller creates it.
    pub(super) fn create(target: &Path) -> Self {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let partial = target.with_file_name(format!(".{name}.partial-{}", std::process::id()));
        Self { partial, target: target.to_path_buf() }
    }

    /// Where to write.
    pub(super) fn path(&self) -> &Path {
        &self.partial
    }

    /// Renames the file to the target, which it replaces.
    ///
    /// # Errors
    /// [`crate::Error::Io`]; the target is then as it was.
    pub(super) fn commit(self) -> Result<()> {
        std::fs::rename(&self.partial, &self.target).at("rename", &self.partial)
    }
}

impl Drop for SingleFile {
    fn drop(&mut self) {
        // After a commit the file has its new name and there is nothing to remove.
        let _ = std::fs::remove_file(&self.partial);
    }
}
