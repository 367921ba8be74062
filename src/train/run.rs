//! What `qat` and `recover` share: a run from its work folder to the output folder.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use compress_model_qat::train::{Ended, Losses, Position, Trainee, Watcher, train};

use super::blocks::{BlockReport, Blocks, Load};
use super::finished::{Finished, Outcome, outcome};
use super::layer::{Layers, Parameters, Place};
use super::log::{Log, TrainProgress};
use super::memory::planned_peak_bytes;
use super::network::{Network, STATE_FILE};
use super::options::TrainOptions;
use super::report::{TrainReport, end, write_history};
use super::state;
use super::subject::Subject;
use super::teacher::Teacher;
use super::text::TrainingText;
use crate::build;
use crate::checkpoint::{Checkpoint, Partial, Surroundings};
use crate::error::{Error, IoContext, Result};
use crate::memory;
use crate::model::{KvCache, Model, ModelOptions};
use crate::pipeline::manifest::MANIFEST_FILE;
use crate::pipeline::{
    CompressReport, CompressedFolder, Plan, Progress, card, compress, source_fingerprint,
};

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

/// The calibration that a run starts with.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Calibration {
    /// Windows of the text that it is on; 0 for none.
    pub(super) windows: usize,
    /// Resident memory that it takes, in bytes.
    pub(super) peak_memory: u64,
}

/// What training made of tensors, by name.
type Outcomes = HashMap<String, Outcome>;

/// A run whose work folder is open.
pub(super) struct Run<'a> {
    request: TrainRequest<'a>,
    watch: Watch<'a>,
    original: Model,
    /// The work folder.
    pub(super) folder: PathBuf,
    began: Instant,
    work: Partial,
    planned_peak_memory: u64,
}

impl<'a> Run<'a> {
    /// Opens the work folder of a run that trains `subject` and starts from a compressed folder if
    /// `start` is there. Warns where memory will not do.
    ///
    /// # Errors
    /// [`Error::Usage`] for a `start` that was not compressed from the checkpoint; as
    /// [`open_dense`]; what opening the folder of work in progress gives.
    pub(super) fn open(
        request: TrainRequest<'a>,
        watch: Watch<'a>,
        subject: Subject,
        start: Option<&CompressedFolder>,
        calibration: Calibration,
    ) -> Result<Self> {
        let began = Instant::now();
        let original = open_dense(request.checkpoint.folder())?;
        let fingerprint = source_fingerprint(request.checkpoint)?.to_hex().to_string();
        if let Some(start) = start.filter(|s| s.manifest.source_fingerprint != fingerprint) {
            return Err(Error::Usage(format!(
                "{} was not compressed from {}: their fingerprints differ",
                start.stored.folder().display(),
                request.checkpoint.folder().display()
            )));
        }
        if let Some(start) = start {
            let keys = card::differing_keys(
                start.stored.config(),
                &start.manifest,
                request.checkpoint.config(),
            );
            if !keys.is_empty() {
                return Err(Error::Usage(format!(
                    "{}: its config.json differs from that of {} in {}: it is no compressed form of \
                     that model",
                    start.stored.folder().display(),
                    request.checkpoint.folder().display(),
                    keys.join(", ")
                )));
            }
        }
        let planned_peak_memory =
            planned_peak_bytes(&request, original.architecture(), subject, calibration.peak_memory);
        warn_of_memory(planned_peak_memory, memory::available());
        let texts: Vec<&str> = request.text.files.iter().map(|(_, hash)| hash.as_str()).collect();
        let mut depends = vec![("the command", subject.command().to_owned())];
        depends.push(("the checkpoint", fingerprint));
        depends.extend(Surroundings::of(request.checkpoint)?.dependencies());
        depends.extend([
            ("the folder to start from", start.map_or(Ok(String::new()), manifest_hash)?),
            ("the recipe or its settings of training", request.plan.recipe.to_toml()),
            ("the text", texts.join(" ")),
            ("the calibration", calibration.windows.to_string()),
            ("the seed", request.seed.to_string()),
            ("the program", build::IDENTITY.to_owned()),
        ]);
        let work = Partial::open(request.output, &depends, request.resume)?;
        let folder = work.folder().to_path_buf();
        Ok(Self { request, watch, original, folder, began, work, planned_peak_memory })
    }

