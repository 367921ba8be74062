//! y = x·Wᵀ + b.

use candle_core::{Result, Tensor};

/// A linear layer.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// [out, in]
    pub(crate) weight: Tensor,
    /// [out]
    pub(crate) bias: Option<Tensor>,
}

/// x [n, in] through a linear layer: [n, out].
pub(crate) fn linear(x: &Tensor, layer: &Linear) -> Result<Tensor> {
    let y = x.matmul(&layer.weight.t()?)?;
    match &layer.bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}
