//! What a unit leaves: coded bytes, and a description with the checksum of each run of them.

use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::{Segment, Task, VERSION, part_bytes};
use crate::checkpoint::{Checkpoint, OutputTensor};
use crate::error::{Error, IoContext, Result};
use crate::pipeline::error_sums::ErrorSums;
use crate::pipeline::plan::{Fate, Plan};

/// The description's file.
pub(super) const PIECE_FILE: &str = "unit.json";

/// A finished unit.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Piece {
    pub(super) format_version: String,
    /// BLAKE3 of the plan of units.
    pub(super) plan: String,
    pub(super) unit: usize,
    /// That of the machine; adapters depend on it.
    pub(super) arithmetic: String,
    pub(super) segments: Vec<Done>,
}

/// A finished segment.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) tensor: String,
    pub(super) first: usize,
    /// The error made, panel by panel: sums over a tensor are taken in this order.
    pub(super) sums: Vec<ErrorSums>,
    /// BLAKE3 of the bytes of each part.
    pub(super) parts: Vec<String>,
    /// BLAKE3 of the source's data, in the segment that starts a tensor.
    pub(super) source: Option<String>,
    /// BLAKE3 of the adapter's factors, in the segment that starts a tensor.
    pub(super) adapter: Option<String>,
}

/// The folder of unit number `unit` of `count`.
pub(super) fn folder(pieces: &Path, unit: usize, count: usize) -> PathBuf {
    pieces.join(format!("unit-{unit:05}-of-{count:05}"))
}

/// Reads the description in `folder`; none where the unit is not done.
///
/// # Errors
/// [`Error::Checkpoint`] for a piece of another plan or unit, or of other segments.
pub(super) fn read(
    folder: &Path,
    plan: &str,
    unit: usize,
    segments: &[Segment],
) -> Result<Option<Piece>> {
    let path = folder.join(PIECE_FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).at("read", &path),
    };
    let fault = |message: String| Error::checkpoint(&path, message);
    let piece: Piece = serde_json::from_slice(&bytes)
        .map_err(|e| fault(format!("not a description of a piece: {e}")))?;
    if piece.format_version != VERSION || piece.plan != plan || piece.unit != unit {
        return Err(fault("is a piece of another plan of units".to_owned()));
    }
    let same = piece.segments.len() == segments.len()
        && piece.segments.iter().zip(segments).all(|(done, segment)| {
            (&done.tensor, done.first, done.sums.len())
                == (&segment.tensor, segment.first, segment.count)
        });
    if !same {
        return Err(fault("does not have the segments of its unit".to_owned()));
    }
    Ok(Some(piece))
}

/// Name of the stored bytes of part number `part` of a segment's tensor.
pub(super) fn part_name(plan: &Plan, tensor: usize, part: usize) -> &str {
    &plan.tensors[tensor].stored[part].name
}

/// Names of the stored factors of a weight's adapter.
pub(super) fn factor_names(tensor: &str) -> [String; 2] {
    [format!("{tensor}.lora_A"), format!("{tensor}.lora_B")]
}

/// Rank of the adapter of tensor number `tensor`, stored with the segment that starts it.
pub(super) fn rank(plan: &Plan, task: &Task<'_>) -> usize {
    match &plan.tensors[task.tensor].fate {
        Fate::Coded { rank, .. } if task.segment.first == 0 => *rank,
        _ => 0,
    }
}

/// The arrays of a piece, segment by segment.
pub(super) fn arrays(
    checkpoint: &Checkpoint,
    plan: &Plan,
    tasks: &[Task<'_>],
) -> Vec<Vec<OutputTensor>> {
    let of_task = |task: &Task<'_>| {
        let mut bytes = vec![0; plan.tensors[task.tensor].stored.len()];
        for job in &task.jobs {
            for (sum, more) in bytes.iter_mut().zip(part_bytes(checkpoint, plan, job)) {
                *sum += more;
            }
        }
        let mut arrays: Vec<OutputTensor> = bytes
            .iter()
            .enumerate()
            .map(|(part, &bytes)| OutputTensor {
                name: part_name(plan, task.tensor, part).to_owned(),
                dtype: Dtype::U8,
                shape: vec![bytes as usize],
            })
            .collect();
        let rank = rank(plan, task);
        let source = &checkpoint.tensors()[plan.tensors[task.tensor].source];
        if let Some((_, rows, cols)) = source.as_matrices().filter(|_| rank > 0) {
            let [a, b] = factor_names(&source.name);
            arrays.push(OutputTensor { name: a, dtype: Dtype::F16, shape: vec![rank, cols] });
            arrays.push(OutputTensor { name: b, dtype: Dtype::F16, shape: vec![rows, rank] });
        }
        arrays
    };
    tasks.iter().map(of_task).collect()
}
