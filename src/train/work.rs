//! The folder beside the output where a run keeps what it needs to go on.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::write_json;
use crate::error::{Error, IoContext, Result};

/// What a run depends on. A run that goes on must have all of it the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Depends {
    pub(super) command: String,
    pub(super) tool: String,
    pub(super) source_fingerprint: String,
    /// BLAKE3 of the manifest of the folder that training starts from, if it was given.
    pub(super) start: Option<String>,
    pub(super) recipe: String,
    /// BLAKE3 of each text.
    pub(super) texts: Vec<String>,
    pub(super) calibration_windows: usize,
    pub(super) seed: u64,
}

const DEPENDS: &str = "depends.json";

/// Opens the folder for work on `output`: a new one, or with `resume` the one of a run that stopped.
///
/// # Errors
/// [`Error::Usage`] where there is one and `resume` is not set, there is none and it is, or something
/// that the run depends on changed; I/O.
pub(super) fn open(output: &Path, depends: &Depends, resume: bool) -> Result<PathBuf> {
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    let folder = output.with_file_name(format!(".{name}.partial"));
    let file = folder.join(DEPENDS);
    if !file.exists() {
        if resume {
            let message = format!("{}: no run stopped here", folder.display());
            return Err(Error::Usage(message));
        }
        fs::create_dir_all(&folder).at("create", &folder)?;
        write_json(&file, depends)?;
        return Ok(folder);
    }
    if !resume {
        return Err(Error::Usage(format!(
            "{}: an earlier run stopped here; go on with --resume or remove the folder",
            folder.display()
        )));
    }
    let bytes = fs::read(&file).at("read", &file)?;
    let old: Depends = serde_json::from_slice(&bytes)
        .map_err(|e| Error::checkpoint(&file, format!("not readable: {e}")))?;
    match depends.difference(&old) {
        None => Ok(folder),
        Some(what) => Err(Error::Usage(format!(
            "{}: cannot resume, {what} changed since; remove the folder to start again",
            folder.display()
        ))),
    }
}

impl Depends {
    fn difference(&self, old: &Self) -> Option<&'static str> {
        let checks = [
            (self.command == old.command, "the command"),
            (self.source_fingerprint == old.source_fingerprint, "the checkpoint"),
            (self.start == old.start, "the folder to start from"),
            (self.recipe == old.recipe, "the recipe or its settings of training"),
            (self.texts == old.texts, "the text"),
            (self.calibration_windows == old.calibration_windows, "the calibration"),
            (self.seed == old.seed, "the seed"),
            (self.tool == old.tool, "the program"),
        ];
        checks.into_iter().find(|(same, _)| !same).map(|(_, what)| what)
    }
}
