//! Element types that codecs take: F16, BF16 and F32, turned into f32 and back.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype;

/// Name of a dtype as safetensors files write it.
#[must_use]
pub fn dtype_name(dtype: Dtype) -> String {
    match serde_json::to_value(dtype) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{dtype:?}"),
    }
}

/// The dtype that safetensors files write as `name`; `None` for an unknown one.
#[must_use]
pub fn parse_dtype(name: &str) -> Option<Dtype> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
}

/// Whether a codec can take weights of this type.
#[must_use]
pub fn is_codable(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32)
}

/// Whether a tensor of this type and shape can hold weights: positions (I64), masks (BOOL) and tensors
/// without elements do not.
#[must_use]
pub fn holds_weights(dtype: Dtype, shape: &[usize]) -> bool {
    !matches!(dtype, Dtype::BOOL | Dtype::I64) && !shape.contains(&0)
}

/// Bytes of one weight of a codable type.
#[must_use]
pub fn bytes_per_weight(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

/// Bytes with the alignment of a u64, so that they can be viewed as any weight type.
#[derive(Debug, Default)]
pub struct AlignedBytes {
    words: Vec<u64>,
    len: usize,
}

impl AlignedBytes {
    /// Makes the buffer exactly `len` bytes long; contents are unspecified.
    pub fn resize(&mut self, len: usize) {
        self.words.resize(len.div_ceil(8), 0);
        self.len = len;
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }

    /// The bytes, to be filled.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }
}

/// Turns little-endian weights of a codable `dtype` into f32, exactly.
///
/// # Panics
/// If `dtype` is not codable or the lengths disagree: the caller has checked both.
pub fn to_f32(dtype: Dtype, bytes: &AlignedBytes, out: &mut [f32]) {
    let bytes = bytes.as_slice();
    match dtype {
        Dtype::F32 => out.copy_from_slice(bytemuck::cast_slice(bytes)),
        Dtype::F16 => bytemuck::cast_slice::<u8, f16>(bytes).convert_to_f32_slice(out),
        Dtype::BF16 => {
            let weights = bytemuck::cast_slice::<u8, u16>(bytes);
            assert_eq!(weights.len(), out.len(), "invariant: one f32 a weight");
            for (out, &bits) in out.iter_mut().zip(weights) {
                *out = f32::from_bits(u32::from(bits) << 16);
            }
        }
        other => unreachable!("invariant: dtype {other:?} was checked by is_codable"),
    }
}

/// Turns f32 into little-endian weights of a codable `dtype`, rounding to nearest even. Returns
/// the index of the first weight that overflows the type's range, if any.
///
/// # Panics
/// If `dtype` is not codable or the lengths disagree: the caller has checked both.
pub fn from_f32(dtype: Dtype, weights: &[f32], out: &mut AlignedBytes) -> Option<usize> {
    out.resize(weights.len() * bytes_per_weight(dtype));
    let bytes = out.as_mut_slice();
    match dtype {
        Dtype::F32 => {
            bytemuck::cast_slice_mut(bytes).copy_from_slice(weights);
            None
        }
        Dtype::F16 => {
            let out = bytemuck::cast_slice_mut::<u8, f16>(bytes);
            out.convert_from_f32_slice(weights);
            out.iter().position(|w| !w.is_finite())
        }
        Dtype::BF16 => {
            let out = bytemuck::cast_slice_mut::<u8, bf16>(bytes);
            out.convert_from_f32_slice(weights);
            out.iter().position(|w| !w.is_finite())
        }
        other => unreachable!("invariant: dtype {other:?} was checked by is_codable"),
    }
}

/// Index of the first NaN or infinity.
#[must_use]
pub fn first_non_finite(weights: &[f32]) -> Option<usize> {
    // The fold has no branch, so it vectorises; the search runs only on bad input.
    let all_finite = weights.iter().fold(true, |ok, w| ok & w.is_finite());
    if all_finite { None } else { weights.iter().position(|w| !w.is_finite()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_16_bit_weight_survives_the_round_trip() {
        for dtype in [Dtype::F16, Dtype::BF16] {
            let all: Vec<u16> = (0..=u16::MAX).collect();
            let mut bytes = AlignedBytes::default();
            bytes.resize(all.len() * 2);
            bytes.as_mut_slice().copy_from_slice(bytemuck::cast_slice(&all));
            let mut floats = vec![0.0; all.len()];
            to_f32(dtype, &bytes, &mut floats);
            let finite: Vec<f32> = floats.iter().copied().filter(|w| w.is_finite()).collect();
            let mut back = AlignedBytes::default();
            assert_eq!(from_f32(dtype, &finite, &mut back), None);
            let expected: Vec<u16> =
                all.iter().zip(&floats).filter(|(_, w)| w.is_finite()).map(|(&b, _)| b).collect();
            assert_eq!(back.as_slice(), bytemuck::cast_slice::<u16, u8>(&expected));
        }
    }

    #[test]
    fn overflow_and_non_finite_are_found() {
        let mut out = AlignedBytes::default();
        assert_eq!(from_f32(Dtype::F16, &[1.0, 65519.0, 65520.0], &mut out), Some(2));
        assert_eq!(from_f32(Dtype::BF16, &[f32::MAX], &mut out), Some(0));
        assert_eq!(first_non_finite(&[0.0, -1.0]), None);
        assert_eq!(first_non_finite(&[0.0, f32::NEG_INFINITY]), Some(1));
        assert_eq!(first_non_finite(&[f32::NAN]), Some(0));
    }
}
