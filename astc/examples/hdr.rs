//! The HDR form of weights, this crate's encoder beside ARM's astcenc, on the same matrices.
//!
//! ```text
//! cargo run --release -p compress-model-astc --example hdr -- [footprint] [repeats]
//! ```
//!
//! Every row stores 128 bits of block and 16 of offset. astcenc runs with its profile `-ch` (HDR
//! RGB, LDR alpha, R = G = B) on w - offset, offset = minimum - c·range of each block: c = 0 is the
//! plain minimum of the published system, c = 1.5 lifts the block into one power of two. Prints
//! signal-to-noise ratios in decibels and, over all matrices, M weights/s from the median of the
//! repeats on one thread.

use std::error::Error;
use std::time::Instant;

use compress_model_astc::hdr::{HdrDecoder, HdrEncoder, HdrOffset};
use compress_model_astc::{BlockGrid, Footprint};
use ctt_astcenc::bindings::{astcenc_image, astcenc_type_ASTCENC_TYPE_F32};
use ctt_astcenc::{Context, Flags, Preset, Profile, Swizzle, config_init};
use half::f16;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, StandardNormal, StudentT};
use rand_pcg::Pcg64Mcg;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ROWS: usize = 120;
const COLS: usize = 1536;

enum Method {
    Native(Box<HdrEncoder>),
    /// astcenc, with the lift of the offset in ranges of the block.
    Arm(Context, f32),
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let footprint: Footprint = arguments.first().map_or("6x6", String::as_str).parse()?;
    let repeats: usize = arguments.get(1).map_or(Ok(3), |text| text.parse())?;
    let mut methods = Vec::new();
    for (name, offset) in [("fitted", HdrOffset::Fitted), ("minimum", HdrOffset::Minimum)] {
        methods
            .push((name.to_owned(), Method::Native(Box::new(HdrEncoder::new(footprint, offset)))));
    }
    for (quality, preset) in [("medium", Preset::Medium), ("thorough", Preset::Thorough)] {
        for lift in [0.0, 1.5] {
            let name = format!("arm -ch -{quality}, c = {lift}");
            methods.push((name, Method::Arm(arm(footprint, preset)?, lift)));
        }
    }
    let matrices = matrices()?;
    let mut ratios = vec![Vec::new(); methods.len()];
    let mut totals = vec![(0.0, 0.0); methods.len()];
    for (_, weights) in &matrices {
        let mut seconds = vec![Vec::new(); methods.len()];
        for repeat in 0..repeats {
            for (index, (_, method)) in methods.iter_mut().enumerate() {
                let run = run(method, footprint, weights)?;
                seconds[index].push((run.encode, run.decode));
                if repeat == 0 {
                    ratios[index].push(run.ratio);
                }
            }
        }
        for (total, seconds) in totals.iter_mut().zip(&seconds) {
            let median = |of: fn(&(f64, f64)) -> f64| {
                let mut values: Vec<f64> = seconds.iter().map(of).collect();
                values.sort_by(f64::total_cmp);
                values[values.len() / 2]
            };
            total.0 += median(|s| s.0);
            total.1 += median(|s| s.1);
        }
    }
    let names: Vec<&str> = matrices.iter().map(|(name, _)| *name).collect();
    println!("| encoder | {} | encode M/s | decode M/s |", names.join(" | "));
    println!("|---|{}", "---|".repeat(names.len() + 2));
    let weights = (matrices.len() * ROWS * COLS) as f64 / 1e6;
    for (((name, _), ratios), (encode, decode)) in methods.iter().zip(&ratios).zip(&totals) {
        let cells: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        let (encode, decode) = (weights / encode, weights / decode);
        println!("| {name} | {} | {encode:.2} | {decode:.0} |", cells.join(" | "));
    }
    Ok(())
}

struct Run {
    /// Signal-to-noise ratio in dB.
    ratio: f64,
    /// Seconds to encode.
    encode: f64,
    /// Seconds to decode.
    decode: f64,
}

