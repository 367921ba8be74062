//! Codes to ggml's blocks.

use half::{bf16, f16};

use super::super::rows::Run;
use crate::gguf::TensorType;

/// How the weights of a tensor become blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// A 2-bit grid with one scale for each 256 weights or more.
    Grid2AsQ2K { group: Option<usize> },
    /// A 2-bit grid with one scale for each 32 weights or more.
    Grid2AsQ4_0 { group: Option<usize> },
    /// 4-bit groups of a multiple of 32.
    Int4AsQ4_1 { group: Option<usize> },
    /// Weights, decoded.
    Plain(TensorType),
}

/// Every 4-bit scale of a Q2_K block 1 and every minimum 3.
const SCALE_1_MIN_3: u8 = 1 | 3 << 4;

impl Coding {
    /// The type of the tensor in the file.
    pub(super) fn kind(self) -> TensorType {
        match self {
            Self::Grid2AsQ2K { .. } => TensorType::Q2K,
            Self::Grid2AsQ4_0 { .. } => TensorType::Q4_0,
            Self::Int4AsQ4_1 { .. } => TensorType::Q4_1,
            Self::Plain(kind) => kind,
        }
    }
}

/// The blocks of a run of rows of `cols` weights; the error is a weight past the type's range.
pub(super) fn encode_rows(coding: Coding, run: &Run<'_>, cols: usize) -> Result<Vec<u8>, f32> {
    Ok(match coding {
        Coding::Plain(kind) => return plain(kind, run.weights),
        Coding::Grid2AsQ2K { group } => coded(run.parts, (2, 256), cols, group, q2_k),
        Coding::Grid2AsQ4_0 { group } => coded(run.parts, (2, 32), cols, group, q4_0),
        Coding::Int4AsQ4_1 { group } => coded(run.parts, (4, 32), cols, group, q4_1),
    })
}

/// Calls `block` with the codes of every block of `len` weights and the scale (and minimum) of its
/// group.
fn coded(
    parts: &[Vec<u8>],
    (bits, len): (usize, usize),
    cols: usize,
    group: Option<usize>,
    block: impl Fn(&[u8], &[f16], &mut Vec<u8>),
) -> Vec<u8> {
    let group = group.unwrap_or(cols).min(cols);
    let (per_byte, mask) = (8 / bits, (1_u8 << bits) - 1);
    let groups = cols.div_ceil(group);
    let numbers: Vec<Vec<f16>> = parts[1..].iter().map(|part| halves(part)).collect();
    let mut out = Vec::new();
    for (row, codes) in parts[0].chunks_exact(cols.div_ceil(per_byte)).enumerate() {
        let unpacked: Vec<u8> =
            (0..cols).map(|i| codes[i / per_byte] >> (bits * (i % per_byte)) & mask).collect();
        for (i, codes) in unpacked.chunks_exact(len).enumerate() {
            let place = row * groups + i * len / group;
            let of_group: Vec<f16> = numbers.iter().map(|part| part[place]).collect();
            block(codes, &of_group, &mut out);
        }
    }
    out
}

fn halves(bytes: &[u8]) -> Vec<f16> {
    bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]])).collect()
}

/// Half of an fp16, rounded where it is below the smallest normal number.
fn half_of(scale: f16) -> f16 {
    f16::from_f32(scale.to_f32() / 2.0)
}

/// d = s, dmin = s/2: 1·s·c - 3·s/2.
fn q2_k(codes: &[u8], numbers: &[f16], out: &mut Vec<u8>) {
    out.extend([SCALE_1_MIN_3; 16]);
    for run in codes.chunks_exact(128) {
        // A byte holds the codes of four weights that are 32 apart.
        out.extend((0..32).map(|l| (0..4).fold(0, |byte, j| byte | run[32 * j + l] << (2 * j))));
    }
    out.extend(numbers[0].to_le_bytes());
    out.extend(half_of(numbers[0]).to_le_bytes());
}

/// d = s/2: (5, 7, 9 or 11 - 8)·s/2.
fn q4_0(codes: &[u8], numbers: &[f16], out: &mut Vec<u8>) {
    out.extend(half_of(numbers[0]).to_le_bytes());
    out.extend((0..16).map(|l| (2 * codes[l] + 5) | (2 * codes[l + 16] + 5) << 4));
}

