//! BC4: the searches against brute force, the decoder against an independent one, edges, errors.

use compress_model_astc::Error;
use compress_model_astc::bc4::{
    BLOCK_BYTES, Coder, DecodeMode, Effort, Params, byte_len, decode_block, palette,
};
use compress_model_astc::encode::Importance;
use half::f16;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64Mcg;

const MODES: [DecodeMode; 3] = [DecodeMode::Exact, DecodeMode::Unorm8, DecodeMode::Llvmpipe];

fn gaussian(count: usize, seed: u64) -> Vec<f32> {
    StandardNormal.sample_iter(Pcg64Mcg::seed_from_u64(seed)).take(count).collect()
}

fn encode(
    params: Params,
    w: &[f32],
    cols: usize,
    importance: Importance<'_>,
) -> (Vec<u8>, Vec<f16>) {
    let rows = w.len() / cols;
    let mut blocks = vec![0xAA; byte_len(rows, cols)];
    let mut scales = vec![f16::ONE; rows];
    Coder::new(params).encode_rows(w, rows, cols, importance, &mut blocks, &mut scales).unwrap();
    (blocks, scales)
}

fn decode(decode: DecodeMode, blocks: &[u8], scales: &[f16], cols: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; scales.len() * cols];
    Coder::new(Params { decode, effort: Effort::Fast })
        .decode_rows(blocks, scales, scales.len(), cols, &mut out)
        .unwrap();
    out
}

fn round_trip(params: Params, w: &[f32], cols: usize) -> Vec<f32> {
    let (blocks, scales) = encode(params, w, cols, Importance::Equal);
    decode(params.decode, &blocks, &scales, cols)
}

fn noise(w: &[f32], decoded: &[f32]) -> f64 {
    w.iter().zip(decoded).map(|(w, d)| (f64::from(*w) - f64::from(*d)).powi(2)).sum()
}

const VARIED_COLS: usize = 32;

/// Bands of four rows of 32 columns: Gaussian; with rows of unequal scale; narrow but for an
/// outlier in each row.
fn varied_bands() -> Vec<f32> {
    let mut w = gaussian(12 * VARIED_COLS, 7);
    for (row, w) in w.chunks_exact_mut(VARIED_COLS).enumerate() {
        match row / 4 {
            0 => {}
            1 => w.iter_mut().for_each(|w| *w *= (row - 3) as f32),
            _ => w[5 * (row - 7)] = 25.0,
        }
    }
    w
}

/// Least Σ (w - ŵ)² of a block over all 65536 endpoint pairs.
fn brute_force(mode: DecodeMode, w: &[f32], scales: &[f16]) -> f64 {
    let a: Vec<f64> = scales.iter().map(|scale| scale.to_f64()).collect();
    let texels: Vec<f64> =
        w.iter().enumerate().map(|(i, w)| 0.5 + f64::from(*w) / (2.0 * a[i / 4])).collect();
    let mut best = f64::INFINITY;
    for e0 in 0..=255 {
        for e1 in 0..=255 {
            let palette = palette(mode, e0, e1).map(f64::from);
            let mut error = 0.0;
            for (i, t) in texels.iter().enumerate() {
                let mut least = f64::INFINITY;
                for p in palette {
                    least = least.min((p - t) * (p - t));
                }
                error += least * 4.0 * a[i / 4] * a[i / 4];
            }
            best = best.min(error);
        }
    }
    best
}

