//! The GPU against the CPU reference, on every adapter of this machine.
//!
//! Without an adapter the tests say so and pass, unless `COMPRESS_MODEL_REQUIRE_GPU` is 1: then
//! there must be one that samples ASTC, and Vulkan as a second driver.
#![cfg(feature = "gpu")]
#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod random_blocks;

use std::ops::Range;
use std::sync::LazyLock;

use compress_model_astc::gpu::{
    DecodePath, Gpu, GpuAdapter, GpuDecoder, GpuError, PathChoice, Verdict,
};
use compress_model_astc::tables::{BlockMode, Quant};
use compress_model_astc::{ArmQuality, BlockGrid, Coder, DecodeMode, Encoder, Footprint, Params};
use half::f16;
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use random_blocks::Blocks;

const MODES: [DecodeMode; 2] = [DecodeMode::Unorm8, DecodeMode::Fp16];

/// Every adapter, opened for all tests but the one that loses them.
fn gpus() -> &'static [Gpu] {
    static GPUS: LazyLock<Vec<Gpu>> = LazyLock::new(open_all);
    &GPUS
}

/// Every path of every adapter; its shaders are compiled once.
fn all_decoders() -> &'static [GpuDecoder<'static>] {
    static DECODERS: LazyLock<Vec<GpuDecoder<'static>>> =
        LazyLock::new(|| gpus().iter().flat_map(decoders).collect());
    &DECODERS
}

fn open_all() -> Vec<Gpu> {
    let gpus: Vec<Gpu> = GpuAdapter::all().iter().map(|adapter| adapter.open().unwrap()).collect();
    if std::env::var("COMPRESS_MODEL_REQUIRE_GPU").is_ok_and(|value| value == "1") {
        let samples = |gpu: &Gpu| gpu.self_test().unwrap().refusal().is_none();
        assert!(gpus.iter().any(samples), "no adapter samples ASTC");
        let vulkan = gpus.iter().any(|gpu| gpu.info().backend == "vulkan");
        assert!(vulkan, "no Vulkan adapter");
    }
    if gpus.is_empty() {
        eprintln!("skipped: no GPU adapter");
    }
    gpus
}

/// Every path of a GPU: both precisions of the compute shader, and what it samples.
fn decoders(gpu: &Gpu) -> Vec<GpuDecoder<'_>> {
    let sampled = gpu.self_test().unwrap().sampled_mode(DecodeMode::Unorm8);
    let computed = MODES.map(DecodePath::Computed);
    let paths = sampled.map(DecodePath::Sampled).into_iter().chain(computed);
    paths.map(|path| GpuDecoder::new(gpu, path).unwrap()).collect()
}

struct Matrix {
    grid: BlockGrid,
    blocks: Vec<u8>,
    scales: Vec<f16>,
}

impl Matrix {
    /// A matrix of blocks that `block` makes; scales of every size, some of them 0.
    fn new(
        (rows, cols): (usize, usize),
        footprint: Footprint,
        rng: &mut Pcg64Mcg,
        mut block: impl FnMut(&mut Pcg64Mcg) -> u128,
    ) -> Self {
        let grid = BlockGrid::new(rows, cols, footprint);
        let blocks = (0..grid.block_count()).flat_map(|_| block(rng).to_le_bytes()).collect();
        let scales = (0..rows)
            .map(|row| f16::from_bits(if row % 7 == 3 { 0 } else { rng.random_range(1..0x7C00) }))
            .collect();
        Self { grid, blocks, scales }
    }

    fn reference(&self, decode: DecodeMode) -> Vec<f32> {
        let BlockGrid { rows, cols, footprint } = self.grid;
        let params = Params { footprint, decode, encoder: Encoder::Arm(ArmQuality::Fast) };
        let mut out = vec![0.0; rows * cols];
        let mut coder = Coder::new(params).unwrap();
        coder.decode_rows(&self.blocks, &self.scales, rows, cols, &mut out).unwrap();
        out
    }

    /// Compares a GPU's weights with the CPU's, bit for bit.
    fn check(&self, decoder: &GpuDecoder<'_>, expected: &[f32]) {
        self.check_rows(decoder, expected, 0..self.grid.rows);
    }

    /// As [`check`](Self::check) for some of the rows; returns how many weights they have.
    fn check_rows(&self, decoder: &GpuDecoder<'_>, expected: &[f32], rows: Range<usize>) -> usize {
        let cols = self.grid.cols;
        let matrix = decoder.upload(self.grid, &self.blocks, &self.scales).unwrap();
        let mut found = vec![f32::NAN; rows.len() * cols];
        decoder.decode(&matrix, rows.clone(), &mut found).unwrap();
        let expected = &expected[rows.start * cols..rows.end * cols];
        let wrong = expected
            .iter()
            .zip(&found)
            .position(|(e, f)| e.to_bits() != f.to_bits())
            .map(|i| (rows.start + i / cols, i % cols, expected[i], found[i]));
        let label = decoder.gpu().info().label();
        assert_eq!(wrong, None, "{label}, {}: {:?}", decoder.path(), self.grid);
        found.len()
    }
}

