//! Weights of a compressed folder, panel by panel, for formats that hold models.

use compress_model_lora::Adapter;
use rayon::prelude::*;

use crate::checkpoint::Tensor;
use crate::checkpoint::dtype::{AlignedBytes, is_codable};
use crate::error::{Error, Result};
use crate::pipeline::manifest::{Entry, Status};
use crate::pipeline::{AdapterMode, CompressedFolder, DecodedPanel, ErrorSums, Panel, panels};

/// Weights of a kept tensor read at a time.
const KEPT_RUN: usize = 1 << 18;

/// A run of whole rows of one matrix, or of elements of a kept tensor.
#[derive(Debug)]
pub(super) struct Run<'a> {
    /// First weight, counted through the tensor.
    pub(super) first: usize,
    /// The weights as the folder means them, adapter added where it is merged.
    pub(super) weights: &'a [f32],
    /// Stored bytes of each part; none for a kept tensor.
    pub(super) parts: &'a [Vec<u8>],
}

/// A tensor to export.
#[derive(Debug)]
pub(super) struct Job<'a> {
    /// Place in the manifest.
    pub(super) index: usize,
    /// Its manifest entry.
    pub(super) entry: &'a Entry,
    /// Adapter to be added into the weights.
    adapter: Option<Adapter>,
}

impl<'a> Job<'a> {
    /// The job of entry `index`, with its adapter if `mode` merges it; `None` for a tied tensor.
    ///
    /// # Errors
    /// What reading the PEFT files gives.
    pub(super) fn new(
        input: &'a CompressedFolder,
        index: usize,
        mode: AdapterMode,
    ) -> Result<Option<Self>> {
        let entry = &input.manifest.tensors[index];
        if matches!(entry.status, Status::Tied { .. }) {
            return Ok(None);
        }
        let adapter = match mode {
            AdapterMode::Merge => input.adapter(index)?,
            AdapterMode::Separate => None,
        };
        Ok(Some(Self { index, entry, adapter }))
    }

    /// Name of the codec whose codes say all about the weights; `None` for kept tensors and where
    /// an adapter is merged.
    pub(super) fn codes(&self) -> Option<&'a str> {
        match &self.entry.status {
            Status::Coded { codec, .. } if self.adapter.is_none() => Some(codec),
            _ => None,
        }
    }

    /// The codec's parameter `group`: weights that share a scale.
    pub(super) fn group(&self) -> Option<usize> {
        let Status::Coded { params, .. } = &self.entry.status else { return None };
        params.get("group").and_then(serde_json::Value::as_u64).map(|group| group as usize)
    }

    /// Rows of all matrices together, and columns; a vector is one row.
    pub(super) fn rows_and_cols(&self) -> (usize, usize) {
        let cols = self.entry.shape.last().copied().unwrap_or(1);
        (self.entry.shape.iter().product::<usize>() / cols, cols)
    }

    /// Calls `write` for every run of the tensor, on all threads; it writes the run and returns the
    /// weights as the output means them. Gives the sums of the difference.
    ///
    /// # Errors
    /// Those of reading and of `write`.
    pub(super) fn for_each_run(
        &self,
        input: &CompressedFolder,
        write: impl Fn(&Run<'_>) -> Result<Vec<f32>> + Sync,
    ) -> Result<ErrorSums> {
        match &self.entry.status {
            Status::Kept { parts, .. } => {
                kept_runs(input, input.stored_part(&parts[0]), &self.entry.name, write)
            }
            _ => self.coded_runs(input, write),
        }
    }

    fn coded_runs(
        &self,
        input: &CompressedFolder,
        write: impl Fn(&Run<'_>) -> Result<Vec<f32>> + Sync,
    ) -> Result<ErrorSums> {
        let (pool, shape) = input.coded(self.index);
        let all: Vec<Panel> = panels(shape, pool.codec().row_multiple()).collect();
        let one = |panel: &Panel| -> Result<ErrorSums> {
            let DecodedPanel { parts, weights } =
                input.decode_panel(self.index, panel, self.adapter.as_ref())?;
            let first = (panel.matrix * shape.1 + panel.rows.start) * shape.2;
            let written = write(&Run { first, weights: &weights, parts: &parts })?;
            Ok(ErrorSums::of(&weights, &written))
        };
        Ok(sum(all.par_iter().map(one).collect::<Result<_>>()?))
    }
}

fn kept_runs(
    input: &CompressedFolder,
    stored: &Tensor,
    name: &str,
    write: impl Fn(&Run<'_>) -> Result<Vec<f32>> + Sync,
) -> Result<ErrorSums> {
    if !is_codable(stored.dtype) {
        let message = format!("is {:?}; only F16, BF16 and F32 can be exported", stored.dtype);
        return Err(Error::tensor(input.stored.file_of(stored), name, message));
    }
    let cols = stored.shape.last().copied().unwrap_or(1).max(1);
    let step = (KEPT_RUN / cols).max(1) * cols;
    let count = stored.elements() as usize;
    let starts: Vec<usize> = (0..count).step_by(step).collect();
    let one = |&first: &usize| -> Result<ErrorSums> {
        let mut weights = vec![0.0; step.min(count - first)];
        let mut scratch = AlignedBytes::default();
        input.stored.read_weights(stored, first as u64, &mut scratch, &mut weights)?;
        let written = write(&Run { first, weights: &weights, parts: &[] })?;
        Ok(ErrorSums::of(&weights, &written))
    };
    Ok(sum(starts.par_iter().map(one).collect::<Result<_>>()?))
}

/// The sums of all runs, in order.
fn sum(runs: Vec<ErrorSums>) -> ErrorSums {
    let mut total = ErrorSums::default();
    runs.into_iter().for_each(|run| total.add(run));
    total
}
