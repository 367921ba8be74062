//! Which weights a layer should have, seeing what it sees.

use compress_model_feedback::Factor;

use super::product::{multiply, multiply_transposed};

/// The weights that, on the inputs x of the compressed model, come nearest to what the original
/// layer gives on its own inputs x': W + (W·D + R)·H⁻¹, with D the mean of (x' - x)·xᵀ and R that
/// of (r' - r)·xᵀ for the residual streams that the output is added to. It minimises the mean of
/// |W·x' + r' - Ŵ·x - r|² over all Ŵ; GPTAQ (arXiv 2504.02692) adds the first term column by
/// column. `weights` [out, in] row-major; `drift` is D [in, in], `residual_drift` R [out, in].
pub(super) fn reproducing(
    weights: &[f32],
    factor: &Factor,
    drift: &[f32],
    residual_drift: Option<&[f32]>,
) -> Vec<f32> {
    let n = factor.width();
    let mut moved = multiply(weights, drift, n);
    if let Some(residual) = residual_drift {
        moved.iter_mut().zip(residual).for_each(|(moved, r)| *moved += r);
    }
    // H⁻¹ = Uᵀ·U in the factor's order.
    let half = multiply_transposed(&factor.ordered(&moved), factor.inverse(), n);
    let change = multiply(&half, factor.inverse(), n);
    let mut target = weights.to_vec();
    for (row, change) in target.chunks_exact_mut(n).zip(change.chunks_exact(n)) {
        for (change, &column) in change.iter().zip(factor.order()) {
            row[column] += change;
        }
    }
    target
}

#[cfg(test)]
mod tests {
    use compress_model_feedback::{CrossGram, Damping, Gram, Hessian, Order};

    use super::*;

    /// Where the compressed model's inputs are a linear map of the original's, the original's
    /// outputs can be had exactly.
    #[test]
    fn a_linear_drift_is_undone() {
        let (n, tokens) = (5, 400);
        let number = |i: usize| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0;
        let original: Vec<f32> = (0..tokens * n).map(number).collect();
        // x = x' with the channels mixed a little.
        let seen: Vec<f32> = (0..tokens * n)
            .map(|i| original[i] + 0.3 * original[i / n * n + (i + 1) % n])
            .collect();
        let weights: Vec<f32> = (0..3 * n).map(|i| number(i + 999)).collect();
        let mut gram = Gram::new(n);
        gram.add(&seen);
        let mut cross = CrossGram::new(n, n);
        let drift: Vec<f32> = original.iter().zip(&seen).map(|(a, b)| a - b).collect();
        cross.add(&drift, &seen);
        let none = Damping { share: 0.0, most: 1.0 };
        let hessian = Hessian::new(gram.mean(), n, none).unwrap();
        let factor = Factor::new(&hessian, 1, Order::Activation);
        let target = reproducing(&weights, &factor, &cross.mean(), None);
        for token in 0..tokens {
            for row in 0..3 {
                let dot = |w: &[f32], x: &[f32]| -> f32 {
                    (0..n).map(|i| w[row * n + i] * x[token * n + i]).sum()
                };
                let (wanted, got) = (dot(&weights, &original), dot(&target, &seen));
                assert!((wanted - got).abs() < 1e-3, "{wanted} {got}");
            }
        }
    }
}
