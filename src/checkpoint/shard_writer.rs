//! Writes safetensors shards whose tensors arrive in pieces and in any order.
//!
//! All sizes are known before the first byte is coded, so headers go first and data is written in
//! place. The safetensors crate's own writer is not used here: it takes one whole tensor at a
//! time, cannot report a failed producer, and creates files that only their owner may read.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::dtype::dtype_name;
use super::header::LENGTH_FIELD;
use super::positioned::write_all_at;
use super::{INDEX_FILE, SINGLE_FILE, order};
use crate::error::{IoContext, Result};

/// Data starts at a multiple of this, so that mapped tensors suit any element type.
const DATA_ALIGNMENT: usize = 64;

/// A tensor to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputTensor {
    /// Name in the header.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

impl OutputTensor {
    /// Bytes of data.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.shape.iter().map(|&d| d as u64).product::<u64>() * self.dtype.bitsize() as u64 / 8
    }
}

/// Where a tensor's data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Index of the shard.
    pub shard: usize,
    /// File position of the first byte.
    pub offset: u64,
    /// Bytes of data.
    pub byte_len: u64,
}

#[derive(Debug, Clone)]
struct Shard {
    name: String,
    /// Length field and JSON.
    header: Vec<u8>,
    file_len: u64,
}

/// Which tensor goes where: fixed before anything is written.
#[derive(Debug, Clone)]
pub struct ShardLayout {
    shards: Vec<Shard>,
    placements: HashMap<String, Placement>,
    total_size: u64,
}

impl ShardLayout {
    /// Lays out `groups` of tensors in shards of at most `max_shard_bytes` of data. A group (the
    /// parts of one coded weight) stays in one shard, even if it is larger than the limit.
    /// `metadata` goes into each header.
    #[must_use]
    pub fn new(
        groups: &[Vec<OutputTensor>],
        max_shard_bytes: u64,
        metadata: &BTreeMap<String, String>,
    ) -> Self {
        let mut contents: Vec<Vec<&OutputTensor>> = vec![Vec::new()];
        let mut filled = 0;
        for group in groups {
            let bytes: u64 = group.iter().map(OutputTensor::byte_len).sum();
            if filled > 0 && filled + bytes > max_shard_bytes {
                contents.push(Vec::new());
                filled = 0;
            }
            filled += bytes;
            contents.last_mut().expect("invariant: starts with one").extend(group);
        }
        let count = contents.len();
        let mut layout = Self { shards: Vec::new(), placements: HashMap::new(), total_size: 0 };
        for (i, mut tensors) in contents.into_iter().enumerate() {
            // Wide elements first keeps every tensor aligned to its element size.
            tensors.sort_by(|a, b| {
                b.dtype
                    .bitsize()
                    .cmp(&a.dtype.bitsize())
                    .then_with(|| order::natural(&a.name, &b.name))
            });
            let name = if count == 1 {
                SINGLE_FILE.to_owned()
            } else {
                format!("model-{:05}-of-{count:05}.safetensors", i + 1)
            };
            layout.add_shard(name, &tensors, metadata);
        }
        layout
    }

    fn add_shard(
        &mut self,
        name: String,
        tensors: &[&OutputTensor],
        metadata: &BTreeMap<String, String>,
    ) {
        let mut json = Map::new();
        json.insert("__metadata__".to_owned(), json!(metadata));
        let mut position = 0;
        for tensor in tensors {
            let end = position + tensor.byte_len();
            json.insert(
                tensor.name.clone(),
                json!({
                    "dtype": dtype_name(tensor.dtype),
                    "shape": tensor.shape,
                    "data_offsets": [position, end],
                }),
            );
            position = end;
        }
        let mut text = Value::Object(json).to_string().into_bytes();
        let len = (text.len() + LENGTH_FIELD as usize).next_multiple_of(DATA_ALIGNMENT);
        text.resize(len - LENGTH_FIELD as usize, b' ');
        let mut header = (text.len() as u64).to_le_bytes().to_vec();
        header.extend(text);
        let mut offset = header.len() as u64;
        for tensor in tensors {
            let placement =
                Placement { shard: self.shards.len(), offset, byte_len: tensor.byte_len() };
            self.placements.insert(tensor.name.clone(), placement);
            offset += placement.byte_len;
        }
        self.total_size += position;
        self.shards.push(Shard { name, header, file_len: offset });
    }

    /// File name of the shard that holds tensor `name`.
    ///
    /// # Panics
    /// If the tensor is not part of the layout.
    #[must_use]
    pub fn file_of(&self, name: &str) -> &str {
        &self.shards[self.placements[name].shard].name
    }

    /// Bytes of all shards, headers included.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.shards.iter().map(|s| s.file_len).sum()
    }

    /// Names of the shard files.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.shards.iter().map(|s| s.name.as_str())
    }
}

