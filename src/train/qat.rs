//! `qat`: linear layers trained on the 2-bit grid.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use compress_model_qat::train::{FakeGrid, Position, Trainee, train};
use half::f16;

use super::blocks::{BlockReport, train_blocks};
use super::finished::{Finished, outcome};
use super::layer::{Parameters, Place};
use super::log::{Log, TrainProgress};
use super::network::Network;
use super::options::TrainOptions;
use super::report::{TrainReport, end, write_history};
use super::teacher::Teacher;
use super::text::TrainingText;
use super::work::{self, Depends};
use crate::calibrate::CalibrationText;
use crate::checkpoint::Checkpoint;
use crate::codec::Params;
use crate::error::{Error, IoContext, Result};
use crate::model::{KvCache, Model, ModelOptions};
use crate::pipeline::manifest::{MANIFEST_FILE, Status, TOOL};
use crate::pipeline::{CompressedFolder, Plan, Progress, compress, source_fingerprint};
use crate::solve::{Sequential, SolveOptions};

/// What `qat` is asked for.
#[derive(Debug)]
pub struct QatRequest<'a> {
    /// The original model.
    pub checkpoint: &'a Checkpoint,
    /// What each tensor becomes; those coded with `grid2` are trained. Its recipe has the resolved
    /// settings of training.
    pub plan: &'a Plan,
    /// How it is trained.
    pub options: &'a TrainOptions,
    /// A compressed folder of the plan's recipe to start from; without one, the calibrated solution
    /// is computed first.
    pub start: Option<&'a Path>,
    /// Windows of the text that the calibration takes.
    pub calibration_windows: usize,
    /// What is trained on.
    pub text: &'a TrainingText,
    /// The output folder.
    pub output: &'a Path,
    /// Seed.
    pub seed: u64,
    /// Go on where a run stopped.
    pub resume: bool,
}

/// Trains the weights of a plan and writes the output folder.
///
/// # Errors
/// [`Error::Stopped`] if `stop` was set: the run can be resumed. [`Error::Model`] for a model with
/// experts, or losses that diverge. As calibrating, running and compressing a model.
pub fn qat(
    request: &QatRequest<'_>,
    stop: &Arc<AtomicBool>,
    progress: &dyn TrainProgress,
    coding: &dyn Progress,
) -> Result<TrainReport> {
    let start_time = Instant::now();
    let QatRequest { checkpoint, plan, options, text, output, seed, .. } = *request;
    let folder = work::open(output, &depends("qat", request)?, request.resume)?;
    let start = match request.start {
        Some(start) => start.to_path_buf(),
        None => calibrated(request, &folder, coding)?,
    };
    let start = CompressedFolder::open(&start)?;
    let model = open_student(start.stored.folder())?;
    let layers = grid_layers(checkpoint, &start, &model, options)?;
    let groups: HashMap<String, Option<NonZeroUsize>> =
        layers.iter().map(|(place, _, group)| (place.name.clone(), *group)).collect();
    let layers: Vec<_> = layers.into_iter().map(|(place, p, _)| (place, p)).collect();
    let windows = text.windows.len() + text.held_out.len();
    let teacher = Teacher::open(checkpoint.folder(), &folder.join("teacher"), windows, text.ctx)?;
    let network = Network::new(&model, &teacher, text, options, layers, folder.clone())?;
    let run = Run { folder: &folder, options, seed, stop, progress };
    let (network, trained) = run.train(network, request.resume)?;

    let mut outcomes = HashMap::new();
    for (place, parameters) in &network.layers {
        let group = groups[&place.name];
        let found = outcome(checkpoint, &place.name, parameters, place.shape.1, group)?;
        outcomes.insert(place.name.clone(), found);
    }
    drop(network);
    let compressed = if options.twos_complement {
        None
    } else {
        let finished = Finished { checkpoint, start: Some(&start), outcomes };
        Some(compress(checkpoint, plan, output, seed, Some(&finished), coding)?)
    };
    end(trained, compressed, output, &folder, start_time.elapsed().as_secs_f64())
}

/// What a run depends on.
fn depends(command: &str, request: &QatRequest<'_>) -> Result<Depends> {
    Ok(Depends {
        command: command.to_owned(),
        tool: TOOL.to_owned(),
        source_fingerprint: source_fingerprint(request.checkpoint)?.to_hex().to_string(),
        start: request.start.map(manifest_hash).transpose()?,
        recipe: request.plan.recipe.to_toml(),
        texts: request.text.files.iter().map(|(_, hash)| hash.clone()).collect(),
        calibration_windows: request.calibration_windows,
        seed: request.seed,
    })
}

/// BLAKE3 of the manifest in `folder`.
pub(super) fn manifest_hash(folder: &Path) -> Result<String> {
    let path = folder.join(MANIFEST_FILE);
    let bytes = std::fs::read(&path).at("read", &path)?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}

/// The model in a compressed folder as training runs it.
pub(super) fn open_student(folder: &Path) -> Result<Model> {
    let options =
        ModelOptions { kv_cache: KvCache::F32, adapters: false, ..ModelOptions::default() };
    let model = Model::open(folder, options)?;
    if model.architecture().experts.is_some() {
        let message = "has experts; training takes dense models only".to_owned();
        return Err(Error::Model { folder: folder.to_path_buf(), message });
    }
    Ok(model)
}

