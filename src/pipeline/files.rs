//! The files of an output folder beside its weights: hashed when they are written, checked when the
//! folder is verified.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::manifest::MANIFEST_FILE;
use crate::checkpoint::INDEX_FILE;
use crate::error::{IoContext, Result};

/// The model card, which people edit.
const CARD: &str = "README.md";

/// Whether `name` is hashed: everything but the manifest itself, the card, and the weights, of which
/// each tensor has a hash.
fn is_hashed(name: &str) -> bool {
    let weights = Path::new(name).extension().is_some_and(|extension| extension == "safetensors");
    !weights && ![MANIFEST_FILE, INDEX_FILE, CARD].contains(&name)
}

/// BLAKE3 of each file of `folder` by name.
///
/// # Errors
/// [`crate::Error::Io`].
pub(super) fn hashes(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut hashes = BTreeMap::new();
    for entry in fs::read_dir(folder).at("list", folder)? {
        let path = entry.at("list", folder)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.filter(|name| is_hashed(name) && path.is_file()) {
            hashes.insert(name.to_owned(), hash(&path)?);
        }
    }
    Ok(hashes)
}

fn hash(path: &Path) -> Result<String> {
    Ok(blake3::hash(&fs::read(path).at("read", path)?).to_hex().to_string())
}

/// One line for each of the files `stated` that is not in `folder` as it was written.
///
/// # Errors
/// [`crate::Error::Io`].
pub(super) fn check(folder: &Path, stated: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let mut failures = Vec::new();
    for (name, stated) in stated {
        let path = folder.join(name);
        let inside = Path::new(name).file_name().is_some_and(|inside| inside == &**name);
        if !inside || !path.is_file() {
            failures.push(format!("{name}: is missing"));
        } else if hash(&path)? != *stated {
            failures.push(format!("{name}: does not have the hash of the manifest"));
        }
    }
    Ok(failures)
}
