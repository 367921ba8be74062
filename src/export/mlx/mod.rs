//! A model folder for mlx-lm: codes of `grid2` and `int4` as MLX's affine quantisation.
//!
//! MLX decodes a weight as scale·c + bias, with one pair for each 32, 64 or 128 weights of a row.
//! The grid s·(c - 1.5) is scale s and bias -1.5·s, a 4-bit group is itself; both pack their codes
//! into u32 in the order that our bytes have. Scales are repeated where they cover more weights
//! than MLX's largest group. All other weights are stored plain.

mod affine;
mod config;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde::Serialize;

use self::affine::Affine;
use super::precision::Precision;
use super::rows::{Job, Run};
use crate::checkpoint::dtype::{AlignedBytes, bytes_per_weight, from_f32, parse_dtype, to_f32};
use crate::checkpoint::{
    OutputTensor, ShardLayout, ShardWriter, Staging, check_sidecars, copy_sidecars, write_json,
};
use crate::error::{Error, Result};
use crate::pipeline::manifest::Status;
use crate::pipeline::{AdapterMode, CompressedFolder, OutputDtype, Progress};

/// How to export for MLX.
#[derive(Debug, Clone, Copy)]
pub struct MlxOptions {
    /// Element type of scales, biases and decoded weights; `Source` keeps that of each tensor.
    pub dtype: OutputDtype,
    /// What becomes of adapters; a weight that takes its adapter in is no longer coded.
    pub adapters: AdapterMode,
    /// Refuse to change any weight.
    pub exact: bool,
    /// Limit of a shard's data in bytes.
    pub max_shard_bytes: u64,
}

/// What an export for MLX reports.
#[derive(Debug, Clone, Serialize)]
pub struct MlxReport {
    /// The folder.
    pub output: PathBuf,
    /// Weights that stay coded.
    pub coded: usize,
    /// Tensors stored plain.
    pub plain: usize,
    /// Bytes of tensor data.
    pub bytes: u64,
    /// How the weights compare with the compressed folder's.
    pub precision: Precision,
}

/// How a tensor is stored.
#[derive(Debug)]
enum Form {
    /// Codes, scales and biases.
    Affine(Affine),
    /// Numbers of this type.
    Plain(Dtype),
}

/// Writes the mlx-lm folder `output`, on the current rayon pool. The caller has checked `output`.
///
/// # Errors
/// [`Error::Tensor`] for stacked experts, for a weight past the range of the type, and with
/// `exact` for one that would change; [`Error::Checkpoint`] without a `config.json`; I/O. No output
/// is left behind.
pub fn export_mlx(
    input: &CompressedFolder,
    output: &Path,
    options: MlxOptions,
    progress: &dyn Progress,
) -> Result<MlxReport> {
    let mut planned = Vec::new();
    for index in 0..input.manifest.tensors.len() {
        if let Some(job) = Job::new(input, index, options.adapters)? {
            let form = form(input, &job, options)?;
            planned.push((job, form));
        }
    }
    let groups: Vec<Vec<OutputTensor>> =
        planned.iter().map(|(job, form)| outputs(job, form)).collect();
    let bytes = groups.iter().flatten().map(OutputTensor::byte_len).sum();
    check_sidecars(input.stored.folder())?;
    progress.begin("exporting", bytes);
    let metadata = BTreeMap::from([("format".to_owned(), "mlx".to_owned())]);
    let staging = Staging::create(output)?;
    let layout = ShardLayout::new(&groups, options.max_shard_bytes, &metadata);
    let writer = ShardWriter::create(staging.folder(), layout)?;
    let mut precision = Precision::default();
    for ((job, form), outputs) in planned.iter().zip(&groups) {
        progress.check_stopped()?;
        let name = &job.entry.name;
        let sums = job.for_each_run(input, |run| match form {
            Form::Affine(affine) => write_affine(input, name, affine, outputs, run, &writer),
            Form::Plain(dtype) => write_plain(input, name, *dtype, run, &writer),
        })?;
        precision.add(input, name, sums, options.exact)?;
        progress.advance(outputs.iter().map(OutputTensor::byte_len).sum());
        progress.tensor(name);
    }
    writer.finish()?;
    let coded: Vec<(&str, &Affine)> = planned
        .iter()
        .filter_map(|(job, form)| match form {
            Form::Affine(affine) => Some((module_of(&job.entry.name), affine)),
            Form::Plain(_) => None,
        })
        .collect();
    write_json(&staging.folder().join("config.json"), &config::mlx_config(input, &coded)?)?;
    copy_sidecars(input.stored.folder(), staging.folder())?;
    let (coded, plain) = (coded.len(), planned.len() - coded.len());
    staging.commit()?;
    Ok(MlxReport { output: output.to_path_buf(), coded, plain, bytes, precision })
}

