//! The two files of a PEFT adapter.
#![no_main]

use compress_model_fuzz::{cut, folder};
use compress_model_lora::PeftReader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (config, weights) = cut(data);
    let made =
        folder(&[("adapter_config.json", config), ("adapter_model.safetensors", weights)]);
    if let Ok(reader) = PeftReader::open(made.path()) {
        for module in reader.modules() {
            if reader.shape(module).is_some_and(|(m, n, r)| (m + n) * r < 1 << 20) {
                let _ = reader.read(module);
            }
        }
    }
});
