//! `work`: one unit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use blake3::Hasher;
use serde::Serialize;

use super::piece::{Done, PIECE_FILE, Piece, arrays, factor_names, folder, part_name};
use super::{Task, UnitPlan, VERSION, piece, tasks};
use crate::build;
use crate::checkpoint::{Checkpoint, ShardLayout, ShardWriter, write_json};
use crate::error::{Error, IoContext, Result};
use crate::pipeline::adapters::AdapterStage;
use crate::pipeline::coding::{Coder, Job, Output};
use crate::pipeline::plan::Plan;
use crate::pipeline::progress::Progress;
use crate::pipeline::{scan, waves};

/// What `work` reports.
#[derive(Debug, Clone, Serialize)]
pub struct WorkReport {
    /// The unit.
    pub unit: usize,
    /// Units in all.
    pub units: usize,
    /// Where its piece is.
    pub piece: PathBuf,
    /// Whether it was there already.
    pub already_done: bool,
    /// Weights and bytes of the unit's share of the source.
    pub source_bytes: u64,
    /// Seconds it took.
    pub seconds: f64,
}

/// Does unit number `unit` of the plan in the file `units`, and puts its piece into the folder
/// `pieces`, which many may write to. `model` is where the source is, if not where it was.
///
/// # Errors
/// [`Error::Usage`] for a unit that is not in the plan; any fault of its share of the source; I/O.
pub fn work(
    units: &Path,
    unit: usize,
    model: Option<&Path>,
    pieces: &Path,
    progress: &dyn Progress,
) -> Result<WorkReport> {
    let start = Instant::now();
    let (unit_plan, plan_hash) = UnitPlan::read(units)?;
    let count = unit_plan.units.len();
    let segments = unit_plan.units.get(unit).ok_or_else(|| {
        let last = count.saturating_sub(1);
        Error::Usage(format!("--unit {unit}: {} has units 0 to {last}", units.display()))
    })?;
    let (checkpoint, plan) = unit_plan.open(model, rayon::current_num_threads())?;
    let tasks = tasks(&checkpoint, &plan, segments)?;
    std::fs::create_dir_all(pieces).at("create", pieces)?;
    let target = folder(pieces, unit, count);
    let already_done = piece::read(&target, &plan_hash, unit, segments)?.is_some();
    if !already_done {
        // Others may be at the same unit, on other machines: no name of a process is unique.
        let staging = tempfile::Builder::new()
            .prefix(&format!(".unit-{unit:05}-"))
            .tempdir_in(pieces)
            .at("create a folder in", pieces)?;
        let run = Run {
            unit_plan: &unit_plan,
            checkpoint: &checkpoint,
            plan: &plan,
            tasks: &tasks,
            progress,
        };
        let segments_done = run.write(staging.path(), unit_plan.seed)?;
        let piece = Piece {
            format_version: VERSION.to_owned(),
            plan: plan_hash.clone(),
            unit,
            arithmetic: build::arithmetic().to_owned(),
            segments: segments_done,
        };
        write_json(&staging.path().join(PIECE_FILE), &piece)?;
        if let Err(e) = std::fs::rename(staging.path(), &target) {
            // Another worker may have been faster; its bytes are the same.
            if piece::read(&target, &plan_hash, unit, segments)?.is_none() {
                return Err(e).at("rename to", &target);
            }
        }
    }
    let source_bytes = tasks.iter().map(|task| run_bytes(&checkpoint, &plan, task)).sum();
    let seconds = start.elapsed().as_secs_f64();
    Ok(WorkReport { unit, units: count, piece: target, already_done, source_bytes, seconds })
}

/// Bytes of the source that a task codes or copies.
fn run_bytes(checkpoint: &Checkpoint, plan: &Plan, task: &Task<'_>) -> u64 {
    let source = &checkpoint.tensors()[plan.tensors[task.tensor].source];
    let cols = source.as_matrices().map_or(0, |(_, _, cols)| cols);
    let of_job = |job: &Job| match job {
        Job::Copy { len, .. } => *len as u64,
        Job::Code { panel, .. } => (panel.rows.len() * cols * source.dtype.bitsize()) as u64 / 8,
    };
    task.jobs.iter().map(of_job).sum()
}

