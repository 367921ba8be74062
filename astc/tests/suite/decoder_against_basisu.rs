//! The reference decoder against a second independent one, the port of Basis Universal's.

use crate::random_blocks::Blocks;
use basisu::astc::decode::{decode_block_hdr16, decode_block_ldr8};
use basisu::astc::unpack::unpack_block;
use compress_model_astc::Footprint;
use compress_model_astc::decode::{Profile, decode_fp16, decode_unorm8};
use half::f16;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

const HDR_MODES: [u8; 6] = [2, 3, 7, 11, 14, 15];

fn compare(block: [u8; 16], footprint: Footprint) {
    let (width, height) = (footprint.width() as u32, footprint.height() as u32);
    let fields = unpack_block(&block, width, height);
    let context = format!("{footprint} {:#034x}", u128::from_le_bytes(block));

    let mut fp16 = vec![[f16::ZERO; 4]; footprint.texels()];
    let legal = decode_fp16(block, footprint, Profile::Hdr, &mut fp16);
    if fields.is_none() && legal.is_ok() && block[0] == 0xFC {
        // basisu rejects a void extent that holds infinity or NaN; astcenc passes it on, as we do.
        assert!(fp16[0].iter().any(|c| !c.is_finite()), "{context}");
        return;
    }
    assert_eq!(legal.is_ok(), fields.is_some(), "{context}: {legal:?}");
    let Some(fields) = fields else { return };
    let mut want = vec![[0; 4]; footprint.texels()];
    decode_block_hdr16(&fields, width, height, &mut want).unwrap();
    for (got, want) in fp16.iter().zip(&want) {
        assert_eq!(got.map(f16::to_bits), *want, "{context}");
    }

    let mut unorm8 = vec![[0; 4]; footprint.texels()];
    let legal = decode_unorm8(block, footprint, &mut unorm8);
    let mut want = vec![[0; 4]; footprint.texels()];
    if decode_block_ldr8(&fields, width, height, false, &mut want).is_some() {
        assert_eq!(unorm8, want, "{context}");
    } else {
        let partitions = fields.num_partitions as usize;
        let modes = &fields.color_endpoint_modes[..partitions];
        assert!(legal.is_err() || modes.iter().any(|mode| HDR_MODES.contains(mode)), "{context}");
    }
}

#[test]
fn random_blocks_decode_alike() {
    for (seed, footprint) in Footprint::ALL.into_iter().enumerate() {
        let blocks = Blocks::new(footprint);
        let mut rng = Pcg64Mcg::seed_from_u64(seed as u64);
        for _ in 0..3_000 {
            let bits = match rng.random_range(0..8) {
                0..5 => blocks.legal(&mut rng).0,
                5..7 => Blocks::noise(&mut rng),
                _ => Blocks::void_extent(&mut rng),
            };
            compare(bits.to_le_bytes(), footprint);
        }
    }
}
