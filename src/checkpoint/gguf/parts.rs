//! The files of a model: one, or the parts that `llama-gguf-split` makes of one.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::super::WeightFile;
use super::metadata::Metadata;
use crate::error::{Error, IoContext, Result};
use crate::gguf::{Header, Info};

/// The files of a model.
#[derive(Debug)]
pub(super) struct Parts {
    /// Metadata, which the first file holds.
    pub(super) metadata: Metadata,
    /// The files.
    pub(super) files: Vec<WeightFile>,
    /// Tensors of each file.
    pub(super) tensors: Vec<Vec<Info>>,
}

/// What a file says of its place among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Split {
    /// Counted from 0.
    number: u64,
    count: u64,
    /// Tensors of all parts.
    tensors: u64,
}

/// Opens `path`, and the other parts where it is the first of several.
///
/// # Errors
/// [`Error::Checkpoint`] for a damaged file, for a part that is not the first, and for one that is
/// missing or belongs to another model; [`Error::Io`].
pub(super) fn open(path: &Path) -> Result<Parts> {
    let (file, header) = read(path)?;
    let metadata = Metadata::new(header.values);
    let wrong = |message: String| Error::checkpoint(path, message);
    let split = split(&metadata).map_err(wrong)?;
    let mut parts = Parts { metadata, files: vec![file], tensors: vec![header.tensors] };
    let Some(Split { number, count, tensors }) = split.filter(|split| split.count > 1) else {
        return Ok(parts);
    };
    let stem = stem(path, number, count).ok_or_else(|| {
        wrong(format!(
            "is part {} of {count} of a model, but is not named NAME{}: the others cannot be found",
            number + 1,
            suffix(number, count)
        ))
    })?;
    let of = |number: u64| -> PathBuf {
        path.with_file_name(format!("{stem}{}", suffix(number, count)))
    };
    if number != 0 {
        return Err(wrong(format!(
            "is part {} of {count} of a model; give the first, {}",
            number + 1,
            of(0).display()
        )));
    }
    for number in 1..count {
        let path = of(number);
        if !path.is_file() {
            let message = format!("is not there: part {} of {count} of a model", number + 1);
            return Err(Error::checkpoint(path, message));
        }
        let (file, header) = read(&path)?;
        let wrong = |message: String| Error::checkpoint(&path, message);
        let own = self::split(&Metadata::new(header.values)).map_err(wrong)?;
        if own.is_none_or(|own| own.number != number || own.count != count) {
            return Err(wrong(format!("does not say that it is part {} of {count}", number + 1)));
        }
        parts.files.push(file);
        parts.tensors.push(header.tensors);
    }
    let found: usize = parts.tensors.iter().map(Vec::len).sum();
    if found as u64 != tensors {
        return Err(wrong(format!("its {count} parts hold {found} tensors of {tensors}")));
    }
    Ok(parts)
}

fn read(path: &Path) -> Result<(WeightFile, Header)> {
    let file = File::open(path).at("open", path)?;
    let len = file.metadata().at("read the size of", path)?.len();
    let header = Header::read(&file, len).map_err(|message| Error::checkpoint(path, message))?;
    Ok((WeightFile { path: path.to_path_buf(), file }, header))
}

fn split(metadata: &Metadata) -> Result<Option<Split>, String> {
    let Some(count) = metadata.number("split.count")? else { return Ok(None) };
    let needed = |key: &str| {
        let number = metadata.number(key)?;
        number.ok_or_else(|| format!("metadata has \"split.count\" but no {key:?}"))
    };
    if count <= 1 {
        return Ok(None);
    }
    let (number, tensors) = (needed("split.no")?, needed("split.tensors.count")?);
    if number >= count {
        return Err(format!("metadata says that it is part {number} of {count}, from 0 on"));
    }
    Ok(Some(Split { number, count, tensors }))
}

/// How names of parts end.
fn suffix(number: u64, count: u64) -> String {
    format!("-{:05}-of-{count:05}.gguf", number + 1)
}

/// The name of a part without its ending.
fn stem(path: &Path, number: u64, count: u64) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(&suffix(number, count)).map(str::to_owned)
}
