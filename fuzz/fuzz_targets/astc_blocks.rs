//! Any sixteen bytes as an ASTC block of each footprint, and any eight as a BC4 block: finite
//! weights in range, or an error.
#![no_main]

use compress_model_astc::encode::Preset;
use compress_model_astc::{
    BlockGrid, Coder, DecodeMode, Encoder, Footprint, Params, RowScale, bc4, hdr,
};
use compress_model_fuzz as _;
use half::f16;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&kind, blocks)) = data.split_first() else { return };
    let footprint = Footprint::ALL[kind as usize % Footprint::ALL.len()];
    let (width, height) = (footprint.width(), footprint.height());
    let count = blocks.len() / 16;
    if count == 0 {
        return;
    }
    let (rows, cols) = (height, width * count.min(16));
    let bytes = &blocks[..BlockGrid::new(rows, cols, footprint).byte_len()];
    let scales = vec![f16::ONE; rows];
    let mut out = vec![0.0; rows * cols];
    let encoder = Encoder::Native(Preset::Fast, RowScale::FullRange);
    for decode in [DecodeMode::Unorm8, DecodeMode::Fp16] {
        let params = Params { footprint, decode, encoder };
        let mut coder = Coder::new(params).expect("a coder");
        if coder.decode_rows(bytes, &scales, rows, cols, &mut out).is_ok() {
            assert!(out.iter().all(|w| (-1.0..=1.0).contains(w)), "{out:?}");
        }
    }
    let offsets = vec![f16::ONE; cols / width];
    let _ = hdr::HdrDecoder::new(footprint).decode_rows(bytes, &offsets, rows, cols, &mut out);
    let block: [u8; 8] = bytes[..8].try_into().expect("eight bytes");
    let decoded = bc4::decode_block(block, bc4::DecodeMode::Unorm8);
    assert!(decoded.iter().all(|t| (0.0..=1.0).contains(t)), "{decoded:?}");
});
