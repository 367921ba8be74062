//! The reference decoder against ARM's astcenc, bit for bit.
//!
//! The full run, one million blocks a footprint:
//! `cargo test --release -p compress-model-astc --test suite decoder_against_astcenc:: -- --ignored --nocapture`

use std::collections::BTreeSet;

use crate::astcenc::Astcenc;
use crate::random_blocks::{Blocks, Fields};
use compress_model_astc::Footprint;
use compress_model_astc::decode::{Profile, decode_fp16, decode_unorm8};
use ctt_astcenc::{Flags, Profile as ArmProfile};
use half::f16;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

const BATCH: usize = 1000;

/// What a run has compared.
#[derive(Default)]
struct Tally {
    blocks: usize,
    illegal: usize,
    hdr_only: usize,
    formats: BTreeSet<(usize, u8)>,
    endpoint_levels: BTreeSet<u32>,
    weights: BTreeSet<(u32, bool)>,
}

impl Tally {
    fn add_fields(&mut self, fields: &Fields) {
        let Fields { mode, partitions, formats, endpoints } = *fields;
        self.formats.extend(formats[..partitions].iter().map(|&format| (partitions, format)));
        self.endpoint_levels.insert(endpoints.levels());
        self.weights.insert((mode.weights.levels(), mode.dual_plane));
    }
}

/// Five eighths legal structured blocks, a quarter noise, an eighth void extents.
fn batch(blocks: &Blocks, rng: &mut Pcg64Mcg, tally: &mut Tally) -> Vec<u128> {
    (0..BATCH)
        .map(|_| match rng.random_range(0..8) {
            0..5 => {
                let (bits, fields) = blocks.legal(rng);
                tally.add_fields(&fields);
                bits
            }
            5..7 => Blocks::noise(rng),
            _ => Blocks::void_extent(rng),
        })
        .collect()
}

fn compare(footprint: Footprint, count: usize, seed: u64) -> Tally {
    let unorm8 = Flags::USE_DECODE_UNORM8;
    let mut arm_unorm8 = Astcenc::new(footprint, ArmProfile::Ldr, unorm8);
    let mut arm_ldr = Astcenc::new(footprint, ArmProfile::Ldr, Flags::empty());
    let mut arm_hdr = Astcenc::new(footprint, ArmProfile::Hdr, Flags::empty());
    let blocks = Blocks::new(footprint);
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let mut tally = Tally::default();

    let mut out_unorm8 = vec![[0; 4]; footprint.texels()];
    let mut out_fp16 = vec![[f16::ZERO; 4]; footprint.texels()];
    while tally.blocks < count {
        let batch = batch(&blocks, &mut rng, &mut tally);
        let bytes: Vec<u8> = batch.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let want_unorm8 = arm_unorm8.decode_u8(&bytes);
        let want_ldr = arm_ldr.decode_fp16(&bytes);
        let want_hdr = arm_hdr.decode_fp16(&bytes);
        for (index, bits) in batch.iter().enumerate() {
            let block = bits.to_le_bytes();
            let at = |texel: usize| {
                let (y, x) = (texel / footprint.width(), texel % footprint.width());
                (y * BATCH + index) * footprint.width() + x
            };
            let ldr = decode_unorm8(block, footprint, &mut out_unorm8);
            for (texel, got) in out_unorm8.iter().enumerate() {
                assert_eq!(*got, want_unorm8[at(texel)], "{footprint} unorm8 {bits:#034x}");
            }
            let same = decode_fp16(block, footprint, Profile::Ldr, &mut out_fp16);
            assert_eq!(ldr, same);
            for (texel, got) in out_fp16.iter().enumerate() {
                let want = magenta_if_nan(want_ldr[at(texel)]);
                assert_eq!(got.map(f16::to_bits), want, "{footprint} fp16 {bits:#034x}");
            }
            let hdr = decode_fp16(block, footprint, Profile::Hdr, &mut out_fp16);
            for (texel, got) in out_fp16.iter().enumerate() {
                let want = want_hdr[at(texel)].map(f16::from_bits);
                let same = got.iter().zip(want).all(|(g, w)| same_hdr(*g, w));
                assert!(same, "{footprint} hdr {bits:#034x}: {got:?} {want:?}");
            }
            tally.illegal += usize::from(hdr.is_err());
            tally.hdr_only += usize::from(ldr.is_err() && hdr.is_ok());
            tally.blocks += 1;
        }
    }
    tally
}

/// Equal bits, or NaN in both. A void extent may hold negative fp16; astcenc's x86 builds
/// saturate those to NaN on their way through a signed 16-bit pack.
fn same_hdr(got: f16, want: f16) -> bool {
    got.to_bits() == want.to_bits() || ((got.is_nan() || got.is_sign_negative()) && want.is_nan())
}

/// astcenc keeps errors as NaN outside 8-bit images; the standard's LDR error colour is magenta.
fn magenta_if_nan(texel: [u16; 4]) -> [u16; 4] {
    if f16::from_bits(texel[0]).is_nan() { [0x3C00, 0, 0x3C00, 0x3C00] } else { texel }
}

#[test]
fn random_blocks_decode_alike() {
    for (seed, footprint) in Footprint::ALL.into_iter().enumerate() {
        let tally = compare(footprint, 10_000, seed as u64);
        assert!(tally.illegal > 100 && tally.illegal < tally.blocks / 2, "{}", tally.illegal);
    }
}

#[test]
#[ignore = "minutes: the full-size run"]
fn a_million_random_blocks_a_footprint_decode_alike() {
    for (seed, footprint) in Footprint::ALL.into_iter().enumerate() {
        let tally = compare(footprint, 1_000_000, 1000 + seed as u64);
        println!(
            "{footprint}: {} blocks equal in unorm8, fp16 and HDR fp16; {} illegal, {} void extents \
             legal in HDR only; {} of 56 (partitions, endpoint mode), {} of 17 endpoint ranges, {} \
             (weight range, planes)",
            tally.blocks,
            tally.illegal,
            tally.hdr_only,
            tally.formats.len(),
            tally.endpoint_levels.len(),
            tally.weights.len()
        );
        assert!(tally.formats.len() >= 52);
    }
}
