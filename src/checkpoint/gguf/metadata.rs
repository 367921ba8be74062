//! Metadata by key.

use std::collections::HashMap;

use crate::gguf::{Family, Value, families};

/// The metadata of a file.
pub(super) struct Metadata(HashMap<String, Value>);

impl Metadata {
    pub(super) fn new(values: HashMap<String, Value>) -> Self {
        Self(values)
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_text()
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        match *self.0.get(key)? {
            Value::Unsigned(n) => Some(n),
            Value::Signed(n) => u64::try_from(n).ok(),
            _ => None,
        }
    }

    pub(super) fn float(&self, key: &str) -> Option<f64> {
        match self.0.get(key) {
            Some(Value::Float(x)) if x.is_finite() => Some(*x),
            _ => None,
        }
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        match self.0.get(key) {
            Some(Value::Bool(flag)) => Some(*flag),
            _ => None,
        }
    }

    pub(super) fn array(&self, key: &str) -> Option<&[Value]> {
        match self.0.get(key) {
            Some(Value::Array(values)) => Some(values),
            _ => None,
        }
    }

    /// The strings of an array; `None` if it is not there or holds anything else.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<&str>> {
        self.array(key)?.iter().map(Value::as_text).collect()
    }

    /// The family of the model: the first that has this architecture's name.
    pub(super) fn family(&self) -> Result<Family, String> {
        let name = self.text("general.architecture").unwrap_or("without a name");
        families().find(|family| family.gguf == name).ok_or_else(|| {
            let mut known: Vec<&str> = families().map(|family| family.gguf).collect();
            known.dedup();
            format!("architecture {name:?} is not read; these are: {}", known.join(", "))
        })
    }

    /// A size of the model, above zero and below 2^31.
    pub(super) fn size(&self, family: Family, key: &str) -> Result<usize, String> {
        let key = format!("{}.{key}", family.gguf);
        let found = self.number(&key).filter(|n| (1..1 << 31).contains(n));
        found.map(|n| n as usize).ok_or_else(|| format!("metadata has no size {key:?}"))
    }

    /// Query heads and key heads.
    pub(super) fn heads(&self, family: Family) -> Result<(usize, usize), String> {
        let heads = self.size(family, "attention.head_count")?;
        Ok((heads, self.size(family, "attention.head_count_kv").unwrap_or(heads)))
    }
}
