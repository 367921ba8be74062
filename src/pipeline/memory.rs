//! How much memory a run takes: what `plan` predicts.

use super::panels::{COPY_BYTES, panel_rows};
use super::plan::{Fate, PlannedTensor};
use super::scan::CHUNK_BYTES;
use crate::checkpoint::Checkpoint;

/// Bytes of one weight of an adapter factor, stored as F16.
pub(super) const ADAPTER_WEIGHT_BYTES: u64 = 2;

/// Panels that one thread works off between two writes.
pub(super) const PANELS_PER_THREAD: usize = 8;

/// Code, runtime and headers: what the command takes on a tiny model.
const BASE_BYTES: u64 = 32 << 20;

/// Upper estimate of the resident memory of compressing `tensors` on `threads` threads.
pub(super) fn peak_bytes(
    checkpoint: &Checkpoint,
    tensors: &[PlannedTensor],
    threads: usize,
) -> u64 {
    let mut panel = 2 * COPY_BYTES;
    let mut stored = COPY_BYTES;
    let mut adapter = 0;
    for planned in tensors {
        let Fate::Coded { codec, rank } = &planned.fate else { continue };
        let tensor = &checkpoint.tensors()[planned.source];
        let Some((_, rows, cols)) = tensor.as_matrices() else { continue };
        let panel_rows = panel_rows(cols, codec.row_multiple()).min(rows);
        // The weights as read and as f32, the residual, the decoded copy.
        panel = panel.max((panel_rows * cols) as u64 * 16);
        stored = stored.max(codec.coded_bytes(panel_rows, cols));
        if *rank > 0 {
            let svd = super::adapters::working_set_bytes(rows, cols, *rank);
            adapter = adapter.max(svd + planned.adapter_bytes);
        }
    }
    let threads = threads as u64;
    let waves = 2 * threads * PANELS_PER_THREAD as u64;
    BASE_BYTES + threads * (panel + CHUNK_BYTES) + waves * stored + threads * adapter
}