/// Writes the shards of a [`ShardLayout`].
#[derive(Debug)]
pub struct ShardWriter {
    folder: PathBuf,
    layout: ShardLayout,
    files: Vec<File>,
}

impl ShardWriter {
    /// Creates the shard files in `folder` and writes their headers. What an earlier run has written
    /// of the same layout stays.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if a file cannot be created or written.
    pub fn create(folder: &Path, layout: ShardLayout) -> Result<Self> {
        let mut files = Vec::new();
        for shard in &layout.shards {
            let path = folder.join(&shard.name);
            let mut options = File::options();
            let file = options.write(true).create(true).truncate(false).open(&path);
            let file = file.at("create", &path)?;
            write_all_at(&file, &shard.header, 0).at("write", &path)?;
            file.set_len(shard.file_len).at("extend", &path)?;
            files.push(file);
        }
        Ok(Self { folder: folder.to_path_buf(), layout, files })
    }

    /// The layout being written.
    #[must_use]
    pub fn layout(&self) -> &ShardLayout {
        &self.layout
    }

    /// Writes `bytes` of tensor `name`, from its byte `from` on.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if the disk fails or is full.
    ///
    /// # Panics
    /// If the range is not inside the tensor, or the tensor is not part of the layout.
    pub fn write(&self, name: &str, from: u64, bytes: &[u8]) -> Result<()> {
        let place = self.layout.placements[name];
        assert!(from + bytes.len() as u64 <= place.byte_len, "invariant: range inside {name}");
        write_all_at(&self.files[place.shard], bytes, place.offset + from)
            .at("write", self.folder.join(&self.layout.shards[place.shard].name))
    }

    /// Flushes what was written so far to disk.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if the disk fails or is full.
    pub fn flush(&self) -> Result<()> {
        for (file, shard) in self.files.iter().zip(&self.layout.shards) {
            file.sync_data().at("flush", self.folder.join(&shard.name))?;
        }
        Ok(())
    }

    /// Flushes the shards to disk and writes the index if there are several.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if the disk fails or is full.
    pub fn finish(self) -> Result<()> {
        self.flush()?;
        if self.layout.shards.len() > 1 {
            let weight_map: BTreeMap<&str, &str> = self
                .layout
                .placements
                .keys()
                .map(|name| (name.as_str(), self.layout.file_of(name)))
                .collect();
            let index = json!({
                "metadata": { "total_size": self.layout.total_size },
                "weight_map": weight_map,
            });
            super::staging::write_json(&self.folder.join(INDEX_FILE), &index)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, dtype: Dtype, shape: &[usize]) -> OutputTensor {
        OutputTensor { name: name.into(), dtype, shape: shape.to_vec() }
    }

    #[test]
    fn the_safetensors_crate_reads_our_shards() {
        let folder = tempfile::tempdir().unwrap();
        let groups = vec![
            vec![tensor("a.codes", Dtype::U8, &[3, 5]), tensor("a.scales", Dtype::F16, &[3, 1])],
            vec![tensor("b", Dtype::F32, &[2])],
            vec![tensor("c", Dtype::U8, &[7])],
        ];
        let layout = ShardLayout::new(&groups, 30, &BTreeMap::new());
        assert_eq!(layout.file_names().count(), 2);
        assert_eq!(layout.file_of("a.codes"), layout.file_of("a.scales"));
        let file_bytes = layout.file_bytes();
        let writer = ShardWriter::create(folder.path(), layout.clone()).unwrap();
        for group in &groups {
            for t in group {
                let bytes: Vec<u8> =
                    (0..t.byte_len()).map(|i| i as u8 ^ t.name.as_bytes()[0]).collect();
                let (first, second) = bytes.split_at(bytes.len() / 2);
                writer.write(&t.name, first.len() as u64, second).unwrap();
                writer.write(&t.name, 0, first).unwrap();
            }
        }
        writer.finish().unwrap();
        let mut seen = 0;
        for name in layout.file_names() {
            let bytes = std::fs::read(folder.path().join(name)).unwrap();
            seen += bytes.len() as u64;
            for (name, view) in safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors() {
                let expected: Vec<u8> =
                    (0..view.data().len()).map(|i| i as u8 ^ name.as_bytes()[0]).collect();
                assert_eq!(view.data(), expected, "{name}");
                let address = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
                assert_eq!(address % (view.dtype().bitsize() / 8), 0, "{name} is misaligned");
            }
        }
        assert_eq!(seen, file_bytes);
        let index: Value =
            serde_json::from_slice(&std::fs::read(folder.path().join(INDEX_FILE)).unwrap())
                .unwrap();
        assert_eq!(index["metadata"]["total_size"], 15 + 6 + 8 + 7);
        assert_eq!(index["weight_map"].as_object().unwrap().len(), 4);
    }
}
