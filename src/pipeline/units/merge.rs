//! `merge`: pieces in, an output folder out.

use std::path::{Path, PathBuf};
use std::time::Instant;

use blake3::{Hash, Hasher};
use compress_model_lora::Adapter;
use half::f16;
use half::slice::HalfFloatSliceExt;
use serde::Serialize;

use super::piece::{Done, Piece, factor_names, folder, part_name, rank};
use super::{Segment, Task, UnitPlan, job_counts, part_bytes, piece, tasks};
use crate::checkpoint::{Checkpoint, ShardWriter, Staging, check_output_path};
use crate::error::{Error, Result};
use crate::pipeline::adapters::AdapterStage;
use crate::pipeline::coding::Output;
use crate::pipeline::compress::{manifest, write_descriptions};
use crate::pipeline::decibels;
use crate::pipeline::plan::{Plan, Totals};
use crate::pipeline::progress::Progress;
use crate::pipeline::record::Recorder;
use crate::pipeline::scan::{self, Scan};

/// What `merge` reports.
#[derive(Debug, Clone, Serialize)]
pub struct MergeReport {
    /// The output folder.
    pub output: PathBuf,
    /// Units merged.
    pub units: usize,
    /// Sums over all tensors.
    pub totals: Totals,
    /// SQNR over all weights of coded tensors, in dB; null without error.
    #[serde(serialize_with = "decibels::serialize")]
    pub sqnr_db: Option<f64>,
    /// Seconds it took.
    pub seconds: f64,
}

