//! `docs/format.md` as a reader takes it: its test vectors, and the rule of versions.

use std::fs;

use crate::support::Workspace;
use compress_model::codec;
use serde_json::Value;

fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn every_codec_decodes_the_vectors_of_the_page() {
    let page = include_str!("../../docs/format.md");
    let (_, rest) = page.split_once("```json vectors").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    let vectors: Vec<Value> = serde_json::from_str(text).unwrap();
    for vector in &vectors {
        let name = vector["codec"].as_str().unwrap();
        let codec = codec::build(name, vector["params"].as_object().unwrap().clone()).unwrap();
        let [rows, cols] = [0, 1].map(|i| vector["shape"][i].as_u64().unwrap() as usize);
        let parts: Vec<Vec<u8>> =
            codec.parts(rows, cols).iter().map(|part| hex(&vector["parts"][part.suffix])).collect();
        let mut weights = vec![0.0_f32; rows * cols];
        codec.worker().unwrap().decode(&parts, cols, &mut weights).unwrap();
        assert_eq!(bytemuck::cast_slice::<f32, u8>(&weights), hex(&vector["weights"]), "{vector}");
    }
    for name in codec::names() {
        assert!(vectors.iter().any(|vector| vector["codec"] == name), "{name} has no vector");
    }
}

#[test]
fn newer_versions() {
    let workspace = Workspace::with_tiny_llama(1);
    workspace.run("compress", "model", &["-o", "out", "--preset", "on-device"]).ok();
    let path = workspace.path("out").join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut verify = |version: &str| {
        manifest["format_version"] = version.into();
        manifest["a key of the future"] = true.into();
        fs::write(&path, manifest.to_string()).unwrap();
        workspace.run("verify", "out", &[])
    };
    assert_eq!(verify("1.0").ok().stderr, "");
    let newer = verify("1.8").ok();
    assert!(newer.stderr.contains("format version 1.8 is newer than"), "{}", newer.stderr);
    verify("2.0").fails(3, &["manifest.json", "format version 2.0"]);
}
