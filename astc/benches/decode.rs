//! Decoding 6x6 blocks that ARM's encoder made from Gaussian weights: ours against astcenc's own
//! decompressor, one core, elements are weights.

use std::hint::black_box;

use compress_model_astc::{ArmQuality, BlockGrid, Coder, DecodeMode, Encoder, Footprint, Params};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ctt_astcenc::bindings::{
    astcenc_image, astcenc_type, astcenc_type_ASTCENC_TYPE_F16, astcenc_type_ASTCENC_TYPE_F32,
    astcenc_type_ASTCENC_TYPE_U8,
};
use ctt_astcenc::{Context, Flags, Preset, Profile, Swizzle, config_init};
use half::f16;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64Mcg;

const ROWS: usize = 384;
const COLS: usize = 4096;

fn gaussian_blocks(params: Params) -> (Vec<u8>, Vec<f16>) {
    let w: Vec<f32> =
        StandardNormal.sample_iter(Pcg64Mcg::seed_from_u64(7)).take(ROWS * COLS).collect();
    let mut blocks = vec![0; BlockGrid::new(ROWS, COLS, params.footprint).byte_len()];
    let mut scales = vec![f16::ZERO; ROWS];
    let mut coder = Coder::new(params).expect("coder");
    coder.encode_rows(&w, ROWS, COLS, &mut blocks, &mut scales).expect("encode");
    (blocks, scales)
}

fn astcenc_decode(
    context: &mut Context,
    blocks: &[u8],
    data_type: astcenc_type,
    texels: &mut [u8],
) {
    let mut plane = texels.as_mut_ptr().cast();
    let mut image = astcenc_image {
        dim_x: COLS as u32,
        dim_y: ROWS as u32,
        dim_z: 1,
        data_type,
        data: &mut plane,
    };
    context.decompress(blocks, &mut image, Swizzle::IDENTITY).expect("decompress");
    context.decompress_reset().expect("reset");
}

fn decode(c: &mut Criterion) {
    let footprint: Footprint = "6x6".parse().expect("footprint");
    let encoder = Encoder::Arm(ArmQuality::Medium);
    let (blocks, scales) =
        gaussian_blocks(Params { footprint, decode: DecodeMode::Unorm8, encoder });

    let mut group = c.benchmark_group("decode_6x6");
    group.throughput(Throughput::Elements((ROWS * COLS) as u64));
    for (name, decode) in [("ours_unorm8", DecodeMode::Unorm8), ("ours_fp16", DecodeMode::Fp16)] {
        let mut coder = Coder::new(Params { footprint, decode, encoder }).expect("coder");
        let mut out = vec![0.0; ROWS * COLS];
        group.bench_function(name, |b| {
            b.iter(|| {
                coder
                    .decode_rows(black_box(&blocks), &scales, ROWS, COLS, &mut out)
                    .expect("decode");
            });
        });
    }
    for (name, data_type, flags, bytes) in [
        ("astcenc_u8", astcenc_type_ASTCENC_TYPE_U8, Flags::USE_DECODE_UNORM8, 4),
        ("astcenc_f16", astcenc_type_ASTCENC_TYPE_F16, Flags::empty(), 8),
        ("astcenc_f32", astcenc_type_ASTCENC_TYPE_F32, Flags::empty(), 16),
    ] {
        let flags = flags | Flags::DECOMPRESS_ONLY;
        let config =
            config_init(Profile::Ldr, 6, 6, 1, Preset::Fastest, flags).expect("astcenc config");
        let mut context = Context::new(&config).expect("astcenc context");
        let mut texels = vec![0; ROWS * COLS * bytes];
        group.bench_function(name, |b| {
            b.iter(|| astcenc_decode(&mut context, black_box(&blocks), data_type, &mut texels));
        });
    }
    group.finish();
}

/// Footprints with more than 64 texels always, and those above 6x6 mostly, interpolate a coarser
/// grid of weights.
fn footprints(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode_ours_unorm8");
    group.throughput(Throughput::Elements((ROWS * COLS) as u64));
    for name in ["4x4", "5x5", "8x6", "8x8", "12x12"] {
        let params = Params {
            footprint: name.parse().expect("footprint"),
            decode: DecodeMode::Unorm8,
            encoder: Encoder::Arm(ArmQuality::Fastest),
        };
        let (blocks, scales) = gaussian_blocks(params);
        let mut coder = Coder::new(params).expect("coder");
        let mut out = vec![0.0; ROWS * COLS];
        group.bench_function(name, |b| {
            b.iter(|| {
                coder
                    .decode_rows(black_box(&blocks), &scales, ROWS, COLS, &mut out)
                    .expect("decode");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decode, footprints);
criterion_main!(benches);
