//! Products on every adapter of this machine against f64 sums on the CPU.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::adapters::{decoders, gpus};
use crate::random_blocks::{Blocks, luminance};
use compress_model_astc::decode::{Profile, decode_fp16};
use compress_model_astc::encode::Preset;
use compress_model_astc::gpu::{
    DecodePath, Gpu, GpuDecoder, GpuError, GpuProducts, Grid2, Input, LowRank,
};
use compress_model_astc::{
    BlockGrid, Coder, DecodeMode, Encoder, Footprint, Params, RowScale, TexelMode, TextureCodec,
};
use half::f16;
use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;
use rand_pcg::Pcg64Mcg;

/// Largest relative error of a product; f16 vectors are taken as they were rounded.
const BOUND: f64 = 1e-5;
const BATCHES: &[usize] = &[1, 2, 5, 32];

/// Every path of a GPU for ASTC.
fn astc_decoders(gpu: &Gpu) -> impl Iterator<Item = GpuDecoder<'_>> {
    product_decoders(gpu)
        .into_iter()
        .filter(|decoder| decoder.path().mode().codec() == TextureCodec::Astc)
}

/// One test at a time: GL gives up on a context that another thread holds for more than a second,
/// and compiling a shader takes longer on a software renderer.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The paths of a GPU for products: on GL, which takes ten seconds to compile each, only one of the
/// compute shader's; Vulkan has them all.
fn product_decoders(gpu: &Gpu) -> Vec<GpuDecoder<'_>> {
    let quick = |path: DecodePath| match path {
        DecodePath::Computed(mode) => mode == TextureCodec::Astc.modes()[0],
        DecodePath::Sampled(_) => true,
    };
    let mut all = decoders(gpu);
    all.retain(|decoder| gpu.info().backend != "gl" || quick(decoder.path()));
    all
}

fn normal(rng: &mut Pcg64Mcg, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.sample(StandardNormal)).collect()
}

/// An adapter about as large as the weights.
struct Factors {
    rank: usize,
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Factors {
    fn new(rng: &mut Pcg64Mcg, (rows, cols): (usize, usize), rank: usize) -> Self {
        let b = normal(rng, rows * rank).iter().map(|b| b * 0.02).collect();
        Self { rank, a: normal(rng, rank * cols), b }
    }

    fn low_rank(&self) -> Option<LowRank<'_>> {
        Some(LowRank { rank: self.rank, a: &self.a, b: &self.b })
    }
}

/// (W + B·A)·x for every vector of x.
fn product(w: &[f32], cols: usize, factors: &Factors, x: &[f32]) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let rank = factors.rank;
    let mut y = Vec::new();
    for x in x.chunks_exact(cols) {
        let reduced: Vec<f64> = factors.a.chunks_exact(cols).map(|a| dot(a, x)).collect();
        for (row, w) in w.chunks_exact(cols).enumerate() {
            let b = &factors.b[row * rank..][..rank];
            y.push(dot(w, x) + b.iter().zip(&reduced).map(|(b, t)| f64::from(*b) * t).sum::<f64>());
        }
    }
    y
}

/// Largest error over largest value, and norm of the error over norm of the value.
fn relative_errors(found: &[f32], expected: &[f64]) -> [f64; 2] {
    let errors = found.iter().zip(expected).map(|(f, e)| (f64::from(*f) - e).abs());
    let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let values = || expected.iter().map(|e| e.abs());
    [
        largest(&mut errors.clone()) / largest(&mut values()),
        norm(&mut errors.clone()) / norm(&mut values()),
    ]
}

/// Multiplies f32 and f16 vectors of several batch sizes and checks the errors; `w` are the
/// weights that the GPU should find in `linear`.
fn check(
    products: &GpuProducts<'_, '_>,
    linear: &compress_model_astc::gpu::GpuLinear,
    w: &[f32],
    factors: &Factors,
    batches: &[usize],
    rng: &mut Pcg64Mcg,
) -> [f64; 2] {
    let (rows, cols) = linear.shape();
    let mut worst = [0.0, 0.0_f64];
    for &batch in batches {
        let halves: Vec<f16> = normal(rng, batch * cols).into_iter().map(f16::from_f32).collect();
        let rounded: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
        let full = normal(rng, batch * cols);
        let inputs = [(Input::F32(&full), &full), (Input::F16(&halves), &rounded)];
        for (place, (input, values)) in inputs.into_iter().enumerate() {
            let mut y = vec![f32::NAN; batch * rows];
            products.multiply(linear, input, batch, &mut y).unwrap();
            let errors = relative_errors(&y, &product(w, cols, factors, values));
            assert!(errors.iter().all(|e| *e < BOUND), "{batch} vectors, {input:.0?}: {errors:?}");
            worst[place] = errors[0].max(errors[1]).max(worst[place]);
        }
    }
    worst
}

