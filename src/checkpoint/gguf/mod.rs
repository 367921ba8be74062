//! A GGUF file as a checkpoint: tensors under Hugging Face's names and in its row order, decoded
//! when they are read, beside a folder of configuration and tokenizer made from the metadata.

mod config;
mod keys;
mod metadata;
mod parts;
mod tokenizer;

use std::fs::File;
use std::path::Path;

use safetensors::Dtype;
use serde_json::Value;

use self::parts::Parts;
use super::config::ModelConfig;
use super::positioned::read_exact_at;
use super::role::Role;
use super::{Checkpoint, Tensor, write_json};
use crate::architecture::Architecture;
use crate::error::{Error, IoContext, Result};
use crate::gguf::{Family, Info, ROPE_FACTORS, RowOrder, TensorType, to_gguf, to_hf};

/// A tensor whose stored bytes are not those of a Hugging Face tensor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    kind: TensorType,
    order: RowOrder,
    /// Weights of a row.
    cols: usize,
}

impl Stored {
    /// Reads `buffer.len()` bytes of the tensor, whose elements are of type `dtype` and whose data
    /// starts at `offset` of `file`, from its byte `from` on.
    ///
    /// # Errors
    /// What reading gives.
    pub(super) fn read(
        &self,
        file: &File,
        offset: u64,
        dtype: Dtype,
        from: u64,
        buffer: &mut [u8],
    ) -> std::io::Result<()> {
        let stored_len = self.kind.row_bytes(self.cols).expect("invariant: checked when opened");
        let row_len = self.cols * dtype.bitsize() / 8;
        let (mut row, mut skip) = (from as usize / row_len, from as usize % row_len);
        let mut stored = vec![0; stored_len];
        let mut weights = vec![0.0; if self.kind.is_quantised() { self.cols } else { 0 }];
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + self.order.to_gguf(row) as u64 * stored_len as u64;
            read_exact_at(file, &mut stored, at)?;
            let bytes: &[u8] = if self.kind.is_quantised() {
                self.kind.decode(&stored, &mut weights);
                bytemuck::cast_slice(&weights)
            } else {
                &stored
            };
            let count = (row_len - skip).min(buffer.len() - done);
            buffer[done..done + count].copy_from_slice(&bytes[skip..skip + count]);
            (done, row, skip) = (done + count, row + 1, 0);
        }
        Ok(())
    }
}

/// Opens the GGUF file `path`, with all parts where it is the first of several.
///
/// # Errors
/// [`Error::Checkpoint`] or [`Error::Tensor`] for a damaged file, an architecture, metadata or a
/// tensor that is not known, and for a model that is not whole; [`Error::Io`].
pub(super) fn open(path: &Path) -> Result<Checkpoint> {
    let Parts { metadata, files, tensors: infos } = parts::open(path)?;
    let wrong = |message: String| Error::checkpoint(path, message);
    let family = metadata.family().map_err(wrong)?;
    keys::check(&metadata, family).map_err(wrong)?;
    let (heads, kv_heads) = metadata.heads(family).map_err(wrong)?;
    let mut tensors = Vec::new();
    for (number, infos) in infos.iter().enumerate() {
        for info in infos {
            let tensor = tensor(info, number, family, heads, kv_heads)
                .map_err(|message| Error::tensor(&files[number].path, &info.name, message))?;
            tensors.push(tensor);
        }
    }
    let config = config::config(&metadata, family, &tensors).map_err(wrong)?;
    check_whole(path, &config, &tensors)?;
    let mut warnings = warnings(path, infos.iter().flatten());

    let folder = tempfile::tempdir().at("create a folder for the configuration of", path)?;
    let write = |name: &str, json: &Value| write_json(&folder.path().join(name), json);
    write("config.json", &config)?;
    write("generation_config.json", &config::generation(&config))?;
    match tokenizer::tokenizer(&metadata, config["vocab_size"].as_u64()) {
        Ok((tokenizer, settings)) => {
            write("tokenizer.json", &tokenizer)?;
            write("tokenizer_config.json", &settings)?;
        }
        Err(why) => warnings.push(format!(
            "{}: the tokenizer is left out ({why}); copy the original model's into the output",
            path.display()
        )),
    }
    Ok(Checkpoint {
        folder: folder.path().to_path_buf(),
        config: ModelConfig::read(folder.path())?,
        files,
        tensors,
        by_name: std::collections::HashMap::new(),
        warnings,
        made_folder: Some(folder),
    })
}

/// Holds the tensors against those that the configuration means: a file without some of them, or
/// with others, is another model than its metadata says.
fn check_whole(path: &Path, config: &Value, tensors: &[Tensor]) -> Result<()> {
    let architecture = Architecture::parse(config)
        .map_err(|message| Error::checkpoint(path, format!("its metadata: {message}")))?;
    let found = tensors.iter().map(|t| (t.name.clone(), t.shape.clone())).collect();
    architecture
        .check_tensors(&found)
        .map_err(|(name, message)| Error::tensor(path, to_gguf(&name).unwrap_or(name), message))
}

fn tensor(
    info: &Info,
    file: usize,
    family: Family,
    heads: usize,
    kv_heads: usize,
) -> Result<Tensor, String> {
    if info.name == ROPE_FACTORS {
        return Err("rope factors are not read: use the original checkpoint".to_owned());
    }
    let name = to_hf(&info.name)
        .ok_or_else(|| format!("is no tensor of a {} model that is known here", family.gguf))?;
    let is_vector = info.shape.len() == 1;
    if info.shape.len() > 2 || (is_vector && info.kind.is_quantised()) {
        return Err(format!("has the shape {:?} and type {}", info.shape, info.kind.name()));
    }
    let order = RowOrder::of(family, &name, info.shape[0], heads, kv_heads)?;
    let dtype = match info.kind {
        TensorType::F16 => Dtype::F16,
        TensorType::Bf16 => Dtype::BF16,
        _ => Dtype::F32,
    };
    let elements: u64 = info.shape.iter().map(|&d| d as u64).product();
    let as_it_is = order.is_same() && !info.kind.is_quantised();
    let cols = if is_vector { 1 } else { info.shape[1] };
    Ok(Tensor {
        role: Role::of(&name, &info.shape),
        name,
        dtype,
        shape: info.shape.clone(),
        byte_len: elements * dtype.bitsize() as u64 / 8,
        file,
        offset: info.offset,
        stored: (!as_it_is).then_some(Stored { kind: info.kind, order, cols }),
    })
}

/// What a user should know of a source that was quantised before.
fn warnings<'a>(path: &Path, infos: impl Iterator<Item = &'a Info>) -> Vec<String> {
    let mut kinds: Vec<&str> =
        infos.filter(|i| i.kind.is_quantised()).map(|i| i.kind.name()).collect();
    kinds.sort_unstable();
    let quantised = kinds.len();
    kinds.dedup();
    if kinds.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "{}: {quantised} tensors were quantised already ({}): what that lost is lost, and SQNR here \
         is measured against the quantised weights; the original checkpoint gives a better model",
        path.display(),
        kinds.join(", ")
    )]
}
