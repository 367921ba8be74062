//! Where a model's weights come from: an original checkpoint or a compressed folder.
//!
//! Weights are asked for by the name that they have in the original and come as f32. Nothing is
//! kept: what is coded stays coded on disk until a layer runs.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Shape, Tensor};
use compress_model_lora::Adapter;
use rayon::prelude::*;
use serde_json::Value;

use super::Architecture;
use crate::checkpoint::dtype::{AlignedBytes, holds_weights, is_codable, parse_dtype};
use crate::checkpoint::{Checkpoint, as_matrices};
use crate::error::{Error, Result};
use crate::pipeline::manifest::{MANIFEST_FILE, Status};
use crate::pipeline::{CompressedFolder, Panel, panels};

/// An open model folder.
#[derive(Debug)]
pub(super) struct Weights {
    source: Source,
    /// Names as a reader finds them.
    shapes: HashMap<String, Vec<usize>>,
}

#[derive(Debug)]
enum Source {
    Original(Box<Checkpoint>),
    Compressed { folder: Box<CompressedFolder>, entries: HashMap<String, usize>, adapters: bool },
}

impl Weights {
    /// Opens `folder`, compressed if it has a manifest; `adapters` are added to the weights.
    pub(super) fn open(folder: &Path, adapters: bool) -> Result<Self> {
        if !folder.join(MANIFEST_FILE).exists() {
            let checkpoint = Checkpoint::open(folder)?;
            let tensors =
                || checkpoint.tensors().iter().filter(|t| holds_weights(t.dtype, &t.shape));
            if let Some(tensor) = tensors().find(|t| !is_codable(t.dtype)) {
                let message = format!("{:?} is no dtype of weights", tensor.dtype);
                return Err(Error::tensor(checkpoint.file_of(tensor), &tensor.name, message));
            }
            let shapes = tensors().map(|t| (t.name.clone(), t.shape.clone())).collect();
            return Ok(Self { source: Source::Original(Box::new(checkpoint)), shapes });
        }
        let folder = Box::new(CompressedFolder::open(folder)?);
        let tensors = &folder.manifest.tensors;
        let entries = tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        let shapes = tensors
            .iter()
            .filter(|t| parse_dtype(&t.dtype).is_none_or(|dtype| holds_weights(dtype, &t.shape)))
            .map(|t| (t.name.clone(), t.shape.clone()))
            .collect();
        Ok(Self { source: Source::Compressed { folder, entries, adapters }, shapes })
    }

    /// The model's `config.json`.
    pub(super) fn config(&self) -> Option<&Value> {
        let checkpoint = match &self.source {
            Source::Original(checkpoint) => checkpoint,
            Source::Compressed { folder, .. } => &folder.stored,
        };
        checkpoint.config().map(crate::checkpoint::config::ModelConfig::json)
    }

