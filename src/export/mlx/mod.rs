//! A model folder for mlx-lm: codes of `grid2` and `int4` as MLX's affine quantisation.
//!
//! MLX decodes a weight as scale·c + bias, with one pair for each 32, 64 or 128 weights of a row.
//! The grid s·(c - 1.5) is scale s and bias -1.5·s, a 4-bit group is itself; both pack their codes
//! into u32 in the order that our bytes have. Scales are repeated where they cover more weights
//! than MLX's largest group. All other weights are stored plain.

mod affine;
mod client;
mod config;
mod layout;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde::Serialize;

use self::affine::Affine;
use self::layout::{Form, Module, Placed, Segment, layout};
use super::precision::Precision;
use super::rows::Run;
use super::whole::whole_model;
use crate::architecture::HEAD;
use crate::checkpoint::dtype::{AlignedBytes, bytes_per_weight, from_f32, to_f32};
use crate::checkpoint::{
    OutputTensor, ShardLayout, ShardWriter, Staging, check_sidecars, copy_sidecars, write_json,
};
use crate::error::{Error, Result};
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
    /// Modules that stay coded; the experts of a layer are three.
    pub coded: usize,
    /// Modules stored plain.
    pub plain: usize,
    /// Bytes of tensor data.
    pub bytes: u64,
    /// How the weights compare with the compressed folder's.
    pub precision: Precision,
}

/// Writes the mlx-lm folder `output`, on the current rayon pool. The caller has checked `output`.
///
/// # Errors
/// [`Error::Checkpoint`] without a `config.json`, and for a configuration that mlx-lm does not
/// compute; [`Error::Tensor`] for a tensor that the configuration means and that is missing, of
/// another shape or left over, for a weight past the range of the type, and with `exact` for one
/// that would change; I/O. No output is left behind.
pub fn export_mlx(
    input: &CompressedFolder,
    output: &Path,
    options: MlxOptions,
    progress: &dyn Progress,
) -> Result<MlxReport> {
    let (json, architecture) = config::read(input)?;
    let architecture = architecture.as_ref();
    let jobs = whole_model(input, architecture, options.adapters)?;
    let inside = architecture.is_some() && json["text_config"].is_object();
    let (modules, placed) = layout(input, architecture, inside, jobs, options)?;
    let groups: Vec<Vec<OutputTensor>> = modules.iter().map(Module::outputs).collect();
    let bytes = groups.iter().flatten().map(OutputTensor::byte_len).sum();
    check_sidecars(input.stored.folder())?;
    progress.begin("exporting", bytes);
    let metadata = BTreeMap::from([("format".to_owned(), "mlx".to_owned())]);
    let staging = Staging::create(output)?;
    let shards = ShardLayout::new(&groups, options.max_shard_bytes, &metadata);
    let writer = ShardWriter::create(staging.folder(), shards)?;
    let mut precision = Precision::default();
    let mut done = 0;
    for (index, one) in placed.iter().enumerate() {
        progress.check_stopped()?;
        let name = &one.job.entry.name;
        let target =
            Target { input, modules: &modules, groups: &groups, placed: one, writer: &writer };
        let sums = one.job.for_each_run(input, |run| target.write(run))?;
        precision.add(input, name, sums, options.exact)?;
        let all = bytes * (index as u64 + 1) / placed.len() as u64;
        progress.advance(all - done);
        done = all;
        progress.tensor(name);
    }
    writer.finish()?;
    let coded: Vec<(&str, Form)> = modules
        .iter()
        .filter(|module| matches!(module.form, Form::Affine { .. }))
        .map(|module| (module.path(), module.form))
        .collect();
    let tied = !modules.iter().any(|module| module.name.ends_with(HEAD));
    let json = config::mlx_config(json, architecture, tied, &coded);
    write_json(&staging.folder().join("config.json"), &json)?;
    copy_sidecars(input.stored.folder(), staging.folder())?;
    let (coded, plain) = (coded.len(), modules.len() - coded.len());
    staging.commit()?;
    Ok(MlxReport { output: output.to_path_buf(), coded, plain, bytes, precision })
}

