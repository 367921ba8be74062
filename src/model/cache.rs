//! Keys and values as they are kept: in full, in half precision, or in 8 bits.

use candle_core::{Result, Tensor};
use half::f16;
use half::slice::HalfFloatSliceExt;
use serde::Serialize;

/// How keys and values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum KvCache {
    /// As they were computed.
    F32,
    /// Rounded to f16, as most runtimes keep them.
    #[default]
    F16,
    /// 8-bit integers with one f16 scale for each head of each token, largest magnitude / 127.
    /// (The published system keeps 8 bits; its granularity is not known.)
    Int8,
}

/// The keys, or the values, of a growing sequence.
#[derive(Debug)]
enum Store {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Int8 { codes: Vec<i8>, scales: Vec<f16>, head_dim: usize },
}

impl Store {
    fn new(kind: KvCache, head_dim: usize) -> Self {
        match kind {
            KvCache::F32 => Self::F32(Vec::new()),
            KvCache::F16 => Self::F16(Vec::new()),
            KvCache::Int8 => Self::Int8 { codes: Vec::new(), scales: Vec::new(), head_dim },
        }
    }

    fn push(&mut self, values: &[f32]) {
        match self {
            Self::F32(all) => all.extend_from_slice(values),
            Self::F16(all) => {
                let first = all.len();
                all.resize(first + values.len(), f16::ZERO);
                all[first..].convert_from_f32_slice(values);
            }
            Self::Int8 { codes, scales, head_dim } => {
                for head in values.chunks_exact(*head_dim) {
                    let largest = head.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
                    let scale = f16::from_f32(largest / 127.0);
                    let factor = if scale > f16::ZERO { 1.0 / scale.to_f32() } else { 0.0 };
                    scales.push(scale);
                    codes.extend(head.iter().map(|v| (v * factor).round_ties_even() as i8));
                }
            }
        }
    }

    fn read(&self) -> Vec<f32> {
        match self {
            Self::F32(all) => all.clone(),
            Self::F16(all) => all.to_f32_vec(),
            Self::Int8 { codes, scales, head_dim } => codes
                .chunks_exact(*head_dim)
                .zip(scales)
                .flat_map(|(head, scale)| {
                    let scale = scale.to_f32();
                    head.iter().map(move |code| scale * f32::from(*code))
                })
                .collect(),
        }
    }
}

/// Keys and values of one layer.
#[derive(Debug)]
pub(super) struct LayerCache {
    keys: Store,
    values: Store,
}

impl LayerCache {
    pub(super) fn new(kind: KvCache, head_dim: usize) -> Self {
        Self { keys: Store::new(kind, head_dim), values: Store::new(kind, head_dim) }
    }

    /// Appends the keys and values of more tokens, [n, width] each, and gives all so far.
    pub(super) fn extend(&mut self, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok((extend(&mut self.keys, keys)?, extend(&mut self.values, values)?))
    }
}

fn extend(store: &mut Store, more: &Tensor) -> Result<Tensor> {
    let width = more.dim(1)?;
    store.push(&more.flatten_all()?.to_vec1::<f32>()?);
    let all = store.read();
    let tokens = all.len() / width;
    Tensor::from_vec(all, (tokens, width), more.device())
}

/// What a cache of this kind would give back for the keys and values of whole windows.
pub(super) fn rounded(
    kind: KvCache,
    head_dim: usize,
    keys: Tensor,
    values: Tensor,
) -> Result<(Tensor, Tensor)> {
    match kind {
        KvCache::F32 => Ok((keys, values)),
        _ => LayerCache::new(kind, head_dim).extend(&keys, &values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn int8_keeps_each_head_within_half_a_step_and_zeros_as_zeros() {
        let mut store = Store::new(KvCache::Int8, 4);
        let values = [1.0, -127.0, 63.4, 0.2, 0.0, 0.0, 0.0, 0.0, 1e-3, 2e-3, -5e-4, 0.0];
        store.push(&values[..4]);
        store.push(&values[4..]);
        let found = store.read();
        assert_eq!(found[..8], [1.0, -127.0, 63.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        for (found, value) in found[8..].iter().zip(&values[8..]) {
            assert!((found - value).abs() <= 0.51 * 2e-3 / 127.0, "{found} for {value}");
        }
    }
}
