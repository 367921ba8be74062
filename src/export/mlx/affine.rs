//! Codes, scales and biases of one weight, and what MLX makes of them.

use half::{bf16, f16};
use safetensors::Dtype;

use super::super::rows::Job;

/// MLX's group sizes, largest first: the fewest scales.
const GROUPS: [usize; 3] = [128, 64, 32];

/// One weight in MLX's affine mode.
#[derive(Debug)]
pub(super) struct Affine {
    /// Bits of a code: 2 or 4.
    pub(super) bits: usize,
    /// Weights of a row that share scale and bias in MLX.
    pub(super) group: usize,
    /// Type of scales and biases.
    pub(super) dtype: Dtype,
    /// Weights of a row that share a scale in the folder; `None` for the whole row.
    source_group: Option<usize>,
}

/// Scales and biases of some rows, before they are rounded to the stored type.
#[derive(Debug)]
pub(super) struct Pairs {
    pub(super) scales: Vec<f32>,
    pub(super) biases: Vec<f32>,
}

impl Affine {
    /// The affine form of a coded weight; `None` if its codec or the length of its rows or groups
    /// does not fit MLX's groups.
    pub(super) fn of(job: &Job<'_>, dtype: Dtype) -> Option<Self> {
        let (_, cols) = job.rows_and_cols();
        let (bits, source_group) = match job.codes()? {
            "grid2" => (2, job.group()),
            "int4" => (4, Some(job.group()?)),
            _ => return None,
        };
        let shared = source_group.filter(|&group| group < cols);
        let group = GROUPS.into_iter().find(|&group| {
            cols.is_multiple_of(group) && shared.is_none_or(|shared| shared.is_multiple_of(group))
        })?;
        Some(Self { bits, group, dtype, source_group: shared })
    }

    /// Scales and biases of the rows of a run, one pair for each MLX group.
    pub(super) fn pairs(&self, parts: &[Vec<u8>], cols: usize) -> Pairs {
        let repeat = self.source_group.unwrap_or(cols) / self.group;
        let stored = halves(&parts[1]);
        let groups = cols.div_ceil(self.source_group.unwrap_or(cols));
        let spread = |values: &[f32]| -> Vec<f32> {
            let row = |row: &[f32]| {
                let all = row.iter().flat_map(|&v| std::iter::repeat_n(v, repeat));
                // The last group of a row may be shorter than the others.
                all.take(cols / self.group).collect::<Vec<f32>>()
            };
            values.chunks_exact(groups).flat_map(row).collect()
        };
        let biases = match parts.get(2) {
            Some(mins) => halves(mins),
            None => stored.iter().map(|s| -1.5 * s).collect(),
        };
        Pairs { scales: spread(&stored), biases: spread(&biases) }
    }

    /// The weights as MLX decodes them: scale·c + bias, each operation rounded to the stored type.
    pub(super) fn decode(
        &self,
        codes: &[u8],
        scales: &[f32],
        biases: &[f32],
        count: usize,
    ) -> Vec<f32> {
        let round: fn(f32) -> f32 = match self.dtype {
            Dtype::F16 => |x| f16::from_f32(x).to_f32(),
            Dtype::BF16 => |x| bf16::from_f32(x).to_f32(),
            _ => |x| x,
        };
        let per_byte = 8 / self.bits;
        let mask = (1_u8 << self.bits) - 1;
        let weight = |i: usize| {
            let code = (codes[i / per_byte] >> (self.bits * (i % per_byte))) & mask;
            let pair = i / self.group;
            round(round(scales[pair] * f32::from(code)) + biases[pair])
        };
        (0..count).map(weight).collect()
    }
}

fn halves(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()
    }

    #[test]
    fn a_scale_a_row_is_repeated_and_decodes_to_the_grid() {
        let affine = Affine { bits: 2, group: 32, dtype: Dtype::F32, source_group: None };
        let parts = vec![vec![0b11_10_01_00; 32], bytes(&[0.25, 3.0])];
        let pairs = affine.pairs(&parts, 64);
        assert_eq!(pairs.scales, [0.25, 0.25, 3.0, 3.0]);
        assert_eq!(pairs.biases, [-0.375, -0.375, -4.5, -4.5]);
        let weights = affine.decode(&parts[0], &pairs.scales, &pairs.biases, 128);
        assert_eq!(weights[..4], [-0.375, -0.125, 0.125, 0.375]);
        assert_eq!(weights[64..68], [-4.5, -1.5, 1.5, 4.5]);
    }

    #[test]
    fn a_last_short_group_of_a_row_does_not_reach_into_the_next() {
        let affine = Affine { bits: 4, group: 32, dtype: Dtype::F32, source_group: Some(64) };
        let parts =
            vec![vec![0x10; 96], bytes(&[1.0, 2.0, 3.0, 4.0]), bytes(&[-1.0, -2.0, -3.0, -4.0])];
        let pairs = affine.pairs(&parts, 96);
        assert_eq!(pairs.scales, [1.0, 1.0, 2.0, 3.0, 3.0, 4.0]);
        assert_eq!(pairs.biases, [-1.0, -1.0, -2.0, -3.0, -3.0, -4.0]);
        let weights = affine.decode(&parts[0], &pairs.scales, &pairs.biases, 192);
        assert_eq!(weights[..2], [-1.0, 0.0]);
        assert_eq!(weights[190..], [-4.0, 0.0]);
    }
}
