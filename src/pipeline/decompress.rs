//! Decompression: an output folder in, a plain Hugging Face folder out.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use compress_model_lora::Adapter;
use safetensors::Dtype;
use serde::Serialize;

use super::compressed::{CompressedFolder, Piece};
use super::manifest::Status;
use super::progress::Progress;
use super::{card, waves};
use crate::checkpoint::dtype::{
    AlignedBytes, bytes_per_weight, from_f32, is_codable, parse_dtype, to_f32,
};
use crate::checkpoint::{
    OutputTensor, ShardLayout, ShardWriter, Staging, Tensor, check_sidecars, copy_sidecars,
    write_json,
};
use crate::error::{Error, IoContext, Result};

/// Folder inside the output that receives adapters kept apart.
pub const ADAPTER_FOLDER: &str = "adapter";

/// Element type of decompressed weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputDtype {
    /// What the source had.
    Source,
    /// fp16.
    #[value(alias = "float16", alias = "fp16")]
    F16,
    /// bf16.
    #[value(alias = "bfloat16")]
    Bf16,
    /// fp32.
    #[value(alias = "float32", alias = "fp32")]
    F32,
}

impl OutputDtype {
    /// The type in which weights of type `source` are written.
    pub(crate) fn of(self, source: Dtype) -> Dtype {
        match self {
            Self::Source => source,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
            Self::F32 => Dtype::F32,
        }
    }
}

/// What becomes of the adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AdapterMode {
    /// Added into the weights.
    Merge,
    /// Copied to the folder `adapter`, for PEFT to load on top.
    Separate,
}

/// How to decompress.
#[derive(Debug, Clone, Copy)]
pub struct DecompressOptions {
    /// Element type. Default: [`OutputDtype::Source`].
    pub dtype: OutputDtype,
    /// Adapters. Default: [`AdapterMode::Merge`].
    pub adapters: AdapterMode,
    /// Limit of a shard's data in bytes.
    pub max_shard_bytes: u64,
}

/// What a run reports.
#[derive(Debug, Clone, Serialize)]
pub struct DecompressReport {
    /// The output folder.
    pub output: PathBuf,
    /// Tensors written.
    pub tensors: usize,
    /// Bytes of tensor data written.
    pub bytes: u64,
    /// Adapters added into weights.
    pub adapters_merged: usize,
}

/// Decompresses `input` into the new folder `output`, on the current rayon pool. The caller has
/// checked `output` with [`crate::checkpoint::check_output_path`].
///
/// # Errors
/// [`Error::Tensor`] for a weight that overflows the wanted type; I/O. No output is left behind.
pub fn decompress(
    input: &CompressedFolder,
    output: &Path,
    options: DecompressOptions,
    progress: &dyn Progress,
) -> Result<DecompressReport> {
    let run = Run::new(input, options);
    let layout = run.layout();
    let written: Vec<&OutputTensor> = run.outputs.iter().flatten().collect();
    let bytes = written.iter().map(|t| t.byte_len()).sum();
    check_sidecars(input.stored.folder())?;
    progress.begin("decompressing", bytes);
    let staging = Staging::create(output)?;
    let writer = ShardWriter::create(staging.folder(), layout)?;
    let mut current: HashMap<usize, Arc<Adapter>> = HashMap::new();
    let mut merged = 0;
    waves::run(
        input.pieces(),
        |wave| {
            if options.adapters == AdapterMode::Merge {
                merged += input.load_adapters(wave, &mut current)?.len();
            }
            Ok(current.clone())
        },
        |job, adapters| run.work(job, adapters),
        |job, bytes: Vec<u8>| {
            progress.check_stopped()?;
            let (entry, from) = run.destination(&job);
            let name = &input.manifest.tensors[entry].name;
            progress.advance(bytes.len() as u64);
            writer.write(name, from, &bytes)
        },
    )?;
    writer.finish()?;
    run.describe(staging.folder())?;
    let tensors = written.len();
    staging.commit()?;
    Ok(DecompressReport { output: output.to_path_buf(), tensors, bytes, adapters_merged: merged })
}

struct Run<'a> {
    input: &'a CompressedFolder,
    options: DecompressOptions,
    /// What is written for each entry; nothing for tied ones.
    outputs: Vec<Option<OutputTensor>>,
}

