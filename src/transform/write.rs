//! The transformed checkpoint as a folder.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use safetensors::Dtype;

use super::Context;
use super::edits::{Edit, Edits, Slice};
use crate::checkpoint::{
    Checkpoint, OutputTensor, ShardLayout, ShardWriter, Staging, Tensor, check_sidecars,
    copy_sidecars, disk_free, order, write_json,
};
use crate::error::{Error, Result};
use crate::pipeline::Progress;

/// Most bytes of a file.
const SHARD_BYTES: u64 = 5_000_000_000;

/// Bytes copied at a time.
const COPY_BYTES: u64 = 1 << 20;

/// Weights of an embedding table that are transformed at a time.
const RUN_WEIGHTS: usize = 1 << 22;

/// An empty folder beside `output`, removed when it is dropped.
pub(super) fn stage(output: &Path) -> Result<Staging> {
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    Staging::create(&output.with_file_name(format!("{name}.transformed")))
}

/// Writes the model to the folder of `staging`.
///
/// # Errors
/// [`Error::DiskFull`]; I/O; [`Error::Tensor`] for a weight that is not finite;
/// [`Error::StoppedEarly`].
pub(super) fn write(
    edits: &Edits<'_>,
    context: &Context<'_>,
    staging: &Staging,
    progress: &dyn Progress,
) -> Result<()> {
    let layout = layout(edits);
    let (needed, available) = (layout.file_bytes(), disk_free(staging.folder()));
    if let Some(available) = available.filter(|available| *available < needed) {
        let path = staging.folder().to_path_buf();
        return Err(Error::DiskFull { path, needed, available });
    }
    check_sidecars(edits.checkpoint().folder())?;
    progress.begin("transforming", needed);
    let writer = ShardWriter::create(staging.folder(), layout)?;
    for name in names(edits) {
        progress.check_stopped()?;
        match edits.get(&name) {
            None => copy(edits.checkpoint(), edits.source(&name), &writer)?,
            Some(edit) => put(edits, &name, edit, &writer)?,
        }
        progress.advance(output_tensor(edits, &name).byte_len());
    }
    writer.finish()?;
    describe(edits, context, staging)
}

/// As [`write()`], but the weights are holes in the files.
///
/// # Errors
/// I/O.
pub(super) fn outline(edits: &Edits<'_>, context: &Context<'_>, staging: &Staging) -> Result<()> {
    ShardWriter::create(staging.folder(), layout(edits))?.finish()?;
    describe(edits, context, staging)
}

fn names(edits: &Edits<'_>) -> Vec<String> {
    let tensors = edits.checkpoint().tensors().iter().map(|t| t.name.clone());
    let mut names: Vec<String> = tensors.chain(edits.added().cloned()).collect();
    names.sort_by(|a, b| order::natural(a, b));
    names
}

fn output_tensor(edits: &Edits<'_>, name: &str) -> OutputTensor {
    let source = edits.source(name);
    let dtype = if edits.get(name).is_some() { Dtype::F32 } else { source.dtype };
    OutputTensor { name: name.to_owned(), dtype, shape: source.shape.clone() }
}

fn layout(edits: &Edits<'_>) -> ShardLayout {
    let groups: Vec<Vec<OutputTensor>> =
        names(edits).iter().map(|name| vec![output_tensor(edits, name)]).collect();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    ShardLayout::new(&groups, SHARD_BYTES, &metadata)
}

fn copy(checkpoint: &Checkpoint, tensor: &Tensor, writer: &ShardWriter) -> Result<()> {
    for from in (0..tensor.byte_len).step_by(COPY_BYTES as usize) {
        let mut bytes = vec![0; COPY_BYTES.min(tensor.byte_len - from) as usize];
        checkpoint.read_bytes(tensor, from, &mut bytes)?;
        writer.write(&tensor.name, from, &bytes)?;
    }
    Ok(())
}

/// Writes tensor `name`, whose slices do not overlap; rows between them stay as they are.
fn put(edits: &Edits<'_>, name: &str, edit: &Edit, writer: &ShardWriter) -> Result<()> {
    if let Some(values) = &edit.values {
        return store(edits, name, 0, values, writer);
    }
    let source = edits.source(name);
    let cols = *source.shape.last().expect("invariant: weights have dimensions");
    let rows = source.elements() as usize / cols;
    let mut next = 0;
    for slice in edit.slices.values() {
        let plain = Slice::plain(next, (slice.first_row - next, cols));
        put_slice(edits, name, &plain, writer)?;
        put_slice(edits, name, slice, writer)?;
        next = slice.first_row + slice.shape.0;
    }
    put_slice(edits, name, &Slice::plain(next, (rows.saturating_sub(next), cols)), writer)
}

fn put_slice(edits: &Edits<'_>, name: &str, slice: &Slice, writer: &ShardWriter) -> Result<()> {
    let (rows, cols) = slice.shape;
    let run = (RUN_WEIGHTS / cols).max(1);
    // Columns can only be worked on whole.
    let run = if slice.by_rows() { run } else { rows.max(1) };
    for first in (0..rows).step_by(run) {
        let part = slice.part(first, run.min(rows - first));
        let weights = edits.transformed(name, &part)?;
        store(edits, name, part.first_row * cols, &weights, writer)?;
    }
    Ok(())
}

fn store(
    edits: &Edits<'_>,
    name: &str,
    first: usize,
    weights: &[f32],
    writer: &ShardWriter,
) -> Result<()> {
    if !weights.par_chunks(1 << 16).all(|weights| weights.iter().all(|w| w.is_finite())) {
        let source = edits.source(name);
        let file = edits.checkpoint().file_of(source);
        return Err(Error::tensor(file, name, "holds or becomes values that are not finite"));
    }
    writer.write(name, (first * size_of::<f32>()) as u64, bytemuck::cast_slice(weights))
}

/// Configuration and the files beside the weights.
fn describe(edits: &Edits<'_>, context: &Context<'_>, staging: &Staging) -> Result<()> {
    let config = edits.checkpoint().config().expect("invariant: the architecture was read");
    let mut json = config.json().clone();
    if context.architecture.tied && !context.still_tied(edits) {
        json["tie_word_embeddings"] = false.into();
        if let Some(text) = json.get_mut("text_config").filter(|text| text.is_object()) {
            text["tie_word_embeddings"] = false.into();
        }
    }
    write_json(&staging.folder().join("config.json"), &json)?;
    copy_sidecars(edits.checkpoint().folder(), staging.folder())?;
    Ok(())
}
