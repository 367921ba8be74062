//! Causal attention of grouped query heads, with an optional sliding window.

use candle_core::{D, Device, Result, Tensor};

/// Shape of an attention: queries [windows·queries, heads·head_dim], keys and values
/// [windows·keys, kv_heads·head_dim]. The last query stands at the last key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention {
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// What scores are multiplied by.
    pub(crate) scale: f32,
    /// Keys that a query sees, its own included.
    pub(crate) window: Option<usize>,
}

/// softmax(q·kᵀ·scale)·v over the keys that each query sees: [windows·queries, heads·head_dim].
pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, shape: Attention) -> Result<Tensor> {
    shape.apply(q, k, v)
}

impl Attention {
    /// The keys that query number `query` of a window sees.
    fn seen(&self, query: usize) -> std::ops::Range<usize> {
        let end = self.keys - self.queries + query + 1;
        let start = self.window.map_or(0, |window| end.saturating_sub(window));
        start..end
    }

    fn apply(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let Self { queries, keys, heads, kv_heads, head_dim, .. } = *self;
        let windows = q.dim(0)? / queries;
        let split = |x: &Tensor, len, heads| {
            x.reshape((windows, len, heads, head_dim))?.transpose(1, 2)?.contiguous()
        };
        // Key heads repeated for the query heads that they serve.
        let repeat = |x: &Tensor| {
            let shared = heads / kv_heads;
            split(x, keys, kv_heads)?
                .unsqueeze(2)?
                .expand((windows, kv_heads, shared, keys, head_dim))?
                .reshape((windows, heads, keys, head_dim))
        };
        let (q, k, v) = (split(q, queries, heads)?, repeat(k)?, repeat(v)?);
        let scores = (q.matmul(&k.t()?.contiguous()?)? * f64::from(self.scale))?;
        let shares =
            candle_nn::ops::softmax(&scores.broadcast_add(&self.mask(q.device())?)?, D::Minus1)?;
        let mixed = shares.matmul(&v)?.transpose(1, 2)?;
        mixed.reshape((windows * queries, heads * head_dim))
    }

    /// [queries, keys]: 0 where a key is seen, else minus infinity.
    fn mask(&self, device: &Device) -> Result<Tensor> {
        let row = |query| {
            let seen = self.seen(query);
            (0..self.keys).map(move |key| if seen.contains(&key) { 0.0 } else { f32::NEG_INFINITY })
        };
        let mask: Vec<f32> = (0..self.queries).flat_map(row).collect();
        Tensor::from_vec(mask, (self.queries, self.keys), device)
    }
}
