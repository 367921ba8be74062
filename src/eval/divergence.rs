//! How far two sets of hidden states of one model are apart, in what they predict.

use rayon::prelude::*;

use super::softmax::compare;
use super::stream::chunk_rows;
use crate::error::{Error, Result};
use crate::model::{CausalModel, Model};

/// Mean KLD(original‖changed) in nats over the rows of two arrays of final hidden states
/// [n, hidden] of `model`; `head` [vocabulary, hidden] takes the place of the model's for the
/// changed ones.
///
/// # Errors
/// [`Error::Model`] for logits that are not finite.
pub(crate) fn mean_divergence(
    model: &Model,
    original: &[f32],
    changed: &[f32],
    head: Option<&[f32]>,
) -> Result<f64> {
    let (vocabulary, width) = (model.vocab_size(), model.hidden_size());
    let rows = chunk_rows(vocabulary);
    let (mut sum, mut count) = (0.0, 0);
    for (original, changed) in original.chunks(rows * width).zip(changed.chunks(rows * width)) {
        let mut logits = [original, changed].map(|x| vec![0.0; x.len() / width * vocabulary]);
        let [theirs, ours] = &mut logits;
        model.logits(original, theirs)?;
        match head {
            Some(head) => model.logits_of(changed, head, ours),
            None => model.logits(changed, ours)?,
        }
        let divergences: Vec<Option<f64>> = theirs
            .par_chunks(vocabulary)
            .zip(ours.par_chunks(vocabulary))
            .map(|(theirs, ours)| compare(ours, theirs, 0).map(|pair| pair.kld))
            .collect();
        for divergence in divergences {
            sum += divergence.ok_or_else(|| Error::Model {
                folder: model.folder().to_path_buf(),
                message: "logits are not finite".to_owned(),
            })?;
            count += 1;
        }
    }
    Ok(sum / f64::from(count.max(1)))
}
