//! The reference decoder against an installed `astcenc` command, whole images at once.
//!
//! A second opinion by another release and another build of the oracle: Debian 12 packages 4.2
//! for SSE2. `ASTCENC` names the program if it is not in the path.
//! `cargo test -p compress-model-astc --test suite astcenc_command -- --ignored`

use std::path::Path;
use std::process::Command;

use crate::random_blocks::Blocks;
use compress_model_astc::Footprint;
use compress_model_astc::decode::{Profile, decode_fp16};
use half::f16;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

const ACROSS: usize = 64;
const DOWN: usize = 64;

fn random_image(footprint: Footprint, seed: u64) -> Vec<[u8; 16]> {
    let blocks = Blocks::new(footprint);
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let mut block = || match rng.random_range(0..8) {
        0..6 => blocks.legal(&mut rng).0,
        6 => Blocks::noise(&mut rng),
        _ => Blocks::void_extent(&mut rng),
    };
    (0..ACROSS * DOWN).map(|_| block().to_le_bytes()).collect()
}

fn astc_file(footprint: Footprint, blocks: &[[u8; 16]]) -> Vec<u8> {
    let (width, height) = (footprint.width(), footprint.height());
    let mut file = vec![0x13, 0xAB, 0xA1, 0x5C, width as u8, height as u8, 1];
    for size in [ACROSS * width, DOWN * height, 1] {
        file.extend(&(size as u32).to_le_bytes()[..3]);
    }
    file.extend(blocks.as_flattened());
    file
}

/// Texel bytes of the KTX file that `astcenc` makes of the blocks.
fn command_decodes(option: &str, file: &[u8]) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (input, output) = (folder.join("blocks.astc"), folder.join("texels.ktx"));
    std::fs::write(&input, file).unwrap();
    let program = std::env::var("ASTCENC").unwrap_or_else(|_| "astcenc".to_owned());
    let status = Command::new(program)
        .args([option.as_ref(), input.as_os_str(), output.as_os_str(), "-silent".as_ref()])
        .status()
        .expect("the astcenc command");
    assert!(status.success());
    let ktx = std::fs::read(output).unwrap();
    let extra = u32::from_le_bytes(ktx[60..64].try_into().unwrap()) as usize;
    ktx[64 + extra + 4..].to_vec()
}

/// Our texels of the whole image in raster order.
fn ours(footprint: Footprint, blocks: &[[u8; 16]], profile: Profile) -> Vec<[f16; 4]> {
    let (width, height) = (footprint.width(), footprint.height());
    let mut image = vec![[f16::ZERO; 4]; ACROSS * width * DOWN * height];
    let mut texels = vec![[f16::ZERO; 4]; footprint.texels()];
    for (index, &block) in blocks.iter().enumerate() {
        let _ = decode_fp16(block, footprint, profile, &mut texels);
        let (left, top) = (index % ACROSS * width, index / ACROSS * height);
        for (row, texels) in texels.chunks_exact(width).enumerate() {
            image[(top + row) * ACROSS * width + left..][..width].copy_from_slice(texels);
        }
    }
    image
}

#[test]
#[ignore = "needs the astcenc command"]
fn whole_images_decode_alike() {
    for (seed, footprint) in Footprint::ALL.into_iter().enumerate() {
        let blocks = random_image(footprint, seed as u64);
        let file = astc_file(footprint, &blocks);

        // An 8-bit image of the LDR profile: its fp16 texels, rounded to the nearest step.
        let want = command_decodes("-dl", &file);
        let got = ours(footprint, &blocks, Profile::Ldr);
        assert_eq!(want.len(), 4 * got.len());
        for (got, want) in got.iter().zip(want.chunks_exact(4)) {
            let rounded = got.map(|c| (c.to_f32() * 255.0 + 0.5) as u8);
            // 4.2 ends HDR endpoints in LDR at 0xFF00 instead of 0xFFFF.
            let dull_magenta = rounded == [255, 0, 255, 255] && want == [254, 0, 254, 254];
            assert!(dull_magenta || rounded == want, "{footprint} LDR: {rounded:?} {want:?}");
        }

        let want = command_decodes("-dH", &file);
        let got = ours(footprint, &blocks, Profile::Hdr);
        assert_eq!(want.len(), 8 * got.len());
        for (got, want) in got.as_flattened().iter().zip(want.chunks_exact(2)) {
            let want = f16::from_le_bytes([want[0], want[1]]);
            let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
            assert!(same, "{footprint} HDR: {got} {want}");
        }
    }
}
