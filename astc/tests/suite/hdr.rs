//! HDR blocks with an offset a block: quality, exactness against the reference decoder and ARM's,
//! awkward sizes and values, determinism, errors.

use compress_model_astc::decode::{Profile, decode_fp16};
use compress_model_astc::hdr::{HdrDecoder, HdrEncoder, HdrOffset};
use compress_model_astc::{BlockGrid, Error, Footprint};
use half::f16;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64Mcg;

const POLICIES: [HdrOffset; 2] = [HdrOffset::Fitted, HdrOffset::Minimum];

fn gaussian(count: usize, deviation: f32, seed: u64) -> Vec<f32> {
    let normal = StandardNormal.sample_iter(Pcg64Mcg::seed_from_u64(seed));
    normal.take(count).map(|w: f32| deviation * w).collect()
}

fn footprint(text: &str) -> Footprint {
    text.parse().unwrap()
}

struct Coded {
    grid: BlockGrid,
    blocks: Vec<u8>,
    offsets: Vec<f16>,
}

fn encode(footprint: Footprint, policy: HdrOffset, w: &[f32], cols: usize) -> Coded {
    encode_with(&mut HdrEncoder::new(footprint, policy), footprint, w, cols)
}

fn encode_with(encoder: &mut HdrEncoder, footprint: Footprint, w: &[f32], cols: usize) -> Coded {
    let grid = BlockGrid::new(w.len() / cols, cols, footprint);
    let mut blocks = vec![0xAA; grid.byte_len()];
    let mut offsets = vec![f16::NAN; grid.block_count()];
    encoder.encode_rows(w, grid.rows, cols, &mut blocks, &mut offsets).unwrap();
    Coded { grid, blocks, offsets }
}

fn decode(coded: &Coded) -> Vec<f32> {
    let Coded { grid, blocks, offsets } = coded;
    let mut out = vec![f32::NAN; grid.rows * grid.cols];
    let mut decoder = HdrDecoder::new(grid.footprint);
    decoder.decode_rows(blocks, offsets, grid.rows, grid.cols, &mut out).unwrap();
    out
}

/// The definition: the red texel of the reference decoder plus the offset.
fn decode_by_definition(coded: &Coded) -> Vec<f32> {
    let Coded { grid, blocks, offsets } = coded;
    let (width, height) = (grid.footprint.width(), grid.footprint.height());
    let mut out = vec![f32::NAN; grid.rows * grid.cols];
    let mut texels = vec![[f16::ZERO; 4]; grid.footprint.texels()];
    for (index, block) in blocks.as_chunks().0.iter().enumerate() {
        let _legal = decode_fp16(*block, grid.footprint, Profile::Hdr, &mut texels);
        let (down, across) = (index / grid.blocks_across(), index % grid.blocks_across());
        for (texel, rgba) in texels.iter().enumerate() {
            let (row, col) = (down * height + texel / width, across * width + texel % width);
            if row < grid.rows && col < grid.cols {
                out[row * grid.cols + col] = rgba[0].to_f32() + offsets[index].to_f32();
            }
        }
    }
    out
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
}

fn sqnr_db(original: &[f32], decoded: &[f32]) -> f64 {
    let (mut signal, mut noise) = (0.0, 0.0);
    for (&w, &d) in original.iter().zip(decoded) {
        signal += f64::from(w).powi(2);
        noise += (f64::from(w) - f64::from(d)).powi(2);
    }
    10.0 * (signal / noise).log10()
}

#[test]
fn gaussian_quality() {
    let w = gaussian(60 * 240, 0.02, 1);
    for (policy, least) in [(HdrOffset::Fitted, 13.9), (HdrOffset::Minimum, 11.9)] {
        let db = sqnr_db(&w, &decode(&encode(footprint("6x6"), policy, &w, 240)));
        assert!(db > least, "{policy:?}: {db}");
    }
}

#[test]
fn quality_does_not_depend_on_the_magnitude() {
    for deviation in [2e-4, 0.013, 1.0, 700.0] {
        let w = gaussian(36 * 120, deviation, 2);
        let db = sqnr_db(&w, &decode(&encode(footprint("6x6"), HdrOffset::Fitted, &w, 120)));
        assert!(db > 13.7, "deviation {deviation}: {db}");
    }
}

