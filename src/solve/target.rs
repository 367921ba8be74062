//! Which weights a layer should have, seeing what it sees.

use compress_model_feedback::Factor;

use super::product::{multiply, multiply_transposed};

/// Most that making up for drift changes what a row gives, in multiples of what it gives: root mean
/// squares over the calibration text. A row that says little cannot make up for what loud ones did
/// before it: it would take weights far past all others, fitted to the noise of one text. A row of
/// zeros stays one.
const MOST_CHANGE: f64 = 2.0;

/// The weights that, on the inputs x of the compressed model, come nearest to what the original
/// layer gives on its own inputs x': W + (W·D + R)·H⁻¹, with D the mean of (x' - x)·xᵀ and R that
/// of (r' - r)·xᵀ for the residual streams that the output is added to. It minimises the mean of
/// |W·x' + r' - Ŵ·x - r|² over all Ŵ; GPTAQ (arXiv 2504.02692) adds the first term column by
/// column. `weights` [out, in] row-major; `drift` is D [in, in], `residual_drift` R [out, in].
///
/// The change of a row is bounded by [`MOST_CHANGE`].
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
    // H⁻¹ = Uᵀ·U in the factor's order, and H = M·Mᵀ with M = U⁻¹: the change times M is `half`.
    let half = multiply_transposed(&factor.ordered(&moved), factor.inverse(), n);
    let change = multiply(&half, factor.inverse(), n);
    let image = multiply(&factor.ordered(weights), factor.root(), n);
    let mut target = weights.to_vec();
    let rows = target.chunks_exact_mut(n).zip(change.chunks_exact(n));
    for ((row, change), (half, image)) in rows.zip(half.chunks_exact(n).zip(image.chunks_exact(n)))
    {
        let share = share(squares(half), squares(image));
        for (change, &column) in change.iter().zip(factor.order()) {
            row[column] += share * change;
        }
    }
    target
}

/// How much of a change of squared size `change` is within the bound for a row of squared size `row`.
fn share(change: f64, row: f64) -> f32 {
    let most = MOST_CHANGE * MOST_CHANGE * row;
    if change <= most { 1.0 } else { (most / change).sqrt() as f32 }
}

fn squares(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}

#[cfg(test)]
mod tests {
    use compress_model_feedback::{CrossGram, Damping, Gram, Hessian, Order, squared_norm};

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

    /// However large the drift, the change of a row is bounded in the norm of the inputs, and a row of
    /// zeros stays one.
    #[test]
    fn changes_are_bounded_by_what_a_row_gives() {
        let n = 4;
        let x: Vec<f32> =
            (0..200 * n).map(|i| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0).collect();
        let mut gram = Gram::new(n);
        gram.add(&x);
        let hessian = Hessian::new(gram.mean(), n, Damping::default()).unwrap();
        let factor = Factor::new(&hessian, 1, Order::Natural);
        let weights = [0.0, 0.0, 0.0, 0.0, 1.0, -2.0, 0.5, 3.0, 1e-4, 2e-4, 0.0, 1e-4];
        let residual: Vec<f32> = (0..3 * n).map(|i| 0.1 + (i % 5) as f32).collect();
        let nothing = vec![0.0; n * n];
        let target = reproducing(&weights, &factor, &nothing, Some(&residual));
        let norm = |row: &[f32]| squared_norm(row, hessian.values(), n).sqrt();
        for (row, (w, t)) in weights.chunks(n).zip(target.chunks(n)).enumerate() {
            let change: Vec<f32> = t.iter().zip(w).map(|(t, w)| t - w).collect();
            let (change, most) = (norm(&change), MOST_CHANGE * norm(w));
            assert!(change <= most * 1.001, "row {row}: {change} of {most}");
            assert_eq!(change == 0.0, row == 0, "row {row}");
        }
        // A change within the bound is made whole.
        let little: Vec<f32> = residual.iter().map(|r| r * 1e-3).collect();
        let target = reproducing(&weights[4..8], &factor, &nothing, Some(&little[4..8]));
        for column in 0..n {
            let moved: f32 = (0..n)
                .map(|k| (target[k] - weights[4 + k]) * hessian.values()[k * n + column])
                .sum();
            assert!((moved - little[4 + column]).abs() < 1e-6, "{moved}");
        }
    }
}
