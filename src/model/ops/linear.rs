//! y = x·Wᵀ + b, and while an adapter is trained + (x·Aᵀ)·Bᵀ.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::{Path, tensor, values, with_values};

/// Rows of x that a task multiplies.
const TASK_ROWS: usize = 256;
/// With fewer rows the outputs are shared out instead, so many to a task.
const FEW_ROWS: usize = 4 * TASK_ROWS;
const TASK_OUTPUTS: usize = 256;

/// Rows of a weight's gradient that a task adds to.
const TASK_GRADIENT_ROWS: usize = 96;

/// Where the gradient of a weight is added up, over any number of backward passes.
pub(crate) type GradientSum = Arc<Mutex<Vec<f32>>>;

/// A linear layer.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// [out, in]
    pub(crate) weight: Tensor,
    /// `out` values
    pub(crate) bias: Option<Tensor>,
    /// On the fast path, takes the weight's gradient, [out, in]; absent where it is not wanted.
    pub(crate) gradient: Option<GradientSum>,
    /// A [rank, in] and B [out, rank] of an adapter that is not folded into the weight.
    pub(crate) adapter: Option<Box<[Linear; 2]>>,
}

impl Linear {
    /// A layer that only runs.
    pub(crate) fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias, gradient: None, adapter: None }
    }
}

/// x [n, in] through a linear layer: [n, out].
pub(crate) fn linear(path: Path, x: &Tensor, layer: &Linear) -> Result<Tensor> {
    let mut y = match path {
        Path::Fast => x.apply_op2(&layer.weight, Product { gradient: layer.gradient.clone() })?,
        Path::Plain => x.matmul(&layer.weight.t()?)?,
    };
    if let Some(adapter) = &layer.adapter {
        let [a, b] = &**adapter;
        y = (y + linear(path, &linear(path, x, a)?, b)?)?;
    }
    match &layer.bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

/// x·Wᵀ.
struct Product {
    gradient: Option<GradientSum>,
}

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

    /// dx = dy·W and dW = dyᵀ·x, the latter into the sum if there is one.
    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let ((n, inputs), outputs) = (x.dims2()?, w.dim(0)?);
        let mut dx = None;
        if x.track_op() {
            let mut values = vec![0.0; n * inputs];
            with_values(dy, |dy| with_values(w, |w| multiply(dy, w, inputs, &mut values)))??;
            dx = Some(tensor(values, x.shape())?);
        }
        let add = |sum: &mut [f32]| {
            with_values(dy, |dy| with_values(x, |x| add_outer_product(dy, x, outputs, sum)))?
        };
        if let Some(sum) = &self.gradient {
            add(&mut sum.lock().expect("invariant: no addition panics"))?;
        }
        let mut dw = None;
        if w.track_op() {
            let mut values = vec![0.0; outputs * inputs];
            add(&mut values)?;
            dw = Some(tensor(values, w.shape())?);
        }
        Ok((dx, dw))
    }
}

/// Writes x·W to `y` [n, `width`], x [n, rows] and W [rows, `width`] row-major.
pub(crate) fn multiply(x: &[f32], w: &[f32], width: usize, y: &mut [f32]) {
    let rows = w.len() / width;
    let w = MatRef::from_row_major_slice(w, rows, width);
    y.par_chunks_mut(TASK_ROWS * width).zip(x.par_chunks(TASK_ROWS * rows)).for_each(|(y, x)| {
        let n = x.len() / rows;
        let y = MatMut::from_row_major_slice_mut(y, n, width);
        matmul(y, Accum::Replace, MatRef::from_row_major_slice(x, n, rows), w, 1.0, Par::Seq);
    });
}

/// Adds aᵀ·b to `sum` [`rows`, width], a [n, `rows`] and b [n, width] row-major.
pub(crate) fn add_outer_product(a: &[f32], b: &[f32], rows: usize, sum: &mut [f32]) {
    let width = sum.len() / rows;
    let n = b.len() / width;
    let (a, b) =
        (MatRef::from_row_major_slice(a, n, rows), MatRef::from_row_major_slice(b, n, width));
    sum.par_chunks_mut(TASK_GRADIENT_ROWS * width).enumerate().for_each(|(task, sum)| {
        let count = sum.len() / width;
        let a = a.subcols(task * TASK_GRADIENT_ROWS, count);
        let sum = MatMut::from_row_major_slice_mut(sum, count, width);
        matmul(sum, Accum::Add, a.transpose(), b, 1.0, Par::Seq);
    });
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
