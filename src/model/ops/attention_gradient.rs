//! Gradients of causal attention.
//!
//! With the shares P = softmax(scale·q·kᵀ) of a head, which are computed again, and the gradient dO
//! of its output: dV = Pᵀ·dO, dP = dO·Vᵀ, dS = P∘(dP - rowsum(P∘dP)), dQ = scale·dS·K and
//! dK = scale·dSᵀ·Q. Query heads that share a key head add up in it.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use multiversion::multiversion;
use rayon::prelude::*;

use super::attention::{Attention, TASK_QUERIES};

/// Gradients of one key head of one window and of the query heads that share it.
struct HeadGradients {
    /// [queries, shared·head_dim]
    dq: Vec<f32>,
    /// [keys, head_dim]
    dk: Vec<f32>,
    dv: Vec<f32>,
}

impl Attention {
    /// Gradients of queries, keys and values from those of the output: `[q, k, v, dy]`, all
    /// windows, in the shapes of [`Attention`].
    pub(super) fn gradients(&self, [q, k, v, dy]: [&[f32]; 4]) -> [Vec<f32>; 3] {
        let Self { queries, keys, heads, kv_heads, head_dim, .. } = *self;
        let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let windows = q.len() / (queries * q_width);
        let parts: Vec<HeadGradients> = (0..windows * kv_heads)
            .into_par_iter()
            .map(|task| {
                let (window, kv_head) = (task / kv_heads, task % kv_heads);
                let own = |x: &'_ [f32]| {
                    let size = x.len() / windows;
                    window * size..(window + 1) * size
                };
                let [q, k, v, dy] = [q, k, v, dy].map(|x| &x[own(x)]);
                self.head_gradients(kv_head, [q, k, v, dy])
            })
            .collect();
        let gather = |len: usize, width: usize, part: fn(&HeadGradients) -> &[f32]| {
            let own = width / kv_heads;
            let mut all = vec![0.0; windows * len * width];
            all.par_chunks_mut(width).enumerate().for_each(|(row, all)| {
                let (window, row) = (row / len, row % len);
                for (kv_head, all) in all.chunks_exact_mut(own).enumerate() {
                    let part = part(&parts[window * kv_heads + kv_head]);
                    all.copy_from_slice(&part[row * own..][..own]);
                }
            });
            all
        };
        [
            gather(queries, q_width, |part| &part.dq),
            gather(keys, kv_width, |part| &part.dk),
            gather(keys, kv_width, |part| &part.dv),
        ]
    }

    /// The gradients of key head `kv_head` of one window.
    fn head_gradients(&self, kv_head: usize, [q, k, v, dy]: [&[f32]; 4]) -> HeadGradients {
        let Self { queries, keys, heads, kv_heads, head_dim, scale, .. } = *self;
        let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let shared = heads / kv_heads;
        let mut found = HeadGradients {
            dq: vec![0.0; queries * shared * head_dim],
            dk: vec![0.0; keys * head_dim],
            dv: vec![0.0; keys * head_dim],
        };
        for (number, first) in (0..queries).step_by(TASK_QUERIES).enumerate() {
            let rows = (queries - first).min(TASK_QUERIES);
            let seen = self.seen(first).start..self.seen(first + rows - 1).end;
            let k = of_head(head_dim, &k[seen.start * kv_width..], seen.len(), kv_head, kv_width);
            let v = of_head(head_dim, &v[seen.start * kv_width..], seen.len(), kv_head, kv_width);
            let keys = seen.start * head_dim..seen.end * head_dim;
            for own in 0..shared {
                let head = kv_head * shared + own;
                let q = of_head(head_dim, &q[first * q_width..], rows, head, q_width);
                let dy = of_head(head_dim, &dy[first * q_width..], rows, head, q_width);
                let shares = self.shares(first, q, k, seen.start);
                let mut slopes = vec![0.0; shares.len()];
                let all = MatMut::from_row_major_slice_mut(&mut slopes, rows, seen.len());
                matmul(all, Accum::Replace, dy, v.transpose(), 1.0, Par::Seq);
                softmax_gradient(&shares, &mut slopes, seen.len());

                let matrix = |x| MatRef::from_row_major_slice(x, rows, seen.len());
                let (shares, slopes) = (matrix(&shares), matrix(&slopes));
                for (sum, left, right, factor) in
                    [(&mut found.dv, shares, dy, 1.0), (&mut found.dk, slopes, q, scale)]
                {
                    let sum = &mut sum[keys.clone()];
                    let sum = MatMut::from_row_major_slice_mut(sum, seen.len(), head_dim);
                    matmul(sum, Accum::Add, left.transpose(), right, factor, Par::Seq);
                }
                let width = shared * head_dim;
                let dq = &mut found.dq[number * TASK_QUERIES * width + own * head_dim..];
                // Not `from_row_major_slice_with_stride_mut`: faer 0.24.4 swaps its strides.
                let dq = MatMut::from_column_major_slice_with_stride_mut(dq, head_dim, rows, width);
                matmul(dq.transpose_mut(), Accum::Replace, slopes, k, scale, Par::Seq);
            }
        }
        found
    }
}

/// Turns each row dP of `slopes` into P∘(dP - Σ P∘dP).
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn softmax_gradient(shares: &[f32], slopes: &mut [f32], keys: usize) {
    const LANES: usize = 16;
    for (shares, slopes) in shares.chunks_exact(keys).zip(slopes.chunks_exact_mut(keys)) {
        let mut lanes = [0.0; LANES];
        for (shares, slopes) in shares.chunks(LANES).zip(slopes.chunks(LANES)) {
            for ((lane, share), slope) in lanes.iter_mut().zip(shares).zip(slopes) {
                *lane += share * slope;
            }
        }
        let mean: f32 = lanes.iter().sum();
        for (share, slope) in shares.iter().zip(slopes) {
            *slope = share * (*slope - mean);
        }
    }
}

/// Columns of one head of `len` rows of `width`.
fn of_head(head_dim: usize, x: &[f32], len: usize, head: usize, width: usize) -> MatRef<'_, f32> {
    MatRef::from_row_major_slice_with_stride(&x[head * head_dim..], len, head_dim, width)
}
