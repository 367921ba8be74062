//! The operations of a transformer block on tensors, along one of two paths.
//!
//! [`Path::Plain`] is candle's own operations, on any device. [`Path::Fast`] runs on the CPU alone:
//! matrix products by faer, everything else in one pass over the data, in parallel over tokens.
//! Work is cut by fixed sizes, so results do not depend on the number of threads. Both have
//! gradients by candle's `backward`; tests compare the two, and both with finite differences.
//!
//! Tensors are f32 and contiguous; a tensor of tokens is [n, width], windows one after another.

mod attention;
mod attention_gradient;
mod exp;
mod gate;
mod linear;
mod norm;
mod rotate;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, Device, Layout, Result, Shape, Storage, Tensor, bail};

pub(super) use attention::{Attention, attention};
pub(crate) use exp::exp;
pub(super) use gate::gate;
pub(crate) use linear::GradientSum;
pub(super) use linear::{Linear, linear, multiply, multiply_transposed};
pub(super) use norm::norm;
pub(super) use rotate::{Rotation, rotate};

/// Which implementation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Tight loops on the CPU.
    Fast,
    /// candle's operations: any device.
    Plain,
}

/// The f32 values of a contiguous CPU tensor.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("a tensor is not contiguous"),
    }
}

/// Calls `f` with the f32 values of a CPU tensor.
pub(super) fn with_values<T>(x: &Tensor, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(f(values(storage, layout)?)),
        _ => bail!("a tensor is not on the CPU"),
    }
}

/// A CPU tensor of `values`.
fn tensor(values: Vec<f32>, shape: &Shape) -> Result<Tensor> {
    Tensor::from_vec(values, shape, &Device::Cpu)
}
