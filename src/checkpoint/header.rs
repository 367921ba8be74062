//! The header of a safetensors file: parsed strictly, every fault named with its tensor.
//!
//! Layout: 8 bytes little-endian header length n, n bytes of JSON that map each tensor name to
//! `{dtype, shape, data_offsets}`, then the data. The rules enforced are those of the safetensors
//! crate (no holes, no overlaps, no trailing bytes, header of at most 100 MB) and two more: names
//! are unique and every fault says which tensor it is about.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::Path;

use safetensors::Dtype;
use serde::Deserialize;
use serde::de::{Error as _, MapAccess, Visitor};

use super::dtype::parse_dtype;
use super::positioned::read_exact_at;
use crate::error::{Error, IoContext, Result};

/// Largest header accepted, as in the safetensors crate.
pub const MAX_HEADER_LEN: u64 = 100_000_000;

/// Bytes of the length field in front of the header.
pub const LENGTH_FIELD: u64 = 8;

/// One tensor as its header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderEntry {
    /// Tensor name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// First byte of the data, counted from the end of the header.
    pub start: u64,
    /// One past the last byte of the data, counted from the end of the header.
    pub end: u64,
}

/// How the files of Git LFS begin that stand for larger ones.
pub(crate) const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec";

/// A parsed header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The `__metadata__` entry, empty if absent.
    pub metadata: BTreeMap<String, String>,
    /// The tensors in order of their data.
    pub tensors: Vec<HeaderEntry>,
    /// File position of the first data byte.
    pub data_start: u64,
}

/// Why a header is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderProblem {
    /// Fewer than eight bytes.
    #[error("not a safetensors file: only {0} bytes long")]
    TooShort(u64),
    /// What Git has in a clone without Git LFS.
    #[error(
        "a Git LFS pointer instead of the weights; run git lfs pull in the folder it came from"
    )]
    LfsPointer,
    /// The length field asks for more than [`MAX_HEADER_LEN`].
    #[error("header claims {0} bytes; at most 100 MB are allowed")]
    TooLarge(u64),
    /// The length field points past the end of the file.
    #[error("header claims {claimed} bytes but the file has {file_len}; truncated file?")]
    PastEnd {
        /// Length field.
        claimed: u64,
        /// Size of the file.
        file_len: u64,
    },
    /// The header is not UTF-8.
    #[error("header is not UTF-8 (byte {0})")]
    NotUtf8(usize),
    /// The header is not the JSON object it should be.
    #[error("header is not valid safetensors JSON: {0}")]
    NotJson(String),
    /// One name twice.
    #[error("tensor {0:?} appears twice in the header")]
    DuplicateName(String),
    /// An element type that the format does not know.
    #[error("tensor {tensor:?}: unknown dtype {dtype:?}")]
    UnknownDtype {
        /// Tensor name.
        tensor: String,
        /// The dtype as written.
        dtype: String,
    },
    /// Shape times element size is not the byte range.
    #[error("tensor {tensor:?}: shape {shape:?} of {dtype} does not fit its {bytes} bytes of data")]
    SizeMismatch {
        /// Tensor name.
        tensor: String,
        /// Dimensions.
        shape: Vec<u64>,
        /// Element type.
        dtype: String,
        /// Length of the byte range.
        bytes: u64,
    },
    /// End before start.
    #[error("tensor {tensor:?}: data offsets {start}..{end} run backwards")]
    ReversedOffsets {
        /// Tensor name.
        tensor: String,
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// Two tensors share bytes.
    #[error("tensors {first:?} and {second:?} overlap")]
    Overlap {
        /// The tensor that comes first.
        first: String,
        /// The tensor that starts inside it.
        second: String,
    },
    /// Bytes that belong to no tensor.
    #[error("{bytes} bytes before tensor {tensor:?} belong to no tensor")]
    Hole {
        /// The tensor after the hole.
        tensor: String,
        /// Length of the hole.
        bytes: u64,
    },
    /// A byte range past the end of the file.
    #[error(
        "tensor {tensor:?}: data ends at byte {end} of the data section, which has {data_len}; truncated file?"
    )]
    OutOfRange {
        /// Tensor name.
        tensor: String,
        /// One past the last byte asked for.
        end: u64,
        /// Bytes after the header.
        data_len: u64,
    },
    /// Bytes after the last tensor.
    #[error("{0} bytes after the last tensor belong to no tensor")]
    TrailingBytes(u64),
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