    /// Does `work`, all of the run, and ends the work in progress: of a run that failed nothing is left
    /// that would be in the way of the next.
    ///
    /// # Errors
    /// What `work` gives; I/O.
    pub(super) fn complete(
        self,
        work: impl FnOnce(&Self) -> Result<(TrainReport, Option<CompressReport>)>,
    ) -> Result<TrainReport> {
        match work(&self) {
            Ok((report, compressed)) => {
                let seconds = self.began.elapsed().as_secs_f64();
                end(report, compressed, self.request.output, self.work, seconds)
            }
            Err(e) => {
                self.work.end(&e);
                Err(e)
            }
        }
    }

    /// Trains what `load` gives of the `model` in `start` and writes the output folder, if there is
    /// to be one.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the run was asked to stop, [`Error::Model`] if its losses diverge,
    /// [`Error::Gate`] if it ends worse than it started; what running the model and compressing it
    /// give.
    pub(super) fn write(
        &self,
        start: &CompressedFolder,
        model: &Model,
        load: Load<'_>,
    ) -> Result<(TrainReport, Option<CompressReport>)> {
        let TrainRequest { checkpoint, plan, options, text, output, seed, .. } = self.request;
        let (original, folder) = (&self.original, &self.folder);
        let blocks = Blocks { model, original, text, options, seed, load, folder };
        let (report, outcomes) = self.train(&blocks)?;
        let compressed = if options.twos_complement {
            None
        } else {
            let finished = Finished { checkpoint, start: Some(start), outcomes };
            Some(compress(checkpoint, plan, output, seed, Some(&finished), self.watch.coding)?)
        };
        Ok((report, compressed))
    }

    /// Both stages of training, from where an earlier run stopped if there was one.
    fn train(&self, blocks: &Blocks<'_>) -> Result<(TrainReport, Outcomes)> {
        let TrainRequest { checkpoint, options, text, seed, .. } = self.request;
        let mut position = Position::start(&options.run(text.windows.len(), seed));
        let state = self.folder.join(STATE_FILE);
        // Blocks are done with once training end to end has stored itself.
        let resumed = state.exists();
        if resumed {
            position = state::read(&state, &mut [], options.spike)?.unwrap_or(position);
        }
        let Watch { stop, progress, .. } = self.watch;
        let mut log = Log::open(&self.folder, position.step, progress, Arc::clone(stop))?;
        let mut report = TrainReport::new(text, self.planned_peak_memory, position.step);
        if options.block_epochs > 0 && !resumed {
            let losses = self.train_blocks(blocks, &mut report, &mut log)?;
            let evaluated = losses.iter().filter(|losses| losses.tokens > 0);
            evaluated.for_each(|losses| log.evaluated(&position, losses));
        }
        // Blocks that helped, some of which an earlier run may have trained.
        let blocks_helped = options.block_epochs > 0
            && (report.blocks.len() < blocks.model.block_count()
                || report.blocks.iter().any(|block| !block.undone));
        if options.only_blocks() && !blocks_helped && !options.keep_last {
            return Err(ends_worse(
                "every block was nearer to the original's before it was trained",
            ));
        }
        let mut outcomes = Outcomes::new();
        let mut take = |layers: &[(Place, Parameters)]| -> Result<()> {
            report.layers += layers.len();
            report.parameters += layers.iter().map(|(_, p)| p.count()).sum::<usize>();
            for (place, parameters) in layers.iter().filter(|_| !options.twos_complement) {
                outcomes.insert(place.name.clone(), outcome(checkpoint, place, parameters)?);
            }
            Ok(())
        };
        let mut numbers = 0..blocks.model.block_count();
        if options.only_blocks() {
            numbers.try_for_each(|block| take(&blocks.layers(block)?))?;
        } else {
            let mut layers = Layers::new();
            for block in numbers {
                layers.extend(blocks.layers(block)?);
            }
            let ended;
            (layers, ended, position) =
                self.train_together(blocks.model, layers, position, resumed, &mut log)?;
            // What blocks gained is kept where nothing more came of it.
            let nothing = !options.keep_last && !blocks_helped;
            if let Some((start, last)) = position.worse().filter(|_| nothing) {
                return Err(ends_worse(&format!(
                    "loss {start:.4} at the start, {last:.4} at the end"
                )));
            }
            take(&layers)?;
            report.stopped_early = ended == Ended::Early;
            let kept = if options.keep_last { Some(position.step) } else { position.best_step };
            report.kept_step = kept;
        }
        write_history(&self.folder, &log)?;
        report.add_log(&position, &log);
        Ok((report, outcomes))
    }

