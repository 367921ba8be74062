//! Work in progress beside an output: what a later run needs to go on where one stopped.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::staging::{sync_folder, write_json};
use crate::error::{Error, IoContext, Result};

/// Something that a run depends on: what it is called, and its value. A run that goes on must have
/// all of them as the run before it had.
pub(crate) type Dependency = (&'static str, String);

const DEPENDS: &str = "depends.json";
const LOCK: &str = "lock";

/// The folder `.NAME.partial` beside the output folder NAME, held by one process at a time.
#[derive(Debug)]
pub(crate) struct Partial {
    folder: PathBuf,
    _lock: File,
}

impl Partial {
    /// The folder for work on `output`.
    pub(crate) fn folder_of(output: &Path) -> PathBuf {
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        output.with_file_name(format!(".{name}.partial"))
    }

    /// Refuses to start where another process is at work on `output`, and to start over where one
    /// stopped.
    ///
    /// # Errors
    /// [`Error::Usage`]; I/O.
    pub(crate) fn check(output: &Path, resume: bool) -> Result<()> {
        let folder = Self::folder_of(output);
        if !folder.join(DEPENDS).exists() {
            return Ok(());
        }
        let _lock = lock(&folder)?;
        if resume {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "{}: an earlier run stopped here; go on with --resume, or start again with --restart",
            folder.display()
        )))
    }

    /// Removes what a run on `output` left that stopped, if there is any.
    ///
    /// # Errors
    /// [`Error::Usage`] where another process is at work on it; I/O.
    pub(crate) fn drop_left(output: &Path) -> Result<()> {
        let folder = Self::folder_of(output);
        if !folder.exists() {
            return Ok(());
        }
        let lock = lock(&folder)?;
        Self { folder, _lock: lock }.remove()
    }

    /// Opens the folder for work on `output`: with `resume` that of a run that stopped, if there is
    /// one; otherwise a new one.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is one and `resume` is not set, another process is at work in
    /// it, or something of `depends` changed; I/O.
    pub(crate) fn open(output: &Path, depends: &[Dependency], resume: bool) -> Result<Self> {
        Self::check(output, resume)?;
        let folder = Self::folder_of(output);
        fs::create_dir_all(&folder).at("create", &folder)?;
        let lock = lock(&folder)?;
        let this = Self { folder, _lock: lock };
        let file = this.folder.join(DEPENDS);
        if !file.exists() {
            this.clear()?;
            let depends: Map<String, Value> = depends
                .iter()
                .map(|(what, value)| ((*what).to_owned(), value[..].into()))
                .collect();
            let new = file.with_extension("new");
            write_json(&new, &depends)?;
            fs::rename(&new, &file).at("write", &file)?;
            sync_folder(&this.folder)?;
            return Ok(this);
        }
        let bytes = fs::read(&file).at("read", &file)?;
        let old: Map<String, Value> = serde_json::from_slice(&bytes)
            .map_err(|e| Error::checkpoint(&file, format!("not readable: {e}")))?;
        let same = |(what, value): &&Dependency| {
            old.get(*what).and_then(Value::as_str).is_some_and(|old| old == value)
        };
        match depends.iter().find(|dependency| !same(dependency)) {
            None => Ok(this),
            Some((what, _)) => Err(Error::Usage(format!(
                "{}: cannot resume, {what} changed since; start again with --restart",
                this.folder.display()
            ))),
        }
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes the folder, first of all what makes it one to go on with: a process that is killed here
    /// leaves nothing that a later one would take for work in progress.
    ///
    /// # Errors
    /// I/O.
    pub(crate) fn remove(self) -> Result<()> {
        let depends = self.folder.join(DEPENDS);
        if depends.exists() {
            fs::remove_file(&depends).at("remove", &depends)?;
        }
        sync_folder(&self.folder)?;
        fs::remove_dir_all(&self.folder).at("remove", &self.folder)
    }

    /// Makes the folder the finished `output`, in the place of one that may be there.
    ///
    /// # Errors
    /// I/O.
    #[cfg(feature = "model")]
    pub(crate) fn become_output(self, output: &Path) -> Result<()> {
        if output.exists() {
            fs::remove_dir_all(output).at("replace", output)?;
        }
        for own in [DEPENDS, LOCK] {
            let path = self.folder.join(own);
            fs::remove_file(&path).at("remove", &path)?;
        }
        fs::rename(&self.folder, output).at("rename to", output)
    }

    /// After a fault that would come again the work is of no use, and must not be in the way of the
    /// next run: removes the folder, unless `error` may not come another time.
    pub(crate) fn end(self, error: &Error) {
        if error.may_pass() {
            if !matches!(error, Error::Stopped { .. } | Error::StoppedEarly) {
                let folder = self.folder.display();
                tracing::warn!("{folder} keeps what is done: run again with --resume to go on");
            }
            return;
        }
        if let Err(e) = self.remove() {
            tracing::warn!("{e}");
        }
    }

    /// Removes what a process left that was stopped before its work was under way.
    fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.folder).at("read", &self.folder)? {
            let path = entry.at("read", &self.folder)?.path();
            if path.file_name().is_some_and(|name| name == LOCK) {
                continue;
            }
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.at("remove", &path)?;
        }
        Ok(())
    }
}

