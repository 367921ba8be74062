//! Compression: a checkpoint and a plan in, an output folder out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use compress_model_lora::{Adapter, PeftWriter, PlannedAdapter};
use rayon::prelude::*;
use serde::Serialize;

use super::adapters;
use super::error_sums::ErrorSums;
use super::manifest::{FORMAT_VERSION, MANIFEST_FILE, Manifest, Status};
use super::panels::{COPY_BYTES, Panel, panels, part_ranges, read_panel};
use super::plan::{Fate, Plan, Totals};
use super::progress::Progress;
use super::record::Recorder;
use super::{card, scan, waves};
use crate::checkpoint::dtype::AlignedBytes;
use crate::checkpoint::{Checkpoint, ShardWriter, Staging, copy_sidecars, disk_free};
use crate::codec::{CodecError, WorkerPool};
use crate::error::{Error, Result};

/// Matrices with fewer weights are decomposed side by side; larger ones use all threads each.
const SIDE_BY_SIDE_WEIGHTS: u64 = 4 << 20;

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
/// caller has checked `output` with [`crate::checkpoint::check_output_path`].
///
/// # Errors
/// Any fault of the input, found before coding starts; a weight that a codec cannot hold; I/O.
/// No output folder is left behind.
pub fn compress(
    checkpoint: &Checkpoint,
    plan: &Plan,
    output: &Path,
    seed: u64,
    progress: &dyn Progress,
) -> Result<CompressReport> {
    check_disk(plan, output)?;
    let start = Instant::now();
    progress.begin("checking", plan.totals.source_bytes);
    let scan = scan::scan(checkpoint, &plan.tensors, &|bytes| progress.advance(bytes))?;
    let scan_seconds = start.elapsed().as_secs_f64();

    let start = Instant::now();
    progress.begin("compressing", plan.totals.source_bytes);
    let staging = Staging::create(output)?;
    let run = Run { checkpoint, plan, seed, pools: pools(plan), progress };
    let recorded = run.code(staging.folder())?;

    let fingerprint = scan.fingerprint.to_hex().to_string();
    let statuses = recorded.statuses;
    let manifest = Manifest {
        format_version: FORMAT_VERSION.to_owned(),
        tool: concat!("compress-model ", env!("CARGO_PKG_VERSION")).to_owned(),
        recipe: plan.recipe.name.clone(),
        seed,
        source_fingerprint: fingerprint,
        totals: plan.totals,
        tensors: super::record::entries(checkpoint, &scan.hashes, statuses),
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
        planned_peak_memory: plan.peak_memory,
        warnings: checkpoint.warnings().to_vec(),
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

/// One pool of workers for each distinct codec, by tensor.
fn pools(plan: &Plan) -> Vec<Option<WorkerPool>> {
    let mut known: Vec<WorkerPool> = Vec::new();
    plan.tensors
        .iter()
        .map(|planned| {
            let Fate::Coded { codec, .. } = &planned.fate else { return None };
            let same = |pool: &&WorkerPool| {
                pool.codec().name() == codec.name() && pool.codec().params() == codec.params()
            };
            if let Some(pool) = known.iter().find(same) {
                return Some(pool.clone());
            }
            known.push(WorkerPool::new(Arc::clone(codec)));
            known.last().cloned()
        })
        .collect()
}

struct Run<'a> {
    checkpoint: &'a Checkpoint,
    plan: &'a Plan,
    seed: u64,
    pools: Vec<Option<WorkerPool>>,
    progress: &'a dyn Progress,
}

impl Run<'_> {
    fn code(&self, folder: &Path) -> Result<super::record::Recorded> {
        let writer = ShardWriter::create(folder, self.plan.layout.clone())?;
        let mut adapters = AdapterStage::create(self, folder)?;
        let mut recorder = Recorder::new(self.checkpoint, self.plan, writer, self.progress);
        waves::run(
            self.jobs(),
            |wave| adapters.prepare(wave),
            |job, adapters| self.work(job, adapters),
            |job, output: Output| match job {
                Job::Copy { tensor, from, .. } => {
                    recorder.record(tensor, &[from], &output.parts, output.sums)
                }
                Job::Code { tensor, panel } => {
                    let starts = self.part_starts(tensor, &panel);
                    recorder.record(tensor, &starts, &output.parts, output.sums)
                }
            },
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

    fn part_starts(&self, tensor: usize, panel: &Panel) -> Vec<u64> {
        let (pool, shape) = self.coded(tensor);
        part_ranges(pool.codec(), shape, panel).into_iter().map(|range| range.start).collect()
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
                code_panel(pool, panel, shape.2, &weights, adapter).map_err(|e| {
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

/// Codes one panel and measures what decoding it gives back.
fn code_panel(
    pool: &WorkerPool,
    panel: &Panel,
    cols: usize,
    weights: &[f32],
    adapter: Option<&Adapter>,
) -> Result<Output, CodecError> {
    let mut parts: Vec<Vec<u8>> = pool
        .codec()
        .parts(panel.rows.len(), cols)
        .iter()
        .map(|part| vec![0; part.byte_len()])
        .collect();
    let mut residual = weights.to_vec();
    if let Some(adapter) = adapter {
        adapter.subtract_from(panel.rows.start, &mut residual);
    }
    let mut decoded = vec![0.0; weights.len()];
    pool.with(|worker| {
        worker.encode(&residual, cols, &mut parts)?;
        worker.decode(&parts, cols, &mut decoded)
    })?;
    if let Some(adapter) = adapter {
        adapter.add_to(panel.rows.start, &mut decoded);
    }
    Ok(Output { parts, sums: ErrorSums::of(weights, &decoded) })
}

/// Extracts and writes the adapters of each wave before its panels are coded.
struct AdapterStage<'a> {
    run: &'a Run<'a>,
    writer: Option<PeftWriter>,
    current: HashMap<usize, Arc<Adapter>>,
    hashes: HashMap<usize, String>,
}

impl<'a> AdapterStage<'a> {
    fn create(run: &'a Run<'a>, folder: &Path) -> Result<Self> {
        let planned: Vec<PlannedAdapter> = (0..run.plan.tensors.len())
            .filter_map(|tensor| {
                let rank = rank_of(run.plan, tensor)?;
                let source = &run.checkpoint.tensors()[run.plan.tensors[tensor].source];
                let (_, out_features, in_features) = source.as_matrices()?;
                let module = adapters::module_of(&source.name).to_owned();
                Some(PlannedAdapter { module, out_features, in_features, rank })
            })
            .collect();
        let writer = if planned.is_empty() {
            None
        } else {
            Some(PeftWriter::create(folder, &planned, base_name(run.checkpoint))?)
        };
        Ok(Self { run, writer, current: HashMap::new(), hashes: HashMap::new() })
    }

    fn prepare(&mut self, wave: &[Job]) -> Result<HashMap<usize, Arc<Adapter>>> {
        let Some(writer) = &mut self.writer else { return Ok(HashMap::new()) };
        let mut tensors: Vec<usize> = wave.iter().map(Job::tensor).collect();
        tensors.dedup();
        self.current.retain(|tensor, _| tensors.contains(tensor));
        let wanted: Vec<(usize, usize)> = tensors
            .into_iter()
            .filter(|tensor| !self.current.contains_key(tensor))
            .filter_map(|tensor| Some((tensor, rank_of(self.run.plan, tensor)?)))
            .collect();
        for (tensor, adapter) in extract_all(self.run, &wanted)? {
            let source = &self.run.checkpoint.tensors()[self.run.plan.tensors[tensor].source];
            writer.write(adapters::module_of(&source.name), &adapter)?;
            self.hashes.insert(tensor, adapters::hash(&adapter));
            self.current.insert(tensor, Arc::new(adapter));
        }
        Ok(self.current.clone())
    }

    /// Completes the PEFT files; gives the hash of each tensor's adapter.
    fn finish(self) -> Result<HashMap<usize, String>> {
        if let Some(writer) = self.writer {
            writer.finish()?;
        }
        Ok(self.hashes)
    }
}

fn extract_all(run: &Run<'_>, wanted: &[(usize, usize)]) -> Result<Vec<(usize, Adapter)>> {
    let extract = |&(tensor, rank): &(usize, usize)| {
        let source = &run.checkpoint.tensors()[run.plan.tensors[tensor].source];
        Ok((tensor, adapters::extract(run.checkpoint, source, rank, run.seed)?))
    };
    let is_large = |&&(tensor, _): &&(usize, usize)| {
        let source = &run.checkpoint.tensors()[run.plan.tensors[tensor].source];
        source.elements() >= SIDE_BY_SIDE_WEIGHTS
    };
    if wanted.iter().any(|w| is_large(&w)) {
        return wanted.iter().map(extract).collect();
    }
    wanted.par_iter().map(extract).collect::<Vec<Result<_>>>().into_iter().collect()
}

fn rank_of(plan: &Plan, tensor: usize) -> Option<usize> {
    match &plan.tensors[tensor].fate {
        Fate::Coded { rank, .. } if *rank > 0 => Some(*rank),
        _ => None,
    }
}

/// The name that adapters give for their base model: the configuration's own, if it has one.
fn base_name(checkpoint: &Checkpoint) -> &str {
    checkpoint
        .config()
        .and_then(|config| config.json().get("_name_or_path")?.as_str())
        .unwrap_or_default()
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