fn run(method: &mut Method, footprint: Footprint, weights: &[f32]) -> Result<Run> {
    let grid = BlockGrid::new(ROWS, COLS, footprint);
    let mut blocks = vec![0; grid.byte_len()];
    let mut offsets = vec![f16::ZERO; grid.block_count()];
    let start = Instant::now();
    match method {
        Method::Native(encoder) => {
            encoder.encode_rows(weights, ROWS, COLS, &mut blocks, &mut offsets)?;
        }
        Method::Arm(context, lift) => {
            encode_arm(context, &grid, *lift, weights, &mut blocks, &mut offsets)?;
        }
    }
    let encode = start.elapsed().as_secs_f64();
    let mut decoded = vec![0.0; weights.len()];
    let start = Instant::now();
    HdrDecoder::new(footprint).decode_rows(&blocks, &offsets, ROWS, COLS, &mut decoded)?;
    let decode = start.elapsed().as_secs_f64();
    let signal: f64 = weights.iter().map(|&w| f64::from(w).powi(2)).sum();
    let noise: f64 = weights.iter().zip(&decoded).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    Ok(Run { ratio: 10.0 * (signal / noise).log10(), encode, decode })
}

fn arm(footprint: Footprint, preset: Preset) -> Result<Context> {
    let (width, height) = (footprint.width() as u32, footprint.height() as u32);
    let flags = Flags::SELF_DECOMPRESS_ONLY;
    let config = config_init(Profile::HdrRgbLdrA, width, height, 1, preset, flags)?;
    Ok(Context::new(&config)?)
}

fn encode_arm(
    context: &mut Context,
    grid: &BlockGrid,
    lift: f32,
    weights: &[f32],
    blocks: &mut [u8],
    offsets: &mut [f16],
) -> Result<()> {
    let (width, height) = (grid.footprint.width(), grid.footprint.height());
    let mut texels = vec![[0.0_f32, 0.0, 0.0, 1.0]; weights.len()];
    for (index, offset) in offsets.iter_mut().enumerate() {
        let (top, left) =
            (index / grid.blocks_across() * height, index % grid.blocks_across() * width);
        let places: Vec<usize> = (top..(top + height).min(grid.rows))
            .flat_map(|row| {
                (left..(left + width).min(grid.cols)).map(move |col| row * grid.cols + col)
            })
            .collect();
        let values = || places.iter().map(|&at| weights[at]);
        let (low, high) =
            (values().fold(f32::INFINITY, f32::min), values().fold(f32::NEG_INFINITY, f32::max));
        *offset = f16::from_f32(low - lift * (high - low));
        for &at in &places {
            texels[at][0] = (weights[at] - offset.to_f32()).max(0.0);
        }
    }
    let mut plane = texels.as_mut_ptr().cast();
    let mut image = astcenc_image {
        dim_x: grid.cols as u32,
        dim_y: grid.rows as u32,
        dim_z: 1,
        data_type: astcenc_type_ASTCENC_TYPE_F32,
        data: &mut plane,
    };
    context.compress(&mut image, Swizzle::RRR1, blocks)?;
    context.compress_reset()?;
    Ok(())
}

/// Seeded weights of a model's magnitude.
fn matrices() -> Result<Vec<(&'static str, Vec<f32>)>> {
    let mut rng = Pcg64Mcg::seed_from_u64(2025);
    let student = StudentT::new(4.0_f32)?;
    let mut matrix = |draw: &mut dyn FnMut(&mut Pcg64Mcg) -> f32| -> Vec<f32> {
        (0..ROWS * COLS).map(|_| 0.02 * draw(&mut rng)).collect()
    };
    Ok(vec![
        ("Gaussian", matrix(&mut |rng| StandardNormal.sample(rng))),
        (
            "Laplace",
            matrix(&mut |rng| {
                let uniform: f32 = rng.random_range(-0.5..0.5);
                -uniform.signum() * (1.0 - 2.0 * uniform.abs()).max(f32::MIN_POSITIVE).ln()
            }),
        ),
        ("Student-t(4)", matrix(&mut |rng| student.sample(rng))),
    ])
}
