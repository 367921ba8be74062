//! Compression: a checkpoint and a plan in, an output folder out.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use compress_model_lora::Adapter;
use serde::Serialize;

use super::adapters::AdapterStage;
use super::error_sums::ErrorSums;
use super::manifest::{FORMAT_VERSION, MANIFEST_FILE, Manifest, Status, TOOL};
use super::panels::{COPY_BYTES, Panel, panels, read_panel};
use super::plan::{Fate, Plan, Totals};
use super::progress::Progress;
use super::record::Recorder;
use super::solved::{SolveReport, Solver, Spool};
use super::{card, scan, waves};
use crate::checkpoint::dtype::AlignedBytes;
use crate::checkpoint::{Checkpoint, ShardWriter, Staging, copy_sidecars, disk_free};
use crate::codec::{CodecError, WorkerPool, WorkerPools};
use crate::error::{Error, Result};

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
    pub sqnr_db: Option<f64>,
    /// The coded tensor with the lowest SQNR.
    pub worst: Option<WorstTensor>,
    /// Seconds for the first pass over the weights.
    pub scan_seconds: f64,
    /// Seconds for coding and writing.
    pub code_seconds: f64,
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
    /// Its SQNR in dB.
    pub sqnr_db: f64,
}

/// A piece of work: some bytes of a kept tensor or a panel of a coded one.
enum Job {
    Copy { tensor: usize, from: u64, len: usize },
    Code { tensor: usize, panel: Panel },
}

impl Job {
    fn tensor(&self) -> usize {
        match self {
            Self::Copy { tensor, .. } | Self::Code { tensor, .. } => *tensor,
        }
    }
}

/// What a job gives: bytes for each stored part, and the error made.
struct Output {
    parts: Vec<Vec<u8>>,
    sums: ErrorSums,
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
    check_disk(plan, output)?;
    check_transformed(plan)?;
    let bytes = checkpoint.tensors().iter().map(|t| t.byte_len).sum();
    let start = Instant::now();
    progress.begin("checking", bytes);
    let scan = scan::scan(checkpoint, &plan.tensors, &|bytes| progress.advance(bytes))?;
    let scan_seconds = start.elapsed().as_secs_f64();

    let staging = Staging::create(output)?;
    let (solved, spool) = match solver {
        Some(solver) => {
            let mut spool = Spool::create(staging.folder().join("solved"), plan.tensors.len())?;
            (Some(solver.solve(plan, seed, &mut spool, progress)?), Some(spool))
        }
        None => (None, None),
    };
    let start = Instant::now();
    progress.begin("compressing", bytes);
    let run = Run { checkpoint, plan, seed, pools: pools(plan), spool: spool.as_ref(), progress };
    let recorded = run.code(staging.folder())?;
    spool.map_or(Ok(()), Spool::remove)?;

    let statuses = recorded.statuses;
    let before = plan.transformation.as_ref();
    let manifest = Manifest {
        format_version: FORMAT_VERSION.to_owned(),
        tool: TOOL.to_owned(),
        recipe: plan.recipe.name.clone(),
        seed,
        source_fingerprint: before.map_or_else(
            || scan.fingerprint.to_hex().to_string(),
            |before| before.source_fingerprint.clone(),
        ),
        transform: before.map(|before| before.options.clone()),
        totals: plan.totals,
        tensors: super::record::entries(checkpoint, &scan.hashes, statuses, before),
    };
    write_descriptions(checkpoint, plan, &manifest, staging.folder())?;
    let worst = worst(&manifest);
    let output_folder_bytes = folder_bytes(staging.folder());
    staging.commit()?;
    Ok(CompressReport {
        output: output.to_path_buf(),
        recipe: plan.recipe.name.clone(),
        totals: plan.totals,
        output_folder_bytes,
        sqnr_db: recorded.sums.sqnr_db(),
        worst,
        scan_seconds,
        code_seconds: start.elapsed().as_secs_f64(),
        solved,
        planned_peak_memory: plan.peak_memory + solver.map_or(0, |solver| solver.peak_memory(plan)),
        warnings: plan.warnings(checkpoint),
    })
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

/// The workers of each coded tensor.
fn pools(plan: &Plan) -> Vec<Option<WorkerPool>> {
    let mut pools = WorkerPools::default();
    plan.tensors
        .iter()
        .map(|planned| match &planned.fate {
            Fate::Coded { codec, .. } => Some(pools.of(codec)),
            Fate::Kept { .. } | Fate::Tied { .. } => None,
        })
        .collect()
}

struct Run<'a> {
    checkpoint: &'a Checkpoint,
    plan: &'a Plan,
    seed: u64,
    pools: Vec<Option<WorkerPool>>,
    spool: Option<&'a Spool>,
    progress: &'a dyn Progress,
}