/// Checks the pieces in the folder `pieces` against the plan in the file `units`, and merges them
/// into the new folder `output`: the bytes of a run on one machine. `model` is where the source is,
/// if not where it was; of its weights nothing is read.
///
/// # Errors
/// [`Error::Checkpoint`] for units that are missing and pieces whose bytes do not have their
/// checksum, naming them; [`Error::Tensor`] for tied tensors that differ; I/O.
pub fn merge(
    units: &Path,
    pieces: &Path,
    model: Option<&Path>,
    output: &Path,
    overwrite: bool,
    progress: &dyn Progress,
) -> Result<MergeReport> {
    let start = Instant::now();
    let (unit_plan, plan_hash) = UnitPlan::read(units)?;
    let (checkpoint, plan) = unit_plan.open(model, 1)?;
    check_output_path(output, &[checkpoint.origin(), pieces], overwrite)?;
    check_whole(&checkpoint, &plan, &unit_plan.units, units)?;
    let read = read_pieces(&unit_plan, &plan_hash, pieces)?;
    let scan = scan_of(&checkpoint, &plan, &unit_plan, &read)?;

    let staging = Staging::create(output)?;
    let mut stage =
        AdapterStage::create(&checkpoint, &plan, unit_plan.seed, None, staging.folder())?;
    let writer = ShardWriter::create(staging.folder(), plan.layout.clone())?;
    let mut recorder = Recorder::new(&checkpoint, &plan, writer, progress);
    progress.begin("merging", checkpoint.tensors().iter().map(|t| t.byte_len).sum());
    for (unit, (segments, piece)) in unit_plan.units.iter().zip(&read).enumerate() {
        let folder = folder(pieces, unit, unit_plan.units.len());
        let stored = Checkpoint::open(&folder)?;
        for (task, done) in tasks(&checkpoint, &plan, segments)?.iter().zip(&piece.segments) {
            let reader =
                Reader { checkpoint: &checkpoint, plan: &plan, stored: &stored, task, done };
            stage.forget_all_but(task.tensor);
            if let Some(adapter) = reader.adapter()? {
                stage.put(task.tensor, adapter)?;
            }
            reader.outputs(&mut |mut output| {
                output.adapter = stage.written(task.tensor);
                recorder.record(task.tensor, &output)
            })?;
        }
    }
    stage.finish()?;
    let recorded = recorder.finish()?;
    let mut manifest = manifest(&checkpoint, &plan, unit_plan.seed, &scan, recorded.statuses);
    write_descriptions(&checkpoint, &plan, &mut manifest, staging.folder())?;
    Ok(MergeReport {
        output: staging.commit()?,
        units: read.len(),
        totals: plan.totals,
        sqnr_db: recorded.sums.sqnr_db(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Makes sure that the units, one after the other, are all of the plan.
fn check_whole(
    checkpoint: &Checkpoint,
    plan: &Plan,
    units: &[Vec<Segment>],
    path: &Path,
) -> Result<()> {
    let mut segments = units.iter().flatten();
    for (tensor, count) in job_counts(checkpoint, plan).into_iter().enumerate() {
        let name = &checkpoint.tensors()[plan.tensors[tensor].source].name;
        let mut next = 0;
        loop {
            let segment = segments.next().filter(|s| s.tensor == *name && s.first == next);
            let Some(segment) = segment.filter(|s| s.count > 0 || count == 0) else {
                return Err(Error::input(path, format!("its units do not cover tensor {name:?}")));
            };
            next += segment.count;
            if next >= count {
                break;
            }
        }
    }
    Ok(())
}

fn read_pieces(unit_plan: &UnitPlan, plan_hash: &str, pieces: &Path) -> Result<Vec<Piece>> {
    let count = unit_plan.units.len();
    let (mut read, mut missing) = (Vec::new(), Vec::new());
    for (unit, segments) in unit_plan.units.iter().enumerate() {
        match piece::read(&folder(pieces, unit, count), plan_hash, unit, segments)? {
            Some(piece) => read.push(piece),
            None => missing.push(unit.to_string()),
        }
    }
    let odd = read.iter().find(|piece| piece.arithmetic != read[0].arithmetic);
    if let (true, Some(odd)) = (missing.is_empty(), odd) {
        let message = format!(
            "unit {} was done with {} arithmetic, unit {} with {}: their adapters differ; do the \
             units of one kind again on processors of the other",
            read[0].unit, read[0].arithmetic, odd.unit, odd.arithmetic
        );
        return Err(Error::checkpoint(pieces, message));
    }
    if missing.is_empty() {
        return Ok(read);
    }
    let message = format!("{} of {count} units are missing: {}", missing.len(), missing.join(", "));
    Err(Error::checkpoint(pieces, message))
}

/// What the scans of all units found.
fn scan_of(
    checkpoint: &Checkpoint,
    plan: &Plan,
    unit_plan: &UnitPlan,
    pieces: &[Piece],
) -> Result<Scan> {
    let mut hashes = vec![Hash::from_bytes([0; 32]); checkpoint.tensors().len()];
    let starts = pieces.iter().flat_map(|piece| &piece.segments).filter(|done| done.first == 0);
    for (planned, done) in plan.tensors.iter().zip(starts) {
        let hash = done.source.as_ref().and_then(|hash| Hash::from_hex(hash).ok());
        hashes[planned.source] = hash.ok_or_else(|| {
            let message = "its piece does not have the hash of the source";
            Error::tensor(checkpoint.origin(), &done.tensor, message)
        })?;
        unit_plan.check_source(checkpoint, planned.source, &hashes[planned.source])?;
    }
    let fingerprint = scan::fingerprint(checkpoint, &hashes);
    Ok(Scan { hashes, fingerprint })
}

/// Reads a segment from its piece.
struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    plan: &'a Plan,
    stored: &'a Checkpoint,
    task: &'a Task<'a>,
    done: &'a Done,
}

impl Reader<'_> {
    fn fault(&self, name: &str, message: &str) -> Error {
        Error::tensor(self.stored.origin(), name, message)
    }

    fn bytes(&self, name: &str, from: u64, len: u64) -> Result<Vec<u8>> {
        let tensor = self.stored.tensor(name).filter(|t| from + len <= t.byte_len);
        let tensor = tensor.ok_or_else(|| self.fault(name, "is not whole in this piece"))?;
        let mut bytes = vec![0; len as usize];
        self.stored.read_bytes(tensor, from, &mut bytes)?;
        Ok(bytes)
    }

    /// The adapter of the tensor, if it has one and starts here.
    fn adapter(&self) -> Result<Option<Adapter>> {
        let rank = rank(self.plan, self.task);
        let source = &self.checkpoint.tensors()[self.plan.tensors[self.task.tensor].source];
        let Some((_, rows, cols)) = source.as_matrices().filter(|_| rank > 0) else {
            return Ok(None);
        };
        let [a, b] = factor_names(&source.name);
        let factor = |name: &str, len: usize| -> Result<Vec<f32>> {
            let bytes = self.bytes(name, 0, 2 * len as u64)?;
            let values: Vec<f16> =
                bytes.as_chunks::<2>().0.iter().map(|&x| f16::from_le_bytes(x)).collect();
            Ok(values.to_f32_vec())
        };
        let adapter =
            Adapter::from_factors(&factor(&a, rank * cols)?, &factor(&b, rows * rank)?, rank)?;
        if Some(crate::pipeline::adapters::hash(&adapter)) != self.done.adapter {
            return Err(self.fault(&a, "does not have its checksum"));
        }
        Ok(Some(adapter))
    }

    /// Gives `take` the output of each job.
    fn outputs(&self, take: &mut dyn FnMut(Output) -> Result<()>) -> Result<()> {
        let count = self.plan.tensors[self.task.tensor].stored.len();
        let mut hashers = vec![Hasher::new(); count];
        let mut positions = vec![0; count];
        let name = |part| part_name(self.plan, self.task.tensor, part);
        for (job, &sums) in self.task.jobs.iter().zip(&self.done.sums) {
            let mut parts = Vec::new();
            for (part, len) in part_bytes(self.checkpoint, self.plan, job).into_iter().enumerate() {
                let bytes = self.bytes(name(part), positions[part], len)?;
                positions[part] += len;
                hashers[part].update(&bytes);
                parts.push(bytes);
            }
            take(Output { parts, sums, adapter: None })?;
        }
        for (part, hasher) in hashers.iter().enumerate() {
            if self.done.parts.get(part).map(String::as_str) != Some(&*hasher.finalize().to_hex()) {
                return Err(self.fault(name(part), "does not have its checksum"));
            }
        }
        Ok(())
    }
}
