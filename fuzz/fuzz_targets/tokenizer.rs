//! tokenizer.json and the settings beside it.
#![no_main]

use compress_model::eval::TextTokenizer;
use compress_model_fuzz::{cut, folder};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (tokenizer, settings) = cut(data);
    let made = folder(&[
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", settings),
        ("config.json", b"{}"),
    ]);
    let _ = TextTokenizer::open(made.path());
});