/// A coded Gaussian matrix with outliers and rows of zeros, and what it decodes to.
fn coded(
    (rows, cols): (usize, usize),
    params: Params,
    rng: &mut Pcg64Mcg,
) -> (Vec<u8>, Vec<f16>, Vec<f32>) {
    let grid = BlockGrid::new(rows, cols, params.footprint);
    let mut w = normal(rng, rows * cols);
    w[rows * cols / 2] = 40.0;
    for (row, w) in w.chunks_exact_mut(cols).enumerate() {
        let size = if row % 11 == 5 { 0.0 } else { 0.01 * (1 + row % 7) as f32 };
        w.iter_mut().for_each(|w| *w *= size);
    }
    let (mut blocks, mut scales) = (vec![0; grid.byte_len()], vec![f16::ZERO; rows]);
    let mut coder = Coder::new(params).unwrap();
    coder.encode_rows(&w, rows, cols, &mut blocks, &mut scales).unwrap();
    coder.decode_rows(&blocks, &scales, rows, cols, &mut w).unwrap();
    (blocks, scales, w)
}

#[test]
fn products_with_textures_agree_with_f64_sums() {
    let _alone = alone();
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    let six = Footprint::new(6, 6).unwrap();
    for gpu in gpus() {
        for decoder in astc_decoders(gpu) {
            let products = GpuProducts::new(&decoder).unwrap();
            let mut worst = [0.0, 0.0_f64];
            let most = gpu.info().max_texture_dimension as usize;
            let small = Footprint::new(4, 4).unwrap();
            let large = Footprint::new(12, 10).unwrap();
            let all = [
                ((97, 575), six, 16, BATCHES),
                ((1, 1), six, 1, &[3]),
                ((64, 100), small, 1, &[2]),
                ((33, 130), large, 16, &[1, 2]),
                ((13, 2048), six, 0, &[1]),
                // Cut into tiles both ways.
                ((5, most + 700), six, 3, &[1, 4]),
                ((most + 5, 3), six, 1, &[2]),
            ];
            // Software renderers compute slowly, and only textures are cut into tiles.
            let cases = match decoder.path() {
                DecodePath::Sampled(_) => &all[..],
                DecodePath::Computed(_) => &all[1..4],
            };
            for &(size, footprint, rank, batches) in cases {
                let TexelMode::Astc(decode) = decoder.path().mode() else { panic!("ASTC") };
                let params = Params {
                    footprint,
                    decode,
                    encoder: Encoder::Native(Preset::Fast, RowScale::FullRange),
                };
                let (blocks, scales, w) = coded(size, params, &mut rng);
                let grid = BlockGrid::new(size.0, size.1, footprint);
                let matrix = decoder.upload(grid, &blocks, &scales).unwrap();
                let factors = Factors::new(&mut rng, size, rank);
                let linear = products.texture(matrix, factors.low_rank()).unwrap();
                let found = check(&products, &linear, &w, &factors, batches, &mut rng);
                worst = [worst[0].max(found[0]), worst[1].max(found[1])];
            }
            let label = gpu.info().label();
            println!("{label}, {}: f32 {:.1e}, f16 {:.1e}", decoder.path(), worst[0], worst[1]);
        }
    }
}

/// A matrix of random legal blocks, and scales or offsets of moderate size.
struct RandomTexture {
    grid: BlockGrid,
    blocks: Vec<u8>,
    side: Vec<f16>,
}

impl RandomTexture {
    fn new(
        codec: TextureCodec,
        (rows, cols): (usize, usize),
        footprint: Footprint,
        rng: &mut Pcg64Mcg,
    ) -> Self {
        let grid = BlockGrid::new(rows, cols, footprint);
        let legal = Blocks::new(footprint);
        let block = |_| match codec {
            TextureCodec::Astc => astc_block(&legal, footprint, rng).to_le_bytes().to_vec(),
            TextureCodec::AstcHdr => hdr_block(footprint, rng).to_le_bytes().to_vec(),
            TextureCodec::Bc4 => rng.random::<u64>().to_le_bytes().to_vec(),
        };
        let blocks = (0..grid.block_count()).flat_map(block).collect();
        let value = |_| f16::from_f32(rng.random_range(0.001..0.1));
        let side = (0..codec.side_count(&grid)).map(value).collect();
        Self { grid, blocks, side }
    }

