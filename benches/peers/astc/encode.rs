//! This crate's encoder and ARM's astcenc in turn on the same matrices.
//!
//! ```text
//! cargo run --release --example astc_peers -- synthetic [footprint] [repeats]
//! cargo run --release --example astc_peers -- file.safetensors [footprint] [repeats] [rows]
//! ```
//!
//! `synthetic` codes i.i.d. Gaussian, Laplace and Student-t(4) weights and a Gaussian matrix with
//! one weight at 40 sigma; a file, a band of `rows` rows (120; "all" for whole tensors) from the
//! middle of every two-dimensional f32 tensor that is no embedding or other small table. Prints signal-to-noise
//! ratios in decibels and, for the sum of all matrices, M weights/s from the median of the repeats
//! (encoding on one thread, tables made beforehand) and the ratio to `astcenc -medium`; for a file
//! also the least, median and largest ratio, and the worst differences to astcenc on one tensor.

use std::error::Error;
use std::time::Instant;

use compress_model_astc::encode::Preset;
use compress_model_astc::{
    ArmQuality, BlockGrid, Coder, DecodeMode, Encoder, Footprint, Params, RowScale,
};
use half::f16;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, StandardNormal, StudentT};
use rand_pcg::Pcg64Mcg;

/// Rows of a synthetic matrix, and of the band that stands for a tensor unless the command says
/// otherwise; a multiple of every footprint's height.
const BAND_ROWS: usize = 120;

const ENCODERS: [(&str, Encoder); 10] = [
    ("fast", Encoder::Native(Preset::Fast, RowScale::Searched)),
    ("default", Encoder::Native(Preset::Default, RowScale::Searched)),
    ("best", Encoder::Native(Preset::Best, RowScale::Searched)),
    ("fast, full range", Encoder::Native(Preset::Fast, RowScale::FullRange)),
    ("default, full range", Encoder::Native(Preset::Default, RowScale::FullRange)),
    ("best, full range", Encoder::Native(Preset::Best, RowScale::FullRange)),
    ("arm -fast", Encoder::Arm(ArmQuality::Fast)),
    ("arm -medium", Encoder::Arm(ArmQuality::Medium)),
    ("arm -thorough", Encoder::Arm(ArmQuality::Thorough)),
    ("arm -exhaustive", Encoder::Arm(ArmQuality::Exhaustive)),
];
const MEDIUM: usize = 7;
const THOROUGH: usize = 8;
const EXHAUSTIVE: usize = 9;

/// Matrices with a shorter side are tables (of relative positions, say), not linear layers.
const LEAST_SIDE: usize = 64;

struct Matrix {
    name: String,
    rows: usize,
    cols: usize,
    weights: Vec<f32>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let source = arguments.first().map_or("synthetic", String::as_str);
    let footprint: Footprint = arguments.get(1).map_or("6x6", String::as_str).parse()?;
    let repeats: usize = arguments.get(2).map_or(Ok(3), |text| text.parse())?;
    let rows = match arguments.get(3).map(String::as_str) {
        None => BAND_ROWS,
        Some("all") => usize::MAX,
        Some(text) => text.parse()?,
    };
    let matrices = if source == "synthetic" {
        synthetic()?
    } else {
        from_file(&std::fs::read(source)?, rows)?
    };

    let mut coders = Vec::new();
    for (_, encoder) in ENCODERS {
        coders.push(Coder::new(Params { footprint, decode: DecodeMode::Unorm8, encoder })?);
    }
    for coder in &mut coders {
        // Makes the tables.
        run(coder, footprint, &matrices[0].weights[..footprint.width()], 1)?;
    }
    println!("| matrix | shape | {} |", ENCODERS.map(|(name, _)| name).join(" | "));
    println!("|---|---|{}", "---|".repeat(ENCODERS.len()));
    let mut totals = vec![0.0; ENCODERS.len()];
    let mut all_ratios = Vec::new();
    for matrix in &matrices {
        let mut cells = Vec::new();
        let mut seconds = vec![Vec::new(); coders.len()];
        let mut ratios = vec![0.0; coders.len()];
        for repeat in 0..repeats {
            for (number, coder) in coders.iter_mut().enumerate() {
                if repeat > 0 && number + 1 == ENCODERS.len() {
                    continue;
                }
                let (ratio, time) = run(coder, footprint, &matrix.weights, matrix.rows)?;
                ratios[number] = ratio;
                seconds[number].push(time);
            }
        }
        for ((ratio, seconds), total) in ratios.iter().zip(&mut seconds).zip(&mut totals) {
            seconds.sort_by(f64::total_cmp);
            *total += seconds[seconds.len() / 2];
            cells.push(format!("{ratio:.2}"));
        }
        let Matrix { name, rows, cols, .. } = matrix;
        println!("| {name} | {rows}x{cols} | {} |", cells.join(" | "));
        all_ratios.push(ratios);
    }
    if source != "synthetic" {
        summarise(&all_ratios);
    }
    let weights: usize = matrices.iter().map(|matrix| matrix.weights.len()).sum();
    let row = |values: Vec<String>| values.join(" | ");
    let speeds = totals.iter().map(|s| format!("{:.2}", weights as f64 / s / 1e6)).collect();
    println!("| M weights/s | | {} |", row(speeds));
    let times = totals.iter().map(|s| format!("{:.1}", totals[MEDIUM] / s)).collect();
    println!("| times arm -medium | | {} |", row(times));
    Ok(())
}

