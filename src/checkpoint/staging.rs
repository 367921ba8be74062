//! Output folders that appear only when they are complete.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::claim::Claim;
use crate::error::{Error, IoContext, Result};

/// Files that mark a folder as a model, which `--overwrite` may replace.
const MODEL_MARKS: [&str; 2] = ["config.json", "manifest.json"];

/// Checks that `output` may be written: it is not there yet, or is empty, or `overwrite` is set
/// and it looks like a model folder; and it neither is, holds, nor lies in a folder of `inputs`.
///
/// # Errors
/// [`Error::OutputExists`], [`Error::Usage`] or [`Error::Io`].
pub fn check_output_path(output: &Path, inputs: &[&Path], overwrite: bool) -> Result<()> {
    let parent = parent_of(output);
    if !parent.is_dir() {
        return Err(Error::Usage(format!(
            "{}: the folder that would hold the output does not exist",
            parent.display()
        )));
    }
    let parent = parent.canonicalize().at("resolve", &parent)?;
    let name = output.file_name().ok_or_else(|| {
        Error::Usage(format!("{}: not a name for an output folder", output.display()))
    })?;
    let resolved = parent.join(name);
    let resolved = resolved.canonicalize().unwrap_or(resolved);
    for input in inputs {
        let input = input.canonicalize().at("resolve", input)?;
        if resolved.starts_with(&input) || input.starts_with(&resolved) {
            return Err(Error::Usage(format!(
                "{}: the output must lie outside the input {}",
                output.display(),
                input.display()
            )));
        }
    }
    if !output.exists() || is_empty_folder(output) {
        return Ok(());
    }
    if !overwrite {
        return Err(Error::OutputExists { path: output.to_path_buf() });
    }
    if MODEL_MARKS.iter().any(|mark| output.join(mark).is_file()) {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{}: does not look like a model folder; --overwrite will not remove it",
        output.display()
    )))
}

fn is_empty_folder(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Bytes free for new files on the disk of `folder`, where the system tells.
#[must_use]
pub fn disk_free(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let stat = rustix::fs::statvfs(parent_of(folder)).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

/// A folder beside the target that becomes the target when [`Staging::commit`] is called, and is
/// removed if it never is.
#[derive(Debug)]
pub struct Staging {
    folder: PathBuf,
    target: PathBuf,
    /// Of a folder that goes with the value.
    claim: Option<Claim>,
}

impl Staging {
    /// Creates the temporary folder beside `target`, which [`check_output_path`] has accepted, and
    /// removes those that killed processes left there.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be created.
    pub fn create(target: &Path) -> Result<Self> {
        let claim = Claim::folder(target)?;
        let folder = claim.path().to_path_buf();
        Ok(Self { folder, target: target.to_path_buf(), claim: Some(claim) })
    }

    /// Stages in `folder`, which may be there already and stays if it does not become the target.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be created.
    pub(crate) fn lasting(folder: PathBuf, target: &Path) -> Result<Self> {
        fs::create_dir_all(&folder).at("create", &folder)?;
        Ok(Self { folder, target: target.to_path_buf(), claim: None })
    }

    /// Where to write.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Renames the folder to the target, replacing what [`check_output_path`] allowed to replace, and
    /// gives the target.
    ///
    /// # Errors
    /// [`Error::Io`]; the target is then as it was.
    pub fn commit(self) -> Result<PathBuf> {
        sync_folder(&self.folder)?;
        let parent = parent_of(&self.target);
        if is_empty_folder(&self.target) {
            fs::remove_dir(&self.target).at("replace", &self.target)?;
        }
        if self.target.exists() {
            let old =
                parent.join(format!(".{}.replaced-{}", name_of(&self.target), std::process::id()));
            fs::rename(&self.target, &old).at("move aside", &self.target)?;
            if let Err(e) = fs::rename(&self.folder, &self.target) {
                fs::rename(&old, &self.target).at("restore", &self.target)?;
                return Err(e).at("rename", &self.folder);
            }
            fs::remove_dir_all(&old).at("remove", &old)?;
        } else {
            fs::rename(&self.folder, &self.target).at("rename", &self.folder)?;
        }
        sync_folder(&parent)?;
        Ok(self.target.clone())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.claim.is_some() {
            // After a commit the folder has its new name and there is nothing to remove.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(folder).and_then(|f| f.sync_all()).at("flush", folder)?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// Writes `bytes` to a file and flushes it to disk.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).at("create", path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).at("write", path)
}

/// Writes `value` as indented JSON with a final newline.
pub(crate) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::Usage(format!("{}: cannot be written as JSON: {e}", path.display())))?;
    text.push(b'\n');
    write_file(path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_without_a_commit() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("out");
        let staging = Staging::create(&target).unwrap();
        write_file(&staging.folder().join("config.json"), b"{}").unwrap();
        drop(staging);
        assert!(is_empty_folder(parent.path()));
    }

    #[test]
    fn commit_replaces_only_what_may_be_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let input = parent.path().join("in");
        fs::create_dir(&input).unwrap();
        let target = parent.path().join("out");
        let make = |text: &[u8]| {
            let staging = Staging::create(&target).unwrap();
            write_file(&staging.folder().join("config.json"), text).unwrap();
            staging.commit().unwrap();
        };
        check_output_path(&target, &[&input], false).unwrap();
        make(b"1");
        let refused = check_output_path(&target, &[&input], false);
        assert!(matches!(refused, Err(Error::OutputExists { .. })));
        check_output_path(&target, &[&input], true).unwrap();
        make(b"2");
        assert_eq!(fs::read(target.join("config.json")).unwrap(), b"2");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2);

        fs::remove_file(target.join("config.json")).unwrap();
        fs::write(target.join("thesis.tex"), b"").unwrap();
        assert!(matches!(check_output_path(&target, &[&input], true), Err(Error::Usage(_))));
        for bad in [input.clone(), input.join("out"), parent.path().to_path_buf()] {
            assert!(matches!(check_output_path(&bad, &[&input], true), Err(Error::Usage(_))));
        }
    }
}
