//! Any bytes as the stored parts of every codec.
#![no_main]

use compress_model::codec;
use compress_model_fuzz as _;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [kind, rows, cols, rest @ ..] = data else { return };
    let names: Vec<&str> = codec::names().collect();
    let name = names[*kind as usize % names.len()];
    let (rows, cols) = (1 + *rows as usize % 13, 1 + *cols as usize % 70);
    let codec = codec::build(name, codec::Params::new()).expect("a codec");
    let mut bytes = rest.iter().copied().cycle();
    if rest.is_empty() {
        return;
    }
    let parts: Vec<Vec<u8>> = codec
        .parts(rows, cols)
        .iter()
        .map(|part| bytes.by_ref().take(part.byte_len()).collect())
        .collect();
    let mut out = vec![0.0; rows * cols];
    let mut worker = codec.worker().expect("a worker");
    let _ = worker.decode(&parts, cols, &mut out);
});
