//! An output file that appears only when it is complete.

use std::path::{Path, PathBuf};

use super::claim::Claim;
use crate::error::{IoContext, Result};

/// A file beside the target that becomes the target when [`SingleFile::commit`] is called, and is
/// removed if it never is.
#[derive(Debug)]
pub(crate) struct SingleFile {
    claim: Claim,
    target: PathBuf,
}

impl SingleFile {
    /// Creates the temporary file beside `target`, empty, and removes those that killed processes
    /// left there.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub(crate) fn create(target: &Path) -> Result<Self> {
        Ok(Self { claim: Claim::file(target)?, target: target.to_path_buf() })
    }

    /// Where to write.
    pub(crate) fn path(&self) -> &Path {
        self.claim.path()
    }

    /// Renames the file to the target, which it replaces.
    ///
    /// # Errors
    /// [`crate::Error::Io`]; the target is then as it was.
    pub(crate) fn commit(self) -> Result<()> {
        std::fs::rename(self.path(), &self.target).at("rename", self.path())
    }
}

impl Drop for SingleFile {
    fn drop(&mut self) {
        // After a commit the file has its new name and there is nothing to remove.
        let _ = std::fs::remove_file(self.path());
    }
}
