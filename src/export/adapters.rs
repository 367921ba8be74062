//! Adapters in the forms of mlx-lm and llama.cpp. PEFT's form is the compressed folder's own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use compress_model_lora::Adapter;
use half::f16;
use safetensors::Dtype;
use serde::Serialize;
use serde_json::json;

use super::gguf::Model;
use crate::checkpoint::role::Role;
use crate::checkpoint::{OutputTensor, ShardLayout, ShardWriter, SingleFile, Staging, write_json};
use crate::error::{Error, IoContext, Result};
use crate::gguf::{HeaderWriter, RowOrder, TensorType, to_gguf};
use crate::pipeline::CompressedFolder;
use crate::pipeline::manifest::{Entry, Status};

/// Name that mlx-lm wants of the weights.
const MLX_WEIGHTS: &str = "adapters.safetensors";

/// What an export of adapters reports.
#[derive(Debug, Clone, Serialize)]
pub struct AdapterReport {
    /// The folder or file.
    pub output: PathBuf,
    /// Adapters written.
    pub adapters: usize,
    /// Their largest rank.
    pub rank: usize,
}

/// The entries that have an adapter, with their places in the manifest and ranks.
fn adapted(input: &CompressedFolder) -> Result<Vec<(usize, &Entry, usize)>> {
    let found: Vec<_> = input
        .manifest
        .tensors
        .iter()
        .enumerate()
        .filter_map(|(index, entry)| match &entry.status {
            Status::Coded { adapter: Some(adapter), .. } => Some((index, entry, adapter.rank)),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(Error::Usage(format!("{}: has no adapters", input.stored.folder().display())));
    }
    Ok(found)
}

fn read(input: &CompressedFolder, index: usize) -> Result<Adapter> {
    Ok(input.adapter(index)?.expect("invariant: the entry lists an adapter"))
}

fn bytes(values: impl IntoIterator<Item = f16>) -> Vec<u8> {
    values.into_iter().flat_map(f16::to_le_bytes).collect()
}

/// `matrix` [rows, cols] transposed, with zeros up to `wide` columns or `tall` rows.
fn transposed(matrix: &[f16], cols: usize, tall: usize, wide: usize) -> Vec<f16> {
    let mut out = vec![f16::ZERO; tall * wide];
    for (row, values) in matrix.chunks_exact(cols).enumerate() {
        for (col, &value) in values.iter().enumerate() {
            out[col * wide + row] = value;
        }
    }
    out
}

/// Writes the folder `output` with `adapters.safetensors` and `adapter_config.json` for mlx-lm.
///
/// mlx-lm has one rank for all, and the same layers in every block: smaller adapters are filled up
/// with zeros, and so are missing ones. A is stored transposed [in, rank], B as [rank, out].
///
/// # Errors
/// [`Error::Usage`] if there is no adapter; [`Error::Tensor`] for one outside the blocks of
/// layers, or of an expert, all of which mlx-lm holds in one module; I/O.
pub fn export_mlx_adapters(input: &CompressedFolder, output: &Path) -> Result<AdapterReport> {
    let adapters = adapted(input)?;
    let rank = adapters.iter().map(|(_, _, rank)| *rank).max().unwrap_or(0);
    let mut keys = BTreeSet::new();
    for (_, entry, _) in &adapters {
        let refuse = |message: &str| Error::tensor(input.stored.folder(), &entry.name, message);
        let key = within_layer(&entry.name)
            .ok_or_else(|| refuse("mlx-lm takes adapters of layers only"))?;
        if key.contains(".experts.") {
            let message = "mlx-lm takes no adapters of single experts; export the model with \
                           --adapters merge";
            return Err(refuse(message));
        }
        keys.insert(key);
    }
    let wanted: Vec<(usize, &Entry)> = input
        .manifest
        .tensors
        .iter()
        .enumerate()
        .filter(|(_, entry)| within_layer(&entry.name).is_some_and(|key| keys.contains(key)))
        .collect();
    // mlx-lm counts from the last layer: all of them, whichever have such a module.
    let numbers = input.manifest.tensors.iter().filter_map(|entry| layer_number(&entry.name));
    let layers = numbers.max().map_or(0, |last| last + 1);
    let mut outputs = Vec::new();
    for (_, entry) in &wanted {
        let module = entry.name.trim_end_matches(".weight");
        let [rows, cols] = entry.shape[..] else {
            let message = "mlx-lm's adapters are for matrices";
            return Err(Error::tensor(input.stored.folder(), &entry.name, message));
        };
        for (suffix, shape) in [("lora_a", vec![cols, rank]), ("lora_b", vec![rank, rows])] {
            let name = format!("{module}.{suffix}");
            outputs.push(vec![OutputTensor { name, dtype: Dtype::F16, shape }]);
        }
    }
    let staging = Staging::create(output)?;
    let metadata = [("format".to_owned(), "mlx".to_owned())].into();
    let writer =
        ShardWriter::create(staging.folder(), ShardLayout::new(&outputs, u64::MAX, &metadata))?;
    for ((index, entry), pair) in wanted.iter().zip(outputs.chunks_exact(2)) {
        let Some(adapter) = input.adapter(*index)? else { continue };
        let (rows, cols) = (entry.shape[0], entry.shape[1]);
        let a = transposed(&adapter.a, cols, cols, rank);
        let b = transposed(&adapter.b, adapter.rank(), rank, rows);
        writer.write(&pair[0][0].name, 0, &bytes(a))?;
        writer.write(&pair[1][0].name, 0, &bytes(b))?;
    }
    writer.finish()?;
    let weights = staging.folder().join(crate::checkpoint::SINGLE_FILE);
    std::fs::rename(&weights, staging.folder().join(MLX_WEIGHTS)).at("rename", &weights)?;
    let config = json!({
        "fine_tune_type": "lora",
        "num_layers": layers,
        "lora_parameters": { "rank": rank, "scale": 1.0, "dropout": 0.0, "keys": keys },
    });
    write_json(&staging.folder().join(compress_model_lora::CONFIG_FILE), &config)?;
    staging.commit()?;
    Ok(AdapterReport { output: output.to_path_buf(), adapters: adapters.len(), rank })
}

/// Whether `folder` holds adapters for mlx-lm, which may be replaced by others.
#[must_use]
pub fn is_mlx_adapter(folder: &Path) -> bool {
    folder.join(MLX_WEIGHTS).is_file()
}

/// `self_attn.q_proj` of `model.layers.3.self_attn.q_proj.weight`.
fn within_layer(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("model.layers.")?.strip_suffix(".weight")?;
    let (number, module) = rest.split_once('.')?;
    number.parse::<u32>().ok().map(|_| module)
}

fn layer_number(name: &str) -> Option<u32> {
    name.strip_prefix("model.layers.")?.split_once('.')?.0.parse().ok()
}

/// Writes the GGUF file `output` with the adapters for llama.cpp's `--lora`.
///
/// Every adapter keeps its own rank: alpha is 0, for which llama.cpp scales by 1. The rows of B
/// take the order that the weight's have. Of the embedding, whose rows are looked up, B comes as the
/// first factor and A transposed as the second.
///
/// # Errors
/// [`Error::Usage`] if there is no adapter; [`Error::Checkpoint`] and [`Error::Tensor`] as for
/// [`super::export_gguf`]; I/O.
pub fn export_gguf_adapters(input: &CompressedFolder, output: &Path) -> Result<AdapterReport> {
    let adapters = adapted(input)?;
    let model = Model::read(input)?;
    let mut header = HeaderWriter::default();
    header.text("general.architecture", model.family.gguf);
    header.text("general.type", "adapter");
    header.text("adapter.type", "lora");
    header.f32("adapter.lora.alpha", 0.0);
    let mut names = Vec::new();
    for (_, entry, rank) in &adapters {
        let wrong = |message: String| Error::tensor(input.stored.folder(), &entry.name, message);
        let name = to_gguf(&entry.name)
            .ok_or_else(|| wrong("has no place in a GGUF file of this architecture".to_owned()))?;
        let [rows, cols] = entry.shape[..] else {
            return Err(wrong("llama.cpp's adapters are for matrices".to_owned()));
        };
        let (heads, kv_heads) = (model.architecture.heads, model.architecture.kv_heads);
        let order =
            RowOrder::of(model.family, &entry.name, rows, heads, kv_heads).map_err(wrong)?;
        let [a, b] = if is_embedding(entry) {
            [[rows, *rank], [cols, *rank]]
        } else {
            [[*rank, cols], [rows, *rank]]
        };
        for (suffix, shape) in [("lora_a", a), ("lora_b", b)] {
            let len = 2 * (shape[0] * shape[1]) as u64;
            header.tensor(&format!("{name}.{suffix}"), &shape, TensorType::F16, len);
        }
        names.push((name, order));
    }
    let file = SingleFile::create(output)?;
    let writer = header.create(file.path())?;
    for ((index, entry, rank), (name, order)) in adapters.iter().zip(&names) {
        let adapter = read(input, *index)?;
        if is_embedding(entry) {
            let cols = entry.shape[1];
            let a = transposed(&adapter.a, cols, cols, *rank);
            writer.write(&format!("{name}.lora_a"), 0, &bytes(adapter.b.iter().copied()))?;
            writer.write(&format!("{name}.lora_b"), 0, &bytes(a))?;
            continue;
        }
        writer.write(&format!("{name}.lora_a"), 0, &bytes(adapter.a.iter().copied()))?;
        let mut b = vec![f16::ZERO; adapter.b.len()];
        for row in 0..entry.shape[0] {
            let to = order.to_gguf(row) * rank;
            b[to..to + rank].copy_from_slice(&adapter.b[row * rank..][..*rank]);
        }
        writer.write(&format!("{name}.lora_b"), 0, &bytes(b))?;
    }
    writer.finish()?;
    file.commit()?;
    let rank = adapters.iter().map(|(_, _, rank)| *rank).max().unwrap_or(0);
    Ok(AdapterReport { output: output.to_path_buf(), adapters: adapters.len(), rank })
}

fn is_embedding(entry: &Entry) -> bool {
    entry.role == Role::Embedding
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposed_with_room() {
        let matrix: Vec<f16> = (1..=6).map(|i| f16::from_f32(i as f32)).collect();
        // [2, 3] becomes [3, 2], filled up to [4, 3].
        let out: Vec<f32> = transposed(&matrix, 3, 4, 3).iter().map(|x| x.to_f32()).collect();
        assert_eq!(out, [1.0, 4.0, 0.0, 2.0, 5.0, 0.0, 3.0, 6.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn layer_keys() {
        assert_eq!(within_layer("model.layers.12.mlp.up_proj.weight"), Some("mlp.up_proj"));
        assert_eq!(within_layer("lm_head.weight"), None);
    }
}
