//! Against a brute-force fit in numpy and MLX's own decoder; `golden/make.py` made the vectors.

use std::num::NonZeroUsize;

use compress_model_qat::{Grid2, Int4, newton};
use half::f16;

const ROWS: usize = 12;
const COLS: usize = 192;

fn halves(bytes: &[u8]) -> Vec<f16> {
    bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b)).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn doubles(bytes: &[u8]) -> Vec<f64> {
    bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
}

fn weights() -> Vec<f32> {
    halves(include_bytes!("golden/weights.f16")).iter().map(|w| w.to_f32()).collect()
}

fn groups_of(len: usize) -> NonZeroUsize {
    NonZeroUsize::new(len).expect("not zero")
}

#[test]
fn groups_of_32_equal_the_exhaustive_fit_bit_for_bit() {
    let grid = Grid2::grouped(groups_of(32));
    let mut codes = vec![0; ROWS * grid.code_bytes_per_row(COLS)];
    let mut scales = vec![f16::ZERO; ROWS * grid.scales_per_row(COLS)];
    grid.encode_rows(&weights(), COLS, &mut codes, &mut scales).unwrap();
    assert_eq!(scales, halves(include_bytes!("golden/grid2_scales.f16")));
    assert_eq!(codes, include_bytes!("golden/grid2_codes.u8"));
}

#[test]
fn rows_come_within_a_thousandth_of_the_exhaustive_fit() {
    let least = doubles(include_bytes!("golden/grid2_row.f64"));
    for (row, least) in weights().chunks(COLS).zip(least) {
        let s = f64::from(newton::fit_scale(row));
        let error: f64 = row
            .iter()
            .map(|&w| f64::from(w.abs()))
            .map(|w| (w - if w > s { 1.5 } else { 0.5 } * s).powi(2))
            .sum();
        assert!(error >= least * (1.0 - 1e-6) && error <= least * 1.001, "{error} vs {least}");
    }
}

#[test]
fn mlx_decodes_the_grid_to_the_same_weights() {
    let grid = Grid2::grouped(groups_of(32));
    let mut decoded = vec![0.0; ROWS * COLS];
    let scales = halves(include_bytes!("golden/grid2_scales.f16"));
    grid.decode_rows(include_bytes!("golden/grid2_codes.u8"), &scales, COLS, &mut decoded);
    assert_eq!(decoded, floats(include_bytes!("golden/grid2_mlx.f32")));
}

#[test]
fn mlx_decodes_4_bit_groups_to_the_same_weights() {
    let int4 = Int4::default();
    let mut decoded = vec![0.0; ROWS * COLS];
    let scales = halves(include_bytes!("golden/int4_scales.f16"));
    let mins = halves(include_bytes!("golden/int4_mins.f16"));
    int4.decode_rows(include_bytes!("golden/int4_codes.u8"), &scales, &mins, COLS, &mut decoded);
    assert_eq!(decoded, floats(include_bytes!("golden/int4_mlx.f32")));
}

#[test]
fn the_4_bit_fit_is_better_than_the_extremes_in_every_row() {
    let weights = weights();
    let int4 = Int4::default();
    let mut codes = vec![0; ROWS * int4.code_bytes_per_row(COLS)];
    let mut scales = vec![f16::ZERO; ROWS * int4.scales_per_row(COLS)];
    let mut mins = scales.clone();
    int4.encode_rows(&weights, COLS, &mut codes, &mut scales, &mut mins).unwrap();
    let mut decoded = vec![0.0; ROWS * COLS];
    int4.decode_rows(&codes, &scales, &mins, COLS, &mut decoded);
    let from_extremes = floats(include_bytes!("golden/int4_mlx.f32"));
    for row in 0..ROWS {
        let error = |decoded: &[f32]| -> f64 {
            let row = row * COLS..(row + 1) * COLS;
            let pairs = weights[row.clone()].iter().zip(&decoded[row]);
            pairs.map(|(w, d)| f64::from(w - d).powi(2)).sum()
        };
        assert!(error(&decoded) < error(&from_extremes), "row {row}");
    }
}
