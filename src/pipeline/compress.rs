//! Compression: a checkpoint and a plan in, an output folder out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::adapters::AdapterStage;
use super::coding::{Coder, Job, Output, jobs};
use super::journal::Journal;
use super::manifest::{FORMAT_VERSION, MANIFEST_FILE, Manifest, Solved, Status, TOOL};
use super::plan::{Fate, Plan, Totals};
use super::progress::Progress;
use super::record::{Recorded, Recorder};
use super::scan::Scan;
use super::solved::{SolveReport, Solver, Spool, TRAINED};
use super::{card, decibels, files, scan, waves};
use crate::build;
use crate::checkpoint::{
    Checkpoint, Dependency, Partial, ShardWriter, Staging, Surroundings, check_sidecars,
    copy_sidecars, disk_free,
};
use crate::error::{Error, IoContext, Result};

/// What a run reports.
#[derive(Debug, Clone, Serialize)]
pub struct CompressReport {
    /// The output folder.
    pub output: PathBuf,
    /// Name of the recipe.
    pub recipe: String,
    /// Sums over all tensors.
    pub totals: Totals,
    /// Bytes of everything in the output folder.
    pub output_folder_bytes: u64,
    /// SQNR over all weights of coded tensors, in dB; null without error.
    #[serde(serialize_with = "decibels::serialize")]
    pub sqnr_db: Option<f64>,
    /// The coded tensor with the lowest SQNR.
    pub worst: Option<WorstTensor>,
    /// Seconds for the first pass over the weights.
    pub scan_seconds: f64,
    /// Seconds for coding and writing.
    pub code_seconds: f64,
    /// Tensors that an earlier run had finished.
    pub resumed_tensors: usize,
    /// What the solver did; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solved: Option<SolveReport>,
    /// Predicted peak of resident memory in bytes.
    pub planned_peak_memory: u64,
    /// Oddities of the input.
    pub warnings: Vec<String>,
}

/// The coded tensor that lost most.
#[derive(Debug, Clone, Serialize)]
pub struct WorstTensor {
    /// Its name.
    pub name: String,
    /// Its SQNR in dB; negative infinity, "-inf" in JSON, for an error in a tensor of zeros.
    #[serde(serialize_with = "decibels::serialize_some")]
    pub sqnr_db: f64,
}

/// Compresses `checkpoint` by `plan` into the new folder `output`, on the current rayon pool. The
/// caller has checked `output` with [`crate::checkpoint::check_output_path`]. A `solver` may code
/// tensors beforehand, with a view to more than the tensor.
///
/// # Errors
/// Any fault of the input, found before coding starts; a weight that a codec cannot hold; I/O.
/// No output folder is left behind.
pub fn compress(
    checkpoint: &Checkpoint,
    plan: &Plan,
    output: &Path,
    seed: u64,
    solver: Option<&dyn Solver>,
    progress: &dyn Progress,
) -> Result<CompressReport> {
    let run = Run { checkpoint, plan, seed, solver, progress };
    let scan = run.scan(output, false)?;
    let staging = Staging::create(output)?;
    run.write(&scan, staging, None)
}

/// Does what [`compress`] does, and can be stopped: work in progress lies in `.NAME.partial` beside
/// the output, each finished tensor in its journal. With `resume` a run goes on where one stopped,
/// and gives the same bytes as one that was never stopped; where none stopped, it starts.
///
/// # Errors
/// As [`compress`]. [`Error::Stopped`] when `progress` asks for it, [`Error::StoppedEarly`] while the
/// input is being checked. [`Error::Usage`] where a run stopped and `resume` is not set, and where
/// the checkpoint, the recipe, the calibration, the seed, the cut into shards or the program changed
/// since. What is done stays there after an error that may not come again.
pub fn compress_resumable(
    checkpoint: &Checkpoint,
    plan: &Plan,
    output: &Path,
    seed: u64,
    solver: Option<&dyn Solver>,
    resume: bool,
    progress: &dyn Progress,
) -> Result<CompressReport> {
    remove_finished(output)?;
    Partial::check(output, resume)?;
    let run = Run { checkpoint, plan, seed, solver, progress };
    let scan = run.scan(output, resume)?;
    let partial = Partial::open(output, &run.dependencies(&scan)?, resume)?;
    let staging = Staging::lasting(partial.folder().join(STAGED), output)?;
    match run.write(&scan, staging, Some(&partial)) {
        Ok(report) => {
            partial.remove()?;
            Ok(report)
        }
        Err(e) => {
            partial.end(&e);
            Err(e)
        }
    }
}

/// Where the output is staged, in the folder of work in progress.
const STAGED: &str = "output";

/// Removes what is left of work in progress whose output was already in place when the process
/// ended.
fn remove_finished(output: &Path) -> Result<()> {
    let folder = Partial::folder_of(output);
    let left_over = folder.join(JOURNAL).is_file() && !folder.join(STAGED).exists();
    if left_over && output.join(MANIFEST_FILE).is_file() {
        std::fs::remove_dir_all(&folder).at("remove", &folder)?;
    }
    Ok(())
}

