//! Which layers of a block read and write the same features.

use crate::model::{BlockPlan, FeedForwardPlan, GatedPlan, LinearPlan};

/// The gated feed-forward blocks of `block`: one, or its experts.
pub(super) fn gated(block: &BlockPlan) -> Vec<&GatedPlan> {
    match &block.feed_forward {
        FeedForwardPlan::Dense(gated) => vec![gated],
        FeedForwardPlan::Experts { experts, .. } => experts.iter().collect(),
    }
}

/// The norms that read the residual stream, with the layers behind them.
pub(super) fn readers(block: &BlockPlan) -> [(&str, Vec<&LinearPlan>); 2] {
    let mut inner: Vec<&LinearPlan> = match &block.feed_forward {
        FeedForwardPlan::Dense(_) => Vec::new(),
        FeedForwardPlan::Experts { router, .. } => vec![router],
    };
    inner.extend(gated(block).iter().flat_map(|gated| [&gated.gate, &gated.up]));
    [
        (&block.input_norm, vec![&block.query, &block.key, &block.value]),
        (&block.feed_forward_norm, inner),
    ]
}

/// The layers that write to the residual stream.
pub(super) fn writers(block: &BlockPlan) -> Vec<&LinearPlan> {
    let down = gated(block).into_iter().map(|gated| &gated.down);
    std::iter::once(&block.output).chain(down).collect()
}