#[derive(Default)]
struct RawHeader {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, RawEntry)>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut header = RawHeader::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        header.metadata = map
                            .next_value()
                            .map_err(|e| A::Error::custom(format!("__metadata__: {e}")))?;
                    } else {
                        let entry = map
                            .next_value()
                            .map_err(|e| A::Error::custom(format!("tensor {name:?}: {e}")))?;
                        header.tensors.push((name, entry));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// Reads and checks the header of `file`, which is `file_len` bytes long; `path` names it in
/// errors. Nothing is allocated before the length field was checked against the file.
///
/// # Errors
/// [`Error::Header`] for anything wrong with the header, [`Error::Io`] if reading fails.
pub fn read(file: &File, path: &Path, file_len: u64) -> Result<Header> {
    let refuse = |problem| Error::Header { file: path.to_path_buf(), problem };
    if file_len < LENGTH_FIELD {
        return Err(refuse(HeaderProblem::TooShort(file_len)));
    }
    let mut length = [0; LENGTH_FIELD as usize];
    read_exact_at(file, &mut length, 0).at("read", path)?;
    if LFS_POINTER.starts_with(&length) {
        return Err(refuse(HeaderProblem::LfsPointer));
    }
    let claimed = u64::from_le_bytes(length);
    if claimed > MAX_HEADER_LEN {
        return Err(refuse(HeaderProblem::TooLarge(claimed)));
    }
    if claimed > file_len - LENGTH_FIELD {
        return Err(refuse(HeaderProblem::PastEnd { claimed, file_len }));
    }
    let mut json = vec![0; claimed as usize];
    read_exact_at(file, &mut json, LENGTH_FIELD).at("read", path)?;
    parse(&json, file_len - LENGTH_FIELD - claimed).map_err(refuse)
}

/// Parses header JSON in front of `data_len` bytes of data.
///
/// # Errors
/// The first [`HeaderProblem`] found.
pub fn parse(json: &[u8], data_len: u64) -> Result<Header, HeaderProblem> {
    let text = std::str::from_utf8(json).map_err(|e| HeaderProblem::NotUtf8(e.valid_up_to()))?;
    let raw: RawHeader =
        serde_json::from_str(text).map_err(|e| HeaderProblem::NotJson(e.to_string()))?;
    let mut tensors =
        raw.tensors.into_iter().map(check_entry).collect::<Result<Vec<_>, HeaderProblem>>()?;
    check_unique(&tensors)?;
    tensors.sort_by(|a, b| (a.start, a.end, &a.name).cmp(&(b.start, b.end, &b.name)));
    check_ranges(&tensors, data_len)?;
    Ok(Header { metadata: raw.metadata, tensors, data_start: LENGTH_FIELD + json.len() as u64 })
}

fn check_entry((name, raw): (String, RawEntry)) -> Result<HeaderEntry, HeaderProblem> {
    let (start, end) = raw.data_offsets;
    if end < start {
        return Err(HeaderProblem::ReversedOffsets { tensor: name, start, end });
    }
    let Some(dtype) = parse_dtype(&raw.dtype) else {
        return Err(HeaderProblem::UnknownDtype { tensor: name, dtype: raw.dtype });
    };
    let bits = raw
        .shape
        .iter()
        .try_fold(1u64, |n, &d| n.checked_mul(d))
        .and_then(|n| n.checked_mul(dtype.bitsize() as u64));
    let shape: Option<Vec<usize>> = raw.shape.iter().map(|&d| usize::try_from(d).ok()).collect();
    match (bits, shape) {
        (Some(bits), Some(shape)) if bits % 8 == 0 && bits / 8 == end - start => {
            Ok(HeaderEntry { name, dtype, shape, start, end })
        }
        _ => Err(HeaderProblem::SizeMismatch {
            tensor: name,
            shape: raw.shape,
            dtype: raw.dtype,
            bytes: end - start,
        }),
    }
}

fn check_unique(tensors: &[HeaderEntry]) -> Result<(), HeaderProblem> {
    let mut names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(HeaderProblem::DuplicateName(pair[0].to_owned())),
        None => Ok(()),
    }
}