/// The calibrated solution, computed in the work folder unless it is there already.
fn calibrated(request: &QatRequest<'_>, folder: &Path, coding: &dyn Progress) -> Result<PathBuf> {
    let start = folder.join("start");
    if start.exists() {
        return Ok(start);
    }
    let text = request.text;
    let windows = CalibrationText::spread(text.ctx, &text.windows, request.calibration_windows);
    let checkpoint = request.checkpoint;
    let solver = Sequential { checkpoint, text: windows, options: SolveOptions::default() };
    compress(checkpoint, request.plan, &start, request.seed, Some(&solver), coding)?;
    Ok(start)
}

type GridLayer = (Place, Parameters, Option<NonZeroUsize>);

/// Every linear layer that `start` has on the 2-bit grid, in the order in which they run.
fn grid_layers(
    checkpoint: &Checkpoint,
    start: &CompressedFolder,
    model: &Model,
    options: &TrainOptions,
) -> Result<Vec<GridLayer>> {
    let mut layers = Vec::new();
    for place in places(model) {
        let entry = start.manifest.tensors.iter().position(|entry| entry.name == place.name);
        let entry = entry.expect("invariant: the model was opened from this folder");
        let Status::Coded { codec, params, .. } = &start.manifest.tensors[entry].status else {
            continue;
        };
        if codec != "grid2" {
            continue;
        }
        let group = group_of(params);
        let original = checkpoint.tensor(&place.name).ok_or_else(|| {
            Error::checkpoint(checkpoint.folder(), format!("has no tensor {:?}", place.name))
        })?;
        let original = checkpoint.read_all(original)?;
        let (run, size) = match group {
            Some(group) => (place.shape.1, group.get()),
            None if options.scale_per_tensor => (original.len(), original.len()),
            None => (place.shape.1, place.shape.1),
        };
        let grid = if options.from_solution && !options.twos_complement && !options.scale_per_tensor
        {
            let parts = start.read_all_parts(entry)?;
            let scales =
                parts[1].chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32());
            let decoded = model.stored_weight(&place.name)?;
            let scales = scales.collect();
            FakeGrid::from_solution(&original, run, size, options.scales, &decoded, scales)
        } else {
            FakeGrid::new(&original, run, size, options.levels(), options.scales)
        };
        layers.push((place, Parameters::of_grid(grid), group));
    }
    if layers.is_empty() {
        let message = "no linear layer is coded with grid2: there is nothing to train";
        return Err(Error::Usage(format!("{}: {message}", start.stored.folder().display())));
    }
    Ok(layers)
}

/// Parameter `group` of codec `grid2`.
fn group_of(params: &Params) -> Option<NonZeroUsize> {
    params
        .get("group")
        .and_then(serde_json::Value::as_u64)
        .and_then(|g| NonZeroUsize::new(g as usize))
}

/// Every linear layer of a dense model, in the order in which they run.
pub(super) fn places(model: &Model) -> Vec<Place> {
    let mut places = Vec::new();
    for block in 0..model.block_count() {
        for layers in model.site_layers(block) {
            for (index, name) in layers.weights.iter().enumerate() {
                let (site, shape) = (layers.site, layers.shapes[index]);
                places.push(Place { name: name.clone(), block, site, index, shape });
            }
        }
    }
    places
}

/// What the two commands share: the stages of training, stored on the way.
pub(super) struct Run<'a> {
    pub(super) folder: &'a Path,
    pub(super) options: &'a TrainOptions,
    pub(super) seed: u64,
    pub(super) stop: &'a Arc<AtomicBool>,
    pub(super) progress: &'a dyn TrainProgress,
}

impl Run<'_> {
    /// Trains `network`, from where an earlier run stopped if `resume` is set and it stored a state.
    pub(super) fn train<'n>(
        &self,
        mut network: Network<'n>,
        resume: bool,
    ) -> Result<(Network<'n>, TrainReport)> {
        let Self { folder, options, seed, stop, progress } = *self;
        let settings = options.run(network.text.windows.len(), seed);
        let mut position = Position::start(&settings);
        if resume && network.has_state() {
            position = network.restore()?.unwrap_or(position);
        }
        let resumed_step = position.step;
        let mut log = Log::open(folder, position.step, progress, Arc::clone(stop))?;
        let blocks = network.blocks.len();
        let mut reports = Vec::new();
        if options.block_epochs > 0 && network.trained_blocks < blocks {
            progress.begin("blocks", blocks as u64, network.trained_blocks as u64);
            let original = network.teacher.folder();
            let original = Model::open(&original, ModelOptions::default())?;
            let mut done = |network: &Network<'_>, report: BlockReport| {
                progress.step(&format!("error {:.4} -> {:.4}", report.before, report.after));
                log.line(&serde_json::json!({ "trained_block": report }));
                reports.push(report);
                network.store(&position)?;
                Ok(stop.load(std::sync::atomic::Ordering::Relaxed))
            };
            if train_blocks(&mut network, &original, options.block_epochs, seed, &mut done)? {
                return Err(Error::Stopped { folder: folder.to_path_buf() });
            }
        }
        progress.begin("training", settings.schedule.steps, position.step);
        if position.step == 0 {
            // What a spike takes the run back to.
            network.store(&position)?;
        }
        let (ended, position) = train(&mut network, &settings, position, &mut log)?;
        let report = TrainReport::new(ended, &position, &log, reports, &network, resumed_step);
        match ended {
            compress_model_qat::train::Ended::Stopped => {
                Err(Error::Stopped { folder: folder.to_path_buf() })
            }
            compress_model_qat::train::Ended::Diverged => Err(network.fault(&format!(
                "the loss diverged {} times, at last at step {}, each time at half the rate; \
                 lower `rate` in [train]",
                position.rollbacks + 1,
                position.step
            ))),
            _ => {
                write_history(folder, &log)?;
                Ok((network, report))
            }
        }
    }
}