impl<'a> Run<'a> {
    fn new(input: &'a CompressedFolder, options: DecompressOptions) -> Self {
        let outputs = input
            .manifest
            .tensors
            .iter()
            .map(|entry| {
                let source = parse_dtype(&entry.dtype)?;
                let dtype = if is_codable(source) { options.dtype.of(source) } else { source };
                (!matches!(entry.status, Status::Tied { .. })).then(|| OutputTensor {
                    name: entry.name.clone(),
                    dtype,
                    shape: entry.shape.clone(),
                })
            })
            .collect();
        Self { input, options, outputs }
    }

    fn layout(&self) -> ShardLayout {
        let groups: Vec<Vec<OutputTensor>> =
            self.outputs.iter().flatten().map(|t| vec![t.clone()]).collect();
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        ShardLayout::new(&groups, self.options.max_shard_bytes, &metadata)
    }

    /// The stored tensor of a kept entry.
    fn stored(&self, entry: usize) -> &Tensor {
        self.input.stored_part(&self.input.manifest.tensors[entry].status.parts()[0])
    }

    fn work(&self, job: &Piece, adapters: &HashMap<usize, Arc<Adapter>>) -> Result<Vec<u8>> {
        match job {
            Piece::Kept { entry, from, len } => {
                let stored = self.stored(*entry);
                let mut bytes = AlignedBytes::default();
                bytes.resize(*len);
                self.input.stored.read_bytes(stored, *from, bytes.as_mut_slice())?;
                if self.output(*entry).dtype == stored.dtype {
                    return Ok(bytes.as_slice().to_vec());
                }
                let mut weights = vec![0.0; len / bytes_per_weight(stored.dtype)];
                to_f32(stored.dtype, &bytes, &mut weights);
                self.store(*entry, &weights)
            }
            Piece::Coded { entry, panel } => {
                let adapter = adapters.get(entry).map(|adapter| &**adapter);
                let decoded = self.input.decode_panel(*entry, panel, adapter)?;
                self.store(*entry, &decoded.weights)
            }
        }
    }

    fn output(&self, entry: usize) -> &OutputTensor {
        self.outputs[entry].as_ref().expect("invariant: tied entries have no jobs")
    }

    fn store(&self, entry: usize, weights: &[f32]) -> Result<Vec<u8>> {
        let output = self.output(entry);
        let mut bytes = AlignedBytes::default();
        match from_f32(output.dtype, weights, &mut bytes) {
            None => Ok(bytes.as_slice().to_vec()),
            Some(index) => Err(Error::tensor(
                self.input.stored.folder(),
                &output.name,
                format!("{} overflows {:?}; choose another --dtype", weights[index], output.dtype),
            )),
        }
    }

    /// Entry and first byte that a job's result goes to.
    fn destination(&self, job: &Piece) -> (usize, u64) {
        match job {
            Piece::Kept { entry, from, .. } => {
                let stored = self.stored(*entry).dtype.bitsize() as u64;
                (*entry, from / stored * self.output(*entry).dtype.bitsize() as u64)
            }
            Piece::Coded { entry, panel } => {
                let output = self.output(*entry);
                let [.., rows, cols] = output.shape[..] else {
                    unreachable!("invariant: coded entries are matrices")
                };
                let weights = (panel.matrix * rows + panel.rows.start) as u64 * cols as u64;
                (*entry, weights * bytes_per_weight(output.dtype) as u64)
            }
        }
    }

    fn describe(&self, folder: &Path) -> Result<()> {
        let source = self.input.stored.folder();
        if let Some(config) = self.input.stored.config() {
            let main = self.outputs.iter().flatten().map(|t| t.dtype).find(|&d| is_codable(d));
            let name = match main {
                Some(Dtype::F32) => "float32",
                Some(Dtype::BF16) => "bfloat16",
                _ => "float16",
            };
            write_json(&folder.join("config.json"), &card::plain_config(config, name))?;
        }
        copy_sidecars(source, folder)?;
        let has_adapters = source.join(compress_model_lora::WEIGHTS_FILE).is_file();
        if self.options.adapters == AdapterMode::Separate && has_adapters {
            let to = folder.join(ADAPTER_FOLDER);
            std::fs::create_dir(&to).at("create", &to)?;
            for name in [compress_model_lora::CONFIG_FILE, compress_model_lora::WEIGHTS_FILE] {
                std::fs::copy(source.join(name), to.join(name)).at("copy", source.join(name))?;
            }
        }
        Ok(())
    }
}
