//! Root mean square norm (arXiv 1910.07467): x / sqrt(mean(x²) + eps) · gain.

use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{Path, values};

/// Values that a task handles.
const TASK_VALUES: usize = 1 << 15;
const LANES: usize = 16;

/// Norms each run of gain.len() values of `x`; the shape stays.
pub(crate) fn norm(path: Path, x: &Tensor, gain: &Tensor, eps: f32) -> Result<Tensor> {
    match path {
        Path::Fast => x.apply_op2_no_bwd(gain, &Norm { eps }),
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
}

/// In lanes, for speed and for less rounding than one running sum.
fn sum_of_squares(x: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|x| x * x).sum();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x * x;
        }
    }
    lanes.iter().sum::<f32>() + rest
}
