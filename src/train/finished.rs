//! Trained weights on their way into an output folder.

use compress_model_lora::Adapter;
use compress_model_qat::Grid2;
use half::f16;
use std::collections::HashMap;
use std::num::NonZeroUsize;

use super::layer::{GridWeight, Parameters, Place};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::pipeline::{
    CompressedFolder, Fate, Plan, Progress, SolveReport, Solver, Spool, TRAINED,
};

/// What training made of one tensor.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Parts of its codec.
    Parts(Vec<Vec<u8>>),
    /// A new adapter beside the codes that were there.
    Adapter(Adapter),
}

/// Gives trained tensors their codes and adapters, and all others those of the folder that training
/// started from.
pub(super) struct Finished<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    /// Where training started from; none if all that is known is in `outcomes`.
    pub(super) start: Option<&'a CompressedFolder>,
    pub(super) outcomes: HashMap<String, Outcome>,
}

impl Solver for Finished<'_> {
    fn peak_memory(&self, _: &Plan) -> u64 {
        let bytes = |outcome: &Outcome| match outcome {
            Outcome::Parts(parts) => parts.iter().map(Vec::len).sum::<usize>(),
            Outcome::Adapter(adapter) => 2 * (adapter.a.len() + adapter.b.len()),
        };
        self.outcomes.values().map(|outcome| bytes(outcome) as u64).sum()
    }

    fn identity(&self) -> String {
        "trained".to_owned()
    }

    fn solve(
        &self,
        plan: &Plan,
        _: u64,
        spool: &mut Spool,
        _: &dyn Progress,
    ) -> Result<SolveReport> {
        for (number, planned) in plan.tensors.iter().enumerate() {
            let Fate::Coded { .. } = planned.fate else { continue };
            let tensor = &self.checkpoint.tensors()[planned.source];
            let (name, whole) = (&tensor.name, (number, tensor));
            let entry = self.start.and_then(|start| {
                let entry = start.manifest.tensors.iter().position(|entry| entry.name == *name)?;
                Some((start, entry))
            });
            match (self.outcomes.get(name), entry) {
                (Some(Outcome::Parts(parts)), _) => spool.put(whole, parts, None, Vec::new())?,
                (Some(Outcome::Adapter(adapter)), Some((start, entry))) => {
                    let parts = start.read_all_parts(entry)?;
                    spool.put(whole, &parts, Some(adapter.clone()), Vec::new())?;
                }
                (None, Some((start, entry))) => {
                    let parts = start.read_all_parts(entry)?;
                    spool.put(whole, &parts, start.adapter(entry)?, Vec::new())?;
                }
                // Nothing is known of it: it is coded on its own.
                (_, None) => {}
            }
        }
        let before = self.start.and_then(|start| start.manifest.solved.as_ref());
        let unsolved = before.map_or(&[][..], |solved| &solved.unsolved);
        let unsolved = unsolved.iter().filter(|name| !self.outcomes.contains_key(*name));
        let unsolved = unsolved.cloned().collect();
        Ok(SolveReport { mode: TRAINED, unsolved, ..SolveReport::default() })
    }
}

/// The codes of a trained weight [rows, cols], in the parts of codec `grid2` with groups of `group`
/// or one scale a row.
///
/// # Errors
/// [`Error::Tensor`] for a scale past fp16.
pub(super) fn grid_outcome(
    checkpoint: &Checkpoint,
    name: &str,
    weights: &[f32],
    scales: &[f32],
    cols: usize,
    group: Option<NonZeroUsize>,
) -> Result<Outcome> {
    let grid = group.map_or_else(Grid2::per_row, Grid2::grouped);
    let rows = weights.len() / cols;
    let wanted = rows * grid.scales_per_row(cols);
    // One scale a matrix stands for each of its rows.
    let all: Vec<f16> = if scales.len() == 1 {
        vec![f16::from_f32(scales[0]); wanted]
    } else {
        scales.iter().map(|&s| f16::from_f32(s)).collect()
    };
    if let Some(bad) = all.iter().position(|s| !s.is_finite()) {
        let file = checkpoint.tensor(name).map(|t| checkpoint.file_of(t).to_path_buf());
        let row = bad / grid.scales_per_row(cols);
        let message = format!("row {row}: trained to a scale past fp16");
        return Err(Error::tensor(file.unwrap_or_default(), name, message));
    }
    assert_eq!(all.len(), wanted, "invariant: one scale for each group");
    let mut codes = vec![0; rows * grid.code_bytes_per_row(cols)];
    grid.encode_rows_at(weights, cols, &all, &mut codes);
    let scales = all.iter().flat_map(|s| s.to_le_bytes()).collect();
    Ok(Outcome::Parts(vec![codes, scales]))
}

/// The outcome of a layer's training.
///
/// # Errors
/// As [`grid_outcome`]; [`Error::Adapter`] for factors past fp16.
pub(super) fn outcome(
    checkpoint: &Checkpoint,
    place: &Place,
    parameters: &Parameters,
) -> Result<Outcome> {
    match parameters {
        Parameters::Grid(GridWeight { grid, group, .. }) => {
            let (weights, scales) = (grid.exported_weights(), grid.exported_scales());
            grid_outcome(checkpoint, &place.name, weights, &scales, place.shape.1, *group)
        }
        Parameters::Adapter(adapter) => {
            let [a, b] = &adapter.factors;
            Ok(Outcome::Adapter(Adapter::from_factors(a, b, adapter.rank)?))
        }
    }
}