    fn weights(&self, mode: TexelMode) -> Vec<f32> {
        let mut w = vec![0.0; self.grid.rows * self.grid.cols];
        mode.decode_rows(&self.grid, &self.blocks, &self.side, &mut w).unwrap();
        w
    }
}

/// Luminance as an encoder writes it, or any other legal LDR block: colours, planes, coarse grids.
fn astc_block(legal: &Blocks, footprint: Footprint, rng: &mut Pcg64Mcg) -> u128 {
    if rng.random() {
        return luminance(footprint, rng);
    }
    loop {
        let (block, fields) = legal.legal(rng);
        let hdr = |format: &u8| matches!(format, 2 | 3 | 7 | 11 | 14 | 15);
        if !fields.formats[..fields.partitions].iter().any(hdr) {
            return block;
        }
    }
}

/// An HDR block of small range whose texels are of the size of 1.
fn hdr_block(footprint: Footprint, rng: &mut Pcg64Mcg) -> u128 {
    let in_size = |texels: &[[f16; 4]]| texels.iter().all(|t| t[0].to_f32() < 16.0);
    let mut texels = vec![[f16::ZERO; 4]; footprint.texels()];
    loop {
        let block = luminance(footprint, rng);
        let small_range = 3 << if block >> 11 & 3 == 0 { 13 } else { 25 };
        let block = block | small_range;
        let decoded = decode_fp16(block.to_le_bytes(), footprint, Profile::Hdr, &mut texels);
        if decoded.is_ok() && in_size(&texels) {
            return block;
        }
    }
}

#[test]
fn products_with_random_blocks_of_every_codec_agree_with_f64_sums() {
    let _alone = alone();
    let mut rng = Pcg64Mcg::seed_from_u64(3);
    for gpu in gpus() {
        for decoder in product_decoders(gpu) {
            let mode = decoder.path().mode();
            let codec = mode.codec();
            let products = GpuProducts::new(&decoder).unwrap();
            let mut worst = [0.0, 0.0_f64];
            // Software renderers compute slowly, and compile a shader for each footprint.
            let footprints: &[&str] = match decoder.path() {
                DecodePath::Sampled(_) => &["4x4", "10x5"],
                DecodePath::Computed(_) if codec == TextureCodec::Bc4 => &["4x4"],
                DecodePath::Computed(_) => &["6x6"],
            };
            for footprint in footprints.iter().map(|name| name.parse().unwrap()) {
                if !codec.footprints().contains(&footprint) {
                    continue;
                }
                // Cut by both edges.
                let size = (3 * footprint.height() + 2, 70 * footprint.width() + 1);
                let texture = RandomTexture::new(codec, size, footprint, &mut rng);
                let w = texture.weights(mode);
                let factors = Factors::new(&mut rng, size, 2);
                let uploaded =
                    decoder.upload(texture.grid, &texture.blocks, &texture.side).unwrap();
                let linear = products.texture(uploaded, factors.low_rank()).unwrap();
                let found = check(&products, &linear, &w, &factors, &[3], &mut rng);
                worst = [worst[0].max(found[0]), worst[1].max(found[1])];
            }
            let (label, title) = (gpu.info().label(), codec.title());
            println!(
                "{label}, {title} {}, random blocks: f32 {:.1e}, f16 {:.1e}",
                decoder.path(),
                worst[0],
                worst[1]
            );
        }
    }
}

#[test]
fn the_product_with_a_one_hot_vector_is_a_column_to_the_bit() {
    let _alone = alone();
    let mut rng = Pcg64Mcg::seed_from_u64(4);
    for gpu in gpus() {
        for decoder in product_decoders(gpu) {
            let mode = decoder.path().mode();
            let footprint = *mode.codec().footprints().first().unwrap();
            let (rows, cols) = (11, 66 * footprint.width() + 2);
            let texture = RandomTexture::new(mode.codec(), (rows, cols), footprint, &mut rng);
            let w = texture.weights(mode);
            let uploaded = decoder.upload(texture.grid, &texture.blocks, &texture.side).unwrap();
            let products = GpuProducts::new(&decoder).unwrap();
            let linear = products.texture(uploaded, None).unwrap();
            // Both ends of blocks, of the threads' shares and of the row.
            let hot = [0, 1, footprint.width() - 1, footprint.width(), 64 * 4, cols - 2, cols - 1];
            let mut x = vec![f16::ZERO; hot.len() * cols];
            hot.iter().enumerate().for_each(|(n, col)| x[n * cols + col] = f16::ONE);
            let full: Vec<f32> = x.iter().map(|x| x.to_f32()).collect();
            for input in [Input::F32(&full), Input::F16(&x)] {
                let mut y = vec![f32::NAN; hot.len() * rows];
                products.multiply(&linear, input, hot.len(), &mut y).unwrap();
                let column = |&col: &usize| w.chunks_exact(cols).map(move |row| row[col]);
                let expected: Vec<f32> = hot.iter().flat_map(column).collect();
                assert_eq!(y, expected, "{}: {}", gpu.info().label(), decoder.path());
            }
        }
    }
}