fn module_of(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}

fn form(input: &CompressedFolder, job: &Job<'_>, options: MlxOptions) -> Result<Form> {
    let entry = job.entry;
    if entry.shape.len() == 3 && job.codes().is_some() {
        let message = "mlx-lm has no form for stacked experts that are coded";
        return Err(Error::tensor(input.stored.folder(), &entry.name, message));
    }
    let source = parse_dtype(&entry.dtype).unwrap_or(Dtype::F32);
    let dtype = options.dtype.of(source);
    if entry.name.ends_with(".weight")
        && let Some(affine) = Affine::of(job, dtype)
    {
        return Ok(Form::Affine(affine));
    }
    let kept = matches!(entry.status, Status::Kept { .. });
    Ok(Form::Plain(if kept { source } else { dtype }))
}

fn outputs(job: &Job<'_>, form: &Form) -> Vec<OutputTensor> {
    let name = &job.entry.name;
    let shape = &job.entry.shape;
    match form {
        Form::Plain(dtype) => {
            vec![OutputTensor { name: name.clone(), dtype: *dtype, shape: shape.clone() }]
        }
        Form::Affine(affine) => {
            let module = module_of(name);
            let (rows, cols) = job.rows_and_cols();
            let per_group = vec![rows, cols / affine.group];
            let codes = vec![rows, cols * affine.bits / 32];
            vec![
                OutputTensor { name: name.clone(), dtype: Dtype::U32, shape: codes },
                OutputTensor {
                    name: format!("{module}.scales"),
                    dtype: affine.dtype,
                    shape: per_group.clone(),
                },
                OutputTensor {
                    name: format!("{module}.biases"),
                    dtype: affine.dtype,
                    shape: per_group,
                },
            ]
        }
    }
}

fn overflow(input: &CompressedFolder, name: &str, value: f32, dtype: Dtype) -> Error {
    let message = format!("{value} overflows {dtype:?}; choose another --dtype");
    Error::tensor(input.stored.folder(), name, message)
}

fn write_plain(
    input: &CompressedFolder,
    name: &str,
    dtype: Dtype,
    run: &Run<'_>,
    writer: &ShardWriter,
) -> Result<Vec<f32>> {
    let mut bytes = AlignedBytes::default();
    if let Some(index) = from_f32(dtype, run.weights, &mut bytes) {
        return Err(overflow(input, name, run.weights[index], dtype));
    }
    writer.write(name, (run.first * bytes_per_weight(dtype)) as u64, bytes.as_slice())?;
    let mut written = vec![0.0; run.weights.len()];
    to_f32(dtype, &bytes, &mut written);
    Ok(written)
}

fn write_affine(
    input: &CompressedFolder,
    name: &str,
    affine: &Affine,
    outputs: &[OutputTensor],
    run: &Run<'_>,
    writer: &ShardWriter,
) -> Result<Vec<f32>> {
    let cols = outputs[0].shape[1] * 32 / affine.bits;
    let first_row = run.first / cols;
    let pairs = affine.pairs(run.parts, cols);
    let code_bytes = outputs[0].shape[1] * 4;
    writer.write(name, (first_row * code_bytes) as u64, &run.parts[0])?;
    let mut stored = [AlignedBytes::default(), AlignedBytes::default()];
    let size = bytes_per_weight(affine.dtype);
    let mut rounded = [vec![0.0; pairs.scales.len()], vec![0.0; pairs.scales.len()]];
    for (i, values) in [&pairs.scales, &pairs.biases].into_iter().enumerate() {
        if let Some(index) = from_f32(affine.dtype, values, &mut stored[i]) {
            return Err(overflow(input, name, values[index], affine.dtype));
        }
        to_f32(affine.dtype, &stored[i], &mut rounded[i]);
        let output = &outputs[i + 1];
        let from = first_row * output.shape[1] * size;
        writer.write(&output.name, from as u64, stored[i].as_slice())?;
    }
    let [scales, biases] = rounded;
    Ok(affine.decode(&run.parts[0], &scales, &biases, run.weights.len()))
}
