//! y = x·Wᵀ + b.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::{Path, values};

/// Rows of x that a task multiplies.
const TASK_ROWS: usize = 256;
/// With fewer rows the outputs are shared out instead, so many to a task.
const FEW_ROWS: usize = 4 * TASK_ROWS;
const TASK_OUTPUTS: usize = 256;

/// A linear layer.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// [out, in]
    pub(crate) weight: Tensor,
    /// `out` values
    pub(crate) bias: Option<Tensor>,
}

/// x [n, in] through a linear layer: [n, out].
pub(crate) fn linear(path: Path, x: &Tensor, layer: &Linear) -> Result<Tensor> {
    let y = match path {
        Path::Fast => x.apply_op2_no_bwd(&layer.weight, &Product)?,
        Path::Plain => x.matmul(&layer.weight.t()?)?,
    };
    match &layer.bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

/// x·Wᵀ.
struct Product;

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((n, inputs), (outputs, _)) = (x_layout.shape().dims2()?, w_layout.shape().dims2()?);
        let mut y = vec![0.0; n * outputs];
        multiply_transposed(values(x, x_layout)?, values(w, w_layout)?, inputs, &mut y);
        Ok((CpuStorage::F32(y), Shape::from((n, outputs))))
    }
}

/// Writes x·Wᵀ to `y` [n, out], x [n, `inputs`] and W [out, `inputs`] row-major.
pub(crate) fn multiply_transposed(x: &[f32], w: &[f32], inputs: usize, y: &mut [f32]) {
    let (n, outputs) = (x.len() / inputs, w.len() / inputs);
    let matrix = |values, rows| MatRef::from_row_major_slice(values, rows, inputs);
    if n >= FEW_ROWS {
        y.par_chunks_mut(TASK_ROWS * outputs).zip(x.par_chunks(TASK_ROWS * inputs)).for_each(
            |(y, x)| {
                let rows = x.len() / inputs;
                let y = MatMut::from_row_major_slice_mut(y, rows, outputs);
                let (x, w) = (matrix(x, rows), matrix(w, outputs));
                matmul(y, Accum::Replace, x, w.transpose(), 1.0, Par::Seq);
            },
        );
        return;
    }
    let parts: Vec<Vec<f32>> = w
        .par_chunks(TASK_OUTPUTS * inputs)
        .map(|w| {
            let outputs = w.len() / inputs;
            let mut part = vec![0.0; n * outputs];
            let y = MatMut::from_row_major_slice_mut(&mut part, n, outputs);
            matmul(y, Accum::Replace, matrix(x, n), matrix(w, outputs).transpose(), 1.0, Par::Seq);
            part
        })
        .collect();
    y.par_chunks_exact_mut(outputs).enumerate().for_each(|(row, y)| {
        for (y, part) in y.chunks_mut(TASK_OUTPUTS).zip(&parts) {
            y.copy_from_slice(&part[row * y.len()..][..y.len()]);
        }
    });
}
