//! The triangular factors behind error feedback.

use std::sync::Arc;

use faer::Mat;

use crate::Hessian;
use crate::triangle::{cholesky, inverse};

/// In which order columns are coded. Columns that a coder takes together stay together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// As they stand.
    Natural,
    /// Those with the largest mean square of their inputs first: their errors can still be made
    /// up for by all others.
    #[default]
    Activation,
}

/// H = M·Mᵀ and U = M⁻¹, both upper triangular, in the order of coding.
#[derive(Debug, Clone)]
pub struct Factor {
    n: usize,
    /// Position in the order to column.
    order: Vec<usize>,
    /// First position of each unit, and n.
    starts: Vec<usize>,
    root: Arc<[f32]>,
    inverse: Arc<[f32]>,
}

impl Factor {
    /// Factors `hessian` for units of `width` columns, the last one narrower where they do not
    /// divide the row. The arithmetic is f64, the result f32, and its bits do not depend on threads.
    ///
    /// # Panics
    /// If `width` is zero.
    #[must_use]
    pub fn new(hessian: &Hessian, width: usize, order: Order) -> Self {
        let n = hessian.width();
        let units = units(hessian, width, order);
        let order: Vec<usize> = units.iter().cloned().flatten().collect();
        let mut starts = vec![0];
        starts.extend(units.iter().scan(0, |end, unit| {
            *end += unit.len();
            Some(*end)
        }));
        // An upper factor is the lower factor of the matrix turned around.
        let turned = |i: usize| order[n - 1 - i];
        let values = hessian.values();
        let matrix = Mat::from_fn(n, n, |i, j| f64::from(values[turned(i) * n + turned(j)]));
        let lower = cholesky(matrix).expect("invariant: a Hessian has a Cholesky factor");
        let inverse = inverse(lower.as_ref());
        let upper = |lower: &Mat<f64>| {
            let mut upper = vec![0.0; n * n];
            for i in 0..n {
                for j in i..n {
                    upper[i * n + j] = lower[(n - 1 - i, n - 1 - j)] as f32;
                }
            }
            upper
        };
        let (root, inverse) = (upper(&lower).into(), upper(&inverse).into());
        Self { n, order, starts, root, inverse }
    }

    /// The same factor for units of `width` columns, if it is in natural order.
    ///
    /// # Panics
    /// If `width` is zero.
    #[must_use]
    pub fn for_units(&self, width: usize) -> Option<Self> {
        let natural = self.order.iter().enumerate().all(|(position, column)| position == *column);
        let mut starts: Vec<usize> = (0..self.n).step_by(width).collect();
        starts.push(self.n);
        natural.then(|| Self { starts, ..self.clone() })
    }

    /// Bytes for inputs of width `n`, the work on it included.
    #[must_use]
    pub fn bytes(n: usize) -> u64 {
        (n * n * (2 * size_of::<f64>() + 2 * size_of::<f32>())) as u64
    }

    /// The width.
    #[must_use]
    pub fn width(&self) -> usize {
        self.n
    }

    /// Column at each position.
    #[must_use]
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The rows of `matrix`, row-major, with their columns in the order of coding.
    #[must_use]
    pub fn ordered(&self, matrix: &[f32]) -> Vec<f32> {
        let rows = matrix.chunks_exact(self.n);
        rows.flat_map(|row| self.order.iter().map(|&column| row[column])).collect()
    }

    /// First position of each unit of columns that are coded together, and n.
    pub(crate) fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// M, row-major by positions: H[order, order] = M·Mᵀ.
    #[must_use]
    pub fn root(&self) -> &[f32] {
        &self.root
    }

    /// U = M⁻¹, row-major by positions.
    #[must_use]
    pub fn inverse(&self) -> &[f32] {
        &self.inverse
    }
}

/// Runs of columns in the order of coding.
fn units(hessian: &Hessian, width: usize, order: Order) -> Vec<std::ops::Range<usize>> {
    let n = hessian.width();
    let mut units: Vec<_> =
        (0..n).step_by(width).map(|first| first..n.min(first + width)).collect();
    if order == Order::Activation {
        let mean = |unit: &std::ops::Range<usize>| {
            let sum: f64 = unit.clone().map(|i| f64::from(hessian.diagonal(i))).sum();
            sum / unit.len() as f64
        };
        // A stable sort: ties stay in the order of columns.
        units.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Damping;

    #[test]
    fn factors_multiply_back_in_the_order_of_activation() {
        let n = 7;
        let number = |i: usize| ((i * 37 + 11) % 19) as f32 - 9.0;
        let x: Vec<f32> = (0..20 * n).map(|i| number(i) * (1.0 + (i % n) as f32)).collect();
        let mut gram = crate::Gram::new(n);
        gram.add(&x);
        let hessian = Hessian::new(gram.mean(), n, Damping::default()).unwrap();
        let factor = Factor::new(&hessian, 2, Order::Activation);
        assert_eq!(factor.order().len(), n);
        assert_eq!(factor.order()[0], 6, "the last unit is narrower and the largest");
        assert_eq!(factor.starts(), [0, 1, 3, 5, 7]);
        let (m, u) = (factor.root(), factor.inverse());
        for i in 0..n {
            for j in 0..n {
                let h = hessian.values()[factor.order()[i] * n + factor.order()[j]];
                let product: f32 = (0..n).map(|k| m[i * n + k] * m[j * n + k]).sum();
                assert!((product - h).abs() < 1e-4 * hessian.diagonal(6), "{i} {j}");
                let identity: f32 = (0..n).map(|k| m[i * n + k] * u[k * n + j]).sum();
                assert!((identity - f32::from(u8::from(i == j))).abs() < 1e-3, "{i} {j}");
            }
        }
    }
}
