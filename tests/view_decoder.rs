//! The JavaScript decoder of the page that `view` writes, bit for bit against the reference
//! decoder. Needs node; without it the test says so and passes, unless
//! `COMPRESS_MODEL_REQUIRE_NODE` is 1.

#![allow(clippy::unwrap_used)]

#[path = "../astc/tests/random_blocks/mod.rs"]
mod random_blocks;
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use compress_model_astc::Footprint;
use compress_model_astc::decode::{Profile, decode_fp16, decode_unorm8};
use half::f16;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use random_blocks::{Blocks, luminance};
use safetensors::SafeTensors;
use support::Workspace;

/// Random blocks of each kind at each footprint.
const BLOCKS: usize = 500;

/// Whether node is there; panics if it has to be.
fn node_is_here() -> bool {
    let found = Command::new("node").arg("--version").output().is_ok_and(|o| o.status.success());
    let required = std::env::var("COMPRESS_MODEL_REQUIRE_NODE").is_ok_and(|v| v == "1");
    assert!(found || !required, "COMPRESS_MODEL_REQUIRE_NODE is 1, but there is no node");
    if !found {
        eprintln!("skipped: no node here");
    }
    found
}

/// Appends a block with what the reference decoder makes of it; `tests/clients/view_decoder.mjs`
/// describes the format.
fn push_case(cases: &mut Vec<u8>, footprint: Footprint, block: [u8; 16], luminance_only: bool) {
    let mut texels = vec![[0; 4]; footprint.texels()];
    let mut halves = vec![[f16::ZERO; 4]; footprint.texels()];
    let legal = decode_unorm8(block, footprint, &mut texels).is_ok();
    let _ = decode_fp16(block, footprint, Profile::Ldr, &mut halves);
    let flags = u8::from(legal) | u8::from(luminance_only) << 1;
    cases.extend([footprint.width() as u8, footprint.height() as u8, flags, 0]);
    cases.extend(block);
    cases.extend(texels.iter().map(|texel| texel[0]));
    cases.extend(halves.iter().flat_map(|texel| texel[0].to_f32().to_le_bytes()));
}

/// Runs the decoder over the cases and returns its counts.
fn run_node(folder: &Path, cases: &[u8]) -> serde_json::Value {
    let file = folder.join("cases.bin");
    fs::write(&file, cases).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("node")
        .arg(root.join("tests/clients/view_decoder.mjs"))
        .arg(root.join("src/view/decoder.js"))
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn random_blocks_of_every_footprint() {
    if !node_is_here() {
        return;
    }
    let mut rng = Pcg64Mcg::seed_from_u64(7);
    let mut cases = Vec::new();
    for footprint in Footprint::ALL {
        let blocks = Blocks::new(footprint);
        for _ in 0..BLOCKS {
            push_case(&mut cases, footprint, luminance(footprint, &mut rng).to_le_bytes(), true);
            let any = [
                Blocks::void_extent(&mut rng),
                Blocks::noise(&mut rng),
                blocks.legal(&mut rng).0,
                without_formats(blocks.legal(&mut rng).0),
            ];
            for bits in any {
                push_case(&mut cases, footprint, bits.to_le_bytes(), false);
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let seen = run_node(folder.path(), &cases);
    println!("{seen}");
    assert_eq!(seen["blocks"], 14 * 5 * BLOCKS);
    // Most of the luminance blocks and those without formats are legal.
    assert!(seen["texels"].as_u64().unwrap() > 14 * 20 * BLOCKS as u64, "{seen}");
}

/// The block with its endpoint modes set to luminance, two planes of weights included.
fn without_formats(bits: u128) -> u128 {
    let one_partition = bits >> 11 & 3 == 0;
    bits & !if one_partition { 0xF << 13 } else { 0x3F << 23 }
}

#[test]
fn blocks_that_the_encoder_wrote() {
    if !node_is_here() {
        return;
    }
    let workspace = Workspace::with_tiny_llama(1);
    workspace.run("compress", "model", &["-o", "out", "--preset", "server"]).ok();
    let bytes = fs::read(workspace.path("out").join("model.safetensors")).unwrap();
    let footprint = Footprint::new(6, 6).unwrap();
    let mut cases = Vec::new();
    for (_, tensor) in
        SafeTensors::deserialize(&bytes).unwrap().iter().filter(|(n, _)| n.ends_with(".blocks"))
    {
        for block in tensor.data().chunks_exact(16) {
            push_case(&mut cases, footprint, block.try_into().unwrap(), true);
        }
    }
    let seen = run_node(&workspace.path(""), &cases);
    println!("{seen}");
    assert!(seen["blocks"].as_u64().unwrap() > 1000, "{seen}");
    assert_eq!((&seen["illegal"], &seen["unsupported"]), (&0.into(), &0.into()));
}
