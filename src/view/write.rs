//! The page's file, which appears only when it is complete.

use std::path::{Path, PathBuf};

use crate::checkpoint::{SingleFile, write_file};
use crate::error::{Error, IoContext, Result};

/// Writes `html` to `output`, through a temporary file beside it; `folder` is the output folder
/// that the page shows, into which no page is written.
///
/// # Errors
/// [`Error::OutputExists`] if the file is there and `overwrite` is not set; [`Error::Usage`] for a
/// path that cannot be a page; [`Error::Io`], and nothing is left behind.
pub fn write_page(output: &Path, html: &str, folder: &Path, overwrite: bool) -> Result<()> {
    let refuse = |why: &str| Err(Error::Usage(format!("{}: {why}", output.display())));
    if output.file_name().is_none() {
        return refuse("not a name for a file");
    }
    let parent = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    if !parent.is_dir() {
        return refuse("the folder that would hold the page does not exist");
    }
    let resolved = parent.canonicalize().at("resolve", &parent)?;
    if resolved.starts_with(folder.canonicalize().at("resolve", folder)?) {
        return refuse("a page may not lie in the folder that it shows");
    }
    if output.is_dir() {
        return refuse("is a folder; give the name of an HTML file");
    }
    if output.exists() && !overwrite {
        return Err(Error::OutputExists { path: output.to_path_buf() });
    }
    let file = SingleFile::create(output)?;
    write_file(file.path(), html.as_bytes())?;
    file.commit()
}
