//! A checkpoint folder: index, config.json or a whole weights file from the fuzzer.
#![no_main]

use compress_model::checkpoint::Checkpoint;
use compress_model::pipeline::Plan;
use compress_model::recipe::Preset;
use compress_model_fuzz::{folder, weights};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&kind, data)) = data.split_first() else { return };
    let first = weights(&["model.layers.0.mlp.up_proj.weight"], 4, 8);
    let second = weights(&["model.embed_tokens.weight"], 8, 8);
    let config: &[u8] = br#"{"model_type":"llama"}"#;
    let (one, two) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    let index = "model.safetensors.index.json";
    let made = match kind % 3 {
        0 => folder(&[(one, &first), (two, &second), ("config.json", config), (index, data)]),
        1 => folder(&[("model.safetensors", &first), ("config.json", data)]),
        _ => folder(&[("model.safetensors", data), ("config.json", config)]),
    };
    if let Ok(checkpoint) = Checkpoint::open(made.path()) {
        let _ = Plan::new(&checkpoint, Preset::OnDevice.recipe(), 1 << 30, 1);
        for tensor in checkpoint.tensors().iter().filter(|t| t.byte_len < 1 << 20) {
            let mut bytes = vec![0; tensor.byte_len as usize];
            checkpoint.read_bytes(tensor, 0, &mut bytes).expect("a checked tensor can be read");
        }
    }
});
