//! Rotary embedding of the heads of queries or keys.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{Path, tensor, values, with_values};

/// Where the tokens of [n, heads·head_dim] stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rotation {
    /// Width of a head.
    pub(crate) head_dim: usize,
    /// Tokens of a window.
    pub(crate) window: usize,
}

/// Turns each pair (i, i + head_dim / 2) of each head by its token's angle; `cos` and `sin` are
/// [window, head_dim / 2].
pub(crate) fn rotate(
    path: Path,
    x: &Tensor,
    (cos, sin): (&Tensor, &Tensor),
    rotation: Rotation,
) -> Result<Tensor> {
    match path {
        Path::Fast => x.apply_op3(cos, sin, rotation),
        Path::Plain => rotation.plain(x, cos, sin),
    }
}

impl Rotation {
    fn plain(self, x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
        let (n, width) = x.dims2()?;
        let Self { head_dim, window } = self;
        let half = head_dim / 2;
        let x = x.reshape((n / window, window, width / head_dim, head_dim))?;
        let table = |table: &Tensor| table.reshape((window, 1, half));
        let (cos, sin) = (table(cos)?, table(sin)?);
        let (first, second) = (x.narrow(3, 0, half)?, x.narrow(3, half, half)?);
        let turned_first = (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?;
        let turned_second = (second.broadcast_mul(&cos)? + first.broadcast_mul(&sin)?)?;
        Tensor::cat(&[turned_first, turned_second], 3)?.reshape((n, width))
    }
}

impl Rotation {
    /// The rows of `x` turned, or turned `BACK`.
    fn turn<const BACK: bool>(self, x: &[f32], width: usize, cos: &[f32], sin: &[f32]) -> Vec<f32> {
        let half = self.head_dim / 2;
        let mut out = vec![0.0; x.len()];
        out.par_chunks_mut(width).zip(x.par_chunks(width)).enumerate().for_each(
            |(row, (out, x))| {
                let position = row % self.window;
                let (cos, sin) = (&cos[position * half..][..half], &sin[position * half..][..half]);
                for (out, x) in
                    out.chunks_exact_mut(self.head_dim).zip(x.chunks_exact(self.head_dim))
                {
                    let ((out_a, out_b), (a, b)) = (out.split_at_mut(half), x.split_at(half));
                    for i in 0..half {
                        let sin = if BACK { -sin[i] } else { sin[i] };
                        out_a[i] = a[i] * cos[i] - b[i] * sin;
                        out_b[i] = b[i] * cos[i] + a[i] * sin;
                    }
                }
            },
        );
        out
    }
}

impl CustomOp3 for Rotation {
    fn name(&self) -> &'static str {
        "rotate"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        cos: &CpuStorage,
        cos_layout: &Layout,
        sin: &CpuStorage,
        sin_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, width) = (values(x, x_layout)?, x_layout.shape().dims2()?.1);
        let (cos, sin) = (values(cos, cos_layout)?, values(sin, sin_layout)?);
        let out = self.turn::<false>(x, width, cos, sin);
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
    /// Turns back by the same angles.
    fn bwd(
        &self,
        x: &Tensor,
        cos: &Tensor,
        sin: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let width = x.dims2()?.1;
        let dx = with_values(dy, |dy| {
            with_values(cos, |cos| with_values(sin, |sin| self.turn::<true>(dy, width, cos, sin)))
        })???;
        Ok((Some(tensor(dx, x.shape())?), None, None))
    }
}