impl Run<'_> {
    fn code(&self, folder: &Path) -> Result<super::record::Recorded> {
        let writer = ShardWriter::create(folder, self.plan.layout.clone())?;
        let mut adapters =
            AdapterStage::create(self.checkpoint, self.plan, self.seed, self.spool, folder)?;
        let mut recorder = Recorder::new(self.checkpoint, self.plan, writer, self.progress);
        waves::run(
            self.jobs(),
            |wave| adapters.prepare(wave.iter().map(Job::tensor)),
            |job, adapters| self.work(job, adapters),
            |job, output: Output| recorder.record(job.tensor(), &output.parts, output.sums),
        )?;
        recorder.finish(&adapters.finish()?)
    }

    fn jobs(&self) -> impl Iterator<Item = Job> {
        self.plan.tensors.iter().enumerate().flat_map(move |(tensor, planned)| {
            let source = &self.checkpoint.tensors()[planned.source];
            let jobs: Box<dyn Iterator<Item = Job>> = match &planned.fate {
                Fate::Tied { .. } => Box::new(std::iter::empty()),
                Fate::Kept { .. } => {
                    let pieces = (0..source.byte_len).step_by(COPY_BYTES as usize);
                    Box::new(pieces.map(move |from| {
                        let len = COPY_BYTES.min(source.byte_len - from) as usize;
                        Job::Copy { tensor, from, len }
                    }))
                }
                Fate::Coded { codec, .. } => {
                    let shape = source.as_matrices().expect("invariant: plans code matrices only");
                    let panels = panels(shape, codec.row_multiple());
                    Box::new(panels.map(move |panel| Job::Code { tensor, panel }))
                }
            };
            jobs
        })
    }

    fn coded(&self, tensor: usize) -> (&WorkerPool, (usize, usize, usize)) {
        let source = &self.checkpoint.tensors()[self.plan.tensors[tensor].source];
        let pool = self.pools[tensor].as_ref().expect("invariant: a coded tensor has a codec");
        (pool, source.as_matrices().expect("invariant: plans code matrices only"))
    }

    fn work(&self, job: &Job, adapters: &HashMap<usize, Arc<Adapter>>) -> Result<Output> {
        let source = &self.checkpoint.tensors()[self.plan.tensors[job.tensor()].source];
        match job {
            Job::Copy { from, len, .. } => {
                let mut bytes = vec![0; *len];
                self.checkpoint.read_bytes(source, *from, &mut bytes)?;
                Ok(Output { parts: vec![bytes], sums: ErrorSums::default() })
            }
            Job::Code { tensor, panel } => {
                let (pool, shape) = self.coded(*tensor);
                let mut weights = Vec::new();
                let scratch = &mut AlignedBytes::default();
                read_panel(self.checkpoint, source, shape, panel, scratch, &mut weights)?;
                let adapter = adapters.get(tensor).map(|adapter| &**adapter);
                let solved = match self.spool {
                    Some(spool) => spool.panel(*tensor, pool.codec(), shape, panel)?,
                    None => None,
                };
                code_panel(pool, panel, shape.2, &weights, adapter, solved).map_err(|e| {
                    let message = match e {
                        CodecError::Row { row, message } => {
                            format!("row {}: {message}", panel.rows.start + row)
                        }
                        other => other.to_string(),
                    };
                    Error::tensor(self.checkpoint.file_of(source), &source.name, message)
                })
            }
        }
    }
}

/// Codes one panel, unless it is `solved`, and measures what decoding it gives back.
fn code_panel(
    pool: &WorkerPool,
    panel: &Panel,
    cols: usize,
    weights: &[f32],
    adapter: Option<&Adapter>,
    solved: Option<Vec<Vec<u8>>>,
) -> Result<Output, CodecError> {
    let mut decoded = vec![0.0; weights.len()];
    let parts = match solved {
        Some(parts) => parts,
        None => {
            let mut residual = Cow::Borrowed(weights);
            if let Some(adapter) = adapter {
                adapter.subtract_from(panel.rows.start, residual.to_mut());
            }
            let parts = pool.codec().parts(panel.rows.len(), cols);
            let mut parts: Vec<Vec<u8>> =
                parts.iter().map(|part| vec![0; part.byte_len()]).collect();
            pool.with(|worker| worker.encode(&residual, cols, &mut parts))?;
            parts
        }
    };
    pool.with(|worker| worker.decode(&parts, cols, &mut decoded))?;
    if let Some(adapter) = adapter {
        adapter.add_to(panel.rows.start, &mut decoded);
    }
    Ok(Output { parts, sums: ErrorSums::of(weights, &decoded) })
}

fn write_descriptions(
    checkpoint: &Checkpoint,
    plan: &Plan,
    manifest: &Manifest,
    folder: &Path,
) -> Result<()> {
    use crate::checkpoint::{write_file, write_json};
    write_json(&folder.join(MANIFEST_FILE), manifest)?;
    write_file(&folder.join("recipe.toml"), plan.recipe.to_toml().as_bytes())?;
    if let Some(config) = checkpoint.config() {
        write_json(&folder.join("config.json"), &card::quantised_config(config, manifest))?;
    }
    write_file(&folder.join("README.md"), card::model_card(checkpoint, manifest).as_bytes())?;
    copy_sidecars(checkpoint.folder(), folder)?;
    Ok(())
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