const JOURNAL: &str = "journal.jsonl";

struct Run<'a> {
    checkpoint: &'a Checkpoint,
    plan: &'a Plan,
    seed: u64,
    solver: Option<&'a dyn Solver>,
    progress: &'a dyn Progress,
}

impl Run<'_> {
    /// Finds every fault of the input.
    fn scan(&self, output: &Path, resume: bool) -> Result<(Scan, f64)> {
        if !(resume && Partial::folder_of(output).exists()) {
            check_disk(self.plan, output)?;
        }
        check_transformed(self.plan)?;
        check_sidecars(self.checkpoint.folder())?;
        let start = Instant::now();
        self.progress.begin("checking", source_bytes(self.checkpoint));
        let scan = scan::scan(self.checkpoint, self.progress)?;
        Ok((scan, start.elapsed().as_secs_f64()))
    }

    fn dependencies(&self, (scan, _): &(Scan, f64)) -> Result<Vec<Dependency>> {
        let shards: Vec<&str> = self.plan.layout.file_names().collect();
        let mut dependencies = vec![("the checkpoint", scan.fingerprint.to_hex().to_string())];
        dependencies.extend(Surroundings::of(self.checkpoint)?.dependencies());
        dependencies.extend([
            ("the recipe", self.plan.recipe.to_toml()),
            ("the calibration", self.solver.map_or_else(String::new, Solver::identity)),
            ("the seed", self.seed.to_string()),
            ("the size of shards", shards.join(" ")),
            ("the program", build::IDENTITY.to_owned()),
            ("the processor's arithmetic", build::arithmetic().to_owned()),
        ]);
        Ok(dependencies)
    }

    /// Codes everything into `staging` and puts it in place; of work in progress in `partial`, what
    /// is done stays as it is.
    fn write(
        &self,
        (scan, scan_seconds): &(Scan, f64),
        staging: Staging,
        partial: Option<&Partial>,
    ) -> Result<CompressReport> {
        let (checkpoint, plan) = (self.checkpoint, self.plan);
        let (solved, spool) = match self.solver {
            Some(solver) => {
                let folder = partial.map_or(staging.folder(), Partial::folder).join("solved");
                let mut spool = Spool::open(folder, checkpoint, plan, partial.is_some())?;
                let mut report = solver.solve(plan, self.seed, &mut spool, self.progress)?;
                add_unsolved(checkpoint, plan, &spool, &mut report);
                (Some(report), Some(spool))
            }
            None => (None, None),
        };
        let start = Instant::now();
        let recorded = self.code(staging.folder(), spool.as_ref(), partial)?;
        // Work in progress keeps it until the output is in place.
        if let (Some(spool), None) = (spool, partial) {
            spool.remove()?;
        }
        let mut manifest = manifest(checkpoint, plan, self.seed, scan, recorded.statuses);
        manifest.solved = solved.as_ref().map(|report| Solved {
            mode: report.mode.to_owned(),
            tokens: report.tokens,
            unsolved: report.unsolved.clone(),
        });
        let mut warnings = plan.warnings(checkpoint);
        if let Some(warning) = solved.as_ref().and_then(warning_of_unsolved) {
            tracing::warn!("{warning}");
            warnings.push(warning);
        }
        write_descriptions(checkpoint, plan, &mut manifest, staging.folder())?;
        let worst = worst(&manifest);
        let output_folder_bytes = folder_bytes(staging.folder());
        let output = staging.commit()?;
        let solving = self.solver.map_or(0, |solver| solver.peak_memory(plan));
        Ok(CompressReport {
            output,
            recipe: plan.recipe.name.clone(),
            totals: plan.totals,
            output_folder_bytes,
            sqnr_db: recorded.sums.sqnr_db(),
            worst,
            scan_seconds: *scan_seconds,
            code_seconds: start.elapsed().as_secs_f64(),
            solved,
            resumed_tensors: recorded.resumed,
            planned_peak_memory: plan.peak_memory + solving,
            warnings,
        })
    }

    fn code(
        &self,
        folder: &Path,
        spool: Option<&Spool>,
        partial: Option<&Partial>,
    ) -> Result<Recorded> {
        let (checkpoint, plan, progress) = (self.checkpoint, self.plan, self.progress);
        progress.begin("compressing", source_bytes(checkpoint));
        let coder = Coder::new(checkpoint, plan, spool);
        let mut adapters = AdapterStage::create(checkpoint, plan, self.seed, spool, folder)?;
        let writer = ShardWriter::create(folder, plan.layout.clone())?;
        let mut recorder = Recorder::new(checkpoint, plan, writer, progress);
        let mut first = 0;
        if let Some(partial) = partial {
            let (journal, lines) = Journal::open(&partial.folder().join(JOURNAL))?;
            first = recorder.resume(journal, lines, adapters.handle()?)?;
            (0..first).for_each(|tensor| adapters.keep(tensor));
        }
        waves::run(
            (first..plan.tensors.len()).flat_map(|tensor| jobs(checkpoint, plan, tensor)),
            |wave| adapters.prepare(wave.iter().map(Job::tensor)),
            |job, adapters| coder.work(job, adapters),
            |job, output: Output| {
                recorder.record(job.tensor(), &output)?;
                match partial.filter(|_| progress.stopped()) {
                    Some(partial) => {
                        recorder.flush()?;
                        Err(Error::Stopped { folder: partial.folder().to_path_buf() })
                    }
                    None => Ok(()),
                }
            },
        )?;
        adapters.finish()?;
        recorder.finish()
    }
}

