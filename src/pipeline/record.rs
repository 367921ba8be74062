//! Takes results in order: writes them, hashes them, adds up the errors, and builds the manifest.

use std::fs::File;

use blake3::{Hash, Hasher};

use super::adapters::module_of;
use super::coding::Output;
use super::decibels;
use super::error_sums::ErrorSums;
use super::journal::{Journal, Line};
use super::manifest::{AdapterEntry, Entry, Status, StoredPart, Transformation};
use super::plan::{Fate, Plan, PlannedTensor, bits_per_weight};
use super::progress::Progress;
use crate::checkpoint::dtype::dtype_name;
use crate::checkpoint::{Checkpoint, OutputTensor, ShardWriter};
use crate::error::{Error, IoContext, Result};

/// What the recorder has at the end.
pub(super) struct Recorded {
    /// One status for each tensor of the plan.
    pub(super) statuses: Vec<Status>,
    /// Sums over all coded tensors.
    pub(super) sums: ErrorSums,
    /// Tensors that an earlier run had finished.
    pub(super) resumed: usize,
}

/// Writes results to the shards and keeps the books.
pub(super) struct Recorder<'a> {
    checkpoint: &'a Checkpoint,
    plan: &'a Plan,
    writer: ShardWriter,
    progress: &'a dyn Progress,
    statuses: Vec<Option<Status>>,
    current: Option<Current>,
    total: ErrorSums,
    /// Where finished tensors are noted, and the file of adapters if there is one.
    journal: Option<(Journal, Option<File>)>,
    resumed: usize,
}

/// The tensor whose results are coming in.
struct Current {
    tensor: usize,
    hashers: Vec<Hasher>,
    written: Vec<u64>,
    sums: ErrorSums,
    adapter_hash: Option<String>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(
        checkpoint: &'a Checkpoint,
        plan: &'a Plan,
        writer: ShardWriter,
        progress: &'a dyn Progress,
    ) -> Self {
        let statuses = vec![None; plan.tensors.len()];
        let total = ErrorSums::default();
        let (current, journal, resumed) = (None, None, 0);
        Self { checkpoint, plan, writer, progress, statuses, current, total, journal, resumed }
    }

    /// Takes what an earlier run noted in `journal` as done and notes there what follows; `adapters`
    /// is the file that adapters are written to. Gives the number of the first tensor to do.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for notes of another run.
    pub(super) fn resume(
        &mut self,
        journal: Journal,
        lines: Vec<Line>,
        adapters: Option<File>,
    ) -> Result<usize> {
        let mut next = 0;
        self.resumed = lines.len();
        for line in lines {
            let tied = |tensor: &PlannedTensor| matches!(tensor.fate, Fate::Tied { .. });
            while self.plan.tensors.get(next).is_some_and(tied) {
                next += 1;
            }
            let source = self.plan.tensors.get(next).map(|t| &self.checkpoint.tensors()[t.source]);
            let Some(source) = source.filter(|source| source.name == line.tensor) else {
                let message = format!("notes {:?}, which is not the tensor to follow", line.tensor);
                return Err(Error::checkpoint(journal.path(), message));
            };
            self.total.add(line.sums);
            self.progress.advance(source.byte_len);
            self.statuses[next] = Some(line.status);
            next += 1;
        }
        self.journal = Some((journal, adapters));
        Ok(next)
    }

    /// Records the next result of `tensor`: the bytes that follow in each of its stored parts.
    pub(super) fn record(&mut self, tensor: usize, output: &Output) -> Result<()> {
        if self.current.as_ref().is_none_or(|current| current.tensor != tensor) {
            self.close();
            if self.journal.as_ref().is_some_and(|(journal, _)| journal.is_due()) {
                self.flush()?;
            }
            let count = self.plan.tensors[tensor].stored.len();
            self.current = Some(Current {
                tensor,
                hashers: vec![Hasher::new(); count],
                written: vec![0; count],
                sums: ErrorSums::default(),
                adapter_hash: output.adapter.as_ref().map(|written| written.hash.clone()),
            });
        }
        let current = self.current.as_mut().expect("invariant: set above");
        current.sums.add(output.sums);
        let stored = self.plan.tensors[tensor].stored.iter();
        for (i, (stored, bytes)) in stored.zip(&output.parts).enumerate() {
            self.writer.write(&stored.name, current.written[i], bytes)?;
            current.hashers[i].update(bytes);
            current.written[i] += bytes.len() as u64;
        }
        Ok(())
    }