#[test]
fn every_footprint_and_size_is_legal_and_decodes_by_the_definition() {
    // Least SQNR for the sizes below; fewer bits a weight, less quality.
    let least = |texels: usize| if texels <= 64 { 5.0 } else { 1.0 };
    for footprint in Footprint::ALL {
        for policy in POLICIES {
            let mut encoder = HdrEncoder::new(footprint, policy);
            for (rows, cols) in [(1, 1), (1, 29), (31, 1), (7, 13), (24, 24)] {
                let w = gaussian(rows * cols, 0.02, (rows * cols) as u64);
                let coded = encode_with(&mut encoder, footprint, &w, cols);
                let decoded = decode(&coded);
                assert!(same(&decoded, &decode_by_definition(&coded)), "{footprint} {policy:?}");
                let db = sqnr_db(&w, &decoded);
                let least = least(footprint.texels());
                let enough = if policy == HdrOffset::Fitted { db > least } else { db > 0.0 };
                assert!(enough, "{footprint} {rows}x{cols} {policy:?}: {db}");
            }
        }
    }
}

#[test]
fn the_minimum_policy_stores_the_minimum() {
    let w = gaussian(12 * 12, 1.0, 3);
    let coded = encode(footprint("6x6"), HdrOffset::Minimum, &w, 12);
    for (index, offset) in coded.offsets.iter().enumerate() {
        let (top, left) = (index / 2 * 6, index % 2 * 6);
        let block = (0..36).map(|t| w[(top + t / 6) * 12 + left + t % 6]);
        let minimum = block.fold(f32::INFINITY, f32::min);
        let (offset, step) = (offset.to_f32(), minimum.abs() / 1024.0);
        assert!(offset <= minimum && minimum - offset <= step, "{offset} {minimum}");
    }
}

#[test]
fn constants_and_zeros_stay() {
    for footprint in Footprint::ALL {
        for policy in POLICIES {
            let mut encoder = HdrEncoder::new(footprint, policy);
            let mut encode = |w: &[f32]| encode_with(&mut encoder, footprint, w, 7);
            for value in [0.0, -0.0, 1.0, -0.375, 65504.0, -65504.0, 2.0_f32.powi(-24)] {
                let decoded = decode(&encode(&[value; 13 * 7]));
                assert!(decoded.iter().all(|&d| d == value), "{footprint} {policy:?} {value}");
            }
            // The offset alone moves in steps of 6.1e-5 here.
            let decoded = decode(&encode(&[0.1; 13 * 7]));
            assert!(decoded.iter().all(|d| (d - 0.1).abs() < 5e-6), "{footprint} {policy:?}");
        }
    }
}

#[test]
fn a_huge_outlier_keeps_its_value() {
    for sign in [1.0, -1.0] {
        let mut w = gaussian(12 * 12, 0.02, 4);
        w[40] = sign * 0.8;
        let decoded = decode(&encode(footprint("6x6"), HdrOffset::Fitted, &w, 12));
        assert!((decoded[40] - w[40]).abs() < 0.02 * 0.8, "{} {}", w[40], decoded[40]);
        w[40] = sign * 20000.0;
        let decoded = decode(&encode(footprint("6x6"), HdrOffset::Fitted, &w, 12));
        assert!((decoded[40] - w[40]).abs() < 0.02 * 20000.0, "{} {}", w[40], decoded[40]);
    }
}

#[test]
fn a_block_far_from_zero_keeps_its_details() {
    // The fp16 offset moves in steps of 0.5 here, the weights in steps of 0.004.
    let w: Vec<f32> = gaussian(36, 0.004, 5).iter().map(|w| 1000.0 + w).collect();
    let decoded = decode(&encode(footprint("6x6"), HdrOffset::Fitted, &w, 6));
    let noise: f32 = w.iter().zip(&decoded).map(|(a, b)| (a - b) * (a - b)).sum();
    assert!(noise / 36.0 < 0.004 * 0.004 / 8.0, "{noise}");
}

#[test]
fn bytes_do_not_depend_on_earlier_calls_or_on_the_cut() {
    let w = gaussian(24 * 31, 0.02, 6);
    for policy in POLICIES {
        let whole = encode(footprint("6x6"), policy, &w, 31);
        let mut encoder = HdrEncoder::new(footprint("6x6"), policy);
        let (mut blocks, mut offsets) = (Vec::new(), Vec::new());
        for panel in w.chunks(12 * 31) {
            let grid = BlockGrid::new(12, 31, footprint("6x6"));
            let mut panel_blocks = vec![0; grid.byte_len()];
            let mut panel_offsets = vec![f16::ZERO; grid.block_count()];
            encoder.encode_rows(panel, 12, 31, &mut panel_blocks, &mut panel_offsets).unwrap();
            blocks.extend(panel_blocks);
            offsets.extend(panel_offsets);
        }
        assert_eq!(blocks, whole.blocks);
        assert_eq!(offsets, whole.offsets);
    }
}

