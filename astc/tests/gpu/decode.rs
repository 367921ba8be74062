//! The GPU against the CPU reference, on every adapter of this machine.

use std::ops::Range;
use std::sync::LazyLock;

use crate::adapters::{decoders, gpus, open_all};
use crate::random_blocks::Blocks;
use compress_model_astc::gpu::{DecodePath, GpuAdapter, GpuDecoder, GpuError, PathChoice, Verdict};
use compress_model_astc::tables::{BlockMode, Quant};
use compress_model_astc::{BlockGrid, DecodeMode, Footprint, TexelMode, TextureCodec, bc4};
use half::f16;
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Every path of every adapter for a codec; its shaders are compiled once.
fn all_decoders(codec: TextureCodec) -> impl Iterator<Item = &'static GpuDecoder<'static>> {
    static DECODERS: LazyLock<Vec<GpuDecoder<'static>>> =
        LazyLock::new(|| gpus().iter().flat_map(decoders).collect());
    DECODERS.iter().filter(move |decoder| decoder.path().mode().codec() == codec)
}

struct Matrix {
    grid: BlockGrid,
    blocks: Vec<u8>,
    /// Scales or offsets.
    side: Vec<f16>,
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
        Self { grid, blocks, side: random_scales(rows, rng) }
    }

    /// The same blocks with an offset each, as HDR has them.
    fn with_offsets(self, rng: &mut Pcg64Mcg) -> Self {
        let offset = |_| f16::from_f32(rng.random_range(-2.0..2.0));
        Self { side: (0..self.grid.block_count()).map(offset).collect(), ..self }
    }

    /// A matrix of random BC4 blocks: every block is legal.
    fn bc4((rows, cols): (usize, usize), rng: &mut Pcg64Mcg) -> Self {
        let grid = BlockGrid::new(rows, cols, bc4::footprint());
        let mut blocks = vec![0; bc4::byte_len(rows, cols)];
        rng.fill(&mut blocks[..]);
        Self { grid, blocks, side: random_scales(rows, rng) }
    }

    fn reference(&self, mode: TexelMode) -> Vec<f32> {
        let mut out = vec![0.0; self.grid.rows * self.grid.cols];
        mode.decode_rows(&self.grid, &self.blocks, &self.side, &mut out).unwrap();
        out
    }

    /// Compares a GPU's weights with the CPU's, bit for bit.
    fn check(&self, decoder: &GpuDecoder<'_>, expected: &[f32]) {
        self.check_rows(decoder, expected, 0..self.grid.rows);
    }

    /// As [`check`](Self::check) for some of the rows; returns how many weights they have.
    fn check_rows(&self, decoder: &GpuDecoder<'_>, expected: &[f32], rows: Range<usize>) -> usize {
        let cols = self.grid.cols;
        let matrix = decoder.upload(self.grid, &self.blocks, &self.side).unwrap();
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

/// Scales of every size, some of them 0.
fn random_scales(rows: usize, rng: &mut Pcg64Mcg) -> Vec<f16> {
    let bits = |row| if row % 7 == 3 { 0 } else { rng.random_range(1..0x7C00) };
    (0..rows).map(bits).map(f16::from_bits).collect()
}

/// Legal one-plane luminance blocks of a footprint: what a weight encoder may write.
struct Luminance {
    /// Block mode, and partitions.
    kinds: Vec<(u16, usize)>,
}

/// Endpoint modes of HDR luminance.
const HDR_FORMATS: [u8; 2] = [2, 3];

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
        self.block_of(0, rng)
    }

    /// A block with HDR endpoints, large or small range in all partitions.
    fn hdr_block(&self, rng: &mut impl Rng) -> u128 {
        self.block_of(HDR_FORMATS[rng.random_range(0..2)], rng)
    }

    fn block_of(&self, format: u8, rng: &mut impl Rng) -> u128 {
        let (mode, partitions) = self.kinds[rng.random_range(0..self.kinds.len())];
        let (hole, place) = if partitions == 1 { (0xF << 13, 13) } else { (0x3F << 23, 25) };
        let noise = rng.random::<u128>() & !hole & !0x1FFF;
        noise | u128::from(format) << place | (partitions as u128 - 1) << 11 | u128::from(mode)
    }
}