    fn train_blocks(
        &self,
        blocks: &Blocks<'_>,
        report: &mut TrainReport,
        log: &mut Log<'_>,
    ) -> Result<[Losses; 2]> {
        let Watch { stop, progress, .. } = self.watch;
        progress.begin("blocks", blocks.model.block_count() as u64, blocks.trained() as u64);
        let mut done = |block: BlockReport| {
            progress.step(&format!("error {:.4} -> {:.4}", block.before, block.after));
            log.line(&serde_json::json!({ "trained_block": block }));
            report.blocks.push(block);
            stop.load(Ordering::Relaxed)
        };
        let losses = blocks.train(&mut done)?;
        losses.ok_or_else(|| Error::Stopped { folder: self.folder.clone() })
    }

    /// End-to-end training of `layers` from `position` on, where an earlier run stopped if it is
    /// `resumed`.
    fn train_together(
        &self,
        model: &Model,
        layers: Layers,
        position: Position,
        resumed: bool,
        log: &mut Log<'_>,
    ) -> Result<(Layers, Ended, Position)> {
        let TrainRequest { checkpoint, options, text, seed, .. } = self.request;
        let (folder, windows) = (&self.folder, text.windows.len() + text.held_out.len());
        let teacher =
            Teacher::open(checkpoint.folder(), &folder.join("teacher"), windows, text.ctx)?;
        let mut network = Network::new(model, &teacher, text, options, layers, folder.clone())?;
        if resumed {
            network.restore()?;
        } else {
            // What a spike takes the run back to.
            network.store(&position)?;
        }
        let settings = options.run(text.windows.len(), seed);
        self.watch.progress.begin("training", settings.schedule.steps, position.step);
        let (ended, position) = train(&mut network, &settings, position, log)?;
        match ended {
            Ended::Stopped => Err(Error::Stopped { folder: folder.clone() }),
            Ended::Diverged => Err(network.fault(&format!(
                "the loss diverged {} times, at last at step {}, each time at half the rate; \
                 lower `rate` in [train]",
                position.rollbacks + 1,
                position.step
            ))),
            Ended::Finished | Ended::Early => Ok((network.layers, ended, position)),
        }
    }
}

/// Training made the model worse, as `figures` say.
fn ends_worse(figures: &str) -> Error {
    let advice = "lower the rate, or pass --train keep_last=true to have the result all the same";
    Error::Gate { failures: vec![format!("training made the model worse: {figures}; {advice}")] }
}

/// Warns of a run that takes more memory than there is. No refusal: both are estimates, and there may
/// be room to swap.
fn warn_of_memory(planned: u64, available: Option<u64>) {
    if let Some(available) = available.filter(|available| *available < planned) {
        tracing::warn!(
            "training takes about {} MB of memory and {} MB are available; --recompute, a smaller \
             --batch or a smaller --ctx take less",
            planned.div_ceil(1_000_000),
            available / 1_000_000
        );
    }
}

/// BLAKE3 of the manifest of a compressed folder.
fn manifest_hash(folder: &CompressedFolder) -> Result<String> {
    let path = folder.stored.folder().join(MANIFEST_FILE);
    let bytes = std::fs::read(&path).at("read", &path)?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}

/// A model, original or compressed, as training runs it.
///
/// # Errors
/// [`Error::Model`] for a model with experts; as [`Model::open`].
pub(super) fn open_dense(folder: &Path) -> Result<Model> {
    let options =
        ModelOptions { kv_cache: KvCache::F32, adapters: false, ..ModelOptions::default() };
    let model = Model::open(folder, options)?;
    if model.architecture().experts.is_some() {
        let message = "has experts; training takes dense models only".to_owned();
        return Err(Error::Model { folder: folder.to_path_buf(), message });
    }
    Ok(model)
}

/// Number of the manifest entry of a weight that the model has.
pub(super) fn entry_of(start: &CompressedFolder, name: &str) -> usize {
    let entry = start.manifest.tensors.iter().position(|entry| entry.name == name);
    entry.expect("invariant: the model was opened from this folder")
}

/// Every linear layer of a dense model, in the order in which they run.
pub(super) fn places(model: &Model) -> Vec<Place> {
    (0..model.block_count()).flat_map(|block| places_of(model, block)).collect()
}

/// The linear layers of a block, in the order in which they run.
pub(super) fn places_of(model: &Model, block: usize) -> Vec<Place> {
    let mut places = Vec::new();
    for layers in model.site_layers(block) {
        for (index, name) in layers.weights.iter().enumerate() {
            let (site, shape) = (layers.site, layers.shapes[index]);
            places.push(Place { name: name.clone(), block, site, index, shape });
        }
    }
    places
}
