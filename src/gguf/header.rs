//! Reading a header that may be hostile: every count is held against the bytes that are there
//! before anything is allocated for it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read};

use super::{DEFAULT_ALIGNMENT, MAGIC, TensorType};

/// Largest header read: the metadata of a vocabulary of millions of tokens.
const MAX_HEADER_LEN: u64 = 256 << 20;

/// Most values of an array: eight million tokens.
const MAX_ARRAY: u64 = 1 << 23;

/// Most dimensions of a tensor, as in ggml.
const MAX_DIMENSIONS: u32 = 4;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Array(Vec<Value>),
}

impl Value {
    /// The text, if it is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is a whole one that is not negative.
    pub(crate) fn as_number(&self) -> Option<u64> {
        match *self {
            Self::Unsigned(n) => Some(n),
            Self::Signed(n) => u64::try_from(n).ok(),
            _ => None,
        }
    }
}

/// A tensor as the header describes it.
#[derive(Debug, Clone)]
pub(crate) struct Info {
    /// Name.
    pub(crate) name: String,
    /// Dimensions, outermost first.
    pub(crate) shape: Vec<usize>,
    /// Element type.
    pub(crate) kind: TensorType,
    /// File position of its data.
    pub(crate) offset: u64,
}

/// A parsed header.
#[derive(Debug)]
pub(crate) struct Header {
    /// Metadata by key.
    pub(crate) values: HashMap<String, Value>,
    /// Tensors in the file's order.
    pub(crate) tensors: Vec<Info>,
}

impl Header {
    /// Reads the header of `file`, which is `len` bytes long.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn read(file: &File, len: u64) -> Result<Self, String> {
        let source = BufReader::new(file).take(len.min(MAX_HEADER_LEN));
        let mut reader = Reader { source, read: 0, limit: len.min(MAX_HEADER_LEN) };
        if reader.bytes(4)? != MAGIC {
            return Err("is no GGUF file".to_owned());
        }
        let version = reader.u32()?;
        if (2..=3).contains(&version.swap_bytes()) {
            return Err("is a big-endian GGUF file; convert it to little-endian first".to_owned());
        }
        if !(2..=3).contains(&version) {
            return Err(format!("GGUF version {version}; versions 2 and 3 are read"));
        }
        let (tensor_count, value_count) = (reader.u64()?, reader.u64()?);
        let mut values = HashMap::new();
        for _ in 0..value_count {
            let key = reader.text()?;
            let kind = reader.u32()?;
            let value = reader.value(kind, 0).map_err(|e| format!("metadata {key:?}: {e}"))?;
            if values.insert(key.clone(), value).is_some() {
                return Err(format!("metadata {key:?} appears twice"));
            }
        }
        let raw: Vec<RawInfo> = reader.infos(tensor_count)?;
        let alignment = match values.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(Value::Unsigned(n)) if n.is_power_of_two() && *n <= 1 << 20 => *n,
            Some(other) => return Err(format!("alignment {other:?} is no power of two")),
        };
        let start = reader.read.next_multiple_of(alignment);
        let tensors = raw.into_iter().map(|info| info.check(start, alignment, len));
        Ok(Self { values, tensors: tensors.collect::<Result<_, _>>()? })
    }
}

/// A tensor whose numbers have not been checked.
struct RawInfo {
    name: String,
    /// Innermost first, as in the file.
    dimensions: Vec<u64>,
    kind: u32,
    offset: u64,
}

impl RawInfo {
    fn check(self, start: u64, alignment: u64, len: u64) -> Result<Info, String> {
        let Self { name, dimensions, kind, offset } = self;
        let wrong = |message: String| format!("tensor {name:?}: {message}");
        let kind = TensorType::from_id(kind).ok_or_else(|| {
            wrong(format!("type number {kind} is not read; these are: {}", TensorType::names()))
        })?;
        let elements = dimensions.iter().try_fold(1_u64, |n, &d| n.checked_mul(d));
        let elements = elements.filter(|&n| n > 0 && n < 1 << 50);
        let elements = elements
            .ok_or_else(|| wrong(format!("dimensions {dimensions:?} are no size of a tensor")))?;
        let cols = dimensions[0] as usize;
        let row_bytes = kind.row_bytes(cols).ok_or_else(|| {
            wrong(format!("rows of {cols} are no whole blocks of {}", kind.name()))
        })?;
        let byte_len = elements / cols as u64 * row_bytes as u64;
        let end = start.checked_add(offset).and_then(|at| at.checked_add(byte_len));
        if !offset.is_multiple_of(alignment) || end.is_none_or(|end| end > len) {
            return Err(wrong(format!(
                "its {byte_len} bytes at {offset} are not in the file of {len} bytes; truncated?"
            )));
        }
        let shape = dimensions.iter().rev().map(|&d| d as usize).collect();
        Ok(Info { name, shape, kind, offset: start + offset })
    }
}

struct Reader<R> {
    source: R,
    read: u64,
    limit: u64,
}

impl<R: Read> Reader<R> {
    /// The next `count` bytes; nothing is allocated for bytes that are not there.
    fn bytes(&mut self, count: u64) -> Result<Vec<u8>, String> {
        if count > self.limit - self.read {
            return Err(format!(
                "asks for {count} bytes where {} are left; truncated or damaged file?",
                self.limit - self.read
            ));
        }
        let mut bytes = vec![0; count as usize];
        self.source.read_exact(&mut bytes).map_err(|e| e.to_string())?;
        self.read += count;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.bytes(N as u64)?;
        Ok(bytes.try_into().expect("invariant: as many bytes as asked for"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String, String> {
        let len = self.u64()?;
        String::from_utf8(self.bytes(len)?).map_err(|_| "a text that is not UTF-8".to_owned())
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Unsigned(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Signed(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Unsigned(self.u32()?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            8 => Value::Text(self.text()?),
            9 if depth > 0 => return Err("arrays of arrays are not read".to_owned()),
            9 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                if count > MAX_ARRAY {
                    return Err(format!("an array of {count} values"));
                }
                // Grows as elements are read: the count itself is not to be trusted.
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(self.value(kind, depth + 1)?);
                }
                Value::Array(values)
            }
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("unknown value type {other}")),
        })
    }

    fn infos(&mut self, count: u64) -> Result<Vec<RawInfo>, String> {
        let mut infos = Vec::new();
        let mut names = HashSet::new();
        for _ in 0..count {
            let name = self.text()?;
            let rank = self.u32()?;
            if !(1..=MAX_DIMENSIONS).contains(&rank) {
                return Err(format!("tensor {name:?}: {rank} dimensions"));
            }
            let dimensions = (0..rank).map(|_| self.u64()).collect::<Result<_, _>>()?;
            let (kind, offset) = (self.u32()?, self.u64()?);
            if !names.insert(name.clone()) {
                return Err(format!("tensor {name:?} appears twice"));
            }
            infos.push(RawInfo { name, dimensions, kind, offset });
        }
        Ok(infos)
    }
}