/// Legal one-plane luminance blocks of a footprint: what a weight encoder may write.
struct Luminance {
    kinds: Vec<(u16, usize)>,
}

impl Luminance {
    fn new(footprint: Footprint) -> Self {
        let legal = |bits: u16, partitions: usize| {
            let mode = BlockMode::decode(bits).filter(|m| m.fits(footprint) && !m.dual_plane)?;
            let header = if partitions == 1 { 17 } else { 29 };
            let room = (128 - mode.weight_bits()).checked_sub(header)?;
            Quant::largest_fitting(2 * partitions, room).filter(|&q| q >= Quant::COLOUR_MIN)
        };
        let kinds = (0..1 << 11)
            .flat_map(|bits| (1..=4).map(move |partitions| (bits, partitions)))
            .filter(|&(bits, partitions)| legal(bits, partitions).is_some())
            .collect();
        Self { kinds }
    }

    fn block(&self, rng: &mut impl Rng) -> u128 {
        let (mode, partitions) = self.kinds[rng.random_range(0..self.kinds.len())];
        let format_bits = if partitions == 1 { 0xF << 13 } else { 0x3F << 23 };
        let noise = rng.random::<u128>() & !format_bits & !0x1FFF;
        noise | (partitions as u128 - 1) << 11 | u128::from(mode)
    }
}

#[test]
fn a_million_luminance_blocks_decode_as_on_the_cpu() {
    let footprint = Footprint::new(6, 6).unwrap();
    let luminance = Luminance::new(footprint);
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    // 1000 x 1002 blocks, cut by both edges.
    let matrix = Matrix::new((5999, 6011), footprint, &mut rng, |rng| luminance.block(rng));
    assert!(matrix.grid.block_count() > 1_000_000);
    let reference = MODES.map(|mode| matrix.reference(mode));
    // Software renderers sample fast and compute slowly: each computes a part, all of it together.
    let computing = |path: DecodePath| matches!(path, DecodePath::Computed(_));
    let parts = all_decoders().iter().filter(|d| computing(d.path())).count().max(1);
    let mut next_part = 0;
    for decoder in all_decoders() {
        let strips = matrix.grid.blocks_down();
        let strips = if computing(decoder.path()) {
            next_part += 1;
            (next_part - 1) * strips / parts..next_part * strips / parts
        } else {
            0..strips
        };
        let rows = strips.start * footprint.height()
            ..matrix.grid.rows.min(strips.end * footprint.height());
        let reference = &reference[decoder.path().mode() as usize];
        let count = matrix.check_rows(decoder, reference, rows);
        let label = decoder.gpu().info().label();
        println!("{label}, {}: {count} weights, 0 differ", decoder.path());
    }
}

#[test]
fn every_kind_of_block_decodes_as_on_the_cpu_in_every_footprint() {
    let mut rng = Pcg64Mcg::seed_from_u64(2);
    for footprint in Footprint::ALL {
        let (luminance, blocks) = (Luminance::new(footprint), Blocks::new(footprint));
        let size = (40 * footprint.height() - 1, 40 * footprint.width() - 3);
        let mut matrix = |any: bool| {
            Matrix::new(size, footprint, &mut rng, |rng| match rng.random_range(0..8) {
                0 if any => Blocks::noise(rng),
                1 if any => Blocks::void_extent(rng),
                2..4 => luminance.block(rng),
                _ => loop {
                    let (block, fields) = blocks.legal(rng);
                    let hdr = |f: &u8| matches!(f, 2 | 3 | 7 | 11 | 14 | 15);
                    if any || !fields.formats[..fields.partitions].iter().any(hdr) {
                        break block;
                    }
                },
            })
        };
        // What the standard forbids in an LDR image is left to texture units: Mesa differs there.
        let (ldr, any) = (matrix(false), matrix(true));
        for decoder in all_decoders() {
            let mode = decoder.path().mode();
            ldr.check(decoder, &ldr.reference(mode));
            if matches!(decoder.path(), DecodePath::Computed(_)) {
                any.check(decoder, &any.reference(mode));
            }
        }
    }
}

#[test]
fn matrices_of_any_shape_and_past_the_texture_limit_decode() {
    let footprint = Footprint::new(8, 5).unwrap();
    let luminance = Luminance::new(footprint);
    let mut rng = Pcg64Mcg::seed_from_u64(3);
    for decoder in all_decoders() {
        let limit = decoder.gpu().info().max_texture_dimension as usize;
        let wide = (3, 2 * limit + 1);
        let tall = (2 * limit + 1, 2);
        // Six square layers would be a cube for the GL backend.
        for size in [(1, 1), (1, 1000), (1000, 1), (5, 8), (7, 13), (6 * 40, 40), wide, tall] {
            let matrix = Matrix::new(size, footprint, &mut rng, |rng| luminance.block(rng));
            matrix.check(decoder, &matrix.reference(decoder.path().mode()));
        }
        for (rows, cols) in [(0, 9), (9, 0), (0, 0)] {
            let grid = BlockGrid::new(rows, cols, footprint);
            let empty = decoder.upload(grid, &[], &vec![f16::ONE; rows]).unwrap();
            decoder.decode(&empty, 0..rows, &mut []).unwrap();
        }
    }
}

