//! A GGUF file: header, and the weights of every tensor that it lists.
#![no_main]

use compress_model::checkpoint::Checkpoint;
use compress_model_fuzz::folder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut file = b"GGUF".to_vec();
    file.extend(data);
    let made = folder(&[("model.gguf", &file)]);
    if let Ok(checkpoint) = Checkpoint::open(&made.path().join("model.gguf")) {
        for tensor in checkpoint.tensors().iter().filter(|t| t.byte_len < 1 << 20) {
            let mut bytes = vec![0; tensor.byte_len as usize];
            let _ = checkpoint.read_bytes(tensor, 0, &mut bytes);
        }
    }
});