/// Decodes a matrix along every path for its codec and compares. Software renderers sample fast
/// and compute slowly: each computes a part, all of it together.
fn check_everywhere(codec: TextureCodec, matrix: &Matrix) {
    let computing = |d: &GpuDecoder<'_>| matches!(d.path(), DecodePath::Computed(_));
    let parts = all_decoders(codec).filter(|d| computing(d)).count().max(1);
    let (strips, height) = (matrix.grid.blocks_down(), matrix.grid.footprint.height());
    let mut part = 0;
    for &mode in codec.modes() {
        let reference = matrix.reference(mode);
        for decoder in all_decoders(codec).filter(|d| d.path().mode() == mode) {
            let strips = if computing(decoder) {
                part += 1;
                (part - 1) * strips / parts..part * strips / parts
            } else {
                0..strips
            };
            let rows = strips.start * height..matrix.grid.rows.min(strips.end * height);
            let count = matrix.check_rows(decoder, &reference, rows);
            let (label, codec) = (decoder.gpu().info().label(), codec.title());
            println!("{label}, {codec} {}: {count} weights, 0 differ", decoder.path());
        }
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
    check_everywhere(TextureCodec::Astc, &matrix);
}

#[test]
fn a_million_hdr_blocks_decode_as_on_the_cpu() {
    let footprint = Footprint::new(6, 6).unwrap();
    let luminance = Luminance::new(footprint);
    let mut rng = Pcg64Mcg::seed_from_u64(6);
    // 1000 x 1002 blocks, cut by both edges.
    let matrix = Matrix::new((5999, 6011), footprint, &mut rng, |rng| luminance.hdr_block(rng));
    check_everywhere(TextureCodec::AstcHdr, &matrix.with_offsets(&mut rng));
}

#[test]
fn every_kind_of_hdr_block_but_colours_decodes_as_on_the_cpu_in_every_footprint() {
    let mut rng = Pcg64Mcg::seed_from_u64(7);
    for footprint in Footprint::ALL {
        let (luminance, blocks) = (Luminance::new(footprint), Blocks::new(footprint));
        let size = (20 * footprint.height() - 1, 20 * footprint.width() - 3);
        let matrix = Matrix::new(size, footprint, &mut rng, |rng| match rng.random_range(0..8) {
            // fp16 of every kind but NaN, whose bits are nobody's business.
            0 => {
                let half = rng.random_range(0..0x7C00) | u128::from(rng.random::<bool>()) << 15;
                (half * 0x0001_0001_0001_0001) << 64 | 0xFFFF_FFFF_FFFF_FFFC
            }
            1..4 => luminance.hdr_block(rng),
            _ => loop {
                let (block, fields) = blocks.legal(rng);
                let colours = |f: &u8| matches!(f, 7 | 11 | 14 | 15);
                if !fields.formats[..fields.partitions].iter().any(colours) {
                    break block;
                }
            },
        });
        let matrix = matrix.with_offsets(&mut rng);
        for decoder in all_decoders(TextureCodec::AstcHdr) {
            matrix.check(decoder, &matrix.reference(decoder.path().mode()));
        }
        // An illegal block is NaN, and its neighbours are not.
        let mut broken = matrix;
        broken.blocks[..16].fill(0);
        for decoder in all_decoders(TextureCodec::AstcHdr) {
            let cols = broken.grid.cols;
            let uploaded = decoder.upload(broken.grid, &broken.blocks, &broken.side).unwrap();
            let mut found = vec![0.0; cols];
            decoder.decode(&uploaded, 0..1, &mut found).unwrap();
            let (first, rest) = found.split_at(footprint.width());
            assert!(first.iter().all(|w| w.is_nan()) && rest.iter().all(|w| !w.is_nan()));
        }
    }
}

#[test]
fn a_million_bc4_blocks_decode_as_on_the_cpu() {
    let mut rng = Pcg64Mcg::seed_from_u64(5);
    // 1000 x 1002 blocks, cut by both edges.
    let matrix = Matrix::bc4((3999, 4007), &mut rng);
    assert!(matrix.grid.block_count() > 1_000_000);
    check_everywhere(TextureCodec::Bc4, &matrix);
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
        for decoder in all_decoders(TextureCodec::Astc) {
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
    for codec in TextureCodec::ALL {
        let mut matrix = |size| match codec {
            TextureCodec::Astc => {
                Matrix::new(size, footprint, &mut rng, |rng| luminance.block(rng))
            }
            TextureCodec::AstcHdr => {
                Matrix::new(size, footprint, &mut rng, |rng| luminance.hdr_block(rng))
                    .with_offsets(&mut rng)
            }
            TextureCodec::Bc4 => Matrix::bc4(size, &mut rng),
        };
        for decoder in all_decoders(codec) {
            let limit = decoder.gpu().info().max_texture_dimension as usize;
            let wide = (3, 2 * limit + 1);
            let tall = (2 * limit + 1, 2);
            // Six square layers would be a cube for the GL backend.
            let sizes = [(1, 1), (1, 1000), (1000, 1), (5, 8), (7, 13), (6 * 40, 40), wide, tall];
            for matrix in sizes.map(&mut matrix) {
                matrix.check(decoder, &matrix.reference(decoder.path().mode()));
            }
            for (rows, cols) in [(0, 9), (9, 0), (0, 0)] {
                let grid = matrix((rows, cols)).grid;
                let side = vec![f16::ONE; codec.side_count(&grid)];
                let empty = decoder.upload(grid, &[], &side).unwrap();
                decoder.decode(&empty, 0..rows, &mut []).unwrap();
            }
        }
    }
}

#[test]
fn f16_output_is_rounded_to_nearest_even_and_bands_are_independent() {
    let footprint = Footprint::new(6, 6).unwrap();
    let luminance = Luminance::new(footprint);
    let mut rng = Pcg64Mcg::seed_from_u64(4);
    // Odd sizes: the last word holds one value.
    let size = (501, 333);
    let astc = Matrix::new(size, footprint, &mut rng, |rng| luminance.block(rng));
    let hdr = Matrix::new(size, footprint, &mut rng, |rng| luminance.hdr_block(rng));
    let hdr = hdr.with_offsets(&mut rng);
    let bc4 = Matrix::bc4(size, &mut rng);
    for (codec, matrix) in TextureCodec::ALL.into_iter().zip([astc, hdr, bc4]) {
        for decoder in all_decoders(codec) {
            let uploaded = decoder.upload(matrix.grid, &matrix.blocks, &matrix.side).unwrap();
            let rows = 7..400;
            let (first, last) = (rows.start * 333, rows.end * 333);
            let expected = &matrix.reference(decoder.path().mode())[first..last];

            let mut halves = vec![f16::NAN; expected.len()];
            decoder.decode_f16(&uploaded, rows.clone(), &mut halves).unwrap();
            let differ = |(e, h): &(&f32, &f16)| f16::from_f32(**e).to_bits() != h.to_bits();
            let wrong = expected.iter().zip(&halves).find(differ);
            assert_eq!(wrong, None, "{}", decoder.path());

            let mut weights = vec![f32::NAN; expected.len()];
            decoder.decode(&uploaded, rows, &mut weights).unwrap();
            assert_eq!(weights, expected);
        }
    }
}

#[test]
fn known_blocks_pass_on_every_adapter_and_path() {
    for gpu in gpus() {
        let found = gpu.self_test().unwrap();
        for codec in TextureCodec::ALL {
            let title = codec.title();
            println!("{}: {title}: {:?}", gpu.info().label(), found.of(codec));
            if !gpu.info().reports(codec) {
                let none = Verdict::Refused(format!("it reports no {title} textures"));
                assert_eq!(found.of(codec), &none);
            }
            if found.refusal(codec).is_some() {
                let sampled = GpuDecoder::choose(gpu, PathChoice::Sampled, codec.modes()[0]);
                assert!(matches!(sampled, Err(GpuError::Refused { .. })));
            }
            for &mode in codec.modes() {
                let decoder = GpuDecoder::choose(gpu, PathChoice::Computed, mode).unwrap();
                assert_eq!(decoder.path(), DecodePath::Computed(mode));
                let auto = GpuDecoder::choose(gpu, PathChoice::Auto, mode).unwrap();
                let sampled = found.sampled_mode(mode).map(DecodePath::Sampled);
                assert_eq!(auto.path(), sampled.unwrap_or(DecodePath::Computed(mode)));
            }
        }
    }
}

#[test]
fn what_does_not_fit_and_a_lost_device_are_errors() {
    let footprint = Footprint::new(6, 6).unwrap();
    for gpu in open_all() {
        for decoder in decoders(&gpu) {
            let codec = decoder.path().mode().codec();
            let footprint = *codec.footprints().last().unwrap();
            let (width, height) = (footprint.width(), footprint.height());
            let block = vec![0; codec.block_bytes()];
            let grid = BlockGrid::new(height, width, footprint);
            let side = vec![f16::ONE; codec.side_count(&grid)];
            let short = decoder.upload(grid, &block[1..], &side);
            assert!(matches!(short, Err(GpuError::Shape(_))), "{short:?}");
            let short = decoder.upload(grid, &block, &side[1..]);
            assert!(matches!(short, Err(GpuError::Shape(_))), "{short:?}");

            let info = gpu.info();
            let cols = match decoder.path() {
                DecodePath::Sampled(_) => {
                    let a_layer = info.max_texture_dimension as usize / width;
                    (a_layer * info.max_texture_layers as usize + 1) * width
                }
                DecodePath::Computed(_) => {
                    (info.max_storage_bytes as usize / codec.block_bytes() + 1) * width
                }
            };
            if cols < 1 << 28 {
                let grid = BlockGrid::new(1, cols, footprint);
                let bytes = vec![0; grid.block_count() * codec.block_bytes()];
                let large = decoder.upload(grid, &bytes, &vec![f16::ONE; codec.side_count(&grid)]);
                assert!(matches!(large, Err(GpuError::OverLimit { .. })), "{large:?}");
            }
        }
        let bc4 = GpuDecoder::new(&gpu, DecodePath::Computed(bc4::DecodeMode::Exact.into()));
        let other = bc4.unwrap().upload(BlockGrid::new(6, 6, footprint), &[0; 8], &[f16::ONE; 6]);
        assert!(matches!(other, Err(GpuError::Footprint(_))), "{other:?}");

        let path = DecodePath::Computed(DecodeMode::Unorm8.into());
        let decoder = GpuDecoder::new(&gpu, path).unwrap();
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
fn a_device_lost_under_a_working_thread_is_an_error_and_no_hang() {
    for gpu in open_all() {
        for decoder in decoders(&gpu).into_iter().take(1) {
            let footprint = *decoder.path().mode().codec().footprints().first().unwrap();
            let grid = BlockGrid::new(40, 400, footprint);
            let bytes = grid.block_count() * decoder.path().mode().codec().block_bytes();
            let matrix = decoder.upload(grid, &vec![0; bytes], &[f16::ONE; 40]).unwrap();
            let (started, seen) = std::sync::mpsc::channel();
            let (gpu, decoder) = (&gpu, &decoder);
            let found = std::thread::scope(|scope| {
                let worker = scope.spawn(move || {
                    let mut out = vec![0.0; 40 * 400];
                    (0..1_000_000).find_map(|_| {
                        let decoded = decoder.decode(&matrix, 0..40, &mut out);
                        let _ = started.send(());
                        decoded.err()
                    })
                });
                // In the middle of the work: some rounds have gone well.
                (0..5).for_each(|_| seen.recv().unwrap());
                gpu.destroy();
                worker.join().unwrap()
            });
            assert!(matches!(found, Some(GpuError::DeviceLost { .. })), "{found:?}");
        }
    }
}

#[test]
fn adapters_are_found_by_index_and_by_backend_or_name() {
    let all = GpuAdapter::all();
    for adapter in &all {
        let info = adapter.info();
        let by_index = GpuAdapter::find(Some(&info.index.to_string()), &[]).unwrap();
        assert_eq!(by_index.info(), info);
        let by_label = GpuAdapter::find(Some(&info.label().to_uppercase()), &[]).unwrap();
        assert_eq!(by_label.info().label(), info.label());
    }
    match GpuAdapter::find(Some("no such adapter"), &[]) {
        Err(GpuError::NoAdapter) => assert!(all.is_empty()),
        Err(GpuError::UnknownAdapter { wanted, seen }) => {
            assert_eq!((wanted.as_str(), seen.len()), ("no such adapter", all.len()));
        }
        other => panic!("{other:?}"),
    }
}
