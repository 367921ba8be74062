//! Outputs in the making: `.NAME.partial-PID` beside NAME, held by a lock as long as their process
//! lives, so that what a killed one left is known for what it is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext, Result};

/// A file or folder in the making, which is this process's as long as the value lives.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    /// Holds the lock. Only where locks are for those that ask, and folders can have them.
    _lock: Option<File>,
}

impl Claim {
    /// Makes the folder for an output that becomes `target`, and removes what killed processes left.
    ///
    /// # Errors
    /// I/O.
    pub(crate) fn folder(target: &Path) -> Result<Self> {
        Self::make(target, |path| fs::create_dir(path))
    }

    /// The same for a file, which is empty.
    ///
    /// # Errors
    /// I/O.
    pub(crate) fn file(target: &Path) -> Result<Self> {
        Self::make(target, |path| File::create_new(path).map(drop))
    }

    fn make(target: &Path, create: impl Fn(&Path) -> std::io::Result<()>) -> Result<Self> {
        remove_abandoned(target);
        let path = target.with_file_name(format!("{}{}", prefix(target), std::process::id()));
        // Another process may take it for abandoned before it is locked.
        for _ in 0..8 {
            create(&path).at("create", &path)?;
            let lock = lock(&path);
            if path.exists() {
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(Error::Usage(format!("{}: other processes keep removing it", path.display())))
    }

    /// Where to write.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn prefix(target: &Path) -> String {
    format!(".{}.partial-", target.file_name().unwrap_or_default().to_string_lossy())
}

/// The lock of a file or folder, unless another process has it.
fn lock(path: &Path) -> Option<File> {
    if cfg!(not(unix)) {
        return None;
    }
    let file = File::open(path).ok()?;
    file.try_lock().is_ok().then_some(file)
}

/// Removes what killed processes left of outputs that were to become `target`, where it can be told.
fn remove_abandoned(target: &Path) {
    let folder = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    let prefix = prefix(target);
    for entry in fs::read_dir(folder.unwrap_or(Path::new("."))).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        if !process.is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit())) {
            continue;
        }
        let path = entry.path();
        if let Some(_lock) = lock(&path) {
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if removed.is_ok() {
                tracing::info!("{}: removed, a killed run had left it", path.display());
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_left_goes_and_what_is_held_stays() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("out");
        let left = parent.path().join(".out.partial-1");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("weights"), b"").unwrap();
        fs::write(parent.path().join(".out.partial-2"), b"").unwrap();
        let others = [".out.partial-x", ".other.partial-1", ".out.partial"];
        for name in others {
            fs::write(parent.path().join(name), b"").unwrap();
        }

        let held = Claim::folder(&target).unwrap();
        assert!(!left.exists() && !parent.path().join(".out.partial-2").exists());
        assert!(others.iter().all(|name| parent.path().join(name).exists()));
        remove_abandoned(&target);
        assert!(held.path().is_dir(), "its process lives");
        let path = held.path().to_path_buf();
        drop(held);
        remove_abandoned(&target);
        assert!(!path.exists());
    }
}