fn check_ranges(tensors: &[HeaderEntry], data_len: u64) -> Result<(), HeaderProblem> {
    let mut position = 0;
    for (i, tensor) in tensors.iter().enumerate() {
        if tensor.end > data_len {
            return Err(HeaderProblem::OutOfRange {
                tensor: tensor.name.clone(),
                end: tensor.end,
                data_len,
            });
        }
        if tensor.start < position {
            return Err(HeaderProblem::Overlap {
                first: tensors[i - 1].name.clone(),
                second: tensor.name.clone(),
            });
        }
        if tensor.start > position {
            return Err(HeaderProblem::Hole {
                tensor: tensor.name.clone(),
                bytes: tensor.start - position,
            });
        }
        position = tensor.end;
    }
    if position < data_len {
        return Err(HeaderProblem::TrailingBytes(data_len - position));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(json: &str, data_len: u64) -> HeaderProblem {
        parse(json.as_bytes(), data_len).expect_err("must be refused")
    }

    #[test]
    fn reads_what_the_safetensors_crate_writes() {
        let data = [0u8; 24];
        let view = |shape: Vec<usize>, dtype, bytes| {
            safetensors::tensor::TensorView::new(dtype, shape, bytes).unwrap()
        };
        let bytes = safetensors::serialize(
            vec![
                ("b", view(vec![2, 2], Dtype::F32, &data[..16])),
                ("a", view(vec![4], Dtype::BF16, &data[..8])),
            ],
            None,
        )
        .unwrap();
        let n = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        let header = parse(&bytes[8..8 + n as usize], bytes.len() as u64 - 8 - n).unwrap();
        assert_eq!(header.data_start, 8 + n);
        let b = header.tensors.iter().find(|t| t.name == "b").unwrap();
        assert_eq!((b.dtype, &b.shape[..], b.end - b.start), (Dtype::F32, &[2, 2][..], 16));
    }

    #[test]
    fn every_fault_has_its_variant() {
        use HeaderProblem as P;
        let entry = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        assert!(matches!(problem("[1]", 0), P::NotJson(_)));
        assert!(matches!(problem("{", 0), P::NotJson(_)));
        assert!(matches!(parse(b"{\"\xff\":1}", 0), Err(P::NotUtf8(2))));
        assert!(matches!(problem(&entry("Q9", "[1]", "[0,1]"), 1), P::UnknownDtype { .. }));
        assert!(matches!(problem(&entry("F32", "[2]", "[0,4]"), 4), P::SizeMismatch { .. }));
        assert!(matches!(
            problem(&entry("F32", "[4294967296,4294967296,4294967296]", "[0,4]"), 4),
            P::SizeMismatch { .. }
        ));
        assert!(matches!(problem(&entry("F4", "[1]", "[0,1]"), 1), P::SizeMismatch { .. }));
        assert!(matches!(problem(&entry("F32", "[1]", "[4,0]"), 4), P::ReversedOffsets { .. }));
        assert!(matches!(problem(&entry("F32", "[1]", "[4,8]"), 8), P::Hole { bytes: 4, .. }));
        assert!(matches!(problem(&entry("F32", "[2]", "[0,8]"), 4), P::OutOfRange { .. }));
        assert!(matches!(problem(&entry("F32", "[1]", "[0,4]"), 9), P::TrailingBytes(5)));
        assert!(matches!(problem(&entry("F32", "[-1]", "[0,4]"), 4), P::NotJson(_)));
        let twice = r#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
                        "t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
        assert_eq!(problem(twice, 2), P::DuplicateName("t".into()));
        let overlap = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
                          "b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
        assert_eq!(problem(overlap, 6), P::Overlap { first: "a".into(), second: "b".into() });
    }

    proptest::proptest! {
        #[test]
        fn never_panics(json: Vec<u8>, data_len: u64) {
            let _ = parse(&json, data_len);
        }

        /// Whatever the safetensors crate refuses, we refuse; what we accept, it accepts.
        #[test]
        fn no_laxer_than_the_safetensors_crate(
            a in 0u64..6, b in 0u64..12, c in 0u64..12, d in 0u64..12, data in 0u64..12,
        ) {
            let json = format!(
                r#"{{"x":{{"dtype":"F16","shape":[{a}],"data_offsets":[0,{b}]}},
                    "y":{{"dtype":"U8","shape":[{c}],"data_offsets":[{b},{d}]}}}}"#);
            let mut file = (json.len() as u64).to_le_bytes().to_vec();
            file.extend(json.as_bytes());
            file.resize(file.len() + data as usize, 0);
            let theirs = safetensors::SafeTensors::deserialize(&file).is_ok();
            proptest::prop_assert_eq!(parse(json.as_bytes(), data).is_ok(), theirs);
        }
    }
}
