//! GGUF files with any metadata.

use std::collections::BTreeMap;
use std::path::Path;

/// A metadata value.
#[derive(Debug, Clone)]
pub enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    U32s(Vec<u32>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A file in the making; tensors are F32.
#[derive(Debug, Clone, Default)]
pub struct Gguf {
    pub values: BTreeMap<String, Value>,
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Gguf {
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.values.insert(key.to_owned(), value.into());
        self
    }

    pub fn unset(mut self, key: &str) -> Self {
        self.values.remove(key).unwrap();
        self
    }

    pub fn tensor(&mut self, name: &str, shape: &[usize], weights: Vec<f32>) {
        assert_eq!(shape.iter().product::<usize>(), weights.len(), "{name}");
        self.tensors.insert(name.to_owned(), (shape.to_vec(), weights));
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3_u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.values.len() as u64).to_le_bytes());
        for (key, value) in &self.values {
            text(&mut out, key);
            let mut kind = |kind: u32| out.extend(kind.to_le_bytes());
            match value {
                Value::U32(_) => kind(4),
                Value::F32(_) => kind(6),
                Value::Bool(_) => kind(7),
                Value::Text(_) => kind(8),
                Value::Texts(_) => [9, 8].into_iter().for_each(kind),
                Value::U32s(_) => [9, 4].into_iter().for_each(kind),
            }
            match value {
                Value::U32(n) => out.extend(n.to_le_bytes()),
                Value::F32(x) => out.extend(x.to_le_bytes()),
                Value::Bool(flag) => out.push(u8::from(*flag)),
                Value::Text(value) => text(&mut out, value),
                Value::Texts(values) => {
                    out.extend((values.len() as u64).to_le_bytes());
                    values.iter().for_each(|value| text(&mut out, value));
                }
                Value::U32s(values) => {
                    out.extend((values.len() as u64).to_le_bytes());
                    out.extend(values.iter().flat_map(|n| n.to_le_bytes()));
                }
            }
        }
        let mut data: Vec<u8> = Vec::new();
        for (name, (shape, weights)) in &self.tensors {
            text(&mut out, name);
            out.extend((shape.len() as u32).to_le_bytes());
            out.extend(shape.iter().rev().flat_map(|&d| (d as u64).to_le_bytes()));
            out.extend(0_u32.to_le_bytes());
            out.extend((data.len() as u64).to_le_bytes());
            data.extend(weights.iter().flat_map(|w| w.to_le_bytes()));
            data.resize(data.len().next_multiple_of(32), 0);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        out
    }

    pub fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes()).unwrap();
    }
}
