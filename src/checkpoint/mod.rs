//! Checkpoints: Hugging Face folders and GGUF files, opened and checked here, read by byte range.
//!
//! Opening checks everything that can be known without reading weights: headers, the shard index
//! against its files, duplicates, sizes, symbolic links. After it, reading a tensor can only fail
//! if the disk does.

mod claim;
pub mod config;
pub mod dtype;
mod gguf;
mod given;
pub mod header;
mod index;
mod member;
pub mod order;
mod partial;
pub(crate) mod positioned;
pub mod role;
mod same;
mod shard_writer;
mod sidecars;
mod single_file;
mod staging;
mod surroundings;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use tempfile::TempDir;

use crate::error::{Error, IoContext, Result};
use config::ModelConfig;
use dtype::AlignedBytes;
use positioned::read_exact_at;
use role::Role;

pub use given::check_given;
pub(crate) use member::{read_json, read_member};
pub(crate) use partial::{Dependency, Partial};
pub use shard_writer::{OutputTensor, Placement, ShardLayout, ShardWriter};
pub(crate) use sidecars::CHAT_TEMPLATES;
pub use sidecars::{check_sidecars, copy_sidecars, find_sidecars};
pub(crate) use single_file::SingleFile;
pub use staging::{Staging, check_output_path, disk_free};
pub(crate) use staging::{write_file, write_json};
pub(crate) use surroundings::Surroundings;

/// Name of the weights file of an unsharded checkpoint.
pub const SINGLE_FILE: &str = "model.safetensors";
/// Name of the shard index.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// A tensor of an open checkpoint.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Name in the header.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// What it does in the model.
    pub role: Role,
    /// Bytes of data.
    pub byte_len: u64,
    file: usize,
    offset: u64,
    /// How the file has it, where that is not as a Hugging Face tensor.
    stored: Option<gguf::Stored>,
}

impl Tensor {
    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&d| d as u64).product()
    }

    /// The tensor as a stack of matrices: (matrices, rows, columns). `None` for anything that is
    /// neither [out, in] nor [experts, out, in].
    #[must_use]
    pub fn as_matrices(&self) -> Option<(usize, usize, usize)> {
        as_matrices(&self.shape)
    }
}

/// A shape as a stack of matrices: (matrices, rows, columns). `None` for anything that is
/// neither [out, in] nor [experts, out, in].
pub(crate) fn as_matrices(shape: &[usize]) -> Option<(usize, usize, usize)> {
    match *shape {
        [rows, cols] => Some((1, rows, cols)),
        [experts, rows, cols] => Some((experts, rows, cols)),
        _ => None,
    }
}

#[derive(Debug)]
struct WeightFile {
    path: PathBuf,
    file: File,
}

/// An open checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    config: Option<ModelConfig>,
    files: Vec<WeightFile>,
    tensors: Vec<Tensor>,
    by_name: HashMap<String, usize>,
    warnings: Vec<String>,
    /// Holds configuration and tokenizer of a GGUF file; removed with the checkpoint.
    made_folder: Option<TempDir>,
}

impl Checkpoint {
    /// Opens `folder` and checks its headers, its index and its names. A GGUF file is opened too:
    /// quantised tensors are decoded to f32 as they are read.
    ///
    /// # Errors
    /// [`Error::Header`], [`Error::Checkpoint`] or [`Error::Tensor`] name file and tensor;
    /// [`Error::Io`] if something cannot be read.
    pub fn open(folder: &Path) -> Result<Self> {
        if crate::gguf::is_gguf(folder) {
            return gguf::open(folder)?.sorted();
        }
        check_given(folder)?;
        if !folder.is_dir() {
            let message = "is a file; give the checkpoint folder that holds config.json and the \
                           weights, or a GGUF file";
            return Err(Error::checkpoint(folder, message));
        }
        let config = ModelConfig::read(folder)?;
        let index::Shards { names, weight_map, total_size } = index::find_shards(folder)?;
        let mut checkpoint = Self {
            folder: folder.to_path_buf(),
            config,
            files: Vec::new(),
            tensors: Vec::new(),
            by_name: HashMap::new(),
            warnings: Vec::new(),
            made_folder: None,
        };
        for name in &names {
            checkpoint.add_file(name)?;
        }
        let mut checkpoint = checkpoint.sorted()?;
        if let Some(weight_map) = weight_map {
            index::check_against_files(folder, &weight_map, &names, &checkpoint)?;
        }
        let bytes = checkpoint.tensors.iter().map(|t| t.byte_len).sum::<u64>();
        if let Some(total_size) = total_size.filter(|&total| total != bytes) {
            checkpoint.warnings.push(format!(
                "{INDEX_FILE} gives total_size {total_size}, but the shards hold {bytes} bytes"
            ));
        }
        Ok(checkpoint)
    }

