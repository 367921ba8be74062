//! The JSON header of a safetensors file.
#![no_main]

use compress_model::checkpoint::header;
use compress_model_fuzz as _;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for data_len in [0, 4, 1 << 20, u64::MAX] {
        let _ = header::parse(data, data_len);
    }
});
