//! The manifest of a compressed folder, beside sound weights.
#![no_main]

use compress_model::pipeline::{CompressedFolder, Silent, verify};
use compress_model_fuzz::{folder, weights};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let stored = weights(&["a.weight", "b.weight"], 8, 8);
    let made = folder(&[("model.safetensors", &stored), ("manifest.json", data)]);
    if let Ok(folder) = CompressedFolder::open(made.path()) {
        let _ = verify(&folder, None, None, &Silent);
    }
});
