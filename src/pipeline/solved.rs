//! Results of a solver, kept in files until the run writes them in its own order.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use compress_model_lora::Adapter;
use half::f16;
use half::slice::HalfFloatSliceExt;
use serde::{Deserialize, Serialize};

use super::decibels;
use super::panels::{Panel, part_ranges};
use super::plan::Plan;
use super::progress::Progress;
use crate::checkpoint::positioned::read_exact_at;
use crate::checkpoint::{Checkpoint, Tensor, write_file, write_json};
use crate::codec::Codec;
use crate::error::{Error, IoContext, Result};

/// Codes some tensors of a plan before the run, in whatever order suits it.
pub trait Solver: Sync {
    /// Upper estimate of the resident memory that solving takes, in bytes.
    fn peak_memory(&self, plan: &Plan) -> u64;

    /// What its results depend on beside the plan: a run that goes on must have a solver of the same
    /// identity.
    fn identity(&self) -> String;

    /// Puts the codes of every tensor that it has a better way for than coding it on its own into
    /// `spool`. What is there already came of a run before that was stopped.
    ///
    /// # Errors
    /// Anything that makes the run pointless.
    fn solve(
        &self,
        plan: &Plan,
        seed: u64,
        spool: &mut Spool,
        progress: &dyn Progress,
    ) -> Result<SolveReport>;
}

/// [`SolveReport::mode`] of tensors that training left.
pub(crate) const TRAINED: &str = "trained";

/// What a solver reports.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SolveReport {
    /// "sequential" if each layer saw what the compressed layers before it give, "parallel" if
    /// all saw what the original model gives, "trained" for what training left.
    pub mode: &'static str,
    /// Tokens that it learnt from.
    pub tokens: usize,
    /// Seconds it took.
    pub seconds: f64,
    /// Tensors that an earlier run had solved.
    pub resumed_tensors: usize,
    /// One entry a solved matrix.
    pub layers: Vec<SolvedLayer>,
    /// Coded tensors that were coded each on its own, without a view to the text.
    pub unsolved: Vec<String>,
}

/// One solved matrix.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SolvedLayer {
    /// Name of the tensor.
    pub name: String,
    /// Which matrix of it, where it is a stack.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub matrix: Option<usize>,
    /// Signal to error of the layer's output in dB, for coding each weight on its own; null without
    /// error, "-inf" for an error where there is no signal.
    #[serde(with = "decibels")]
    pub plain_db: Option<f64>,
    /// The same for the solution, adapter included, against the weights that it was to come near
    /// to.
    #[serde(with = "decibels")]
    pub solved_db: Option<f64>,
    /// Share of the mean diagonal that H was damped by.
    pub damping: f64,
    /// Inputs that were always zero.
    pub dead: usize,
    /// Tokens seen.
    pub tokens: u64,
    /// Fewer tokens than inputs: H had no full rank before it was damped.
    pub few_tokens: bool,
}

/// Codes and adapters by tensor, in files.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    /// Whether the files outlive the process: each is flushed before it counts.
    lasting: bool,
    entries: Vec<Option<Entry>>,
}

#[derive(Debug)]
struct Entry {
    file: File,
    path: PathBuf,
    /// Where each part starts in the file; then where the last one ends.
    starts: Vec<u64>,
    adapter: Option<Adapter>,
    reports: Vec<SolvedLayer>,
}

/// What is noted beside the file of an entry.
#[derive(Serialize, Deserialize)]
struct Note {
    tensor: String,
    /// Bytes of each part. The factors A and B of the adapter follow them.
    parts: Vec<u64>,
    /// Rank of the adapter; 0 for none.
    rank: usize,
    reports: Vec<SolvedLayer>,
}

impl Spool {
    /// The spool of `plan` in `folder`, a new one or, where `lasting`, with what a run before left.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for files that do not fit the plan; [`Error::Io`].
    pub(super) fn open(
        folder: PathBuf,
        checkpoint: &Checkpoint,
        plan: &Plan,
        lasting: bool,
    ) -> Result<Self> {
        std::fs::create_dir_all(&folder).at("create", &folder)?;
        let entries = (0..plan.tensors.len()).map(|_| None).collect();
        let mut this = Self { folder, lasting, entries };
        for (number, planned) in plan.tensors.iter().enumerate() {
            let tensor = &checkpoint.tensors()[planned.source];
            let note = this.path(number).with_extension("json");
            if note.exists() {
                this.entries[number] = Some(this.read(number, &note, tensor)?);
            }
        }
        Ok(this)
    }

    fn path(&self, tensor: usize) -> PathBuf {
        self.folder.join(format!("{tensor}.parts"))
    }

