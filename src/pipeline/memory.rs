//! How much memory a run takes: what `plan` predicts.

use super::panels::{COPY_BYTES, panel_rows};
use super::plan::{Fate, PlannedTensor};
use super::scan::CHUNK_BYTES;
use crate::checkpoint::{Checkpoint, Tensor};

/// Bytes of one weight of an adapter factor, stored as F16.
pub(super) const ADAPTER_WEIGHT_BYTES: u64 = 2;

/// Panels that one thread works off between two writes.
pub(super) const PANELS_PER_THREAD: usize = 8;

/// Code, runtime and headers: what the command takes on a tiny model.
pub(crate) const BASE_BYTES: u64 = 32 << 20;

/// What a tensor takes in headers, plan, layout and manifest, and in their JSON, beside its name.
const LISTED_BYTES: u64 = 6 << 10;
/// How often its name is there.
const NAMES: u64 = 16;

/// What working on a tensor takes, in bytes.
#[derive(Debug, Clone, Copy)]
struct Needs {
    /// For one panel at a time.
    panel: u64,
    /// For the coded bytes of a panel.
    stored: u64,
    /// For extracting its adapter.
    adapter: u64,
}

impl Needs {
    /// Needs of a kept tensor.
    const COPY: Self = Self { panel: 2 * COPY_BYTES, stored: COPY_BYTES, adapter: 0 };

    fn of(checkpoint: &Checkpoint, planned: &PlannedTensor) -> Self {
        let Fate::Coded { codec, rank } = &planned.fate else { return Self::COPY };
        let tensor = &checkpoint.tensors()[planned.source];
        let Some((_, rows, cols)) = tensor.as_matrices() else { return Self::COPY };
        let panel_rows = panel_rows(cols, codec.row_multiple()).min(rows);
        let adapter = match rank {
            0 => 0,
            &rank => super::adapters::working_set_bytes(rows, cols, rank) + planned.adapter_bytes,
        };
        Self {
            // The weights as read and as f32, the residual, the decoded copy.
            panel: (panel_rows * cols) as u64 * 16,
            stored: codec.coded_bytes(panel_rows, cols),
            adapter,
        }
    }

    /// Bytes on `threads` threads that all work on such tensors.
    fn bytes(self, threads: usize) -> u64 {
        let threads = threads as u64;
        let waves = 2 * threads * PANELS_PER_THREAD as u64;
        threads * (self.panel + CHUNK_BYTES + self.adapter) + waves * self.stored
    }
}

/// Upper estimate of the resident memory of compressing `tensors` on `threads` threads.
pub(super) fn peak_bytes(
    checkpoint: &Checkpoint,
    tensors: &[PlannedTensor],
    threads: usize,
) -> u64 {
    let most = tensors.iter().fold(Needs::COPY, |most, planned| {
        let needs = Needs::of(checkpoint, planned);
        Needs {
            panel: most.panel.max(needs.panel),
            stored: most.stored.max(needs.stored),
            adapter: most.adapter.max(needs.adapter),
        }
    });
    let listed = |planned: &PlannedTensor| {
        LISTED_BYTES + NAMES * checkpoint.tensors()[planned.source].name.len() as u64
    };
    BASE_BYTES + tensors.iter().map(listed).sum::<u64>() + most.bytes(threads)
}

/// The tensor that takes most memory.
pub(super) fn largest<'a>(checkpoint: &'a Checkpoint, tensors: &[PlannedTensor]) -> &'a Tensor {
    let needs = |planned: &&PlannedTensor| Needs::of(checkpoint, planned).bytes(1);
    let largest = tensors.iter().max_by_key(needs).expect("invariant: a plan has tensors");
    &checkpoint.tensors()[largest.source]
}
