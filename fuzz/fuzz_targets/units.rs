//! A plan of units.
#![no_main]

use compress_model::pipeline::Silent;
use compress_model::pipeline::units::work;
use compress_model_fuzz::{folder, weights};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let stored = weights(&["model.layers.0.mlp.up_proj.weight"], 8, 8);
    let made = folder(&[
        ("model.safetensors", &stored),
        ("config.json", br#"{"model_type":"llama"}"#),
        ("units.json", data),
    ]);
    let pieces = made.path().join("pieces");
    let _ = work(&made.path().join("units.json"), 0, Some(made.path()), &pieces, &Silent);
});
