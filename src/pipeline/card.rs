//! The descriptions that an output folder carries: `config.json` and the model card.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::{Value, json};

use super::manifest::{FORMAT_VERSION, MANIFEST_FILE, Manifest, Status};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::ModelConfig;
use crate::checkpoint::role::Role;

/// `quant_method` of our folders.
pub const QUANT_METHOD: &str = "compress-model";

/// The model's configuration with a `quantization_config` that says how to read the weights.
pub(super) fn quantised_config(config: &ModelConfig, manifest: &Manifest) -> Value {
    let mut json = config.json().clone();
    if config.ties_embeddings() && has_own_head(manifest) {
        json["tie_word_embeddings"] = false.into();
        if let Some(text) = json.get_mut("text_config").filter(|text| text.is_object()) {
            text["tie_word_embeddings"] = false.into();
        }
    }
    json["quantization_config"] = json!({
        "quant_method": QUANT_METHOD,
        "format_version": FORMAT_VERSION,
        "recipe": manifest.recipe,
        "bits": manifest.totals.linear_bits_per_weight,
        "manifest": MANIFEST_FILE,
    });
    json
}

/// Whether there is a head with weights of its own beside an embedding.
fn has_own_head(manifest: &Manifest) -> bool {
    let stored = |role| {
        let mut entries = manifest.tensors.iter().filter(|entry| entry.role == role);
        entries.any(|entry| !matches!(entry.status, Status::Tied { .. }))
    };
    stored(Role::Head) && stored(Role::Embedding)
}

/// Keys in which the configuration `stored` of an output folder differs from what compressing a model of
/// configuration `original` writes.
pub(crate) fn differing_keys(
    stored: Option<&ModelConfig>,
    manifest: &Manifest,
    original: Option<&ModelConfig>,
) -> Vec<String> {
    let keys = |json: Option<Value>| -> BTreeMap<String, Value> {
        let map = json.and_then(|json| json.as_object().cloned());
        map.into_iter().flatten().filter(|(key, _)| key != "quantization_config").collect()
    };
    let found = keys(stored.map(|config| config.json().clone()));
    let expected = keys(original.map(|config| quantised_config(config, manifest)));
    let names: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    names.into_iter().filter(|name| found.get(*name) != expected.get(*name)).cloned().collect()
}

/// The configuration without `quantization_config`, for a decompressed folder.
pub(super) fn plain_config(config: &ModelConfig, torch_dtype: &str) -> Value {
    let mut json = config.json().clone();
    if let Some(map) = json.as_object_mut() {
        map.shift_remove("quantization_config");
        for key in ["torch_dtype", "dtype"] {
            if map.contains_key(key) {
                map.insert(key.to_owned(), torch_dtype.into());
            }
        }
    }
    json
}

/// The model card, `README.md`.
pub(super) fn model_card(checkpoint: &Checkpoint, manifest: &Manifest) -> String {
    let totals = &manifest.totals;
    let base = checkpoint.config().and_then(ModelConfig::name);
    let transform = match &manifest.transform {
        None => "",
        Some(_) => {
            "The weights are those of a transformed model with the same function; `transform` in \
             `manifest.json` says how it was made.\n\n"
        }
    };
    let mut card = String::from("---\nlibrary_name: compress-model\n");
    if let Some(base) = base {
        let _ = writeln!(card, "base_model: {base}");
    }
    let _ = write!(
        card,
        "tags:\n- compress-model\n- {recipe}\n---\n\n\
         # {name}, compressed\n\n\
         Written by {tool} with the recipe `{recipe}` (in `recipe.toml`).\n\n\
         | | |\n|---|---|\n\
         | parameters | {parameters} |\n\
         | tensor data | {source} -> {output} bytes |\n\
         | bits per weight, all tensors | {bpw:.3} |\n\
         | bits per weight, coded linear layers with adapters | {linear:.3} |\n\
         | tensors coded, kept, tied | {coded}, {kept}, {tied} |\n\n{transform}\
         `manifest.json` says what became of every tensor. transformers, vLLM and other programs do \
         not read this folder; what they load is what `compress-model decompress FOLDER -o PLAIN` \
         writes, plain weights, or an export (`compress-model export --help`: MLX, GGUF, textures). \
         `compress-model verify FOLDER` checks the folder, `compress-model eval` and `generate` run \
         it as it is.\n",
        recipe = manifest.recipe,
        name = base.unwrap_or("A model"),
        tool = manifest.tool,
        parameters = totals.parameters,
        source = totals.source_bytes,
        output = totals.output_bytes,
        bpw = totals.bits_per_weight,
        linear = totals.linear_bits_per_weight,
        coded = totals.coded,
        kept = totals.kept,
        tied = totals.tied,
    );
    card
}