    /// Names and shapes of all tensors.
    pub(super) fn shapes(&self) -> &HashMap<String, Vec<usize>> {
        &self.shapes
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Path {
        match &self.source {
            Source::Original(checkpoint) => checkpoint.origin(),
            Source::Compressed { folder, .. } => folder.stored.folder(),
        }
    }

    /// [`Error::Model`] about this folder.
    pub(super) fn fault(&self, message: impl std::fmt::Display) -> Error {
        Error::Model { folder: self.folder().to_path_buf(), message: message.to_string() }
    }

    /// `values` as a tensor on `device`.
    pub(super) fn tensor(
        &self,
        values: Vec<f32>,
        shape: impl Into<Shape>,
        device: &Device,
    ) -> Result<Tensor> {
        Tensor::from_vec(values, shape.into(), device).map_err(|e| self.fault(e))
    }

    /// The gains of norm `name` as the forward pass multiplies by them.
    pub(super) fn gains(
        &self,
        name: &str,
        architecture: &Architecture,
        device: &Device,
    ) -> Result<Tensor> {
        let mut gains = self.read(name)?;
        gains.iter_mut().for_each(|gain| *gain += f32::from(architecture.norm_adds_one));
        let count = gains.len();
        self.tensor(gains, count, device)
    }

    /// Tensor `name` as f32, row-major; it must be there.
    pub(super) fn read(&self, name: &str) -> Result<Vec<f32>> {
        let shape = &self.shapes[name];
        let (matrices, rows, cols) = as_matrices(shape).unwrap_or((1, 1, shape.iter().product()));
        self.read_rows(name, cols, &(0..matrices * rows).collect::<Vec<_>>())
    }

    /// The ascending rows `wanted` of tensor `name`, seen as one matrix of `cols` columns.
    pub(super) fn read_rows(&self, name: &str, cols: usize, wanted: &[usize]) -> Result<Vec<f32>> {
        let mut out = vec![0.0; wanted.len() * cols];
        match &self.source {
            Source::Original(checkpoint) => read_original(checkpoint, name, cols, wanted, &mut out),
            Source::Compressed { folder, entries, adapters } => {
                let mut index = entries[name];
                if let Status::Tied { to } = &folder.manifest.tensors[index].status {
                    index = entries[to];
                }
                match &folder.manifest.tensors[index].status {
                    Status::Kept { parts, .. } => {
                        read_original(&folder.stored, &parts[0].name, cols, wanted, &mut out)
                    }
                    _ => {
                        let adapter = if *adapters { folder.adapter(index)? } else { None };
                        decode(folder, index, adapter.as_ref(), cols, wanted, &mut out)
                    }
                }
            }
        }?;
        Ok(out)
    }
}

/// Rows that a task reads at once.
const RUN_WEIGHTS: usize = 1 << 18;

fn read_original(
    checkpoint: &Checkpoint,
    name: &str,
    cols: usize,
    wanted: &[usize],
    out: &mut [f32],
) -> Result<()> {
    let tensor = checkpoint.tensor(name).expect("invariant: the name was listed");
    let run = (RUN_WEIGHTS / cols.max(1)).max(1);
    out.par_chunks_mut(run * cols).zip(wanted.par_chunks(run)).try_for_each(|(out, wanted)| {
        let mut scratch = AlignedBytes::default();
        let mut done = 0;
        // Rows that follow each other are read together.
        for rows in wanted.chunk_by(|a, b| a + 1 == *b) {
            let out = &mut out[done * cols..(done + rows.len()) * cols];
            checkpoint.read_weights(tensor, (rows[0] * cols) as u64, &mut scratch, out)?;
            done += rows.len();
        }
        Ok(())
    })
}

/// Decodes the panels that hold `wanted` rows, in parallel.
fn decode(
    folder: &CompressedFolder,
    index: usize,
    adapter: Option<&Adapter>,
    cols: usize,
    wanted: &[usize],
    out: &mut [f32],
) -> Result<()> {
    let (pool, shape) = folder.coded(index);
    let mut rest = out;
    let mut next = 0;
    let mut work: Vec<(Panel, &[usize], &mut [f32])> = Vec::new();
    for panel in panels(shape, pool.codec().row_multiple()) {
        let end = panel.matrix * shape.1 + panel.rows.end;
        let count = wanted[next..].partition_point(|row| *row < end);
        if count > 0 {
            let (own, others) = std::mem::take(&mut rest).split_at_mut(count * cols);
            rest = others;
            work.push((panel, &wanted[next..next + count], own));
            next += count;
        }
    }
    work.into_par_iter().try_for_each(|(panel, wanted, out)| {
        let first = panel.matrix * shape.1 + panel.rows.start;
        let decoded = folder.decode_panel(index, &panel, adapter)?;
        for (row, out) in wanted.iter().zip(out.chunks_exact_mut(cols)) {
            out.copy_from_slice(&decoded.weights[(row - first) * cols..][..cols]);
        }
        Ok(())
    })
}
