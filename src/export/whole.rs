//! The tensors of a model that goes to another program, held against its configuration.

use std::collections::BTreeMap;

use super::rows::Job;
use crate::architecture::Architecture;
use crate::checkpoint::dtype::{holds_weights, parse_dtype};
use crate::error::{Error, Result};
use crate::pipeline::manifest::{Entry, Status};
use crate::pipeline::{AdapterMode, CompressedFolder};

/// The jobs of all weights. With an `architecture`, they are all that its configuration means, each
/// of its shape, and no other: a program that loads the rest would refuse the file, or compute with
/// numbers that nobody trained. Tensors that hold no weights, such as positions and the frequencies
/// that old checkpoints store, are left out with a warning.
///
/// # Errors
/// [`Error::Tensor`] naming a tensor that is missing, of another shape or left over; what reading
/// the adapters gives.
pub(super) fn whole_model<'a>(
    input: &'a CompressedFolder,
    architecture: Option<&Architecture>,
    mode: AdapterMode,
) -> Result<Vec<Job<'a>>> {
    let (mut jobs, mut buffers) = (Vec::new(), Vec::new());
    for (index, entry) in input.manifest.tensors.iter().enumerate() {
        if is_buffer(entry) {
            buffers.push(entry.name.as_str());
        } else if let Some(job) = Job::new(input, index, mode)? {
            jobs.push(job);
        }
    }
    if !buffers.is_empty() {
        tracing::warn!(
            "{}: left out, since they hold no weights: {}",
            input.stored.folder().display(),
            buffers.join(", ")
        );
    }
    if let Some(architecture) = architecture {
        check(input, architecture, &jobs)?;
    }
    Ok(jobs)
}

/// Whether a tensor holds no weights: positions, nothing, or the frequencies of a rope.
fn is_buffer(entry: &Entry) -> bool {
    let kept = matches!(entry.status, Status::Kept { .. });
    let weights = parse_dtype(&entry.dtype).is_none_or(|dtype| holds_weights(dtype, &entry.shape));
    kept && (!weights || entry.name.ends_with("rotary_emb.inv_freq"))
}

fn check(input: &CompressedFolder, architecture: &Architecture, jobs: &[Job<'_>]) -> Result<()> {
    let found: BTreeMap<String, Vec<usize>> = jobs
        .iter()
        .filter_map(|job| Some((job.entry, architecture.content(&job.entry.name)?)))
        .flat_map(|(entry, content)| architecture.weights_in(&content, &entry.shape))
        .collect();
    architecture.check_tensors(&found).map_err(|(tensor, message)| {
        let message = format!("{message}; the export needs the whole model");
        Error::tensor(input.stored.folder(), tensor, message)
    })
}
