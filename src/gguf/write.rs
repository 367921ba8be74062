//! Writing a file: the header first, whose sizes are known, then data in any order.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::{DEFAULT_ALIGNMENT, MAGIC, TensorType};
use crate::checkpoint::positioned::write_all_at;
use crate::error::{IoContext, Result};

const VERSION: u32 = 3;

/// Numbers of the value types that are written.
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// Metadata and tensors of a file to be written.
#[derive(Debug, Default)]
pub(crate) struct HeaderWriter {
    values: Vec<u8>,
    value_count: u64,
    infos: Vec<u8>,
    places: HashMap<String, u64>,
    data_len: u64,
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl HeaderWriter {
    fn key(&mut self, key: &str, kind: u32) -> &mut Vec<u8> {
        self.value_count += 1;
        put_text(&mut self.values, key);
        self.values.extend(kind.to_le_bytes());
        &mut self.values
    }

    fn array(&mut self, key: &str, kind: u32, count: usize) -> &mut Vec<u8> {
        let out = self.key(key, ARRAY);
        out.extend(kind.to_le_bytes());
        out.extend((count as u64).to_le_bytes());
        out
    }

    pub(crate) fn u32(&mut self, key: &str, value: u32) {
        self.key(key, U32).extend(value.to_le_bytes());
    }

    pub(crate) fn f32(&mut self, key: &str, value: f32) {
        self.key(key, F32).extend(value.to_le_bytes());
    }

    pub(crate) fn bool(&mut self, key: &str, value: bool) {
        self.key(key, BOOL).push(u8::from(value));
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) {
        put_text(self.key(key, TEXT), value);
    }

    pub(crate) fn texts(&mut self, key: &str, values: &[String]) {
        let out = self.array(key, TEXT, values.len());
        values.iter().for_each(|value| put_text(out, value));
    }

    pub(crate) fn i32s(&mut self, key: &str, values: &[i32]) {
        self.array(key, I32, values.len()).extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }

    /// Adds a tensor of `shape`, outermost dimension first, of `byte_len` bytes.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize], kind: TensorType, byte_len: u64) {
        put_text(&mut self.infos, name);
        self.infos.extend((shape.len() as u32).to_le_bytes());
        for &dimension in shape.iter().rev() {
            self.infos.extend((dimension as u64).to_le_bytes());
        }
        self.infos.extend(kind.id().to_le_bytes());
        self.infos.extend(self.data_len.to_le_bytes());
        self.places.insert(name.to_owned(), self.data_len);
        self.data_len = (self.data_len + byte_len).next_multiple_of(DEFAULT_ALIGNMENT);
    }

    /// Creates the file and writes the header.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub(crate) fn create(self, path: &Path) -> Result<FileWriter> {
        let mut head = MAGIC.to_vec();
        head.extend(VERSION.to_le_bytes());
        head.extend((self.places.len() as u64).to_le_bytes());
        head.extend(self.value_count.to_le_bytes());
        head.extend(self.values);
        head.extend(self.infos);
        head.resize(head.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
        let file = File::create(path).at("create", path)?;
        write_all_at(&file, &head, 0).at("write", path)?;
        let data_start = head.len() as u64;
        file.set_len(data_start + self.data_len).at("extend", path)?;
        Ok(FileWriter { path: path.to_path_buf(), file, places: self.places, data_start })
    }
}

/// Takes the data of the tensors.
#[derive(Debug)]
pub(crate) struct FileWriter {
    path: PathBuf,
    file: File,
    places: HashMap<String, u64>,
    data_start: u64,
}

impl FileWriter {
    /// Writes `bytes` of tensor `name` from its byte `from` on.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub(crate) fn write(&self, name: &str, from: u64, bytes: &[u8]) -> Result<()> {
        write_all_at(&self.file, bytes, self.data_start + self.places[name] + from)
            .at("write", &self.path)
    }

    /// Flushes the file to disk; gives its size.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub(crate) fn finish(self) -> Result<u64> {
        self.file.sync_all().at("write", &self.path)?;
        Ok(self.file.metadata().at("read the size of", &self.path)?.len())
    }
}
