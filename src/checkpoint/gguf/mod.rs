//! A GGUF file as a checkpoint: tensors under Hugging Face's names and in its row order, decoded
//! when they are read, beside a folder of configuration and tokenizer made from the metadata.

mod config;
mod metadata;
mod tokenizer;

use std::fs::File;
use std::path::Path;

use safetensors::Dtype;
use serde_json::Value;

use self::metadata::Metadata;
use super::config::ModelConfig;
use super::positioned::read_exact_at;
use super::role::Role;
use super::{Checkpoint, Tensor, WeightFile, write_json};
use crate::error::{Error, IoContext, Result};
use crate::gguf::{Family, Header, Info, ROPE_FACTORS, RowOrder, TensorType, to_hf};

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

/// Opens the GGUF file `path`.
///
/// # Errors
/// [`Error::Checkpoint`] or [`Error::Tensor`] for a damaged file, an architecture or a tensor that
/// is not known; [`Error::Io`].
pub(super) fn open(path: &Path) -> Result<Checkpoint> {
    let file = File::open(path).at("open", path)?;
    let len = file.metadata().at("read the size of", path)?.len();
    let wrong = |message: String| Error::checkpoint(path, message);
    let Header { values, tensors: infos } = Header::read(&file, len).map_err(wrong)?;
    let metadata = Metadata::new(values);
    let family = metadata.family().map_err(wrong)?;
    let (heads, kv_heads) = metadata.heads(family).map_err(wrong)?;
    let mut tensors = Vec::new();
    for info in &infos {
        let tensor = tensor(info, family, heads, kv_heads)
            .map_err(|message| Error::tensor(path, &info.name, message))?;
        tensors.push(tensor);
    }
    let config = config::config(&metadata, family, &tensors).map_err(wrong)?;
    let mut warnings = warnings(path, &infos);

    let folder = tempfile::tempdir().at("create a folder for the configuration of", path)?;
    let write = |name: &str, json: &Value| write_json(&folder.path().join(name), json);
    write("config.json", &config)?;
    write("generation_config.json", &config::generation(&config))?;
    match tokenizer::tokenizer(&metadata) {
        Ok(tokenizer) => {
            write("tokenizer.json", &tokenizer)?;
            write("tokenizer_config.json", &tokenizer::settings(&metadata))?;
        }
        Err(why) => warnings.push(format!(
            "{}: the tokenizer is left out ({why}); copy the original model's into the output",
            path.display()
        )),
    }
    Ok(Checkpoint {
        folder: folder.path().to_path_buf(),
        config: ModelConfig::read(folder.path())?,
        files: vec![WeightFile { path: path.to_path_buf(), file }],
        tensors,
        by_name: std::collections::HashMap::new(),
        warnings,
        made_folder: Some(folder),
    })
}

fn tensor(info: &Info, family: Family, heads: usize, kv_heads: usize) -> Result<Tensor, String> {
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
        file: 0,
        offset: info.offset,
        stored: (!as_it_is).then_some(Stored { kind: info.kind, order, cols }),
    })
}

/// What a user should know of a source that was quantised before.
fn warnings(path: &Path, infos: &[Info]) -> Vec<String> {
    let mut kinds: Vec<&str> =
        infos.iter().filter(|i| i.kind.is_quantised()).map(|i| i.kind.name()).collect();
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
