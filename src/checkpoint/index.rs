//! Which files hold the weights: one file, or shards listed by `model.safetensors.index.json`.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::member::read_member;
use super::{Checkpoint, INDEX_FILE, SINGLE_FILE};
use crate::error::{Error, IoContext, Result};

/// Largest index read: some 300,000 tensors.
const MAX_INDEX_LEN: u64 = 64 << 20;

/// The weight files of a folder.
pub(super) struct Shards {
    /// File names, sorted.
    pub(super) names: Vec<String>,
    /// Tensor name to file name, if there is an index.
    pub(super) weight_map: Option<BTreeMap<String, String>>,
    /// The index's own count of bytes.
    pub(super) total_size: Option<u64>,
}

#[derive(Deserialize)]
struct RawIndex {
    /// Nothing of it is needed, so that nothing in it is a fault.
    #[serde(default)]
    metadata: Value,
    weight_map: BTreeMap<String, String>,
}

pub(super) fn find_shards(folder: &Path) -> Result<Shards> {
    let index_path = folder.join(INDEX_FILE);
    let single = folder.join(SINGLE_FILE);
    if !index_path.exists() {
        if !single.exists() {
            return Err(Error::checkpoint(folder, missing_weights(folder)));
        }
        return Ok(Shards {
            names: vec![SINGLE_FILE.to_owned()],
            weight_map: None,
            total_size: None,
        });
    }
    let index = read_index(folder, &index_path)?;
    let mut names: Vec<String> = index.weight_map.values().cloned().collect();
    names.sort_unstable();
    names.dedup();
    for name in &names {
        let tensor = || {
            let wanted = index.weight_map.iter().find(|(_, file)| *file == name);
            wanted.map_or("", |(tensor, _)| tensor.as_str())
        };
        if !is_plain_file_name(name) {
            return Err(Error::checkpoint(
                &index_path,
                format!("tensor {:?} points outside the folder: {name:?}", tensor()),
            ));
        }
        if !folder.join(name).exists() {
            return Err(Error::checkpoint(
                folder.join(name),
                format!("missing shard, wanted by {INDEX_FILE} for tensor {:?}", tensor()),
            ));
        }
    }
    if single.exists() && !names.iter().any(|name| name == SINGLE_FILE) {
        return Err(Error::checkpoint(
            folder,
            format!("holds both {SINGLE_FILE} and an index that does not list it; remove one"),
        ));
    }
    let total_size = total_size(&index.metadata);
    Ok(Shards { names, weight_map: Some(index.weight_map), total_size })
}

/// `total_size`, a number or the text of one.
fn total_size(metadata: &Value) -> Option<u64> {
    let total = &metadata["total_size"];
    total.as_u64().or_else(|| total.as_str()?.trim().parse().ok())
}

fn read_index(folder: &Path, path: &Path) -> Result<RawIndex> {
    check_contained(folder, path)?;
    let text = read_member(path, MAX_INDEX_LEN)?
        .ok_or_else(|| Error::checkpoint(path, "went away while it was read"))?;
    let index: RawIndex = serde_json::from_slice(&text)
        .map_err(|e| Error::checkpoint(path, format!("not a valid shard index: {e}")))?;
    if index.weight_map.is_empty() {
        return Err(Error::checkpoint(path, "weight_map is empty"));
    }
    Ok(index)
}

fn missing_weights(folder: &Path) -> String {
    let other = ["pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.safetensors"]
        .into_iter()
        .find(|name| folder.join(name).exists());
    match other {
        Some(name) => format!(
            "has {name} but neither {SINGLE_FILE} nor {INDEX_FILE}; convert it to safetensors first"
        ),
        None => format!("has neither {SINGLE_FILE} nor {INDEX_FILE}"),
    }
}

fn is_plain_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
}

/// Refuses a file that a symbolic link puts outside the checkpoint. The Hugging Face cache is the
/// one exception: see [`cache_blobs`].
pub(super) fn check_contained(folder: &Path, path: &Path) -> Result<()> {
    let folder = folder.canonicalize().at("resolve", folder)?;
    let target = path.canonicalize().at("resolve", path)?;
    let inside = target.starts_with(&folder)
        || cache_blobs(&folder).iter().any(|blobs| target.starts_with(blobs));
    if inside && target.is_file() {
        return Ok(());
    }
    let why = if inside {
        "is not a regular file".to_owned()
    } else {
        format!("links outside the checkpoint, to {}", target.display())
    };
    Err(Error::checkpoint(path, why))
}

/// Where a folder of the Hugging Face cache may have its files: `HUB/models--NAME/snapshots/REVISION`, or
/// a folder in it, links to `HUB/models--NAME/blobs`, which since huggingface_hub 2 links on to
/// `HUB/blobs`, one store for all repositories. Of any other folder nowhere.
fn cache_blobs(folder: &Path) -> Vec<PathBuf> {
    let revision = folder.ancestors().find(|folder| {
        folder.parent().and_then(Path::file_name).is_some_and(|name| name == "snapshots")
    });
    let Some(repository) = revision.and_then(|revision| revision.ancestors().nth(2)) else {
        return Vec::new();
    };
    let mut blobs = vec![repository.join("blobs")];
    let name = repository.file_name().unwrap_or_default().to_string_lossy();
    if let Some(hub) = repository.parent().filter(|_| name.contains("--")) {
        blobs.push(hub.join("blobs"));
    }
    blobs
}

/// Checks that the index and the shards name the same tensors in the same files.
pub(super) fn check_against_files(
    folder: &Path,
    weight_map: &BTreeMap<String, String>,
    names: &[String],
    checkpoint: &Checkpoint,
) -> Result<()> {
    let index_path = folder.join(INDEX_FILE);
    for (name, file) in weight_map {
        let found = checkpoint.tensor(name).map(|t| names[t.file].as_str());
        if found != Some(file) {
            let why = match found {
                None => format!("{INDEX_FILE} puts it here, but the shard lacks it"),
                Some(other) => format!("{INDEX_FILE} puts it here, but it is in {other}"),
            };
            return Err(Error::tensor(folder.join(file), name, why));
        }
    }
    match checkpoint.tensors().iter().find(|t| !weight_map.contains_key(&t.name)) {
        None => Ok(()),
        Some(t) => Err(Error::tensor(
            checkpoint.file_of(t),
            &t.name,
            format!("is not listed in {}", index_path.display()),
        )),
    }
}
