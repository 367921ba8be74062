//! The operations of a transformer block on tensors, along one of two paths.
//!
//! [`Path::Plain`] is candle's own operations, on any device and with gradients. [`Path::Fast`]
//! runs on the CPU alone, without gradients: matrix products by faer, everything else in one pass
//! over the data, in parallel over tokens. Work is cut by fixed sizes, so results do not depend
//! on the number of threads. Tests compare the two.
//!
//! Tensors are f32 and contiguous; a tensor of tokens is [n, width], windows one after another.

mod attention;
mod exp;
mod gate;
mod linear;
mod norm;
mod rotate;

use candle_core::{CpuStorage, Layout, Result, bail};

pub(super) use attention::{Attention, attention};
pub(crate) use exp::exp;
pub(super) use gate::gate;
pub(super) use linear::{Linear, linear, multiply_transposed};
pub(super) use norm::norm;
pub(super) use rotate::{Rotation, rotate};

/// Which implementation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Tight loops on the CPU, no gradients.
    Fast,
    /// candle's operations: any device, gradients.
    Plain,
}

/// The f32 values of a contiguous CPU tensor.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("a tensor is not contiguous"),
    }
}