#[test]
fn refused_input_is_named() {
    let six = footprint("6x6");
    let mut encoder = HdrEncoder::new(six, HdrOffset::Fitted);
    let (mut blocks, mut offsets) = ([0; 32], [f16::ZERO; 2]);
    let mut encode = |w: &[f32]| encoder.encode_rows(w, 6, 12, &mut blocks, &mut offsets);
    let mut w = vec![0.5; 72];
    w[17] = f32::INFINITY;
    assert_eq!(encode(&w), Err(Error::NotFinite { row: 1, col: 5, value: f32::INFINITY }));
    w[17] = 65536.0;
    let range = Error::HdrRange { row: 0, col: 0, low: 0.5, high: 65536.0 };
    assert_eq!(encode(&w), Err(range));
    (w[17], w[18], w[19]) = (0.5, -40000.0, 40000.0);
    let range = Error::HdrRange { row: 0, col: 6, low: -40000.0, high: 40000.0 };
    assert_eq!(encode(&w), Err(range));
    assert!(matches!(encode(&w[1..]), Err(Error::Length { what: "weights", found: 71, .. })));
    let mut decoder = HdrDecoder::new(six);
    let result = decoder.decode_rows(&[0; 32], &[f16::ZERO; 3], 6, 12, &mut w);
    assert!(matches!(result, Err(Error::Length { what: "offsets", found: 3, expected: 2, .. })));
    assert_eq!(decoder.decode_rows(&[], &[], 0, 12, &mut []), Ok(()));
}

/// Every texel of blocks that the encoder wrote, read by ARM's HDR decoder.
#[cfg(feature = "astcenc")]
#[test]
fn blocks_decode_alike_in_astcenc() {
    use ctt_astcenc::{Flags, Profile as ArmProfile};
    for footprint in Footprint::ALL {
        let mut arm = crate::astcenc::Astcenc::new(footprint, ArmProfile::Hdr, Flags::empty());
        for policy in POLICIES {
            let (rows, cols) = (footprint.height(), 20 * footprint.width());
            let w = gaussian(rows * cols, 0.02, 7);
            let coded = encode(footprint, policy, &w, cols);
            let texels = arm.decode_fp16(&coded.blocks);
            for (index, (got, texel)) in decode(&coded).iter().zip(&texels).enumerate() {
                let offset = coded.offsets[index % cols / footprint.width()].to_f32();
                let texel = f16::from_bits(texel[0]).to_f32();
                assert_eq!(*got, texel + offset, "{footprint} {policy:?} {index}");
            }
        }
    }
}

#[test]
fn a_few_huge_weights_in_a_coarse_grid_cost_no_more_than_zeros() {
    let mut w = vec![0.0; 35];
    (w[10], w[18]) = (-0.570_493_76 * 2.0_f32.powi(14), 0.978_014_5 * 2.0_f32.powi(12));
    let energy: f64 = w.iter().map(|&w| f64::from(w).powi(2)).sum();
    for text in ["10x8", "12x10", "12x12"] {
        for policy in POLICIES {
            let decoded = decode(&encode(footprint(text), policy, &w, 7));
            let error: f64 = w.iter().zip(&decoded).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            assert!(error <= energy, "{text} {policy:?}: {error} {energy}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_block_decodes_by_the_definition(
        index in 0..Footprint::ALL.len(),
        mut bytes in prop::collection::vec(any::<[u8; 16]>(), 6),
        offset in any::<u16>(),
        formats in prop::collection::vec(0..4_u128, 6),
    ) {
        // Half of the blocks get a luminance endpoint mode, of one or of all partitions.
        for (block, format) in bytes.iter_mut().zip(formats) {
            let bits = u128::from_le_bytes(*block);
            let bits = match format {
                2 | 3 if bits >> 11 & 3 == 0 => bits & !(0xF << 13) | format << 13,
                2 | 3 => bits & !(0x3F << 23) | format << 25,
                _ => bits,
            };
            *block = bits.to_le_bytes();
        }
        let footprint = Footprint::ALL[index];
        let grid = BlockGrid::new(2 * footprint.height() - 1, 3 * footprint.width() - 1, footprint);
        let offsets = vec![f16::from_bits(offset); 6];
        let coded = Coded { grid, blocks: bytes.concat(), offsets };
        prop_assert!(same(&decode(&coded), &decode_by_definition(&coded)));
    }

    #[test]
    fn any_finite_weights_encode(
        index in 0..Footprint::ALL.len(),
        exponents in prop::collection::vec(-45_i32..15, 35),
        mantissas in prop::collection::vec(-1.0_f32..1.0, 35),
    ) {
        let w: Vec<f32> = exponents.iter().zip(&mantissas).map(|(&e, m)| m * 2.0_f32.powi(e)).collect();
        for policy in POLICIES {
            let coded = encode(Footprint::ALL[index], policy, &w, 7);
            let decoded = decode(&coded);
            let error: f64 = w.iter().zip(&decoded).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            let energy: f64 = w.iter().map(|&w| f64::from(w).powi(2)).sum();
            prop_assert!(error <= energy, "{error} {energy}");
        }
    }
}
