use std::num::NonZeroUsize;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;
use rand_pcg::Pcg64Mcg;

use super::*;

fn grid(group: usize) -> Grid2 {
    NonZeroUsize::new(group).map_or_else(Grid2::per_row, Grid2::grouped)
}

fn gaussian(n: usize, seed: u64) -> Vec<f32> {
    Pcg64Mcg::seed_from_u64(seed).sample_iter(StandardNormal).take(n).collect()
}

fn encode(grid: Grid2, w: &[f32], cols: usize) -> Result<(Vec<u8>, Vec<f16>), Error> {
    let rows = w.len() / cols;
    let mut codes = vec![0xff; rows * grid.code_bytes_per_row(cols)];
    let mut scales = vec![f16::NAN; rows * grid.scales_per_row(cols)];
    grid.encode_rows(w, cols, &mut codes, &mut scales)?;
    Ok((codes, scales))
}

fn decode(grid: Grid2, codes: &[u8], scales: &[f16], cols: usize) -> Vec<f32> {
    let rows = scales.len() / grid.scales_per_row(cols);
    let mut out = vec![f32::NAN; rows * cols];
    grid.decode_rows(codes, scales, cols, &mut out);
    out
}

#[test]
fn one_row_by_hand() {
    let w = [1.0, -1.0, 3.0, -3.0, 1.0];
    let (codes, scales) = encode(Grid2::per_row(), &w, 5).unwrap();
    // q = 0.5, -0.5, 1.5, -1.5, 0.5: codes 2, 1, 3, 0, 2, the first in the lowest bits.
    assert_eq!(scales, [f16::from_f32(2.0)]);
    assert_eq!(codes, [0b00_11_01_10, 0b10]);
    assert_eq!(decode(Grid2::per_row(), &codes, &scales, 5), w);
}

#[test]
fn a_magnitude_equal_to_the_scale_takes_the_inner_level() {
    let mut codes = [9; 6];
    kernels::choose(&[2.0, -2.0, 2.000_000_2, -2.000_000_2, 0.0, -0.0], 2.0, &mut codes);
    assert_eq!(codes, [2, 1, 3, 0, 2, 2]);
}

#[test]
fn zeros_decode_to_positive_zeros() {
    for (group, cols) in [(0, 5), (2, 5), (32, 7)] {
        let mut w = vec![0.0; 2 * cols];
        w[1] = -0.0;
        let (codes, scales) = encode(grid(group), &w, cols).unwrap();
        assert!(scales.iter().all(|s| s.to_bits() == 0));
        assert_eq!(codes[..2], if cols == 5 { [0xaa, 0x02] } else { [0xaa, 0x2a] });
        assert!(decode(grid(group), &codes, &scales, cols).iter().all(|w| w.to_bits() == 0));
    }
}

#[test]
fn a_scale_below_fp16_becomes_zero() {
    let w = [1e-9, -2e-9, 1e-30, -1e-40];
    let (codes, scales) = encode(Grid2::per_row(), &w, 4).unwrap();
    assert_eq!(scales, [f16::ZERO]);
    assert!(decode(Grid2::per_row(), &codes, &scales, 4).iter().all(|w| w.to_bits() == 0));
}

#[test]
fn a_scale_above_fp16_names_row_and_group() {
    let mut w = gaussian(3 * 10, 1);
    w[17] = -3e5;
    let error = encode(grid(4), &w, 10).unwrap_err();
    assert_eq!(error, Error::ScaleOverflow { row: 1, group: 1, magnitude: 3e5 });
    assert_eq!(error.row(), 1);
    assert!(error.to_string().starts_with("group 1 needs a scale past the fp16 limit of 65504"));
    w[17] = f32::MAX;
    w[18] = f32::MAX;
    assert!(encode(grid(4), &w, 10).is_err());
}

#[test]
fn nothing_in_nothing_out() {
    for group in [0, 32] {
        assert_eq!(encode(grid(group), &[], 7), Ok((vec![], vec![])));
        let mut scales = vec![f16::ONE; if group == 0 { 3 } else { 0 }];
        assert_eq!(grid(group).encode_rows(&[], 0, &mut [], &mut scales), Ok(()));
    }
}

#[test]
#[should_panic(expected = "5 weights are not whole rows of 2")]
fn half_a_row_is_refused() {
    let _ = Grid2::per_row().encode_rows(&[1.0; 5], 2, &mut [0; 2], &mut [f16::ZERO; 2]);
}

#[test]
#[should_panic(expected = "coded array does not hold 2 rows of 1")]
fn a_short_output_is_refused() {
    let _ = Grid2::per_row().encode_rows(&[1.0; 4], 2, &mut [0; 2], &mut [f16::ZERO; 1]);
}

/// Relative squared errors on i.i.d. Gaussian weights as in the table of the project's design.
#[test]
fn gaussian_errors_are_as_expected() {
    let w = gaussian(256 * 4096, 7);
    let energy: f64 = w.iter().map(|w| f64::from(*w).powi(2)).sum();
    for (group, expected) in [(0, 0.1190), (128, 0.1160), (64, 0.1130), (32, 0.1073)] {
        let (codes, scales) = encode(grid(group), &w, 4096).unwrap();
        let decoded = decode(grid(group), &codes, &scales, 4096);
        let error: f64 = w.iter().zip(decoded).map(|(w, d)| f64::from(w - d).powi(2)).sum();
        let relative = error / energy;
        println!("group {group}: {relative:.4}");
        assert!((relative / expected - 1.0).abs() < 0.01, "group {group}: {relative}");
    }
}

