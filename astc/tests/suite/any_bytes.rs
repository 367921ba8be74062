//! Any 16 bytes decode without a panic, and the weight path agrees with the reference decoder.

use compress_model_astc::decode::{Profile, decode_fp16, decode_unorm8};
use compress_model_astc::{ArmQuality, Coder, DecodeMode, Encoder, Footprint, Params};
use half::f16;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

fn weights(block: [u8; 16], footprint: Footprint, decode: DecodeMode) -> Vec<f32> {
    let encoder = Encoder::Arm(ArmQuality::Fastest);
    let mut coder = Coder::new(Params { footprint, decode, encoder }).unwrap();
    let (rows, cols) = (footprint.height(), footprint.width());
    let mut out = vec![f32::NAN; rows * cols];
    coder.decode_rows(&block, &vec![f16::ONE; rows], rows, cols, &mut out).unwrap();
    out
}

fn check(bits: u128, footprint: Footprint) -> Result<(), TestCaseError> {
    let block = bits.to_le_bytes();
    let mut unorm8 = vec![[0; 4]; footprint.texels()];
    let legal = decode_unorm8(block, footprint, &mut unorm8);
    for (got, texel) in weights(block, footprint, DecodeMode::Unorm8).iter().zip(&unorm8) {
        prop_assert_eq!(*got, 2.0 * (f32::from(texel[0]) / 255.0) - 1.0);
        prop_assert!(legal.is_ok() || *texel == [255, 0, 255, 255]);
    }
    let mut fp16 = vec![[f16::ZERO; 4]; footprint.texels()];
    prop_assert_eq!(decode_fp16(block, footprint, Profile::Ldr, &mut fp16), legal);
    for (got, texel) in weights(block, footprint, DecodeMode::Fp16).iter().zip(&fp16) {
        prop_assert_eq!(*got, 2.0 * texel[0].to_f32() - 1.0);
        prop_assert!(legal.is_ok() || texel.map(f16::to_f32) == [1.0, 0.0, 1.0, 1.0]);
    }
    let _ = decode_fp16(block, footprint, Profile::Hdr, &mut fp16);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bits_decode(bits: u128, index in 0..Footprint::ALL.len()) {
        check(bits, Footprint::ALL[index])?;
    }

    #[test]
    fn luminance_blocks_decode(seed: u64, index in 0..Footprint::ALL.len()) {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let footprint = Footprint::ALL[index];
        check(crate::random_blocks::luminance(footprint, &mut rng), footprint)?;
    }
}

#[test]
fn every_block_mode_and_partition_count_decodes_on_extreme_bits() {
    for footprint in Footprint::ALL {
        for low in 0..1 << 13 {
            for fill in [0, u128::MAX] {
                check((fill & !0x1FFF) | low, footprint).unwrap();
            }
        }
    }
}