    /// Flushes finished tensors to disk and notes them in the journal.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn flush(&mut self) -> Result<()> {
        let Some((journal, adapters)) = &mut self.journal else { return Ok(()) };
        journal.flush(|| {
            if let Some(adapters) = adapters {
                adapters.sync_data().at("flush", compress_model_lora::WEIGHTS_FILE)?;
            }
            self.writer.flush()
        })
    }

    /// Books the tensor that has come in completely.
    fn close(&mut self) {
        let Some(current) = self.current.take() else { return };
        let planned = &self.plan.tensors[current.tensor];
        let source = &self.checkpoint.tensors()[planned.source];
        let whole: Vec<u64> = planned.stored.iter().map(OutputTensor::byte_len).collect();
        assert_eq!(current.written, whole, "invariant: every panel came in, in order");
        let parts: Vec<StoredPart> = planned
            .stored
            .iter()
            .zip(&current.hashers)
            .map(|(stored, hasher)| StoredPart {
                name: stored.name.clone(),
                file: self.writer.layout().file_of(&stored.name).to_owned(),
                blake3: hasher.finalize().to_hex().to_string(),
            })
            .collect();
        let status = match &planned.fate {
            Fate::Coded { codec, rank } => {
                self.total.add(current.sums);
                Status::Coded {
                    codec: codec.name().to_owned(),
                    params: codec.params(),
                    parts,
                    adapter: (*rank > 0).then(|| AdapterEntry {
                        module: module_of(&source.name).to_owned(),
                        rank: *rank,
                        blake3: current.adapter_hash.clone().unwrap_or_default(),
                    }),
                    bits_per_weight: bits_per_weight(planned.output_bytes(), source.elements()),
                    sqnr_db: current.sums.sqnr_db().map(for_manifest),
                }
            }
            Fate::Kept { why } => Status::Kept { why: why.clone(), parts },
            Fate::Tied { to } => Status::Tied { to: to.clone() },
        };
        self.progress.advance(source.byte_len);
        self.progress.tensor(&describe(current.tensor + 1, self.plan, self.checkpoint, &status));
        if let Some((journal, _)) = &mut self.journal {
            let (tensor, status) = (source.name.clone(), status.clone());
            journal.push(Line { tensor, status, sums: current.sums });
        }
        self.statuses[current.tensor] = Some(status);
    }

    /// Flushes the shards. Tied tensors, which have no results, get their status here.
    pub(super) fn finish(mut self) -> Result<Recorded> {
        self.close();
        self.writer.finish()?;
        let statuses = self
            .statuses
            .into_iter()
            .zip(&self.plan.tensors)
            .map(|(status, planned)| match (status, &planned.fate) {
                (Some(status), _) => status,
                (None, Fate::Tied { to }) => Status::Tied { to: to.clone() },
                (None, fate) => unreachable!("invariant: no results for {fate:?}"),
            })
            .collect();
        Ok(Recorded { statuses, sums: self.total, resumed: self.resumed })
    }
}

/// One line a tensor: `[12/272] name [576, 576] F16 -> astc 4.45 bpw, 14.1 dB`.
fn describe(number: usize, plan: &Plan, checkpoint: &Checkpoint, status: &Status) -> String {
    let source = &checkpoint.tensors()[plan.tensors[number - 1].source];
    let count = plan.tensors.len();
    let head = format!(
        "[{number}/{count}] {} {:?} {}",
        source.name,
        source.shape,
        dtype_name(source.dtype)
    );
    match status {
        Status::Coded { codec, bits_per_weight, sqnr_db, adapter, .. } => {
            let sqnr = decibels::show(*sqnr_db);
            let rank = adapter.as_ref().map_or(String::new(), |a| format!(" + rank {}", a.rank));
            format!("{head} -> {codec}{rank}, {bits_per_weight:.2} bpw, {sqnr}")
        }
        Status::Kept { why, .. } => format!("{head} kept: {why}"),
        Status::Tied { to } => format!("{head} tied to {to}"),
    }
}

/// The manifest's entries: one for each source tensor.
pub(super) fn entries(
    checkpoint: &Checkpoint,
    hashes: &[Hash],
    statuses: Vec<Status>,
    transformation: Option<&Transformation>,
) -> Vec<Entry> {
    checkpoint
        .tensors()
        .iter()
        .zip(hashes)
        .zip(statuses)
        .map(|((tensor, hash), status)| Entry {
            name: tensor.name.clone(),
            role: tensor.role,
            dtype: dtype_name(tensor.dtype),
            shape: tensor.shape.clone(),
            source_blake3: hash.to_hex().to_string(),
            transformed: transformation.and_then(|t| t.changes.get(&tensor.name).cloned()),
            status,
        })
        .collect()
}

/// `db` in millionths of a dB: the last bits of a logarithm differ between C libraries, and the bytes
/// of a manifest should not.
fn for_manifest(db: f64) -> f64 {
    (db * 1e6).round() / 1e6
}
