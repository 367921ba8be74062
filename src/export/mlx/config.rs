//! `config.json` of an mlx-lm folder.

use serde_json::{Map, Value, json};

use super::affine::Affine;
use crate::error::{Error, Result};
use crate::pipeline::CompressedFolder;

/// The model's configuration with mlx-lm's `quantization`: defaults, and what each coded module
/// has. A module that is not listed and has no scales stays plain.
///
/// # Errors
/// [`Error::Checkpoint`] if the folder has no `config.json`.
pub(super) fn mlx_config(input: &CompressedFolder, coded: &[(&str, &Affine)]) -> Result<Value> {
    let config = input.stored.config().ok_or_else(|| {
        Error::checkpoint(input.stored.folder(), "has no config.json, which mlx-lm needs")
    })?;
    let mut json = config.json().clone();
    let map = json.as_object_mut().expect("invariant: a configuration is an object");
    map.shift_remove("quantization_config");
    if let Some((_, first)) = coded.iter().find(|(_, a)| a.bits == 2).or(coded.first()) {
        let mut quantization = Map::new();
        quantization.insert("group_size".to_owned(), first.group.into());
        quantization.insert("bits".to_owned(), first.bits.into());
        quantization.insert("mode".to_owned(), "affine".into());
        for (module, affine) in coded {
            let own = json!({ "group_size": affine.group, "bits": affine.bits, "mode": "affine" });
            quantization.insert((*module).to_owned(), own);
        }
        map.insert("quantization".to_owned(), Value::Object(quantization.clone()));
        map.insert("quantization_config".to_owned(), Value::Object(quantization));
    }
    Ok(json)
}