    /// Puts the tensors in natural order, and checks their names.
    fn sorted(mut self) -> Result<Self> {
        self.tensors.sort_by(|a, b| order::natural(&a.name, &b.name));
        self.check_names()?;
        self.by_name = self.tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        Ok(self)
    }

    fn add_file(&mut self, name: &str) -> Result<()> {
        let path = self.folder.join(name);
        index::check_contained(&self.folder, &path)?;
        let file = File::open(&path).at("open", &path)?;
        let len = file.metadata().at("read the size of", &path)?.len();
        let header = header::read(&file, &path, len)?;
        let index = self.files.len();
        for entry in header.tensors {
            self.tensors.push(Tensor {
                role: Role::of(&entry.name, &entry.shape),
                name: entry.name,
                dtype: entry.dtype,
                shape: entry.shape,
                byte_len: entry.end - entry.start,
                file: index,
                offset: header.data_start + entry.start,
                stored: None,
            });
        }
        self.files.push(WeightFile { path, file });
        Ok(())
    }

    fn check_names(&self) -> Result<()> {
        if self.tensors.is_empty() {
            return Err(Error::checkpoint(&self.folder, "holds no tensors"));
        }
        match self.tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
            None => Ok(()),
            Some(pair) => Err(Error::tensor(
                self.file_of(&pair[0]),
                &pair[0].name,
                format!("is also in {}", self.file_of(&pair[1]).display()),
            )),
        }
    }

    /// The folder as it was given; of a GGUF file, one that holds its configuration and tokenizer.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What was opened: the folder, or the GGUF file.
    #[must_use]
    pub fn origin(&self) -> &Path {
        match &self.made_folder {
            Some(_) => &self.files[0].path,
            None => &self.folder,
        }
    }

    /// The model's configuration, if there is one.
    #[must_use]
    pub fn config(&self) -> Option<&ModelConfig> {
        self.config.as_ref()
    }

    /// All tensors in natural order of their names.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor called `name`.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.by_name.get(name).map(|&i| &self.tensors[i])
    }

    /// Oddities that do not make the checkpoint unusable.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Number of weight files.
    #[must_use]
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// The file that holds `tensor`.
    #[must_use]
    pub fn file_of(&self, tensor: &Tensor) -> &Path {
        &self.files[tensor.file].path
    }

    /// Reads `buffer.len()` bytes of `tensor`, from its byte `from` on.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk fails or the file shrank since it was opened.
    ///
    /// # Panics
    /// If the range is not inside the tensor.
    pub fn read_bytes(&self, tensor: &Tensor, from: u64, buffer: &mut [u8]) -> Result<()> {
        assert!(
            from + buffer.len() as u64 <= tensor.byte_len,
            "invariant: range inside the tensor"
        );
        let WeightFile { path, file } = &self.files[tensor.file];
        match &tensor.stored {
            None => read_exact_at(file, buffer, tensor.offset + from),
            Some(stored) => stored.read(file, tensor.offset, tensor.dtype, from, buffer),
        }
        .at("read", path)
    }

    /// Reads `out.len()` weights of a codable `tensor`, from weight `from` on, as f32.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk fails.
    pub fn read_weights(
        &self,
        tensor: &Tensor,
        from: u64,
        scratch: &mut AlignedBytes,
        out: &mut [f32],
    ) -> Result<()> {
        let size = dtype::bytes_per_weight(tensor.dtype);
        scratch.resize(out.len() * size);
        self.read_bytes(tensor, from * size as u64, scratch.as_mut_slice())?;
        dtype::to_f32(tensor.dtype, scratch, out);
        Ok(())
    }

    /// All weights of a tensor of a float type, as f32.
    ///
    /// # Errors
    /// As [`Self::read_weights`].
    #[cfg(feature = "model")]
    pub(crate) fn read_all(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        let mut weights = vec![0.0; tensor.elements() as usize];
        self.read_weights(tensor, 0, &mut AlignedBytes::default(), &mut weights)?;
        Ok(weights)
    }
}
