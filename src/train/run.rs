//! What `qat` and `recover` share: a run from its work folder to the output folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use compress_model_qat::train::{Ended, Position, Trainee, train};

use super::blocks::{BlockReport, train_blocks};
use super::finished::{Finished, outcome};
use super::layer::{Parameters, Place};
use super::log::{Log, TrainProgress};
use super::network::Network;
use super::options::TrainOptions;
use super::report::{TrainReport, end, write_history};
use super::teacher::Teacher;
use super::text::TrainingText;
use crate::build;
use crate::checkpoint::{Checkpoint, Partial};
use crate::error::{Error, IoContext, Result};
use crate::model::{KvCache, Model, ModelOptions};
use crate::pipeline::manifest::MANIFEST_FILE;
use crate::pipeline::{CompressedFolder, Plan, Progress, compress, source_fingerprint};

/// What a run of `qat` or `recover` is asked for.
#[derive(Debug, Clone, Copy)]
pub struct TrainRequest<'a> {
    /// The original model.
    pub checkpoint: &'a Checkpoint,
    /// What each tensor becomes. Its recipe has the resolved settings of training.
    pub plan: &'a Plan,
    /// How it is trained.
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

/// Who watches a run, and may stop it.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Set to have the run store itself and end at the next step.
    pub stop: &'a Arc<AtomicBool>,
    /// Told of training.
    pub progress: &'a dyn TrainProgress,
    /// Told of calibrating and writing.
    pub coding: &'a dyn Progress,
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("stop", self.stop).finish_non_exhaustive()
    }
}

/// A run whose work folder is open.
pub(super) struct Run<'a> {
    request: TrainRequest<'a>,
    watch: Watch<'a>,
    /// The work folder.
    pub(super) folder: PathBuf,
    began: Instant,
    work: Partial,
}

impl<'a> Run<'a> {
    /// Opens the work folder of `command`, which starts from a compressed folder if `start` is
    /// there.
    ///
    /// # Errors
    /// [`Error::Usage`] for a `start` that was not compressed from the checkpoint; what
    /// opening the folder of work in progress gives.
    pub(super) fn open(
        request: TrainRequest<'a>,
        watch: Watch<'a>,
        command: &str,
        start: Option<&CompressedFolder>,
        calibration_windows: usize,
    ) -> Result<Self> {
        let began = Instant::now();
        let fingerprint = source_fingerprint(request.checkpoint)?.to_hex().to_string();
        if let Some(start) = start.filter(|s| s.manifest.source_fingerprint != fingerprint) {
            return Err(Error::Usage(format!(
                "{} was not compressed from {}: their fingerprints differ",
                start.stored.folder().display(),
                request.checkpoint.folder().display()
            )));
        }
        let texts: Vec<&str> = request.text.files.iter().map(|(_, hash)| hash.as_str()).collect();
        let depends = [
            ("the command", command.to_owned()),
            ("the checkpoint", fingerprint),
            ("the folder to start from", start.map_or(Ok(String::new()), manifest_hash)?),
            ("the recipe or its settings of training", request.plan.recipe.to_toml()),
            ("the text", texts.join(" ")),
            ("the calibration", calibration_windows.to_string()),
            ("the seed", request.seed.to_string()),
            ("the program", build::IDENTITY.to_owned()),
        ];
        let work = Partial::open(request.output, &depends, request.resume)?;
        let folder = work.folder().to_path_buf();
        Ok(Self { request, watch, folder, began, work })
    }

    /// Trains `layers` of the model in `start` and writes the output folder, if there is to be one.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the run was asked to stop, [`Error::Model`] if its losses diverge;
    /// what running the model and compressing it give.
    pub(super) fn finish(
        self,
        start: &CompressedFolder,
        model: &Model,
        layers: Vec<(Place, Parameters)>,
    ) -> Result<TrainReport> {
        let TrainRequest { checkpoint, plan, options, text, output, seed, .. } = self.request;
        let windows = text.windows.len() + text.held_out.len();
        let cache = self.folder.join("teacher");
        let teacher = Teacher::open(checkpoint.folder(), &cache, windows, text.ctx)?;
        let network = Network::new(model, &teacher, text, options, layers, self.folder.clone())?;
        let (network, report) = self.train(network)?;
        let compressed = if options.twos_complement {
            None
        } else {
            let outcomes = network.layers.iter().map(|(place, parameters)| {
                Ok((place.name.clone(), outcome(checkpoint, place, parameters)?))
            });
            let outcomes = outcomes.collect::<Result<_>>()?;
            drop(network);
            let finished = Finished { checkpoint, start: Some(start), outcomes };
            Some(compress(checkpoint, plan, output, seed, Some(&finished), self.watch.coding)?)
        };
        end(report, compressed, output, self.work, self.began.elapsed().as_secs_f64())
    }

    /// Both stages of training, from where an earlier run stopped if there was one.
    fn train<'n>(&self, mut network: Network<'n>) -> Result<(Network<'n>, TrainReport)> {
        let TrainRequest { options, seed, resume, .. } = self.request;
        let Watch { stop, progress, .. } = self.watch;
        let folder = &self.folder;
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
                Ok(stop.load(Ordering::Relaxed))
            };
            if train_blocks(&mut network, &original, options.block_epochs, seed, &mut done)? {
                return Err(Error::Stopped { folder: folder.clone() });
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
            Ended::Stopped => Err(Error::Stopped { folder: folder.clone() }),
            Ended::Diverged => Err(network.fault(&format!(
                "the loss diverged {} times, at last at step {}, each time at half the rate; \
                 lower `rate` in [train]",
                position.rollbacks + 1,
                position.step
            ))),
            Ended::Finished | Ended::Early => {
                write_history(folder, &log)?;
                Ok((network, report))
            }
        }
    }
}

/// BLAKE3 of the manifest of a compressed folder.
fn manifest_hash(folder: &CompressedFolder) -> Result<String> {
    let path = folder.stored.folder().join(MANIFEST_FILE);
    let bytes = std::fs::read(&path).at("read", &path)?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}

/// The model in a compressed folder as training runs it.
///
/// # Errors
/// [`Error::Model`] for a model with experts; as [`Model::open`].
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
