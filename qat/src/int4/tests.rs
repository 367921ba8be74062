use std::num::NonZeroUsize;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;
use rand_pcg::Pcg64Mcg;

use super::*;

type Coded = (Vec<u8>, Vec<f16>, Vec<f16>);

fn int4(group: usize) -> Int4 {
    Int4::grouped(NonZeroUsize::new(group).unwrap())
}

fn gaussian(n: usize, seed: u64) -> Vec<f32> {
    Pcg64Mcg::seed_from_u64(seed).sample_iter(StandardNormal).take(n).collect()
}

fn encode(int4: Int4, w: &[f32], cols: usize) -> Result<Coded, Error> {
    let rows = w.len() / cols;
    let mut codes = vec![0xff; rows * int4.code_bytes_per_row(cols)];
    let mut scales = vec![f16::NAN; rows * int4.scales_per_row(cols)];
    let mut mins = scales.clone();
    int4.encode_rows(w, cols, &mut codes, &mut scales, &mut mins)?;
    Ok((codes, scales, mins))
}

fn decode(int4: Int4, (codes, scales, mins): &Coded, cols: usize) -> Vec<f32> {
    let rows = scales.len() / int4.scales_per_row(cols);
    let mut out = vec![f32::NAN; rows * cols];
    int4.decode_rows(codes, scales, mins, cols, &mut out);
    out
}

fn squared_error(w: &[f32], decoded: &[f32]) -> f64 {
    w.iter().zip(decoded).map(|(w, d)| (f64::from(*w) - f64::from(*d)).powi(2)).sum()
}

/// Error of the group with the fp16 minimum and the scale that spans its range.
fn error_of_extremes(w: &[f32]) -> f64 {
    let low = f16::from_f32(w.iter().copied().fold(f32::INFINITY, f32::min)).to_f32();
    let high = w.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let scale = f16::from_f32((high - low).max(0.0) / 15.0).to_f32();
    let decoded: Vec<f32> = w
        .iter()
        .map(|w| if scale > 0.0 { ((w - low) / scale).round().clamp(0.0, 15.0) } else { 0.0 })
        .map(|q| scale * q + low)
        .collect();
    squared_error(w, &decoded)
}

#[test]
fn sixteen_steps_by_hand() {
    let w: Vec<f32> = (0..16).map(|k| 0.5 * k as f32 - 2.0).collect();
    let coded = encode(int4(16), &w, 16).unwrap();
    assert_eq!(coded.0, [0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe]);
    assert_eq!((coded.1[0].to_f32(), coded.2[0].to_f32()), (0.5, -2.0));
    assert_eq!(decode(int4(16), &coded, 16), w);
}

#[test]
fn groups_of_one_value_decode_to_it() {
    for value in [0.0_f32, -0.0, 0.25, -3.5, 65504.0] {
        for cols in [1, 5, 64, 100] {
            let coded = encode(Int4::default(), &vec![value; cols], cols).unwrap();
            assert!(coded.1.iter().all(|s| s.to_bits() == 0));
            let expected = (value + 0.0).to_bits();
            assert!(decode(Int4::default(), &coded, cols).iter().all(|w| w.to_bits() == expected));
        }
    }
    let coded = encode(int4(4), &[0.0, -0.0, -0.0, 0.0], 4).unwrap();
    assert!(decode(int4(4), &coded, 4).iter().all(|w| w.to_bits() == 0));
}

#[test]
fn a_spread_below_fp16_decodes_to_the_mean() {
    let w = [0.5 + 1e-7, 0.5 - 1e-7, 0.5, 0.5];
    assert_eq!(decode(int4(4), &encode(int4(4), &w, 4).unwrap(), 4), [0.5; 4]);
    let tiny = [3e-7_f32, -1e-7, 1e-7, 1e-7];
    let decoded = decode(int4(4), &encode(int4(4), &tiny, 4).unwrap(), 4);
    assert!(decoded.iter().all(|d| (d - 1e-7).abs() <= 2.0_f32.powi(-25)));
}

#[test]
fn overflow_names_row_and_group() {
    let mut w = gaussian(2 * 8, 1);
    w[13] = -7e4;
    let min = Error::MinOverflow { row: 1, group: 1, magnitude: 7e4 };
    assert_eq!(encode(int4(4), &w, 8), Err(min));
    w[13] = 2e6;
    let scale = Error::ScaleOverflow { row: 1, group: 1, magnitude: 2e6 };
    assert_eq!(encode(int4(4), &w, 8), Err(scale));
    // Past fp16 itself, but within 15 of its scales.
    w[13] = 9e5;
    assert!(encode(int4(4), &w, 8).is_ok());
    w[12] = f32::MIN;
    w[13] = f32::MAX;
    assert!(encode(int4(4), &w, 8).is_err());
}

