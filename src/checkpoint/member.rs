//! Small files of a model folder, read whole.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde_json::Value;

use super::header::LFS_POINTER;
use crate::error::{Error, IoContext, Result};

/// The bytes of the file `path` of a folder, at most `most`; `None` if it is not there.
///
/// # Errors
/// [`Error::Checkpoint`] if it is larger, or no regular file: a pipe would be waited for without end.
/// [`Error::Io`] if it cannot be read.
pub(crate) fn read_member(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).at("read", path),
    };
    if !metadata.is_file() {
        return Err(Error::checkpoint(path, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).at("open", path)?;
    file.take(most + 1).read_to_end(&mut bytes).at("read", path)?;
    if bytes.len() as u64 > most {
        let len = metadata.len();
        return Err(Error::checkpoint(
            path,
            format!("{len} bytes is too large; {most} is the most"),
        ));
    }
    if bytes.starts_with(LFS_POINTER) {
        let message = "is a Git LFS pointer instead of the file; run git lfs pull";
        return Err(Error::checkpoint(path, message));
    }
    Ok(Some(bytes))
}

/// The JSON file `path` of a folder, or null if it is not there.
///
/// # Errors
/// As [`read_member`], and [`Error::Checkpoint`] if it is not JSON.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    const MOST: u64 = 64 << 20;
    match read_member(path, MOST)? {
        Some(bytes) => serde_json::from_slice(&bytes)
            .map_err(|e| Error::checkpoint(path, format!("not valid JSON: {e}"))),
        None => Ok(Value::Null),
    }
}
