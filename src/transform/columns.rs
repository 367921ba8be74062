//! How large the columns of weights are.

use super::Context;

/// Mean square of each column of `weights`, `cols` weights a row; adds to what is in `sums`, and
/// gives the number of rows.
pub(super) fn add_squares(sums: &mut [f64], weights: &[f32], cols: usize) -> usize {
    for row in weights.chunks_exact(cols) {
        for (sum, weight) in sums.iter_mut().zip(row) {
            *sum += f64::from(*weight).powi(2);
        }
    }
    weights.len() / cols
}

/// Root mean square of each column.
pub(super) fn scales(weights: &[f32], cols: usize) -> Vec<f64> {
    let mut sums = vec![0.0; cols];
    let rows = add_squares(&mut sums, weights, cols);
    sums.iter().map(|sum| (sum / rows as f64).sqrt()).collect()
}

/// Root of the mean square over the query heads that share each value: from one figure for each
/// column of an output projection to one for each row of a value projection.
pub(super) fn over_groups(columns: &[f64], context: &Context<'_>) -> Vec<f64> {
    let (heads, kv_heads, dim) = heads(context);
    let group = heads / kv_heads;
    let mean = |value: usize| {
        let (head, feature) = (value / dim, value % dim);
        let column = |member: usize| columns[(head * group + member) * dim + feature];
        (0..group).map(|member| column(member).powi(2)).sum::<f64>() / group as f64
    };
    (0..kv_heads * dim).map(|value| mean(value).sqrt()).collect()
}

/// For each column of an output projection, the row of the value projection that it reads.
pub(super) fn value_of(context: &Context<'_>) -> Vec<usize> {
    let (heads, kv_heads, dim) = heads(context);
    let group = heads / kv_heads;
    (0..heads * dim).map(|column| column / dim / group * dim + column % dim).collect()
}

fn heads(context: &Context<'_>) -> (usize, usize, usize) {
    let a = context.architecture;
    (a.heads, a.kv_heads, a.head_dim)
}