/// Locks `folder` for this process, whose number is then in the file.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    // Not truncated: until the lock is had, what is in it is another's.
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .at("create", &path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let process = fs::read_to_string(&path).unwrap_or_default();
            let process = match process.trim() {
                "" => "another process".to_owned(),
                number => format!("process {number}"),
            };
            let folder = folder.display();
            return Err(Error::Usage(format!("{folder}: {process} is at work on this output")));
        }
        Err(TryLockError::Error(e)) => return Err(e).at("lock", &path),
    }
    let number = format!("{}\n", std::process::id());
    file.set_len(0).and_then(|()| file.write_all(number.as_bytes())).at("write", &path)?;
    Ok(file)
}

impl Drop for Partial {
    fn drop(&mut self) {
        // A panic would come again: what was under way is not to be gone on with.
        if std::thread::panicking() {
            let _ = fs::remove_file(self.folder.join(DEPENDS));
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_only_with_what_it_depended_on() {
        let parent = tempfile::tempdir().unwrap();
        let output = parent.path().join("out");
        let open = |seed: &str, resume| {
            let depends = [("the checkpoint", "a".to_owned()), ("the seed", seed.to_owned())];
            Partial::open(&output, &depends, resume)
        };
        let refused = |result: Result<Partial>| result.unwrap_err().to_string();
        // With nothing to go on with, resuming is starting.
        let first = open("1", true).unwrap();
        assert!(refused(open("1", true)).contains("is at work on this output"));
        fs::write(first.folder().join("work"), b"").unwrap();
        drop(first);
        assert!(refused(open("1", false)).contains("--resume"));
        assert!(refused(open("2", true)).contains("the seed changed"));
        let again = open("1", true).unwrap();
        assert!(again.folder().join("work").exists());
        fs::remove_file(again.folder().join(DEPENDS)).unwrap();
        drop(again);
        let fresh = open("2", false).unwrap();
        assert!(!fresh.folder().join("work").exists(), "left by a run that had not begun");
        fresh.remove().unwrap();
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        // A panic, and a fault of the input, leave nothing.
        let panicked = std::panic::catch_unwind(|| {
            let _held = open("3", false).unwrap();
            panic!("on purpose");
        });
        assert!(panicked.is_err());
        open("4", false).unwrap().end(&Error::Usage(String::new()));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        open("5", false).unwrap().end(&Error::StoppedEarly);
        assert!(open("5", true).is_ok(), "being stopped costs nothing");
    }
}