#[test]
fn nothing_in_nothing_out() {
    assert_eq!(encode(Int4::default(), &[], 7), Ok((vec![], vec![], vec![])));
    assert_eq!(encode(Int4::default(), &[], 1), Ok((vec![], vec![], vec![])));
}

#[test]
fn least_squares_gains_half_a_decibel_on_gaussian_weights() {
    let w = gaussian(64 * 1024, 5);
    let decoded = decode(Int4::default(), &encode(Int4::default(), &w, 1024).unwrap(), 1024);
    let start: f64 = w.chunks(64).map(error_of_extremes).sum();
    let gain = 10.0 * (start / squared_error(&w, &decoded)).log10();
    let sqnr =
        10.0 * (squared_error(&w, &vec![0.0; w.len()]) / squared_error(&w, &decoded)).log10();
    println!("SQNR {sqnr:.2} dB, {gain:.2} dB above the extremes");
    assert!(gain > 0.5 && sqnr > 21.4);
}

#[multiversion(targets("x86_64+avx2"))]
fn encode_row_avx2(w: &[f32], len: usize, scales: &mut [f16], mins: &mut [f16], codes: &mut [u8]) {
    encode_row_inline(w, len, (scales, mins), &mut vec![0; w.len()], codes).unwrap();
}

fn encode_row_baseline(
    w: &[f32],
    len: usize,
    scales: &mut [f16],
    mins: &mut [f16],
    codes: &mut [u8],
) {
    encode_row_inline(w, len, (scales, mins), &mut vec![0; w.len()], codes).unwrap();
}

#[test]
fn every_vector_unit_gives_the_same_bytes() {
    for (seed, cols) in [1, 7, 31, 64, 997, 2048].into_iter().enumerate() {
        for group in [5, 32, 64, 100, 3000] {
            let w = gaussian(cols, seed as u64);
            let coded = encode(int4(group), &w, cols).unwrap();
            for narrow in [encode_row_avx2, encode_row_baseline] {
                let mut other = (vec![0; coded.0.len()], coded.1.clone(), coded.2.clone());
                other.1.fill(f16::ZERO);
                other.2.fill(f16::ZERO);
                narrow(&w, group, &mut other.1, &mut other.2, &mut other.0);
                assert_eq!(other, coded, "{cols} {group}");
            }
            let mut narrow = vec![0.0; cols];
            let affine = (&coded.1[..], &coded.2[..]);
            decode_row_inline(&coded.0, affine, group, &mut vec![0; cols], &mut narrow);
            assert_eq!(narrow, decode(int4(group), &coded, cols));
        }
    }
}

proptest! {
    #[test]
    fn never_worse_than_the_extremes_and_codes_are_nearest(
        (cols, w) in (1_usize..150, 0_usize..3).prop_flat_map(|(cols, rows)| {
            (Just(cols), prop::collection::vec(-3.0_f32..3.0, rows * cols))
        }),
        offset in prop::sample::select(vec![0.0_f32, 1.0, -40.0, 1000.0]),
        group in prop::sample::select(vec![1_usize, 3, 32, 64, 1000]),
    ) {
        let w: Vec<f32> = w.iter().map(|w| w + offset).collect();
        let int4 = int4(group);
        let coded = encode(int4, &w, cols).unwrap();
        let decoded = decode(int4, &coded, cols);
        for (row, decoded) in w.chunks(cols).zip(decoded.chunks(cols)) {
            for (w, decoded) in row.chunks(group).zip(decoded.chunks(group)) {
                let start = error_of_extremes(w);
                prop_assert!(squared_error(w, decoded) <= start * (1.0 + 1e-4) + 1e-9);
            }
        }
        let groups = int4.scales_per_row(cols);
        for (k, (w, decoded)) in w.iter().zip(&decoded).enumerate() {
            let at = k / cols * groups + k % cols / group;
            let (scale, min) = (coded.1[at].to_f32(), coded.2[at].to_f32());
            for q in 0..16 {
                let level = scale * q as f32 + min;
                prop_assert!((w - decoded).abs() <= (w - level).abs() * (1.0 + 1e-4) + 3e-7 * w.abs());
            }
        }
    }
}
