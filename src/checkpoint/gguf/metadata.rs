//! Metadata by key: a value of the wrong kind is an error, never a default.

use std::collections::HashMap;

use crate::gguf::{Family, Value, families};

/// The metadata of a file.
#[derive(Debug)]
pub(super) struct Metadata(HashMap<String, Value>);

impl Metadata {
    pub(super) fn new(values: HashMap<String, Value>) -> Self {
        Self(values)
    }

    /// All keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The value of `key`.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        kind: &str,
        of: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        of(value).map_or_else(|| Err(format!("metadata {key:?} is no {kind}")), |v| Ok(Some(v)))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, String> {
        self.typed(key, "text", Value::as_text)
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, String> {
        self.typed(key, "whole number", Value::as_number)
    }

    pub(super) fn float(&self, key: &str) -> Result<Option<f64>, String> {
        self.typed(key, "finite number", |value| match value {
            Value::Float(x) => Some(*x).filter(|x| x.is_finite()),
            other => other.as_number().map(|n| n as f64),
        })
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    pub(super) fn array(&self, key: &str) -> Result<Option<&[Value]>, String> {
        self.typed(key, "list", |value| match value {
            Value::Array(values) => Some(&values[..]),
            _ => None,
        })
    }

    /// The strings of an array.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, String> {
        self.typed(key, "list of texts", |value| match value {
            Value::Array(values) => values.iter().map(Value::as_text).collect(),
            _ => None,
        })
    }

    /// The family of the model: the first that has this architecture's name.
    pub(super) fn family(&self) -> Result<Family, String> {
        let name = self.text("general.architecture")?.unwrap_or("without a name");
        families().find(|family| family.gguf == name).ok_or_else(|| {
            let mut known: Vec<&str> = families().map(|family| family.gguf).collect();
            known.dedup();
            format!("architecture {name:?} is not read; these are: {}", known.join(", "))
        })
    }

    /// A size of the model, above zero and below 2^31: one number, or a list that has the same for
    /// every layer.
    pub(super) fn optional_size(&self, family: Family, key: &str) -> Result<Option<usize>, String> {
        let key = format!("{}.{key}", family.gguf);
        let value = match self.0.get(&key) {
            None => return Ok(None),
            Some(Value::Array(values)) => match &values[..] {
                [first, rest @ ..] if rest.iter().all(|other| other == first) => first,
                _ => return Err(format!("metadata {key:?} differs from layer to layer")),
            },
            Some(value) => value,
        };
        let size = value.as_number().filter(|n| (1..1 << 31).contains(n));
        let size = size.ok_or_else(|| format!("metadata {key:?} is no size"))?;
        Ok(Some(size as usize))
    }

    /// A size that has to be there.
    pub(super) fn size(&self, family: Family, key: &str) -> Result<usize, String> {
        let found = self.optional_size(family, key)?;
        found.ok_or_else(|| format!("metadata has no \"{}.{key}\"", family.gguf))
    }

    /// Query heads and key heads.
    pub(super) fn heads(&self, family: Family) -> Result<(usize, usize), String> {
        let heads = self.size(family, "attention.head_count")?;
        Ok((heads, self.optional_size(family, "attention.head_count_kv")?.unwrap_or(heads)))
    }
}
