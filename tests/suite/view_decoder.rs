//! The JavaScript decoders of the page that `view` writes, bit for bit against the reference
//! decoders. Needs node; without it the tests say so and pass, unless
//! `COMPRESS_MODEL_REQUIRE_NODE` is 1.

#[path = "../../astc/tests/random_blocks/mod.rs"]
mod random_blocks;

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Model, Workspace};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use compress_model_astc::decode::{Profile, decode_fp16, decode_unorm8};
use compress_model_astc::{Footprint, bc4};
use half::f16;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use random_blocks::{Blocks, luminance};
use safetensors::SafeTensors;
use serde_json::Value;

/// Random blocks of each kind at each footprint.
const BLOCKS: usize = 500;
/// Random BC4 blocks beside all pairs of ends.
const BC4_BLOCKS: usize = 20_000;

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

/// What tests/clients/view_decoder.mjs prints for a task; that file describes tasks and formats.
fn run_node(task: &str, input: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("node")
        .arg(root.join("tests/clients/view_decoder.mjs"))
        .arg(task)
        .arg(root.join("src/view"))
        .arg(input)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Blocks, and what the reference decoders make of them.
#[derive(Default)]
struct Cases(Vec<u8>);

impl Cases {
    fn head(&mut self, codec: u8, footprint: Footprint, legal: bool, luminance_only: bool) {
        let flags = u8::from(legal) | u8::from(luminance_only) << 1;
        self.0.extend([codec, footprint.width() as u8, footprint.height() as u8, flags]);
    }

    fn texels(&mut self, texels: impl Iterator<Item = f32>) {
        self.0.extend(texels.flat_map(f32::to_le_bytes));
    }

    fn astc(&mut self, footprint: Footprint, block: [u8; 16], luminance_only: bool) {
        let mut texels = vec![[0; 4]; footprint.texels()];
        let mut halves = vec![[f16::ZERO; 4]; footprint.texels()];
        let legal = decode_unorm8(block, footprint, &mut texels).is_ok();
        let _ = decode_fp16(block, footprint, Profile::Ldr, &mut halves);
        self.head(0, footprint, legal, luminance_only);
        self.0.extend(block);
        self.texels(texels.iter().map(|texel| f32::from(texel[0]) / 255.0));
        self.texels(halves.iter().map(|texel| texel[0].to_f32()));
    }

    fn hdr(&mut self, footprint: Footprint, block: [u8; 16], luminance_only: bool) {
        let mut halves = vec![[f16::ZERO; 4]; footprint.texels()];
        let legal = decode_fp16(block, footprint, Profile::Hdr, &mut halves).is_ok();
        self.head(1, footprint, legal, luminance_only);
        self.0.extend(block);
        // JavaScript has one NaN.
        let texel = |texel: &[f16; 4]| if texel[0].is_nan() { f32::NAN } else { texel[0].to_f32() };
        self.texels(halves.iter().map(texel));
    }

    fn bc4(&mut self, block: [u8; 8]) {
        use bc4::DecodeMode::{Exact, Llvmpipe, Unorm8};
        self.head(2, bc4::footprint(), true, true);
        self.0.extend(block);
        for mode in [Exact, Unorm8, Llvmpipe] {
            self.texels(bc4::decode_block(block, mode).into_iter());
        }
    }

    /// Runs the JavaScript decoders over the cases and returns their counts.
    fn run(&self) -> Value {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cases.bin");
        fs::write(&file, &self.0).unwrap();
        let seen = run_node("blocks", &file);
        println!("{}", seen.trim());
        serde_json::from_str(&seen).unwrap()
    }
}

#[test]
fn random_blocks_of_every_footprint() {
    if !node_is_here() {
        return;
    }
    let mut rng = Pcg64Mcg::seed_from_u64(7);
    let mut cases = Cases::default();
    for footprint in Footprint::ALL {
        let blocks = Blocks::new(footprint);
        for _ in 0..BLOCKS {
            cases.astc(footprint, luminance(footprint, &mut rng).to_le_bytes(), true);
            let any = [
                Blocks::void_extent(&mut rng),
                Blocks::noise(&mut rng),
                blocks.legal(&mut rng).0,
                with_format(0, blocks.legal(&mut rng).0),
            ];
            for bits in any {
                cases.astc(footprint, bits.to_le_bytes(), false);
            }
        }
    }
    let seen = cases.run();
    assert_eq!(seen["blocks"], 14 * 5 * BLOCKS);
    // Most of the luminance blocks and those without formats are legal.
    assert!(seen["texels"].as_u64().unwrap() > 14 * 40 * BLOCKS as u64, "{seen}");
}

#[test]
fn random_hdr_blocks_of_every_footprint() {
    if !node_is_here() {
        return;
    }
    let mut rng = Pcg64Mcg::seed_from_u64(8);
    let mut cases = Cases::default();
    for footprint in Footprint::ALL {
        let blocks = Blocks::new(footprint);
        for _ in 0..BLOCKS {
            for format in [2, 3] {
                let bits = with_format(format, luminance(footprint, &mut rng));
                cases.hdr(footprint, bits.to_le_bytes(), true);
                // Two planes as well.
                let bits = with_format(format, blocks.legal(&mut rng).0);
                cases.hdr(footprint, bits.to_le_bytes(), false);
            }
            let any =
                [Blocks::void_extent(&mut rng), Blocks::noise(&mut rng), blocks.legal(&mut rng).0];
            for bits in any {
                cases.hdr(footprint, bits.to_le_bytes(), false);
            }
        }
    }
    let seen = cases.run();
    assert_eq!(seen["blocks"], 14 * 7 * BLOCKS);
    assert!(seen["texels"].as_u64().unwrap() > 14 * 40 * BLOCKS as u64, "{seen}");
}

#[test]
fn bc4_blocks_of_all_pairs_of_ends() {
    if !node_is_here() {
        return;
    }
    let mut rng = Pcg64Mcg::seed_from_u64(9);
    let mut cases = Cases::default();
    for ends in 0..=u16::MAX {
        // Every code twice.
        let codes = (0..16).fold(0_u64, |codes, texel| codes | (((5 * texel) & 7) << (3 * texel)));
        cases.bc4(((codes << 16) | u64::from(ends)).to_le_bytes());
    }
    (0..BC4_BLOCKS).for_each(|_| cases.bc4(rng.random::<u64>().to_le_bytes()));
    let seen = cases.run();
    assert_eq!(seen["texels"], (65_536 + BC4_BLOCKS) * 16 * 3);
}

/// The block with all its endpoint modes set to `format`, two planes of weights included.
fn with_format(format: u8, bits: u128) -> u128 {
    let one_partition = bits >> 11 & 3 == 0;
    let (hole, place) = if one_partition { (0xF << 13, 13) } else { (0x3F << 23, 25) };
    bits & !hole | u128::from(format) << place
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
    let mut cases = Cases::default();
    for (_, tensor) in SafeTensors::deserialize(&bytes)
        .unwrap()
        .iter()
        .filter(|(_, t)| t.shape().last() == Some(&16))
    {
        for block in tensor.data().chunks_exact(16) {
            cases.astc(footprint, block.try_into().unwrap(), true);
        }
    }
    let seen = cases.run();
    assert!(seen["blocks"].as_u64().unwrap() > 1000, "{seen}");
    assert_eq!((&seen["illegal"], &seen["unsupported"]), (&0.into(), &0.into()));
}

#[test]
fn the_weights_of_a_page_are_those_of_decompress() {
    if !node_is_here() {
        return;
    }
    let workspace = Workspace::with_tiny_llama(1);
    let cases: [(&str, &str, &[&str]); 5] = [
        ("astc", "server", &[]),
        ("astc", "server", &[".*proj=astc:decode=fp16,effort=fast"]),
        ("bc4", "server-desktop", &[]),
        ("bc4", "server-desktop", &[".*proj=bc4:decode=unorm8,effort=fast"]),
        ("astc-hdr", "server", &[".*proj=astc:profile=hdr"]),
    ];
    for (codec, preset, rules) in cases {
        let rules = rules.iter().flat_map(|rule| ["--tensor-type", rule]);
        let args: Vec<&str> =
            ["-o", "out", "--preset", preset, "--overwrite"].into_iter().chain(rules).collect();
        workspace.run("compress", "model", &args).ok();
        let plain = ["-o", "plain", "--adapters", "separate", "--overwrite"];
        workspace.run("decompress", "out", &plain).ok();
        workspace.run("view", "out", &["--overwrite"]).ok();
        let expected = Model::read(&workspace.path("plain"));
        let mut shown = 0;
        for line in run_node("weights", &workspace.path("out.html")).lines() {
            let tensor: Value = serde_json::from_str(line).unwrap();
            let name = tensor["name"].as_str().unwrap();
            assert_eq!(tensor["codec"], codec, "{name}");
            let found = STANDARD.decode(tensor["weights"].as_str().unwrap()).unwrap();
            let weights = expected.tensors[name].weights();
            let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
            assert!(found == bytes, "{codec}: {name} is not what decompress wrote");
            shown += weights.len();
        }
        println!("{codec}, {args:?}: {shown} weights");
        assert!(shown > 100_000, "{shown}");
    }
}