/// d·c + m.
fn q4_1(codes: &[u8], numbers: &[f16], out: &mut Vec<u8>) {
    out.extend(numbers[0].to_le_bytes());
    out.extend(numbers[1].to_le_bytes());
    out.extend((0..16).map(|l| codes[l] | codes[l + 16] << 4));
}

fn plain(kind: TensorType, weights: &[f32]) -> Result<Vec<u8>, f32> {
    let fits = |limit: f32| match weights.iter().find(|w| w.abs() > limit) {
        None => Ok(()),
        Some(&w) => Err(w),
    };
    match kind {
        TensorType::F32 => Ok(bytemuck::cast_slice(weights).to_vec()),
        TensorType::Bf16 => {
            fits(bf16::MAX.to_f32())?;
            Ok(weights.iter().flat_map(|&w| bf16::from_f32(w).to_le_bytes()).collect())
        }
        TensorType::Q8_0 => Ok(weights.chunks(32).flat_map(q8_0).collect()),
        _ => {
            fits(f16::MAX.to_f32())?;
            Ok(weights.iter().flat_map(|&w| f16::from_f32(w).to_le_bytes()).collect())
        }
    }
}

/// A scale of max|w|/127 and the nearest codes to it, as ggml's `quantize_row_q8_0_ref`.
fn q8_0(weights: &[f32]) -> Vec<u8> {
    let scale = weights.iter().fold(0.0_f32, |max, w| max.max(w.abs())) / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let codes = weights.iter().map(|w| ((w * inverse).round() as i8).cast_unsigned());
    f16::from_f32(scale).to_le_bytes().into_iter().chain(codes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every fp16 scale but zero that is no odd multiple of 2^-24 or past the range of 1.5·s.
    #[test]
    fn q2_k_and_q4_0_hold_the_grid_at_every_scale() {
        let codes: Vec<u8> = (0..256).map(|i| (i * 7 % 4) as u8).collect();
        let mut inexact = 0;
        for bits in 0..f16::INFINITY.to_bits() {
            let scale = f16::from_bits(bits);
            let expected = |i: usize| scale.to_f32() * (f32::from(codes[i]) - 1.5);
            let mut same = [false; 2];
            for (q, (kind, block, len)) in [
                (TensorType::Q2K, q2_k as fn(&[u8], &[f16], &mut Vec<u8>), 256),
                (TensorType::Q4_0, q4_0, 32),
            ]
            .into_iter()
            .enumerate()
            {
                let mut bytes = Vec::new();
                block(&codes[..len], &[scale], &mut bytes);
                let mut decoded = vec![0.0; len];
                kind.decode(&bytes, &mut decoded);
                same[q] = (0..len).all(|i| decoded[i] == expected(i));
            }
            assert_eq!(same[0], same[1], "{scale:e}");
            let odd_subnormal = bits < 0x800 && bits & 1 == 1;
            assert_eq!(same[0], !odd_subnormal, "{scale:e}");
            inexact += usize::from(!same[0]);
        }
        assert_eq!(inexact, 1024);
    }

    #[test]
    fn groups_of_rows() {
        // Two rows of 64 in groups of 32: four Q4_1 blocks, each with its own numbers.
        let half = |values: [f32; 4]| {
            values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()
        };
        let parts =
            vec![vec![0x21; 64], half([1.0, 2.0, 3.0, 4.0]), half([-1.0, -2.0, -3.0, -4.0])];
        let run = Run { first: 0, weights: &[], parts: &parts };
        let bytes = encode_rows(Coding::Int4AsQ4_1 { group: Some(32) }, &run, 64).unwrap();
        let mut decoded = vec![0.0; 128];
        TensorType::Q4_1.decode(&bytes, &mut decoded);
        assert_eq!(decoded[..2], [0.0, 1.0]);
        assert_eq!(decoded[32..34], [0.0, 2.0]);
        assert_eq!(decoded[126..], [0.0, 4.0]);
    }

    #[test]
    fn q8_0_rounds_to_the_nearest() {
        let mut weights = [0.0; 32];
        weights[..3].copy_from_slice(&[127.0, -63.4, 0.6]);
        let bytes = q8_0(&weights);
        assert_eq!(bytes[..5], [0x00, 0x3C, 127, (-63_i8).cast_unsigned(), 1]);
    }
}
