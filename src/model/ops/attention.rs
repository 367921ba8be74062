//! Causal attention of grouped query heads, with an optional sliding window.

use candle_core::{CpuStorage, CustomOp3, D, Device, Layout, Result, Shape, Tensor};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use multiversion::multiversion;
use rayon::prelude::*;

use super::exp::exp;
use super::{Path, tensor, values, with_values};

/// Queries that a task handles.
pub(super) const TASK_QUERIES: usize = 64;

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
pub(crate) fn attention(
    path: Path,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    shape: Attention,
) -> Result<Tensor> {
    match path {
        Path::Fast => q.apply_op3(k, v, shape),
        Path::Plain => shape.plain(q, k, v),
    }
}

impl Attention {
    /// The keys that query number `query` of a window sees.
    pub(super) fn seen(&self, query: usize) -> std::ops::Range<usize> {
        let end = self.keys - self.queries + query + 1;
        let start = self.window.map_or(0, |window| end.saturating_sub(window));
        start..end
    }

    fn plain(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
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

    /// What the queries `q` of one head, from number `first` of a window on, take of each of the
    /// keys `k`, of which the first is number `first_key`: row-major, rows that sum to 1.
    pub(super) fn shares(
        &self,
        first: usize,
        q: MatRef<'_, f32>,
        k: MatRef<'_, f32>,
        first_key: usize,
    ) -> Vec<f32> {
        let (rows, keys) = (q.nrows(), k.nrows());
        let mut shares = vec![0.0; rows * keys];
        let scores = MatMut::from_row_major_slice_mut(&mut shares, rows, keys);
        matmul(scores, Accum::Replace, q, k.transpose(), self.scale, Par::Seq);
        for (row, shares) in shares.chunks_exact_mut(keys).enumerate() {
            let seen = self.seen(first + row);
            shares[..seen.start - first_key].fill(0.0);
            softmax(&mut shares[seen.start - first_key..seen.end - first_key]);
            shares[seen.end - first_key..].fill(0.0);
        }
        shares
    }

    /// One head of the queries from `first` on of a window; `out` starts at their first row.
    fn head(&self, head: usize, first: usize, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
        let Self { heads, kv_heads, head_dim, .. } = *self;
        let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let rows = (q.len() / q_width).min(TASK_QUERIES);
        let keys = self.seen(first).start..self.seen(first + rows - 1).end;
        let kv_head = head / (heads / kv_heads) * head_dim;
        let strided = |values, rows, width| {
            MatRef::from_row_major_slice_with_stride(values, rows, head_dim, width)
        };
        let q = strided(&q[head * head_dim..], rows, q_width);
        let k = strided(&k[keys.start * kv_width + kv_head..], keys.len(), kv_width);
        let v = strided(&v[keys.start * kv_width + kv_head..], keys.len(), kv_width);

        let shares = self.shares(first, q, k, keys.start);
        let shares = MatRef::from_row_major_slice(&shares, rows, keys.len());
        // Not `from_row_major_slice_with_stride_mut`: faer 0.24.4 swaps its strides.
        let out = &mut out[head * head_dim..];
        let out = MatMut::from_column_major_slice_with_stride_mut(out, head_dim, rows, q_width);
        let out = out.transpose_mut();
        matmul(out, Accum::Replace, shares, v, 1.0, Par::Seq);
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (q, k, v) = (values(q, q_layout)?, values(k, k_layout)?, values(v, v_layout)?);
        let (q_width, kv_width) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut out = vec![0.0; q.len()];
        let windows = out.par_chunks_mut(self.queries * q_width).enumerate();
        windows.for_each(|(window, out)| {
            let q = &q[window * self.queries * q_width..][..self.queries * q_width];
            let k = &k[window * self.keys * kv_width..][..self.keys * kv_width];
            let v = &v[window * self.keys * kv_width..][..self.keys * kv_width];
            let tasks = out.par_chunks_mut(TASK_QUERIES * q_width).enumerate();
            tasks.for_each(|(task, out)| {
                let first = task * TASK_QUERIES;
                for head in 0..self.heads {
                    self.head(head, first, &q[first * q_width..], k, v, out);
                }
            });
        });
        Ok((CpuStorage::F32(out), q_layout.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dq, dk, dv] = with_values(q, |q| {
            with_values(k, |k| {
                with_values(v, |v| with_values(dy, |dy| self.gradients([q, k, v, dy])))
            })
        })????;
        let gradient = |values, of: &Tensor| tensor(values, of.shape()).map(Some);
        Ok((gradient(dq, q)?, gradient(dk, k)?, gradient(dv, v)?))
    }
}

const LANES: usize = 16;

/// Scores to shares that sum to 1. A NaN or an infinite score makes them all NaN.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn softmax(scores: &mut [f32]) {
    let mut largest = [f32::NEG_INFINITY; LANES];
    for chunk in scores.chunks(LANES) {
        for (largest, score) in largest.iter_mut().zip(chunk) {
            *largest = if *score > *largest { *score } else { *largest };
        }
    }
    let largest = largest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0; LANES];
    for chunk in scores.chunks_mut(LANES) {
        for (sum, score) in sums.iter_mut().zip(chunk) {
            *score = exp(*score - largest);
            *sum += *score;
        }
    }
    let factor = 1.0 / sums.iter().sum::<f32>();
    for score in scores {
        *score *= factor;
    }
}
