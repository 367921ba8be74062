//! Takes results in order: writes them, hashes them, adds up the errors, and builds the manifest.

use std::collections::HashMap;

use blake3::{Hash, Hasher};

use super::adapters::module_of;
use super::error_sums::ErrorSums;
use super::manifest::{AdapterEntry, Entry, Status, StoredPart, Transformation};
use super::plan::{Fate, Plan, bits_per_weight};
use super::progress::Progress;
use crate::checkpoint::dtype::dtype_name;
use crate::checkpoint::{Checkpoint, OutputTensor, ShardWriter};
use crate::error::Result;

/// What the recorder has at the end.
pub(super) struct Recorded {
    /// One status for each tensor of the plan.
    pub(super) statuses: Vec<Status>,
    /// Sums over all coded tensors.
    pub(super) sums: ErrorSums,
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
}

/// The tensor whose results are coming in.
struct Current {
    tensor: usize,
    hashers: Vec<Hasher>,
    written: Vec<u64>,
    sums: ErrorSums,
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
        Self { checkpoint, plan, writer, progress, statuses, current: None, total }
    }

    /// Records the next result of `tensor`: the bytes that follow in each of its stored parts.
    pub(super) fn record(
        &mut self,
        tensor: usize,
        parts: &[Vec<u8>],
        sums: ErrorSums,
    ) -> Result<()> {
        if self.current.as_ref().is_none_or(|current| current.tensor != tensor) {
            self.close();
            let count = self.plan.tensors[tensor].stored.len();
            self.current = Some(Current {
                tensor,
                hashers: vec![Hasher::new(); count],
                written: vec![0; count],
                sums: ErrorSums::default(),
            });
        }
        let current = self.current.as_mut().expect("invariant: set above");
        current.sums.add(sums);
        for (i, (stored, bytes)) in self.plan.tensors[tensor].stored.iter().zip(parts).enumerate() {
            self.writer.write(&stored.name, current.written[i], bytes)?;
            current.hashers[i].update(bytes);
            current.written[i] += bytes.len() as u64;
        }
        Ok(())
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
                        blake3: String::new(),
                    }),
                    bits_per_weight: bits_per_weight(planned.output_bytes(), source.elements()),
                    sqnr_db: current.sums.sqnr_db(),
                }
            }
            Fate::Kept { why } => Status::Kept { why: why.clone(), parts },
            Fate::Tied { to } => Status::Tied { to: to.clone() },
        };
        self.progress.advance(source.byte_len);
        self.progress.tensor(&describe(current.tensor + 1, self.plan, self.checkpoint, &status));
        self.statuses[current.tensor] = Some(status);
    }

    /// Flushes the shards. Tied tensors, which have no results, get their status here, and
    /// adapters their hash.
    pub(super) fn finish(mut self, adapter_hashes: &HashMap<usize, String>) -> Result<Recorded> {
        self.close();
        for (tensor, hash) in adapter_hashes {
            if let Some(Status::Coded { adapter: Some(adapter), .. }) = &mut self.statuses[*tensor]
            {
                adapter.blake3.clone_from(hash);
            }
        }
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
        Ok(Recorded { statuses, sums: self.total })
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
            let sqnr = sqnr_db.map_or("exact".to_owned(), |db| format!("{db:.2} dB"));
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