/// Adds the coded tensors to `report` that have nothing in `spool`.
fn add_unsolved(checkpoint: &Checkpoint, plan: &Plan, spool: &Spool, report: &mut SolveReport) {
    for (number, planned) in plan.tensors.iter().enumerate() {
        let name = &checkpoint.tensors()[planned.source].name;
        let unsolved = matches!(planned.fate, Fate::Coded { .. }) && !spool.has(number);
        if unsolved && !report.unsolved.contains(name) {
            report.unsolved.push(name.clone());
        }
    }
}

/// Names that a warning spells out.
const NAMED: usize = 8;

/// Says which tensors a calibrated run coded without a view to the text.
fn warning_of_unsolved(report: &SolveReport) -> Option<String> {
    let names = &report.unsolved;
    // What training leaves alone is as it was in the folder that it started from.
    if names.is_empty() || report.mode == TRAINED {
        return None;
    }
    let (shown, more) = names.split_at(names.len().min(NAMED));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    Some(format!(
        "{} of the coded tensors see nothing of the calibration text: each is coded on its own, as \
         without --calibration: {}{more}",
        names.len(),
        shown.join(", ")
    ))
}

fn source_bytes(checkpoint: &Checkpoint) -> u64 {
    checkpoint.tensors().iter().map(|t| t.byte_len).sum()
}

fn check_disk(plan: &Plan, output: &Path) -> Result<()> {
    let needed = plan.disk_bytes();
    match disk_free(output) {
        Some(available) if available < needed => {
            Err(Error::DiskFull { path: output.to_path_buf(), needed, available })
        }
        _ => Ok(()),
    }
}

/// A recipe with a transform is for the checkpoint that has gone through it.
fn check_transformed(plan: &Plan) -> Result<()> {
    if plan.recipe.transform.as_ref() == plan.transformation.as_ref().map(|t| &t.options) {
        return Ok(());
    }
    let message = "its [transform] is not what the checkpoint went through; transforms need a \
                   build with the feature model"
        .to_owned();
    Err(Error::Recipe { origin: plan.recipe.name.clone(), message })
}

/// The manifest of a run that gave `statuses`.
pub(super) fn manifest(
    checkpoint: &Checkpoint,
    plan: &Plan,
    seed: u64,
    scan: &Scan,
    statuses: Vec<Status>,
) -> Manifest {
    let before = plan.transformation.as_ref();
    Manifest {
        format_version: FORMAT_VERSION.to_owned(),
        tool: TOOL.to_owned(),
        recipe: plan.recipe.name.clone(),
        seed,
        source_fingerprint: before.map_or_else(
            || scan.fingerprint.to_hex().to_string(),
            |before| before.source_fingerprint.clone(),
        ),
        transform: before.map(|before| before.options.clone()),
        solved: None,
        totals: plan.totals,
        files: BTreeMap::new(),
        tensors: super::record::entries(checkpoint, &scan.hashes, statuses, before),
    }
}

/// Writes everything beside the weights, and last the manifest, which gets the hashes of the others.
pub(super) fn write_descriptions(
    checkpoint: &Checkpoint,
    plan: &Plan,
    manifest: &mut Manifest,
    folder: &Path,
) -> Result<()> {
    use crate::checkpoint::{write_file, write_json};
    write_file(&folder.join("recipe.toml"), plan.recipe.to_toml().as_bytes())?;
    if let Some(config) = checkpoint.config() {
        write_json(&folder.join("config.json"), &card::quantised_config(config, manifest))?;
    }
    write_file(&folder.join("README.md"), card::model_card(checkpoint, manifest).as_bytes())?;
    copy_sidecars(checkpoint.folder(), folder)?;
    manifest.files = files::hashes(folder)?;
    write_json(&folder.join(MANIFEST_FILE), manifest)
}

fn worst(manifest: &Manifest) -> Option<WorstTensor> {
    let sqnr = |entry: &super::manifest::Entry| match &entry.status {
        Status::Coded { sqnr_db, .. } => *sqnr_db,
        _ => None,
    };
    manifest
        .tensors
        .iter()
        .filter_map(|entry| Some((entry, sqnr(entry)?)))
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(entry, sqnr_db)| WorstTensor { name: entry.name.clone(), sqnr_db })
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}
