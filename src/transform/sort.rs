//! Permutations that bring columns of similar scale together.

use super::Context;
use super::columns::{over_groups, scales, value_of};
use super::edits::Edits;
use super::factor::Factor;
use super::layers::gated;
use crate::error::Result;

const SORTED: &str = "inner channels sorted";
const VALUES_SORTED: &str = "values of heads sorted";

/// Sorts the inner channels of every feed-forward block and expert by the scale of down's columns:
/// blocks of a texture and groups of a row then hold weights of one size.
///
/// # Errors
/// [`crate::Error::Io`].
pub(super) fn channels(edits: &mut Edits<'_>, context: &Context<'_>) -> Result<()> {
    for gated in context.plan.blocks.iter().flat_map(gated) {
        let scales = scales(&edits.weights(&gated.down)?, gated.down.shape.1);
        let factor = Factor::Permute(ascending(&scales, 0).into());
        edits.output(&gated.gate, &factor, SORTED);
        edits.output(&gated.up, &factor, SORTED);
        edits.input(&gated.down, &factor, SORTED);
    }
    Ok(())
}

/// Sorts the values within each head by the scale of the output projection's columns, over all
/// query heads that read them.
///
/// # Errors
/// [`crate::Error::Io`].
pub(super) fn values(edits: &mut Edits<'_>, context: &Context<'_>) -> Result<()> {
    let dim = context.architecture.head_dim;
    for block in &context.plan.blocks {
        let columns = scales(&edits.weights(&block.output)?, block.output.shape.1);
        let scales = over_groups(&columns, context);
        let heads = scales.chunks_exact(dim).enumerate();
        let order: Vec<usize> =
            heads.flat_map(|(head, scales)| ascending(scales, head * dim)).collect();
        // The column of a query head that reads value v of its group.
        let columns: Vec<usize> = value_of(context)
            .iter()
            .enumerate()
            .map(|(column, value)| column / dim * dim + order[*value] % dim)
            .collect();
        edits.output(&block.value, &Factor::Permute(order.into()), VALUES_SORTED);
        edits.input(&block.output, &Factor::Permute(columns.into()), VALUES_SORTED);
    }
    Ok(())
}

/// Positions by ascending scale, the lower first among equals, counted from `first`.
fn ascending(scales: &[f64], first: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scales.len()).collect();
    order.sort_by(|&a, &b| scales[a].total_cmp(&scales[b]));
    order.iter().map(|i| first + i).collect()
}