    fn read(&self, number: usize, note: &Path, tensor: &Tensor) -> Result<Entry> {
        let fault = |what: &dyn std::fmt::Display| Error::checkpoint(note, what.to_string());
        let bytes = std::fs::read(note).at("read", note)?;
        let note: Note = serde_json::from_slice(&bytes).map_err(|e| fault(&e))?;
        if note.tensor != tensor.name {
            return Err(fault(&format!("is of {:?}, not of {:?}", note.tensor, tensor.name)));
        }
        let path = self.path(number);
        let file = File::open(&path).at("open", &path)?;
        let starts = starts(&note.parts);
        let end = starts[note.parts.len()];
        let adapter = match tensor.as_matrices().filter(|_| note.rank > 0) {
            Some((_, rows, cols)) => {
                let factor = |start: u64, len: usize| -> Result<Vec<f32>> {
                    let mut values = vec![f16::ZERO; len];
                    let bytes = bytemuck::cast_slice_mut(&mut values);
                    read_exact_at(&file, bytes, start).at("read", &path)?;
                    Ok(values.to_f32_vec())
                };
                let a = factor(end, note.rank * cols)?;
                let b = factor(end + 2 * a.len() as u64, rows * note.rank)?;
                Some(Adapter::from_factors(&a, &b, note.rank)?)
            }
            None => None,
        };
        Ok(Entry { file, path, starts, adapter, reports: note.reports })
    }

    /// Where a solver may put files of its own, to be removed with the spool.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps the parts of the whole `tensor`, number `number` of the plan, its adapter, and what is
    /// to be reported of each of its matrices.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn put(
        &mut self,
        (number, tensor): (usize, &Tensor),
        parts: &[Vec<u8>],
        adapter: Option<Adapter>,
        reports: Vec<SolvedLayer>,
    ) -> Result<()> {
        let path = self.path(number);
        let mut bytes = parts.concat();
        if let Some(adapter) = &adapter {
            bytes.extend_from_slice(bytemuck::cast_slice(&adapter.a));
            bytes.extend_from_slice(bytemuck::cast_slice(&adapter.b));
        }
        let lengths: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
        let starts = starts(&lengths);
        if self.lasting {
            write_file(&path, &bytes)?;
            let rank = adapter.as_ref().map_or(0, Adapter::rank);
            let (tensor, reports) = (tensor.name.clone(), reports.clone());
            let (new, note) = (path.with_extension("new"), path.with_extension("json"));
            write_json(&new, &Note { tensor, parts: lengths, rank, reports })?;
            std::fs::rename(&new, &note).at("write", &note)?;
        } else {
            std::fs::write(&path, &bytes).at("write", &path)?;
        }
        let file = File::open(&path).at("open", &path)?;
        self.entries[number] = Some(Entry { file, path, starts, adapter, reports });
        Ok(())
    }

    /// Whether tensor number `tensor` is here.
    #[must_use]
    pub fn has(&self, tensor: usize) -> bool {
        self.entries[tensor].is_some()
    }

    /// What was to be reported of matrix number `matrix` of tensor number `tensor`.
    #[must_use]
    pub fn report(&self, tensor: usize, matrix: usize) -> Option<&SolvedLayer> {
        self.entries[tensor].as_ref()?.reports.get(matrix)
    }

    /// The parts of matrix number `matrix` of tensor number `tensor`, of `shape` (matrices, rows,
    /// columns), if the tensor is here.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn matrix(
        &self,
        tensor: usize,
        codec: &dyn Codec,
        shape: (usize, usize, usize),
        matrix: usize,
    ) -> Result<Option<Vec<Vec<u8>>>> {
        self.panel(tensor, codec, shape, &Panel { matrix, rows: 0..shape.1 })
    }

    /// The adapter of a tensor that is here.
    #[must_use]
    pub fn adapter(&self, tensor: usize) -> Option<&Adapter> {
        self.entries[tensor].as_ref()?.adapter.as_ref()
    }

    /// The parts of one panel of a tensor, if it is here.
    pub(super) fn panel(
        &self,
        tensor: usize,
        codec: &dyn Codec,
        shape: (usize, usize, usize),
        panel: &Panel,
    ) -> Result<Option<Vec<Vec<u8>>>> {
        let Some(entry) = &self.entries[tensor] else { return Ok(None) };
        entry.read(part_ranges(codec, shape, panel).into_iter()).map(Some)
    }

    /// Removes the files.
    pub(super) fn remove(self) -> Result<()> {
        drop(self.entries);
        std::fs::remove_dir_all(&self.folder).at("remove", &self.folder)
    }
}

impl Entry {
    /// A range of bytes of each part.
    fn read(&self, ranges: impl Iterator<Item = Range<u64>>) -> Result<Vec<Vec<u8>>> {
        let parts = ranges.zip(&self.starts).map(|(range, start)| {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            read_exact_at(&self.file, &mut bytes, start + range.start).at("read", &self.path)?;
            Ok(bytes)
        });
        parts.collect()
    }
}

/// Where parts of these lengths start one after the other, and where the last ends.
fn starts(lengths: &[u64]) -> Vec<u64> {
    let mut end = 0;
    let ends = lengths.iter().map(|length| {
        end += length;
        end
    });
    std::iter::once(0).chain(ends).collect()
}