struct Run<'a> {
    unit_plan: &'a UnitPlan,
    checkpoint: &'a Checkpoint,
    plan: &'a Plan,
    tasks: &'a [Task<'a>],
    progress: &'a dyn Progress,
}

impl Run<'_> {
    /// Writes the bytes of the piece into `folder` and describes them.
    fn write(&self, folder: &Path, seed: u64) -> Result<Vec<Done>> {
        let Self { checkpoint, plan, tasks, progress, .. } = *self;
        let mut done = self.check()?;
        let bytes = tasks.iter().map(|task| run_bytes(checkpoint, plan, task)).sum();
        progress.begin("compressing", bytes);
        let layout = ShardLayout::new(&arrays(checkpoint, plan, tasks), u64::MAX, &BTreeMap::new());
        let writer = ShardWriter::create(folder, layout)?;
        let coder = Coder::new(checkpoint, plan, None);
        let mut adapters = AdapterStage::without_files(checkpoint, plan, seed);
        let mut hashers: Vec<Vec<(Hasher, u64)>> = tasks
            .iter()
            .map(|task| {
                let parts = plan.tensors[task.tensor].stored.len();
                (0..parts).map(|_| (Hasher::new(), 0)).collect()
            })
            .collect();
        let jobs = tasks.iter().enumerate();
        let jobs = jobs.flat_map(|(i, task)| task.jobs.iter().map(move |job| (i, job)));
        waves::run(
            jobs,
            |wave| adapters.prepare(wave.iter().map(|(_, job)| job.tensor())),
            |(_, job), adapters| coder.work(job, adapters),
            |(i, job), output: Output| {
                let (task, done) = (&tasks[i], &mut done[i]);
                let starts = done.sums.is_empty() && task.segment.first == 0;
                if let Some(written) = output.adapter.filter(|_| starts) {
                    let [a, b] = factor_names(&task.segment.tensor);
                    writer.write(&a, 0, bytemuck::cast_slice(&written.adapter.a))?;
                    writer.write(&b, 0, bytemuck::cast_slice(&written.adapter.b))?;
                    done.adapter = Some(written.hash.clone());
                }
                for (part, bytes) in output.parts.iter().enumerate() {
                    let (hasher, position) = &mut hashers[i][part];
                    writer.write(part_name(plan, job.tensor(), part), *position, bytes)?;
                    hasher.update(bytes);
                    *position += bytes.len() as u64;
                }
                done.sums.push(output.sums);
                progress.advance(output.parts.iter().map(|part| part.len() as u64).sum());
                Ok(())
            },
        )?;
        writer.finish()?;
        for (done, hashers) in done.iter_mut().zip(hashers) {
            let hash = |(hasher, _): &(Hasher, u64)| hasher.finalize().to_hex().to_string();
            done.parts = hashers.iter().map(hash).collect();
        }
        Ok(done)
    }

    /// Makes sure that the tensors of this unit are those that were planned, and checks those that
    /// start here for faults.
    fn check(&self) -> Result<Vec<Done>> {
        let Self { unit_plan, checkpoint, plan, tasks, progress } = *self;
        let source = |task: &Task<'_>| &checkpoint.tensors()[plan.tensors[task.tensor].source];
        progress.begin("checking", tasks.iter().map(|task| source(task).byte_len).sum());
        tasks
            .iter()
            .map(|task| {
                let mut done = Done {
                    tensor: task.segment.tensor.clone(),
                    first: task.segment.first,
                    ..Done::default()
                };
                let hash = if task.segment.first == 0 {
                    let hash = scan::scan_tensor(checkpoint, source(task))?;
                    done.source = Some(hash.to_hex().to_string());
                    hash
                } else {
                    scan::hash_tensor(checkpoint, source(task), |_, _| Ok(()))?
                };
                progress.advance(source(task).byte_len);
                unit_plan.check_source(checkpoint, plan.tensors[task.tensor].source, &hash)?;
                Ok(done)
            })
            .collect()
    }
}