#[test]
fn products_with_2_bit_codes_agree_with_f64_sums() {
    let _alone = alone();
    let mut rng = Pcg64Mcg::seed_from_u64(2);
    for gpu in gpus() {
        let decoder =
            GpuDecoder::new(gpu, DecodePath::Computed(DecodeMode::Unorm8.into())).unwrap();
        let products = GpuProducts::new(&decoder).unwrap();
        let mut worst = [0.0, 0.0_f64];
        for ((rows, cols), group, rank) in [
            // Rows in one group.
            ((97_usize, 575_usize), 575, 16),
            ((97, 575), 64, 0),
            ((30, 2049), 32, 1),
            ((7, 45), 10, 2),
            ((1, 1), 1, 1),
            ((70, 3000), 128, 16),
        ] {
            let codes: Vec<u8> = (0..rows * cols).map(|_| rng.random_range(0..4)).collect();
            let scales: Vec<f16> = (0..rows * cols.div_ceil(group))
                .map(|_| f16::from_f32(rng.random_range(0.0..0.1)))
                .collect();
            let mut w = Vec::new();
            let mut packed = Vec::new();
            for (row, codes) in codes.chunks_exact(cols).enumerate() {
                let scales = &scales[row * cols.div_ceil(group)..];
                let code = |(col, code): (usize, &u8)| {
                    scales[col / group].to_f32() * (f32::from(*code) - 1.5)
                };
                w.extend(codes.iter().enumerate().map(code));
                let byte = |four: &[u8]| four.iter().rev().fold(0, |byte, code| byte << 2 | code);
                packed.extend(codes.chunks(4).map(byte));
            }
            let weights = Grid2 { rows, cols, group, codes: &packed, scales: &scales };
            let factors = Factors::new(&mut rng, (rows, cols), rank);
            let linear = products.grid2(&weights, factors.low_rank()).unwrap();
            let found = check(&products, &linear, &w, &factors, BATCHES, &mut rng);
            worst = [worst[0].max(found[0]), worst[1].max(found[1])];
        }
        println!("{}, 2-bit codes: f32 {:.1e}, f16 {:.1e}", gpu.info().label(), worst[0], worst[1]);
    }
}

#[test]
fn empty_products_and_wrong_lengths_are_told_apart() {
    let _alone = alone();
    let six = Footprint::new(6, 6).unwrap();
    for gpu in gpus() {
        let decoder =
            GpuDecoder::new(gpu, DecodePath::Computed(DecodeMode::Unorm8.into())).unwrap();
        let products = GpuProducts::new(&decoder).unwrap();
        for (rows, cols) in [(0, 5), (5, 0)] {
            let grid = BlockGrid::new(rows, cols, six);
            let matrix = decoder.upload(grid, &[], &vec![f16::ONE; rows]).unwrap();
            let linear = products.texture(matrix, None).unwrap();
            let mut y = vec![f32::NAN; 2 * rows];
            products.multiply(&linear, Input::F32(&vec![1.0; 2 * cols]), 2, &mut y).unwrap();
            assert_eq!(y, vec![0.0; 2 * rows]);
        }
        let matrix = decoder.upload(BlockGrid::new(6, 6, six), &[0; 16], &[f16::ONE; 6]).unwrap();
        let short = LowRank { rank: 2, a: &[0.0; 12], b: &[0.0; 11] };
        let found = products.texture(matrix, Some(short));
        assert!(matches!(found, Err(GpuError::Operand { what: "B", found: 11, expected: 12 })));
        let weights = Grid2 { rows: 2, cols: 5, group: 4, codes: &[0; 4], scales: &[f16::ONE; 3] };
        let found = products.grid2(&weights, None);
        assert!(matches!(found, Err(GpuError::Operand { what: "scales", .. })));
        let weights = Grid2 { scales: &[f16::ONE; 4], ..weights };
        let linear = products.grid2(&weights, None).unwrap();
        let found = products.multiply(&linear, Input::F32(&[0.0; 9]), 2, &mut [0.0; 4]);
        assert!(matches!(found, Err(GpuError::Operand { what: "input", .. })));
    }
}