#[test]
fn f16_output_is_rounded_to_nearest_even_and_bands_are_independent() {
    let footprint = Footprint::new(6, 6).unwrap();
    let luminance = Luminance::new(footprint);
    let mut rng = Pcg64Mcg::seed_from_u64(4);
    // Odd sizes: the last word holds one value.
    let matrix = Matrix::new((501, 333), footprint, &mut rng, |rng| luminance.block(rng));
    for decoder in all_decoders() {
        let uploaded = decoder.upload(matrix.grid, &matrix.blocks, &matrix.scales).unwrap();
        let rows = 7..400;
        let (first, last) = (rows.start * 333, rows.end * 333);
        let expected = &matrix.reference(decoder.path().mode())[first..last];

        let mut halves = vec![f16::NAN; expected.len()];
        decoder.decode_f16(&uploaded, rows.clone(), &mut halves).unwrap();
        let wrong =
            expected.iter().zip(&halves).find(|(e, h)| f16::from_f32(**e).to_bits() != h.to_bits());
        assert_eq!(wrong, None, "{}", decoder.path());

        let mut weights = vec![f32::NAN; expected.len()];
        decoder.decode(&uploaded, rows, &mut weights).unwrap();
        assert_eq!(weights, expected);
    }
}

#[test]
fn known_blocks_pass_on_every_adapter_and_path() {
    for gpu in gpus() {
        let found = gpu.self_test().unwrap();
        if !gpu.info().astc {
            let no_astc = Verdict::Refused("it reports no ASTC textures".to_owned());
            assert_eq!(found.ldr, no_astc);
        }
        if let Some(reason) = found.refusal() {
            println!("{}: {reason}", gpu.info().label());
            let sampled = GpuDecoder::choose(gpu, PathChoice::Sampled, DecodeMode::Fp16);
            assert!(matches!(sampled, Err(GpuError::Refused { .. })));
        }
        for mode in MODES {
            let decoder = GpuDecoder::choose(gpu, PathChoice::Computed, mode).unwrap();
            assert_eq!(decoder.path(), DecodePath::Computed(mode));
            let auto = GpuDecoder::choose(gpu, PathChoice::Auto, mode).unwrap();
            let sampled = found.sampled_mode(mode).map(DecodePath::Sampled);
            assert_eq!(auto.path(), sampled.unwrap_or(DecodePath::Computed(mode)));
        }
    }
}

#[test]
fn what_does_not_fit_and_a_lost_device_are_errors() {
    let footprint = Footprint::new(6, 6).unwrap();
    for gpu in open_all() {
        for decoder in decoders(&gpu) {
            let short = decoder.upload(BlockGrid::new(6, 6, footprint), &[0; 15], &[f16::ONE; 6]);
            assert!(matches!(short, Err(GpuError::Shape(_))), "{short:?}");

            let info = gpu.info();
            let cols = match decoder.path() {
                DecodePath::Sampled(_) => {
                    let a_layer = info.max_texture_dimension as usize / 6;
                    (a_layer * info.max_texture_layers as usize + 1) * 6
                }
                DecodePath::Computed(_) => (info.max_storage_bytes as usize / 16 + 1) * 6,
            };
            if cols < 1 << 26 {
                let grid = BlockGrid::new(1, cols, footprint);
                let large = decoder.upload(grid, &vec![0; grid.byte_len()], &[f16::ONE]);
                assert!(matches!(large, Err(GpuError::OverLimit { .. })), "{large:?}");
            }
        }

        let decoder = GpuDecoder::new(&gpu, DecodePath::Computed(DecodeMode::Unorm8)).unwrap();
        let grid = BlockGrid::new(6, 6, footprint);
        let matrix = decoder.upload(grid, &[0; 16], &[f16::ONE; 6]).unwrap();
        gpu.destroy();
        let lost = decoder.decode(&matrix, 0..6, &mut [0.0; 36]);
        assert!(matches!(lost, Err(GpuError::DeviceLost { .. })), "{lost:?}");
        let lost = decoder.upload(grid, &[0; 16], &[f16::ONE; 6]);
        assert!(matches!(lost, Err(GpuError::DeviceLost { .. })), "{lost:?}");
    }
}

#[test]
fn adapters_are_found_by_index_and_by_backend_or_name() {
    let all = GpuAdapter::all();
    for adapter in &all {
        let info = adapter.info();
        let by_index = GpuAdapter::find(Some(&info.index.to_string())).unwrap();
        assert_eq!(by_index.info(), info);
        let by_label = GpuAdapter::find(Some(&info.label().to_uppercase())).unwrap();
        assert_eq!(by_label.info().label(), info.label());
    }
    match GpuAdapter::find(Some("no such adapter")) {
        Err(GpuError::NoAdapter) => assert!(all.is_empty()),
        Err(GpuError::UnknownAdapter { wanted, seen }) => {
            assert_eq!((wanted.as_str(), seen.len()), ("no such adapter", all.len()));
        }
        other => panic!("{other:?}"),
    }
}
