//! GGUF files, the format of llama.cpp (ggml/docs/gguf.md): header, tensor types, tensor names.

mod dequantise;
mod header;
mod names;
mod pre_tokenizer;
mod tensor_type;
mod write;

use std::io::Read;

pub(crate) use header::{Header, Info, Value};
pub(crate) use names::{Family, ROPE_FACTORS, RowOrder, families, to_gguf, to_hf};
pub(crate) use pre_tokenizer::Scheme;
pub(crate) use tensor_type::TensorType;
pub(crate) use write::{FileWriter, HeaderWriter};

/// The four bytes that begin a file.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";

/// Tensor data starts at multiples of this unless the header says otherwise.
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;

/// Whether `path` is a file that begins as a GGUF file does.
pub(crate) fn is_gguf(path: &std::path::Path) -> bool {
    let mut start = [0; MAGIC.len()];
    // A pipe is not opened: that would wait for somebody who writes.
    path.is_file()
        && std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && start == MAGIC
}
