//! Hadamard matrices by Paley's constructions.

/// A Hadamard matrix of order `order`, row-major, entries 1 and -1: of order q + 1 for a prime q =
/// 3 mod 4, or of order 2(q + 1) for a prime q = 1 mod 4 (R. Paley, On orthogonal matrices, 1933).
/// `None` if neither gives one.
pub(super) fn hadamard(order: usize) -> Option<Vec<f64>> {
    if order >= 4 && (order - 1) % 4 == 3 && is_prime(order - 1) {
        // I + S, S skew.
        let mut matrix = border(order - 1, -1.0);
        (0..order).for_each(|i| matrix[i * order + i] += 1.0);
        return Some(matrix);
    }
    let half = order / 2;
    if order >= 12 && order.is_multiple_of(2) && (half - 1) % 4 == 1 && is_prime(half - 1) {
        return Some(doubled(&border(half - 1, 1.0), half));
    }
    None
}

/// The conference matrix [[0, 1], [sign·1, Q]] of order q + 1 with Q[i, j] the quadratic character
/// of i - j modulo q.
fn border(q: usize, sign: f64) -> Vec<f64> {
    let n = q + 1;
    let mut is_square = vec![false; q];
    (1..q).for_each(|x| is_square[x * x % q] = true);
    let mut matrix = vec![0.0; n * n];
    for i in 0..q {
        matrix[i + 1] = 1.0;
        matrix[(i + 1) * n] = sign;
        for j in (0..q).filter(|&j| j != i) {
            let square = is_square[(i + q - j) % q];
            matrix[(i + 1) * n + j + 1] = if square { 1.0 } else { -1.0 };
        }
    }
    matrix
}

/// C ⊗ [[1, 1], [1, -1]] + I ⊗ [[1, -1], [-1, -1]] for a symmetric conference matrix C.
fn doubled(conference: &[f64], n: usize) -> Vec<f64> {
    let mut matrix = vec![0.0; 4 * n * n];
    for i in 0..n {
        for j in 0..n {
            let block = match conference[i * n + j] {
                0.0 => [[1.0, -1.0], [-1.0, -1.0]],
                c => [[c, c], [c, -c]],
            };
            for (a, row) in block.iter().enumerate() {
                let start = (2 * i + a) * 2 * n + 2 * j;
                matrix[start..start + 2].copy_from_slice(row);
            }
        }
    }
    matrix
}

fn is_prime(n: usize) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_orthogonal_and_of_ones() {
        for order in [4, 8, 12, 20, 24, 28, 36, 44, 60, 76] {
            let h = hadamard(order).unwrap_or_else(|| panic!("order {order}"));
            assert!(h.iter().all(|x| x.abs() == 1.0), "{order}");
            for (i, a) in h.chunks_exact(order).enumerate() {
                for (j, b) in h.chunks_exact(order).enumerate() {
                    let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                    assert_eq!(dot, if i == j { order as f64 } else { 0.0 }, "{order}: {i} {j}");
                }
            }
        }
        assert!([1, 2, 3, 6, 9, 16, 18, 40].iter().all(|&order| hadamard(order).is_none()));
    }
}
