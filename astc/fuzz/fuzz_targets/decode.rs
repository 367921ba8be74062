//! Any footprint and any 16 bytes decode without a panic, alike on both paths.
#![no_main]

use compress_model_astc::decode::decode_unorm8;
use compress_model_astc::{ArmQuality, Coder, DecodeMode, Encoder, Footprint, Params};
use half::f16;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, bool, [u8; 16])| {
    let (index, fp16, block) = input;
    let footprint = Footprint::ALL[usize::from(index) % Footprint::ALL.len()];
    let decode = if fp16 { DecodeMode::Fp16 } else { DecodeMode::Unorm8 };
    let encoder = Encoder::Arm(ArmQuality::Fastest);
    let mut coder = Coder::new(Params { footprint, decode, encoder }).expect("coder");
    let (rows, cols) = (footprint.height(), footprint.width());
    let mut weights = vec![0.0; rows * cols];
    coder.decode_rows(&block, &vec![f16::ONE; rows], rows, cols, &mut weights).expect("decode");
    let mut texels = vec![[0; 4]; rows * cols];
    let _ = decode_unorm8(block, footprint, &mut texels);
    for (weight, texel) in weights.iter().zip(&texels) {
        let reference = 2.0 * (f32::from(texel[0]) / 255.0) - 1.0;
        assert!(if fp16 { (weight - reference).abs() < 0.008 } else { *weight == reference });
    }
});
