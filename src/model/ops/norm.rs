//! Root mean square norm (arXiv 1910.07467): x / sqrt(mean(x²) + eps) · gain.

use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor, bail};
use multiversion::multiversion;
use rayon::prelude::*;

use super::{Path, tensor, values, with_values};

/// Values that a task handles.
const TASK_VALUES: usize = 1 << 15;
const LANES: usize = 16;

/// Norms each run of gain.len() values of `x`; the shape stays. On the fast path gains have no
/// gradient.
pub(crate) fn norm(path: Path, x: &Tensor, gain: &Tensor, eps: f32) -> Result<Tensor> {
    match path {
        Path::Fast => x.apply_op2(gain, Norm { eps }),
        Path::Plain => {
            let shape = x.shape().clone();
            let x = x.reshape(((), gain.dim(0)?))?;
            let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
            let normed = x.broadcast_div(&(mean + f64::from(eps))?.sqrt()?)?;
            normed.broadcast_mul(gain)?.reshape(shape)
        }
    }
}

struct Norm {
    eps: f32,
}

impl CustomOp2 for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gain: &CpuStorage,
        gain_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, gain) = (values(x, x_layout)?, values(gain, gain_layout)?);
        let width = gain.len();
        let task = (TASK_VALUES / width).max(1) * width;
        let mut y = vec![0.0; x.len()];
        y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                let factor = 1.0 / (sum_of_squares(x) / width as f32 + self.eps).sqrt();
                for ((y, x), gain) in y.iter_mut().zip(x).zip(gain) {
                    *y = x * factor * gain;
                }
            }
        });
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gain: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        if gain.track_op() {
            bail!("the fast norm has no gradient for its gains");
        }
        let gradient = |x: &[f32], gain: &[f32], dy: &[f32]| {
            let width = gain.len();
            let task = (TASK_VALUES / width).max(1) * width;
            let mut dx = vec![0.0; x.len()];
            dx.par_chunks_mut(task)
                .zip(x.par_chunks(task))
                .zip(dy.par_chunks(task))
                .for_each(|((dx, x), dy)| gradient_of_rows(x, gain, dy, self.eps, dx));
            dx
        };
        let dx = with_values(x, |x| {
            with_values(gain, |gain| with_values(dy, |dy| gradient(x, gain, dy)))
        })???;
        Ok((Some(tensor(dx, x.shape())?), None))
    }
}

/// With r = 1 / sqrt(mean(x²) + eps): dx = r·(gain·dy) - x·r³·mean(x·gain·dy).
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn gradient_of_rows(x: &[f32], gain: &[f32], dy: &[f32], eps: f32, dx: &mut [f32]) {
    let width = gain.len();
    let rows = dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(dy.chunks_exact(width));
    for ((dx, x), dy) in rows {
        let factor = 1.0 / (sum_of_squares(x) / width as f32 + eps).sqrt();
        for ((dx, dy), gain) in dx.iter_mut().zip(dy).zip(gain) {
            *dx = dy * gain;
        }
        let share = dot(x, dx) / width as f32 * factor * factor * factor;
        for (dx, x) in dx.iter_mut().zip(x) {
            *dx = *dx * factor - x * share;
        }
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// In lanes, for speed and for less rounding than one running sum.
#[inline(always)]
fn sum_of_squares(x: &[f32]) -> f32 {
    dot(x, x)
}
