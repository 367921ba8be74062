//! Passes of a text through one block.

use std::cell::RefCell;
use std::collections::BTreeMap;

use candle_core::{Storage, Tensor};
use compress_model_feedback::Gram;

use super::Activations;
use crate::error::Result;
use crate::model::{HeldBlock, LinearInput, Model};

/// Sums of the inputs of a block's linear layers.
pub(crate) type Grams = BTreeMap<LinearInput, Gram>;

/// Adds up the inputs that `wanted` accepts while all of `stream` runs through `block`.
///
/// # Errors
/// As running the block, and reading the stream.
pub(crate) fn collect(
    model: &Model,
    block: &HeldBlock,
    stream: &Activations,
    window: usize,
    wanted: impl Fn(LinearInput) -> bool,
) -> Result<Grams> {
    let grams = RefCell::new(Grams::new());
    let observer = |input: LinearInput, x: &Tensor| {
        if wanted(input) {
            let mut grams = grams.borrow_mut();
            let gram = grams.entry(input).or_insert_with(|| Gram::new(x.dims()[1]));
            with_values(x, |values| gram.add(values))?;
        }
        Ok(())
    };
    for batch in 0..stream.batches() {
        model.step(block, stream.read(batch)?, window, Some(&observer))?;
    }
    Ok(grams.into_inner())
}

/// Sums of what the head sees.
///
/// # Errors
/// As [`collect`].
pub(crate) fn collect_head(model: &Model, stream: &Activations) -> Result<Gram> {
    let mut gram = None;
    for batch in 0..stream.batches() {
        let x = model.head_input(stream.read(batch)?)?;
        gram.get_or_insert_with(|| Gram::new(model.architecture().hidden_size)).add(&x);
    }
    Ok(gram.expect("invariant: a text has a window"))
}

/// Runs all of `stream` through `block`.
///
/// # Errors
/// As [`collect`], and writing the stream.
pub(crate) fn step_all(
    model: &Model,
    block: &HeldBlock,
    stream: &Activations,
    window: usize,
) -> Result<()> {
    for batch in 0..stream.batches() {
        stream.write(batch, &model.step(block, stream.read(batch)?, window, None)?)?;
    }
    Ok(())
}

fn with_values(x: &Tensor, f: impl FnOnce(&[f32])) -> candle_core::Result<()> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { candle_core::bail!("not on the CPU") };
    let start = layout.start_offset();
    f(&storage.as_slice::<f32>()?[start..start + layout.shape().elem_count()]);
    Ok(())
}