/// Where the runs of a job go.
struct Target<'a> {
    input: &'a CompressedFolder,
    modules: &'a [Module],
    /// The stored tensors of each module.
    groups: &'a [Vec<OutputTensor>],
    placed: &'a Placed<'a>,
    writer: &'a ShardWriter,
}

impl Target<'_> {
    /// Writes a run; gives its weights as mlx-lm has them.
    fn write(&self, run: &Run<'_>) -> Result<Vec<f32>> {
        let mut written = Vec::with_capacity(run.weights.len());
        for segment in self.placed.segments(run.first, run.weights.len()) {
            let outputs = &self.groups[segment.module];
            written.extend(match (self.modules[segment.module].form, &self.placed.affine) {
                (Form::Affine { .. }, Some(affine)) => {
                    self.affine(affine, outputs, run, &segment)?
                }
                (Form::Plain(dtype), _) => self.plain(dtype, &outputs[0], run, &segment)?,
                (Form::Affine { .. }, None) => unreachable!("invariant: a coded module has codes"),
            });
        }
        Ok(written)
    }

    fn overflow(&self, value: f32, dtype: Dtype) -> Error {
        let message = format!("{value} overflows {dtype:?}; choose another --dtype");
        Error::tensor(self.input.stored.folder(), &self.placed.job.entry.name, message)
    }

    fn plain(
        &self,
        dtype: Dtype,
        output: &OutputTensor,
        run: &Run<'_>,
        segment: &Segment,
    ) -> Result<Vec<f32>> {
        let weights = &run.weights[segment.from..][..segment.len];
        let mut bytes = AlignedBytes::default();
        if let Some(index) = from_f32(dtype, weights, &mut bytes) {
            return Err(self.overflow(weights[index], dtype));
        }
        let at = (segment.to * bytes_per_weight(dtype)) as u64;
        self.writer.write(&output.name, at, bytes.as_slice())?;
        let mut written = vec![0.0; weights.len()];
        to_f32(dtype, &bytes, &mut written);
        Ok(written)
    }

    /// Whole rows of codes; those of a run are.
    fn affine(
        &self,
        affine: &Affine,
        outputs: &[OutputTensor],
        run: &Run<'_>,
        segment: &Segment,
    ) -> Result<Vec<f32>> {
        let (_, cols) = self.placed.job.rows_and_cols();
        let rows = segment.from / cols..(segment.from + segment.len) / cols;
        let all = run.weights.len() / cols;
        let parts: Vec<Vec<u8>> = run
            .parts
            .iter()
            .map(|part| {
                let row = part.len() / all;
                part[rows.start * row..rows.end * row].to_vec()
            })
            .collect();
        let pairs = affine.pairs(&parts, cols);
        let first_row = segment.to / cols;
        let code_bytes = cols * affine.bits / 8;
        self.writer.write(&outputs[0].name, (first_row * code_bytes) as u64, &parts[0])?;
        let mut stored = [AlignedBytes::default(), AlignedBytes::default()];
        let size = bytes_per_weight(affine.dtype);
        let mut rounded = [vec![0.0; pairs.scales.len()], vec![0.0; pairs.scales.len()]];
        for (i, values) in [&pairs.scales, &pairs.biases].into_iter().enumerate() {
            if let Some(index) = from_f32(affine.dtype, values, &mut stored[i]) {
                return Err(self.overflow(values[index], affine.dtype));
            }
            to_f32(affine.dtype, &stored[i], &mut rounded[i]);
            let at = first_row * (cols / affine.group) * size;
            self.writer.write(&outputs[i + 1].name, at as u64, stored[i].as_slice())?;
        }
        let [scales, biases] = rounded;
        Ok(affine.decode(&parts[0], &scales, &biases, segment.len))
    }
}
