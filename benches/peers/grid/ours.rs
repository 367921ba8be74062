//! Our 2-bit grid on raw F16 rows, for `grid.py`: one thread, F16 in memory to packed codes and
//! F16 scales.
//!
//! `grid_ours RAW ROWS COLUMNS DECODED` prints a JSON object: for every scale grouping the median
//! seconds of a pass and the bits per weight. It writes the decoded f32 rows to
//! `DECODED.<grouping>`, so that the caller can measure the error with its own arithmetic.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::num::NonZeroUsize;
use std::time::Instant;

use compress_model_qat::Grid2;
use half::f16;
use half::slice::HalfFloatSliceExt;

const PASSES: usize = 3;
/// Rows converted and coded at a time: their f32 copy stays in the second-level cache.
const PANEL_ROWS: usize = 16;

/// What a pass fills.
struct Coded {
    codes: Vec<u8>,
    scales: Vec<f16>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [raw, rows, columns, decoded] = args.as_slice() else {
        return Err("usage: grid_ours RAW ROWS COLUMNS DECODED".into());
    };
    let (rows, columns): (usize, usize) = (rows.parse()?, columns.parse()?);
    let weights: Vec<f16> = std::fs::read(raw)?
        .chunks_exact(2)
        .map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]]))
        .collect();
    if columns == 0 || weights.is_empty() || weights.len() != rows * columns {
        return Err(format!("{raw}: not {rows} x {columns} F16 weights").into());
    }
    let mut results = Vec::new();
    for (name, grid) in schemes() {
        let (seconds, coded) = time_encode(&grid, &weights, columns)?;
        let bits = 8 * (coded.codes.len() + 2 * coded.scales.len());
        let bits_per_weight = bits as f64 / weights.len() as f64;
        write_decoded(&grid, &coded, columns, &format!("{decoded}.{name}"))?;
        results.push(format!(
            r#""{name}": {{"seconds": {seconds}, "bits_per_weight": {bits_per_weight}}}"#
        ));
    }
    println!("{{{}}}", results.join(", "));
    Ok(())
}

fn schemes() -> Vec<(String, Grid2)> {
    let grouped = [128, 64, 32]
        .into_iter()
        .filter_map(NonZeroUsize::new)
        .map(|group| (format!("g{group}"), Grid2::grouped(group)));
    std::iter::once(("row".to_owned(), Grid2::per_row())).chain(grouped).collect()
}

/// The median seconds of a pass over all rows, after one that touches every page.
fn time_encode(
    grid: &Grid2,
    weights: &[f16],
    columns: usize,
) -> Result<(f64, Coded), Box<dyn Error>> {
    let rows = weights.len() / columns;
    let mut coded = Coded {
        codes: vec![0; rows * grid.code_bytes_per_row(columns)],
        scales: vec![f16::ZERO; rows * grid.scales_per_row(columns)],
    };
    encode(grid, weights, columns, &mut coded)?;
    let mut seconds = [0.0; PASSES];
    for pass in &mut seconds {
        let start = Instant::now();
        encode(grid, weights, columns, &mut coded)?;
        *pass = start.elapsed().as_secs_f64();
    }
    seconds.sort_by(f64::total_cmp);
    Ok((seconds[PASSES / 2], coded))
}

fn encode(
    grid: &Grid2,
    weights: &[f16],
    columns: usize,
    coded: &mut Coded,
) -> Result<(), Box<dyn Error>> {
    let mut panel = vec![0.0; PANEL_ROWS * columns];
    let codes = coded.codes.chunks_mut(PANEL_ROWS * grid.code_bytes_per_row(columns));
    let scales = coded.scales.chunks_mut(PANEL_ROWS * grid.scales_per_row(columns));
    for ((rows, codes), scales) in weights.chunks(panel.len()).zip(codes).zip(scales) {
        let panel = &mut panel[..rows.len()];
        rows.convert_to_f32_slice(panel);
        grid.encode_rows(panel, columns, codes, scales)?;
    }
    Ok(())
}

fn write_decoded(
    grid: &Grid2,
    coded: &Coded,
    columns: usize,
    path: &str,
) -> Result<(), Box<dyn Error>> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut row = vec![0.0f32; columns];
    let codes = coded.codes.chunks(grid.code_bytes_per_row(columns));
    let scales = coded.scales.chunks(grid.scales_per_row(columns));
    for (codes, scales) in codes.zip(scales) {
        grid.decode_rows(codes, scales, columns, &mut row);
        for weight in &row {
            file.write_all(&weight.to_le_bytes())?;
        }
    }
    Ok(file.flush()?)
}
