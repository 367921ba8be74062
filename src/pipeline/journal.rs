//! The journal of a run that may be stopped: one line for each tensor whose data is on the disk.
//!
//! A line is written only after everything that it speaks of was flushed, so what a journal says
//! is true after a loss of power as well.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::error_sums::ErrorSums;
use super::manifest::Status;
use crate::error::{IoContext, Result};

/// How much longer a run works than it waits for the disk: flushing costs it at most one part in
/// this many.
const WORK_PER_FLUSH: u32 = 20;

/// What became of one tensor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Line {
    /// Its name in the source.
    pub(super) tensor: String,
    /// Its entry of the manifest.
    #[serde(flatten)]
    pub(super) status: Status,
    /// The error made.
    pub(super) sums: ErrorSums,
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    pending: Vec<Line>,
    flushed: Instant,
    /// What the last flush took.
    cost: Duration,
}

impl Journal {
    /// Opens the journal at `path`, or a new one, and gives its lines. A last line that is not
    /// whole is cut off.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Line>)> {
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).at("open", path)?;
        let bytes = std::fs::read(path).at("read", path)?;
        let mut lines = Vec::new();
        let mut whole = 0;
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            if !line.ends_with(b"\n") {
                break;
            }
            let Ok(read) = serde_json::from_slice(line) else { break };
            lines.push(read);
            whole += line.len() as u64;
        }
        file.set_len(whole).at("shorten", path)?;
        file.seek(SeekFrom::Start(whole)).at("open", path)?;
        let (pending, flushed, cost) = (Vec::new(), Instant::now(), Duration::ZERO);
        Ok((Self { path: path.to_path_buf(), file, pending, flushed, cost }, lines))
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the line of a finished tensor, to be written at the next [`Self::flush`].
    pub(super) fn push(&mut self, line: Line) {
        self.pending.push(line);
    }

    /// Whether enough time has passed for another flush.
    pub(super) fn is_due(&self) -> bool {
        !self.pending.is_empty() && self.flushed.elapsed() >= self.cost * WORK_PER_FLUSH
    }

    /// Writes the lines that wait. `data` flushes what they speak of, and goes first.
    ///
    /// # Errors
    /// What `data` gives; I/O.
    pub(super) fn flush(&mut self, data: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        data()?;
        let mut text = Vec::new();
        for line in self.pending.drain(..) {
            serde_json::to_writer(&mut text, &line).expect("invariant: lines are plain data");
            text.push(b'\n');
        }
        self.file.write_all(&text).at("write", &self.path)?;
        self.file.sync_data().at("flush", &self.path)?;
        self.flushed = Instant::now();
        self.cost = start.elapsed();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_is_cut_off_and_sums_survive_exactly() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let line = |i: usize| Line {
            tensor: format!("t{i}"),
            status: Status::Tied { to: "u".to_owned() },
            sums: ErrorSums { signal: 0.1 + 1e-17 * i as f64, noise: f64::MIN_POSITIVE / 3.0 },
        };
        let (mut journal, lines) = Journal::open(&path).unwrap();
        assert!(lines.is_empty());
        (0..3).for_each(|i| journal.push(line(i)));
        journal.flush(|| Ok(())).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for torn in [whole.len() - 1, whole.len() - 20] {
            std::fs::write(&path, &whole[..torn]).unwrap();
            let (mut journal, lines) = Journal::open(&path).unwrap();
            assert_eq!(lines.len(), 2);
            assert_eq!(lines[1].sums, line(1).sums);
            journal.push(line(2));
            journal.flush(|| Ok(())).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
    }
}
