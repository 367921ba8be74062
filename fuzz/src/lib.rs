//! What the fuzz targets share: an allocator that refuses the absurd, and folders of files.

use std::alloc::{GlobalAlloc, Layout, System};

use tempfile::TempDir;

/// Most bytes that reading a file of at most a megabyte may ask for at once.
const MOST: usize = 256 << 20;

struct Bounded;

// SAFETY: every call goes to the system's allocator unchanged, or ends the process.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

fn check(size: usize) {
    if size > MOST {
        eprintln!("asked for {size} bytes");
        std::process::abort();
    }
}

/// A new folder with `files`.
pub fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).expect("a file");
    }
    folder
}

/// A safetensors file of an F32 matrix [rows, cols] for each of `names`, all of small numbers.
pub fn weights(names: &[&str], rows: usize, cols: usize) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    for (i, name) in names.iter().enumerate() {
        let bytes = 4 * rows * cols;
        let entry = serde_json::json!({
            "dtype": "F32", "shape": [rows, cols], "data_offsets": [i * bytes, (i + 1) * bytes]
        });
        header.insert((*name).to_owned(), entry);
    }
    let header = serde_json::Value::Object(header).to_string().into_bytes();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    for i in 0..names.len() * rows * cols {
        file.extend((((i * 37) % 101) as f32 * 0.01 - 0.5).to_le_bytes());
    }
    file
}

/// Files of `data`, cut at the first byte of each run of four zeros that the fuzzer puts in.
pub fn cut(data: &[u8]) -> (&[u8], &[u8]) {
    let at = data.windows(4).position(|four| four == [0; 4]);
    at.map_or((data, &[]), |at| (&data[..at], &data[at + 4..]))
}