#[test]
fn best_is_the_optimum_over_all_pairs_and_fast_is_near_it() {
    let w = varied_bands();
    let cols = VARIED_COLS;
    for decode_mode in MODES {
        let run = |effort| {
            let (blocks, scales) =
                encode(Params { decode: decode_mode, effort }, &w, cols, Importance::Equal);
            (decode(decode_mode, &blocks, &scales, cols), scales)
        };
        let ((best, scales), (fast, _)) = (run(Effort::Best), run(Effort::Fast));
        for (band, limit_db) in [0.2, 0.3, 1.6].into_iter().enumerate() {
            let (mut optimum, mut quick) = (0.0, 0.0);
            for block in 0..cols / 4 {
                let pick = |from: &[f32]| -> Vec<f32> {
                    let rows = from[4 * band * cols..].chunks_exact(cols).take(4);
                    rows.flat_map(|row| row[4 * block..][..4].to_vec()).collect()
                };
                let least = brute_force(decode_mode, &pick(&w), &scales[4 * band..][..4]);
                let found = noise(&pick(&w), &pick(&best));
                assert!(found <= least * 1.0001, "{decode_mode:?} {band} {block}: {found} {least}");
                optimum += least;
                quick += noise(&pick(&w), &pick(&fast));
            }
            let gap_db = 10.0 * (quick / optimum).log10();
            println!("{decode_mode:?} band {band}: fast is {gap_db:.3} dB from the optimum");
            assert!(gap_db < limit_db, "{decode_mode:?} band {band}: {gap_db} dB");
        }
    }
}

#[test]
fn gaussian_rows_reach_the_measured_quality() {
    let cols = 2048;
    let w = gaussian(16 * cols, 1);
    let signal: f64 = w.iter().map(|w| f64::from(*w).powi(2)).sum();
    for (effort, least_db) in [(Effort::Fast, 18.5), (Effort::Best, 18.62)] {
        let params = Params { decode: DecodeMode::Exact, effort };
        let db = 10.0 * (signal / noise(&w, &round_trip(params, &w, cols))).log10();
        assert!(db > least_db, "{effort:?}: {db}");
    }
}

#[test]
fn texels_equal_those_of_an_independent_decoder() {
    let mut rng = Pcg64Mcg::seed_from_u64(3);
    for number in 0..20_000 {
        let mut block: [u8; BLOCK_BYTES] = rng.random();
        if number % 8 == 0 {
            block[1] = block[0];
        }
        let mut pixels = [0_u32; 16];
        texture2ddecoder::decode_bc4(&block, 4, 4, &mut pixels).unwrap();
        let red = pixels.map(|pixel| (pixel >> 16) as u8);
        let cut = decode_block(block, DecodeMode::Unorm8);
        assert_eq!(cut, red.map(|red| f32::from(red) / 255.0));
        // The exact texel lies less than one step above the cut one.
        for (exact, red) in decode_block(block, DecodeMode::Exact).iter().zip(red) {
            let above = exact * 255.0 - f32::from(red);
            assert!((-1e-4..1.0).contains(&above), "{block:?}");
        }
    }
}

#[test]
fn an_outlier_takes_a_fixed_level() {
    let mut w: Vec<f32> = gaussian(4 * 64, 4).iter().map(|w| 0.002 * w).collect();
    w[9] = 3.0;
    w[70] = -3.0;
    for effort in [Effort::Fast, Effort::Best] {
        let params = Params { decode: DecodeMode::Exact, effort };
        let (blocks, scales) = encode(params, &w, 64, Importance::Equal);
        let outlier = &blocks[2 * BLOCK_BYTES..3 * BLOCK_BYTES];
        assert!(outlier[0] <= outlier[1], "block of column 9 has the fixed levels");
        let decoded = decode(params.decode, &blocks, &scales, 64);
        assert_eq!((decoded[9], decoded[70]), (3.0, -3.0));
    }
}

#[test]
fn importance_decides_who_bears_the_error() {
    let (rows, cols) = (32, 64);
    let w = gaussian(rows * cols, 5);
    let columns: Vec<f32> = (0..cols).map(|col| if col % 2 == 0 { 1e30 } else { 1e29 }).collect();
    let weights = columns.repeat(rows);
    let params = Params { decode: DecodeMode::Exact, effort: Effort::Best };
    let weighted = |decoded: &[f32]| -> f64 {
        let terms = w.iter().zip(decoded).zip(&weights);
        terms.map(|((w, d), q)| f64::from(*q) * f64::from(w - d).powi(2)).sum()
    };
    let (blocks, scales) = encode(params, &w, cols, Importance::Columns(&columns));
    assert_eq!(blocks, encode(params, &w, cols, Importance::Weights(&weights)).0);
    let aware = decode(params.decode, &blocks, &scales, cols);
    let unaware = round_trip(params, &w, cols);
    assert!(weighted(&aware) < 0.9 * weighted(&unaware));
    assert!(noise(&w, &aware) > noise(&w, &unaware));
}

