//! The state of a run, or of a block, in one file, replaced atomically: arrays, and the position of
//! the run as metadata.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use compress_model_qat::train::{Position, SpikeGuard};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use super::layer::{Parameters, Place};
use crate::checkpoint::positioned::read_exact_at;
use crate::error::{Error, IoContext, Result};

/// Largest header that is read: names and shapes of a hundred thousand arrays.
const MAX_HEADER: u64 = 64 << 20;
const KEY: &str = "position";

/// A position as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    step: u64,
    rate_factor: f32,
    rollbacks: u32,
    mean: f64,
    variance: f64,
    seen: u64,
    #[serde(default)]
    start: Option<f64>,
    best: Option<f64>,
    #[serde(default)]
    best_step: Option<u64>,
    since_best: u32,
}

/// Writes all arrays of `layers` and the position, or, without one, only the arrays that say what
/// would be exported, to `path`.
///
/// # Errors
/// I/O; what was there before is then still there.
pub(super) fn write(
    path: &Path,
    layers: &[(Place, Parameters)],
    position: Option<&Position>,
) -> Result<()> {
    let wanted = |name: &str| position.is_some() || !name.contains('.');
    let mut tensors = Vec::new();
    let mut data: Vec<&[f32]> = Vec::new();
    let mut end = 0;
    for (place, parameters) in layers {
        for (name, values) in parameters.arrays().into_iter().filter(|(name, _)| wanted(name)) {
            let start = end;
            end += size_of_val(values);
            let info = TensorInfo {
                dtype: Dtype::F32,
                shape: vec![values.len()],
                data_offsets: (start, end),
            };
            tensors.push((key(place, name), info));
            data.push(values);
        }
    }
    let metadata = position.map(|position| {
        let stored = Stored {
            step: position.step,
            rate_factor: position.rate_factor,
            rollbacks: position.rollbacks,
            mean: position.guard.mean,
            variance: position.guard.variance,
            seen: position.guard.seen,
            start: position.start,
            best: position.best,
            best_step: position.best_step,
            since_best: position.since_best,
        };
        let text = serde_json::to_string(&stored).expect("invariant: plain numbers");
        HashMap::from([(KEY.to_owned(), text)])
    });
    let header = Metadata::new(metadata, tensors)
        .ok()
        .and_then(|header| serde_json::to_vec(&header).ok())
        .expect("invariant: names are distinct and arrays follow each other");
    let new = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&new)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for values in data {
            file.write_all(bytemuck::cast_slice(values))?;
        }
        file.into_inner()?.sync_all()
    };
    write().at("write", &new)?;
    std::fs::rename(&new, path).at("write", path)
}

/// Reads what [`write`] wrote into `layers`, which may be some of those that were written; gives the
/// position, if there is one.
///
/// # Errors
/// [`Error::Checkpoint`] for a file of other layers or none of ours; I/O.
pub(super) fn read(
    path: &Path,
    layers: &mut [(Place, Parameters)],
    deviations: f64,
) -> Result<Option<Position>> {
    let fault = |what: &str| Error::checkpoint(path, format!("is no state of this run: {what}"));
    let mut file = File::open(path).at("open", path)?;
    let mut start = [0; 8];
    file.read_exact(&mut start).at("read", path)?;
    let len = u64::from_le_bytes(start);
    if len > MAX_HEADER {
        return Err(fault("its header is too long"));
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact(&mut bytes).at("read", path)?;
    let header: Metadata =
        serde_json::from_slice(&bytes).map_err(|e| fault(&format!("its header: {e}")))?;
    let data = 8 + len;
    if file.metadata().at("read", path)?.len() != data + header.data_len() as u64 {
        return Err(fault("it is not as long as its header says"));
    }
    for (place, parameters) in layers {
        for (name, values) in parameters.arrays_mut() {
            let Some(info) = header.info(&key(place, name)) else {
                // Without a position a file has no moments.
                if name.contains('.') {
                    continue;
                }
                return Err(fault(&format!("{} is missing", key(place, name))));
            };
            if info.shape != [values.len()] || info.dtype != Dtype::F32 {
                return Err(fault(&format!("{} has another shape", key(place, name))));
            }
            let at = data + info.data_offsets.0 as u64;
            read_exact_at(&file, bytemuck::cast_slice_mut(values), at).at("read", path)?;
        }
    }
    let Some(text) = header.metadata().as_ref().and_then(|m| m.get(KEY)) else { return Ok(None) };
    let stored: Stored = serde_json::from_str(text).map_err(|e| fault(&e.to_string()))?;
    let guard = SpikeGuard {
        mean: stored.mean,
        variance: stored.variance,
        seen: stored.seen,
        ..SpikeGuard::new(deviations)
    };
    Ok(Some(Position {
        step: stored.step,
        rate_factor: stored.rate_factor,
        rollbacks: stored.rollbacks,
        guard,
        start: stored.start,
        best: stored.best,
        best_step: stored.best_step,
        since_best: stored.since_best,
        last: None,
    }))
}

fn key(place: &Place, array: &str) -> String {
    format!("{}|{array}", place.name)
}
