//! `recover`: the adapters of a compressed model trained on what the original says.
//!
//! Codes stay as they are. At these rates only a loss over the whole model makes up for what they
//! lost (RILQ, arXiv 2412.01129): the factors move together, layers making up for each other.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use compress_model_lora::{Adapter, DenseMatrix, SvdOptions, truncated_svd};
use half::slice::HalfFloatSliceExt;

use super::finished::{Finished, outcome};
use super::layer::{Parameters, Place};
use super::log::TrainProgress;
use super::network::Network;
use super::options::TrainOptions;
use super::qat::{Run, manifest_hash, open_student, places};
use super::report::{TrainReport, end};
use super::teacher::Teacher;
use super::text::TrainingText;
use super::work::{self, Depends};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::pipeline::manifest::{Status, TOOL};
use crate::pipeline::{CompressedFolder, Plan, Progress, compress, source_fingerprint};
use crate::recipe::Recipe;

/// What `recover` is asked for.
#[derive(Debug)]
pub struct RecoverRequest<'a> {
    /// The compressed folder whose adapters are trained.
    pub start: &'a CompressedFolder,
    /// The original model.
    pub checkpoint: &'a Checkpoint,
    /// The recipe of `start` with the resolved settings of training; see [`with_ranks`].
    pub plan: &'a Plan,
    /// How the adapters are trained.
    pub options: &'a TrainOptions,
    /// What is trained on.
    pub text: &'a TrainingText,
    /// The output folder.
    pub output: &'a Path,
    /// Seed.
    pub seed: u64,
    /// Go on where a run stopped.
    pub resume: bool,
}

/// The recipe of the compressed folder `start`. With a `rank`, every coded linear layer without an
/// adapter gets one of that rank.
///
/// # Errors
/// [`Error::Recipe`] if the folder's recipe does not parse; [`Error::Usage`] if there is nothing to
/// train; as opening the model.
pub fn with_ranks(start: &CompressedFolder, rank: Option<usize>) -> Result<Recipe> {
    let folder = start.stored.folder();
    let mut recipe = Recipe::read(&folder.join("recipe.toml"))?;
    let model = open_student(folder)?;
    let mut trained = 0;
    for place in places(&model) {
        let entry = entry_of(start, &place.name);
        let Status::Coded { adapter, .. } = &start.manifest.tensors[entry].status else { continue };
        if let (None, Some(rank)) = (adapter, rank) {
            recipe.put_first(&place.name, &start.coded(entry).0.codec_arc(), rank);
        }
        trained += usize::from(adapter.is_some() || rank.is_some());
    }
    if trained == 0 {
        let message = "has no adapters; give them with --rank";
        return Err(Error::Usage(format!("{}: {message}", folder.display())));
    }
    Ok(recipe)
}

/// Number of the manifest entry of a weight that the model has.
fn entry_of(start: &CompressedFolder, name: &str) -> usize {
    let entry = start.manifest.tensors.iter().position(|entry| entry.name == name);
    entry.expect("invariant: the model was opened from this folder")
}

/// Trains the adapters of a compressed folder and writes the output folder.
///
/// # Errors
/// [`Error::Stopped`] if `stop` was set: the run can be resumed. [`Error::Usage`] for an original
/// that the folder was not made from. As [`super::qat()`].
pub fn recover(
    request: &RecoverRequest<'_>,
    stop: &Arc<AtomicBool>,
    progress: &dyn TrainProgress,
    coding: &dyn Progress,
) -> Result<TrainReport> {
    let start_time = Instant::now();
    let RecoverRequest { start, checkpoint, plan, options, text, output, seed, .. } = *request;
    let fingerprint = source_fingerprint(checkpoint)?.to_hex().to_string();
    if fingerprint != start.manifest.source_fingerprint {
        return Err(Error::Usage(format!(
            "{} was not compressed from {}: their fingerprints differ",
            start.stored.folder().display(),
            checkpoint.folder().display()
        )));
    }
    let depends = Depends {
        command: "recover".to_owned(),
        tool: TOOL.to_owned(),
        source_fingerprint: fingerprint,
        start: Some(manifest_hash(start.stored.folder())?),
        recipe: plan.recipe.to_toml(),
        texts: text.files.iter().map(|(_, hash)| hash.clone()).collect(),
        calibration_windows: 0,
        seed,
    };
    let folder = work::open(output, &depends, request.resume)?;
    let model = open_student(start.stored.folder())?;
    let layers = adapter_layers(request, &model)?;
    let windows = text.windows.len() + text.held_out.len();
    let teacher = Teacher::open(checkpoint.folder(), &folder.join("teacher"), windows, text.ctx)?;
    let network = Network::new(&model, &teacher, text, options, layers, folder.clone())?;
    let run = Run { folder: &folder, options, seed, stop, progress };
    let (network, trained) = run.train(network, request.resume)?;
    let mut outcomes = HashMap::new();
    for (place, parameters) in &network.layers {
        let found = outcome(checkpoint, &place.name, parameters, place.shape.1, None)?;
        outcomes.insert(place.name.clone(), found);
    }
    drop(network);
    let finished = Finished { checkpoint, start: Some(start), outcomes };
    let compressed = compress(checkpoint, plan, output, seed, Some(&finished), coding)?;
    end(trained, Some(compressed), output, &folder, start_time.elapsed().as_secs_f64())
}

/// The adapters of the plan: those of the folder, and the top singular directions of what the codes
/// lost where it has none.
fn adapter_layers(request: &RecoverRequest<'_>, model: &Model) -> Result<Vec<(Place, Parameters)>> {
    let RecoverRequest { start, checkpoint, plan, seed, .. } = *request;
    let mut layers = Vec::new();
    for place in places(model) {
        let source = |tensor: &crate::checkpoint::Tensor| tensor.name == place.name;
        let planned = plan.tensors.iter().find(|t| source(&checkpoint.tensors()[t.source]));
        let Some(crate::pipeline::Fate::Coded { rank, .. }) = planned.map(|t| &t.fate) else {
            continue;
        };
        if *rank == 0 {
            continue;
        }
        let adapter = match start.adapter(entry_of(start, &place.name))? {
            Some(adapter) => adapter,
            None => {
                let mut missing = match checkpoint.tensor(&place.name) {
                    Some(tensor) => checkpoint.read_all(tensor)?,
                    None => continue,
                };
                let decoded = model.stored_weight(&place.name)?;
                missing.iter_mut().zip(decoded).for_each(|(w, decoded)| *w -= decoded);
                let options = SvdOptions { seed, ..SvdOptions::new(*rank) };
                let svd = truncated_svd(&DenseMatrix::new(&missing, place.shape.1), &options)?;
                Adapter::from_svd(&svd)?
            }
        };
        let (a, b) = (adapter.a.to_f32_vec(), adapter.b.to_f32_vec());
        layers.push((place, Parameters::of_adapter(adapter.rank(), a, b)));
    }
    Ok(layers)
}