#[test]
fn zero_rows_decode_to_zeros_and_weigh_nothing() {
    let mut w = gaussian(8 * 12, 6);
    let full = w.clone();
    w[12..24].fill(0.0);
    w[24..36].fill(-1.0e-9);
    let params = Params { decode: DecodeMode::Exact, effort: Effort::Best };
    let decoded = round_trip(params, &w, 12);
    assert!(decoded[12..36].iter().all(|v| v.to_bits() == 0));
    // Two rows share the eight levels, so they are closer than four.
    let four = round_trip(params, &full, 12);
    assert!(noise(&w[..12], &decoded[..12]) < noise(&full[..12], &four[..12]));
}

#[test]
fn wrong_arguments_are_refused() {
    let mut coder = Coder::new(Params { decode: DecodeMode::Exact, effort: Effort::Fast });
    let mut run = |w: &[f32], importance: Importance<'_>, blocks: usize| {
        let mut scales = [f16::ZERO; 4];
        coder.encode_rows(w, 4, 6, importance, &mut vec![0; blocks], &mut scales)
    };
    let equal = Importance::Equal;
    assert_eq!(run(&[0.5; 24], equal, 16), Ok(()));
    let error = run(&[0.5; 23], equal, 16);
    assert!(matches!(error, Err(Error::Length { what: "weights", found: 23, expected: 24, .. })));
    let error = run(&[0.5; 24], equal, 32);
    assert!(matches!(error, Err(Error::Length { what: "blocks", found: 32, expected: 16, .. })));
    let error = run(&[0.5; 24], Importance::Columns(&[1.0; 4]), 16);
    assert!(matches!(error, Err(Error::Length { what: "importance", expected: 6, .. })));
    let mut w = [0.5; 24];
    w[13] = f32::NAN;
    assert!(matches!(run(&w, equal, 16), Err(Error::NotFinite { row: 2, col: 1, .. })));
    w[13] = 7e4;
    assert!(matches!(run(&w, equal, 16), Err(Error::ScaleOverflow { row: 2, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_size_round_trips_and_bands_are_independent(
        rows in 0_usize..14,
        cols in 0_usize..75,
        seed: u64,
        mode in 0_usize..3,
    ) {
        let decode_mode = MODES[mode];
        let params = Params { decode: decode_mode, effort: Effort::Fast };
        let w = gaussian(rows * cols, seed);
        let mut blocks = vec![0xAA; byte_len(rows, cols)];
        let mut scales = vec![f16::ONE; rows];
        let mut coder = Coder::new(params);
        let equal = Importance::Equal;
        coder.encode_rows(&w, rows, cols, equal, &mut blocks, &mut scales).unwrap();
        if cols > 0 {
            let bands: Vec<u8> =
                w.chunks(4 * cols).flat_map(|w| encode(params, w, cols, equal).0).collect();
            prop_assert_eq!(&blocks, &bands);
        }
        let decoded = decode(decode_mode, &blocks, &scales, cols);
        let signal: f64 = w.iter().map(|w| f64::from(*w).powi(2)).sum();
        prop_assert!(noise(&w, &decoded) <= 0.05 * signal);
        for (row, scale) in scales.iter().enumerate() {
            let scale = scale.to_f32();
            let decoded = &decoded[row * cols..][..cols];
            prop_assert!(decoded.iter().all(|d| d.abs() <= scale));
        }
    }
}
