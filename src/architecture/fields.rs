//! The keys of a configuration: a value of the wrong kind is an error, never a default.

use serde_json::{Map, Value};

/// The keys of an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// The value of `key`; a null counts as absent.
    pub(super) fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// Whether `key` is there and null.
    pub(super) fn is_null(self, key: &str) -> bool {
        self.0.get(key).is_some_and(Value::is_null)
    }

    fn typed<T>(
        self,
        key: &str,
        kind: &str,
        of: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        of(value).map_or_else(|| Err(format!("{key} is {value}, no {kind}")), |v| Ok(Some(v)))
    }

    pub(super) fn text(self, key: &str) -> Result<Option<&'a str>, String> {
        self.typed(key, "text", Value::as_str)
    }

    pub(super) fn flag(self, key: &str) -> Result<Option<bool>, String> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn number(self, key: &str) -> Result<Option<f64>, String> {
        self.typed(key, "number", Value::as_f64)
    }

    pub(super) fn list(self, key: &str) -> Result<Option<&'a Vec<Value>>, String> {
        self.typed(key, "list", Value::as_array)
    }

    pub(super) fn object(self, key: &str) -> Result<Option<&'a Map<String, Value>>, String> {
        self.typed(key, "object", Value::as_object)
    }

    /// A whole number from 1 to 2^31 - 1.
    pub(super) fn size(self, key: &str) -> Result<Option<usize>, String> {
        self.typed(key, "size", |value| {
            value.as_u64().filter(|&size| size > 0 && size < 1 << 31).map(|size| size as usize)
        })
    }

    /// A size that a configuration may leave out but not null.
    pub(super) fn size_or(self, key: &str, default: usize) -> Result<usize, String> {
        if self.is_null(key) {
            return Err(format!("{key} is null; leave it out for {default}"));
        }
        Ok(self.size(key)?.unwrap_or(default))
    }
}