#[multiversion(targets("x86_64+avx2"))]
fn encode_row_avx2(w: &[f32], len: usize, scales: &mut [f16], codes: &mut [u8]) {
    encode_row_inline(w, len, scales, &mut vec![0; w.len()], codes).unwrap();
}

fn encode_row_baseline(w: &[f32], len: usize, scales: &mut [f16], codes: &mut [u8]) {
    encode_row_inline(w, len, scales, &mut vec![0; w.len()], codes).unwrap();
}

#[test]
fn every_vector_unit_gives_the_same_bytes() {
    for (seed, cols) in [1, 7, 31, 64, 997, 4096].into_iter().enumerate() {
        for group in [0, 16, 32, 33, 64, 128, 1000] {
            let w = gaussian(cols, seed as u64);
            let (codes, scales) = encode(grid(group), &w, cols).unwrap();
            for narrow in [encode_row_avx2, encode_row_baseline] {
                let (mut narrow_codes, mut narrow_scales) = (codes.clone(), scales.clone());
                narrow_codes.fill(0);
                narrow_scales.fill(f16::ZERO);
                let len = group_len(NonZeroUsize::new(group), cols);
                narrow(&w, len, &mut narrow_scales, &mut narrow_codes);
                assert_eq!((&narrow_codes, &narrow_scales), (&codes, &scales), "{cols} {group}");
            }
            let mut narrow = vec![0.0; cols];
            let len = group_len(NonZeroUsize::new(group), cols);
            decode_row_inline(&codes, &scales, len, &mut vec![0; cols], &mut narrow);
            assert_eq!(narrow, decode(grid(group), &codes, &scales, cols));
        }
    }
}

#[test]
fn fitted_scales_are_those_that_are_stored() {
    let w = gaussian(5 * 77, 4);
    for group in [0, 13, 40] {
        let (_, stored) = encode(grid(group), &w, 77).unwrap();
        let mut fitted = vec![0.0; stored.len()];
        grid(group).fit_scales(&w, 77, &mut fitted);
        let rounded: Vec<f16> = fitted.iter().map(|s| f16::from_f32(*s)).collect();
        assert_eq!(rounded, stored);
    }
}

proptest! {
    #[test]
    fn every_code_is_the_nearest_level_of_the_stored_scale(
        (cols, w) in (1_usize..70, 0_usize..4).prop_flat_map(|(cols, rows)| {
            (Just(cols), prop::collection::vec(-3.0_f32..3.0, rows * cols))
        }),
        group in prop::sample::select(vec![0_usize, 1, 3, 4, 32, 64, 1000]),
    ) {
        let grid = grid(group);
        let (codes, scales) = encode(grid, &w, cols).unwrap();
        let decoded = decode(grid, &codes, &scales, cols);
        let (code_bytes, groups) = (grid.code_bytes_per_row(cols), grid.scales_per_row(cols));
        for (k, (&w, &decoded)) in w.iter().zip(&decoded).enumerate() {
            let (row, col) = (k / cols, k % cols);
            let len = group_len(NonZeroUsize::new(group), cols);
            let scale = scales[row * groups + col / len].to_f32();
            let code = codes[row * code_bytes + col / 4] >> (2 * (col % 4)) & 3;
            prop_assert_eq!(decoded, scale * (f32::from(code) - 1.5));
            for q in [-1.5, -0.5, 0.5, 1.5] {
                prop_assert!((w - decoded).abs() <= (w - scale * q).abs() + 1e-6);
            }
        }
        if cols % 4 != 0 {
            for row in codes.chunks(code_bytes) {
                prop_assert_eq!(row[code_bytes - 1] >> (2 * (cols % 4)), 0);
            }
        }
    }

    #[test]
    fn rows_are_independent_of_the_panel(
        w in prop::collection::vec(-1.0_f32..1.0, 3 * 37),
        group in prop::sample::select(vec![0_usize, 8, 32, 50]),
    ) {
        let panel = encode(grid(group), &w, 37).unwrap();
        let mut joined = (vec![], vec![]);
        for row in w.chunks(37) {
            let (codes, scales) = encode(grid(group), row, 37).unwrap();
            joined.0.extend(codes);
            joined.1.extend(scales);
        }
        prop_assert_eq!(panel, joined);
    }

    /// The bound that the documentation of [`Grid2`] gives for scales near zero.
    #[test]
    fn rounding_a_tiny_scale_costs_less_than_the_spacing_of_fp16(
        w in prop::collection::vec(-1.0_f32..1.0, 1..100),
        exponent in -34..-18,
    ) {
        let w: Vec<f32> = w.iter().map(|w| w * 2.0_f32.powi(exponent)).collect();
        let (codes, scales) = encode(Grid2::per_row(), &w, w.len()).unwrap();
        let decoded = decode(Grid2::per_row(), &codes, &scales, w.len());
        let fitted = f64::from(newton::fit_scale(&w));
        let (mut coded, mut unrounded) = (0.0, 0.0);
        for (w, decoded) in w.iter().zip(decoded) {
            let magnitude = f64::from(w.abs());
            let q = if magnitude > fitted { 1.5 } else { 0.5 };
            unrounded += (magnitude - fitted * q).powi(2);
            coded += f64::from(w - decoded).powi(2);
        }
        let excess = ((coded - unrounded).max(0.0) / w.len() as f64).sqrt();
        prop_assert!(excess <= 1.5 * 2.0_f64.powi(-25) * (1.0 + 1e-6));
    }
}
