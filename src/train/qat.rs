//! `qat`: linear layers trained on the 2-bit grid.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use compress_model_qat::train::FakeGrid;
use half::f16;

use super::layer::{Parameters, Place};
use super::report::TrainReport;
use super::run::{Calibration, Run, TrainRequest, Watch, entry_of, open_dense};
use super::subject::Subject;
use crate::calibrate::CalibrationText;
use crate::codec::Params;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::pipeline::manifest::Status;
use crate::pipeline::{CompressedFolder, Progress, Solver, compress};
use crate::solve::{Sequential, SolveOptions};

/// What `qat` starts from.
#[derive(Debug, Clone, Copy)]
pub enum QatStart<'a> {
    /// A compressed folder of the checkpoint and of the plan's recipe.
    Folder(&'a CompressedFolder),
    /// The recipe's calibrated solution, computed first on this many windows of the text.
    Calibrated(usize),
}

/// Trains the weights that a plan codes with `grid2` and writes the output folder.
///
/// # Errors
/// [`Error::Stopped`] if `watch.stop` was set: the run can be resumed. [`Error::Usage`] for a folder
/// to start from that was not compressed from the checkpoint. [`Error::Recipe`] for a plan without
/// linear layers on the grid. [`Error::Model`] for a model with experts, or losses that diverge.
/// [`Error::Gate`] for a run that ends worse than it started. As calibrating, running and compressing a model.
pub fn qat(
    request: &TrainRequest<'_>,
    start: QatStart<'_>,
    watch: Watch<'_>,
) -> Result<TrainReport> {
    let (given, windows) = match start {
        QatStart::Folder(folder) => (Some(folder), 0),
        QatStart::Calibrated(windows) => (None, windows),
    };
    if Subject::Weights.count(request.checkpoint, request.plan) == 0 {
        return Err(Error::Recipe {
            origin: request.plan.recipe.name.clone(),
            message: "codes no linear layer with grid2: there is nothing to train".to_owned(),
        });
    }
    let solver = calibrated_solver(request, windows);
    let peak_memory = match given {
        Some(_) => 0,
        None => request.plan.peak_memory + solver.peak_memory(request.plan),
    };
    let calibration = Calibration { windows, peak_memory };
    let run = Run::open(*request, watch, Subject::Weights, given, calibration)?;
    run.complete(|run| {
        let solved;
        let start = match given {
            Some(folder) => folder,
            None => {
                let folder = calibrated(request, &solver, &run.folder, watch.coding)?;
                solved = CompressedFolder::open(&folder)?;
                &solved
            }
        };
        let model = open_dense(start.stored.folder())?;
        let load = |place: &Place| grid_layer(request, start, &model, place);
        run.write(start, &model, &load)
    })
}

/// Solves the recipe on `windows` windows of the text.
fn calibrated_solver<'a>(request: &TrainRequest<'a>, windows: usize) -> Sequential<'a> {
    let text = request.text;
    let windows = CalibrationText::spread(text.ctx, &text.windows, windows);
    Sequential::new(request.checkpoint, windows, SolveOptions::default())
}

/// The calibrated solution, computed in the work folder unless it is there already.
fn calibrated(
    request: &TrainRequest<'_>,
    solver: &Sequential<'_>,
    folder: &Path,
    coding: &dyn Progress,
) -> Result<PathBuf> {
    let start = folder.join("start");
    if start.exists() {
        return Ok(start);
    }
    compress(request.checkpoint, request.plan, &start, request.seed, Some(solver), coding)?;
    Ok(start)
}

/// The weight at `place` as training starts, if `start` has it on the 2-bit grid.
fn grid_layer(
    request: &TrainRequest<'_>,
    start: &CompressedFolder,
    model: &Model,
    place: &Place,
) -> Result<Option<Parameters>> {
    let TrainRequest { checkpoint, options, .. } = *request;
    let entry = entry_of(start, &place.name);
    let group = match &start.manifest.tensors[entry].status {
        Status::Coded { codec, params, .. } if codec == "grid2" => group_of(params),
        _ => return Ok(None),
    };
    let original = checkpoint.tensor(&place.name).ok_or_else(|| {
        Error::checkpoint(checkpoint.folder(), format!("has no tensor {:?}", place.name))
    })?;
    let original = checkpoint.read_all(original)?;
    let (run, size) = match group {
        Some(group) => (place.shape.1, group.get()),
        None if options.scale_per_tensor => (original.len(), original.len()),
        None => (place.shape.1, place.shape.1),
    };
    let grid = if options.from_solution && !options.twos_complement && !options.scale_per_tensor {
        let parts = start.read_all_parts(entry)?;
        let scales = parts[1].chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32());
        let decoded = model.stored_weight(&place.name)?;
        let scales = scales.collect();
        FakeGrid::from_solution(&original, run, size, options.scales, &decoded, scales)
    } else {
        FakeGrid::new(&original, run, size, options.levels(), options.scales)
    };
    Ok(Some(Parameters::of_grid(grid, group)))
}

/// Parameter `group` of codec `grid2`.
fn group_of(params: &Params) -> Option<NonZeroUsize> {
    params
        .get("group")
        .and_then(serde_json::Value::as_u64)
        .and_then(|g| NonZeroUsize::new(g as usize))
}