/// Prints how the ratios of each encoder spread over the tensors.
fn summarise(ratios: &[Vec<f64>]) {
    let worst_against = |number: usize, other: usize| {
        let differences = ratios.iter().map(|tensor| tensor[number] - tensor[other]);
        format!("{:+.2}", differences.fold(f64::INFINITY, f64::min))
    };
    let line = |cell: &dyn Fn(usize) -> String| {
        (0..ENCODERS.len()).map(cell).collect::<Vec<_>>().join(" | ")
    };
    let ranked = |number: usize| {
        let mut column: Vec<f64> = ratios.iter().map(|tensor| tensor[number]).collect();
        column.sort_by(f64::total_cmp);
        column
    };
    let place = |share: fn(usize) -> usize| {
        move |number: usize| format!("{:.2}", ranked(number)[share(ratios.len())])
    };
    println!("| least | | {} |", line(&place(|_| 0)));
    println!("| median | | {} |", line(&place(|count| count / 2)));
    println!("| most | | {} |", line(&place(|count| count - 1)));
    println!("| worst against -thorough | | {} |", line(&|n| worst_against(n, THOROUGH)));
    println!("| worst against -exhaustive | | {} |", line(&|n| worst_against(n, EXHAUSTIVE)));
}

/// Signal-to-noise ratio in dB and seconds to encode.
fn run(
    coder: &mut Coder,
    footprint: Footprint,
    weights: &[f32],
    rows: usize,
) -> Result<(f64, f64), Box<dyn Error>> {
    let cols = weights.len() / rows;
    let mut blocks = vec![0; BlockGrid::new(rows, cols, footprint).byte_len()];
    let mut scales = vec![f16::ZERO; rows];
    let start = Instant::now();
    coder.encode_rows(weights, rows, cols, &mut blocks, &mut scales)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut decoded = vec![0.0; weights.len()];
    coder.decode_rows(&blocks, &scales, rows, cols, &mut decoded)?;
    let signal: f64 = weights.iter().map(|&w| f64::from(w).powi(2)).sum();
    let noise: f64 = weights.iter().zip(&decoded).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    Ok((10.0 * (signal / noise).log10(), seconds))
}

fn synthetic() -> Result<Vec<Matrix>, Box<dyn Error>> {
    let (rows, cols) = (BAND_ROWS, 1536);
    let mut rng = Pcg64Mcg::seed_from_u64(2025);
    let student = StudentT::new(4.0_f32)?;
    let mut matrix = |name: &str, draw: &mut dyn FnMut(&mut Pcg64Mcg) -> f32| Matrix {
        name: name.to_owned(),
        rows,
        cols,
        weights: (0..rows * cols).map(|_| 0.02 * draw(&mut rng)).collect(),
    };
    let mut gaussian = |rng: &mut Pcg64Mcg| StandardNormal.sample(rng);
    let mut laplace = |rng: &mut Pcg64Mcg| {
        let uniform: f32 = rng.random_range(-0.5..0.5);
        -uniform.signum() * (1.0 - 2.0 * uniform.abs()).max(f32::MIN_POSITIVE).ln()
    };
    let mut all = vec![
        matrix("Gaussian", &mut gaussian),
        matrix("Laplace", &mut laplace),
        matrix("Student-t(4)", &mut |rng| student.sample(rng)),
        matrix("Gaussian, one weight at 40 sigma", &mut gaussian),
    ];
    all[3].weights[rows / 2 * cols + cols / 3] = 0.8;
    Ok(all)
}

fn from_file(bytes: &[u8], band_rows: usize) -> Result<Vec<Matrix>, Box<dyn Error>> {
    let file = safetensors::SafeTensors::deserialize(bytes)?;
    let mut names = file.names();
    names.sort_unstable();
    let mut all = Vec::new();
    for name in names {
        let tensor = file.tensor(name)?;
        let &[total_rows, cols] = tensor.shape() else { continue };
        let table = name.contains("embedding") || total_rows.min(cols) < LEAST_SIDE;
        if table || tensor.dtype() != safetensors::Dtype::F32 {
            continue;
        }
        let rows = band_rows.min(total_rows);
        let first = (total_rows - rows) / 2;
        let bytes = &tensor.data()[4 * first * cols..4 * (first + rows) * cols];
        let weights = bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        all.push(Matrix { name: name.to_owned(), rows, cols, weights });
    }
    Ok(all)
}
