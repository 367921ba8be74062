//! Blocks to weights, as ggml's `dequantize_row_*` (ggml/src/ggml-quants.c): in f32, each operation
//! rounded once.

use half::{bf16, f16};

use super::TensorType;

fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

impl TensorType {
    /// Decodes whole blocks into `out`.
    ///
    /// # Panics
    /// If the lengths do not belong to the same number of blocks: the caller has checked them.
    pub(crate) fn decode(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(
            bytes.len() / self.block_bytes() * self.block_weights(),
            out.len(),
            "invariant: whole blocks"
        );
        let blocks = bytes.chunks_exact(self.block_bytes());
        for (block, out) in blocks.zip(out.chunks_exact_mut(self.block_weights())) {
            match self {
                Self::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
                Self::F16 => out[0] = half(block, 0),
                Self::Bf16 => out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
                Self::Q4_0 => legacy(half(block, 0), -8, 0.0, None, &block[2..], out),
                Self::Q4_1 => legacy(half(block, 0), 0, half(block, 2), None, &block[4..], out),
                Self::Q5_0 => {
                    legacy(half(block, 0), -16, 0.0, Some(&block[2..6]), &block[6..], out);
                }
                Self::Q5_1 => {
                    let (d, m) = (half(block, 0), half(block, 2));
                    legacy(d, 0, m, Some(&block[4..8]), &block[8..], out);
                }
                Self::Q8_0 => {
                    let d = half(block, 0);
                    for (out, &q) in out.iter_mut().zip(&block[2..]) {
                        *out = d * f32::from(q.cast_signed());
                    }
                }
                Self::Q2K => q2_k(block, out),
                Self::Q3K => q3_k(block, out),
                Self::Q4K => q4_k(block, &[], &block[16..], out),
                Self::Q5K => q4_k(block, &block[16..48], &block[48..], out),
                Self::Q6K => q6_k(block, out),
            }
        }
    }
}

/// Q4_0, Q4_1, Q5_0, Q5_1: 32 weights (q + offset)·d + m; the first 16 in low nibbles, a fifth bit
/// of each in `high`.
fn legacy(d: f32, offset: i32, m: f32, high: Option<&[u8]>, nibbles: &[u8], out: &mut [f32]) {
    let fifth = |i: usize| high.map_or(0, |high| i32::from(high[i / 8] >> (i % 8) & 1) << 4);
    for (i, out) in out.iter_mut().enumerate() {
        let nibble = nibbles[i % 16] >> (4 * (i / 16)) & 15;
        *out = (i32::from(nibble) + fifth(i) + offset) as f32 * d + m;
    }
}

/// 16 groups of 16: 4-bit scales and minima of fp16 ones.
fn q2_k(block: &[u8], out: &mut [f32]) {
    let (scales, codes) = (&block[..16], &block[16..80]);
    let (d, dmin) = (half(block, 80), half(block, 82));
    for (i, out) in out.iter_mut().enumerate() {
        let (run, within) = (i / 128, i % 128);
        let code = codes[32 * run + within % 32] >> (2 * (within / 32)) & 3;
        let scale = scales[i / 16];
        *out = d * f32::from(scale & 15) * f32::from(code) - dmin * f32::from(scale >> 4);
    }
}

/// 16 groups of 16: 6-bit scales less 32, 3-bit codes less 4.
fn q3_k(block: &[u8], out: &mut [f32]) {
    let (high, codes, packed, d) =
        (&block[..32], &block[32..96], &block[96..108], half(block, 108));
    for (i, out) in out.iter_mut().enumerate() {
        let (run, within) = (i / 128, i % 128);
        let group = i / 16;
        let low = packed[group % 8] >> (4 * (group / 8)) & 15;
        let top = packed[8 + group % 4] >> (2 * (group / 4)) & 3;
        let scale = i32::from(low | top << 4) - 32;
        let code = i32::from(codes[32 * run + within % 32] >> (2 * (within / 32)) & 3);
        let bit = high[within % 32] >> (4 * run + within / 32) & 1;
        *out = d * scale as f32 * (code - if bit == 0 { 4 } else { 0 }) as f32;
    }
}

/// The 6-bit scale and minimum of group `j` of 8 in the 12 bytes of Q4_K and Q5_K.
fn scale_min(j: usize, q: &[u8]) -> (u8, u8) {
    if j < 4 {
        (q[j] & 63, q[j + 4] & 63)
    } else {
        (q[j + 4] & 15 | q[j - 4] >> 6 << 4, q[j + 4] >> 4 | q[j] >> 6 << 4)
    }
}

/// Q4_K, and Q5_K with its fifth bits in `high`: 8 groups of 32.
fn q4_k(block: &[u8], high: &[u8], nibbles: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_min(group, &block[4..16]);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        for (l, out) in out.iter_mut().enumerate() {
            let nibble = nibbles[32 * (group / 2) + l] >> (4 * (group % 2)) & 15;
            let fifth = high.get(l).map_or(0, |byte| (byte >> group & 1) << 4);
            *out = scale * f32::from(nibble + fifth) - min;
        }
    }
}

/// 16 groups of 16: 8-bit scales, 6-bit codes less 32.
fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales, d) =
        (&block[..128], &block[128..192], &block[192..208], half(block, 208));
    for (i, out) in out.iter_mut().enumerate() {
        let (run, within) = (i / 128, i % 128);
        let (quarter, l) = (within / 32, within % 32);
        let nibble = low[64 * run + 32 * (quarter % 2) + l] >> (4 * (quarter / 2)) & 15;
        let top = high[32 * run + l] >> (2 * quarter) & 3;
        let code = i32::from(nibble | top << 4) - 32;
        *out = d * f32::from(scales[i / 16].cast_signed()) * code as f32;
    }
}
