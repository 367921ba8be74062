//! `Coder::decode_rows` against astcenc's texels put through the row scales, bit for bit.

use crate::astcenc::Astcenc;
use crate::random_blocks::{Blocks, luminance};
use compress_model_astc::encode::Preset;
use compress_model_astc::{
    ArmQuality, BlockGrid, Coder, DecodeMode, Encoder, Footprint, Params, RowScale,
};
use ctt_astcenc::{Flags, Profile};
use half::f16;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

fn random_grid(grid: &BlockGrid, rng: &mut Pcg64Mcg) -> Vec<u8> {
    let any = Blocks::new(grid.footprint);
    (0..grid.block_count())
        .flat_map(|_| {
            let bits = match rng.random_range(0..8) {
                0 => Blocks::noise(rng),
                1 => Blocks::void_extent(rng),
                2 => any.legal(rng).0,
                _ => luminance(grid.footprint, rng),
            };
            bits.to_le_bytes()
        })
        .collect()
}

/// Red channel of every texel of the padded image, the error colour being magenta.
fn reds(blocks: &[u8], grid: &BlockGrid, decode: DecodeMode) -> Vec<f32> {
    let unorm8 = decode == DecodeMode::Unorm8;
    let flags = if unorm8 { Flags::USE_DECODE_UNORM8 } else { Flags::empty() };
    let mut arm = Astcenc::new(grid.footprint, Profile::Ldr, flags);
    blocks
        .chunks_exact(grid.blocks_across() * BlockGrid::BLOCK_BYTES)
        .flat_map(|strip| -> Vec<f32> {
            if unorm8 {
                arm.decode_u8(strip).iter().map(|texel| f32::from(texel[0]) / 255.0).collect()
            } else {
                let red = |texel: &[u16; 4]| f16::from_bits(texel[0]).to_f32();
                let magenta = |red: f32| if red.is_nan() { 1.0 } else { red };
                arm.decode_fp16(strip).iter().map(red).map(magenta).collect()
            }
        })
        .collect()
}

#[test]
fn decoded_weights_equal_scaled_texels() {
    let mut rng = Pcg64Mcg::seed_from_u64(11);
    for footprint in Footprint::ALL {
        for decode in [DecodeMode::Unorm8, DecodeMode::Fp16] {
            let (rows, cols) = (4 * footprint.height() - 1, 250);
            let grid = BlockGrid::new(rows, cols, footprint);
            let blocks = random_grid(&grid, &mut rng);
            let mut scales: Vec<f16> =
                (0..rows).map(|_| f16::from_f32(rng.random_range(0.001..3.0))).collect();
            scales[2] = f16::ZERO;

            let encoder = Encoder::Arm(ArmQuality::Fastest);
            let mut coder = Coder::new(Params { footprint, decode, encoder }).unwrap();
            let mut out = vec![f32::NAN; rows * cols];
            coder.decode_rows(&blocks, &scales, rows, cols, &mut out).unwrap();

            let reds = reds(&blocks, &grid, decode);
            let stride = grid.blocks_across() * footprint.width();
            for (index, got) in out.iter().enumerate() {
                let (row, col) = (index / cols, index % cols);
                let want = scales[row].to_f32() * (2.0 * reds[row * stride + col] - 1.0);
                let want = if row == 2 { 0.0 } else { want };
                assert_eq!(got.to_bits(), want.to_bits(), "{footprint} {decode:?} {row} {col}");
            }
        }
    }
}

#[test]
fn encoded_weights_decode_in_astcenc_as_here() {
    let mut rng = Pcg64Mcg::seed_from_u64(12);
    for footprint in Footprint::ALL {
        let (rows, cols) = (2 * footprint.height() + 1, 5 * footprint.width() + 3);
        let weights: Vec<f32> =
            (0..rows * cols).map(|_| rng.random_range(-1.0..1.0_f32).powi(3)).collect();
        let grid = BlockGrid::new(rows, cols, footprint);
        let decode = DecodeMode::Unorm8;
        let encoder = Encoder::Native(Preset::Default, RowScale::Searched);
        let mut coder = Coder::new(Params { footprint, decode, encoder }).unwrap();
        let (mut blocks, mut scales) = (vec![0; grid.byte_len()], vec![f16::ZERO; rows]);
        coder.encode_rows(&weights, rows, cols, &mut blocks, &mut scales).unwrap();
        let mut decoded = vec![f32::NAN; rows * cols];
        coder.decode_rows(&blocks, &scales, rows, cols, &mut decoded).unwrap();

        let reds = reds(&blocks, &grid, decode);
        let stride = grid.blocks_across() * footprint.width();
        let (mut signal, mut noise) = (0.0, 0.0);
        for (index, (weight, got)) in weights.iter().zip(&decoded).enumerate() {
            let (row, col) = (index / cols, index % cols);
            let want = scales[row].to_f32() * (2.0 * reds[row * stride + col] - 1.0);
            assert_eq!(got.to_bits(), want.to_bits(), "{footprint} {row} {col}");
            signal += weight * weight;
            noise += (weight - want) * (weight - want);
        }
        // An error colour or a misplaced field would be worse than zeros.
        assert!(noise < 0.8 * signal, "{footprint}: {noise} of {signal}");
    }
}
