//! The model's `config.json`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::member::read_member;
use crate::error::{Error, Result};

/// A parsed `config.json`, kept whole so that it can be written back unchanged.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    path: PathBuf,
    json: Value,
}

/// Largest `config.json` read.
const MAX_CONFIG_LEN: u64 = 16 << 20;

impl ModelConfig {
    /// Reads `config.json` in `folder`; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Checkpoint`] if it is not a JSON object.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join("config.json");
        let Some(text) = read_member(&path, MAX_CONFIG_LEN)? else { return Ok(None) };
        let json: Value = serde_json::from_slice(&text)
            .map_err(|e| Error::checkpoint(&path, format!("not valid JSON: {e}")))?;
        if !json.is_object() {
            return Err(Error::checkpoint(&path, "not a JSON object"));
        }
        Ok(Some(Self { path, json }))
    }

    /// Where it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole configuration.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// `model_type`, or "unknown".
    #[must_use]
    pub fn model_type(&self) -> &str {
        self.json.get("model_type").and_then(Value::as_str).unwrap_or("unknown")
    }

    /// The name of the model, `_name_or_path`, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        let name = self.json.get("_name_or_path").and_then(Value::as_str);
        name.filter(|name| !name.is_empty())
    }

    /// Whether the output projection shares the token embedding's weights. An absent key means
    /// false, but for the Gemma family, whose configurations leave it out and tie.
    #[must_use]
    pub fn ties_embeddings(&self) -> bool {
        let flag = |json: &Value| json["tie_word_embeddings"].as_bool();
        flag(&self.json)
            .or_else(|| flag(&self.json["text_config"]))
            .unwrap_or_else(|| self.model_type().starts_with("gemma"))
    }

    /// The method that quantised this checkpoint already, if one did.
    #[must_use]
    pub fn quantised_by(&self) -> Option<String> {
        let quantisation =
            self.json.get("quantization_config").or_else(|| self.json.get("quantization"))?;
        if quantisation.is_null() {
            return None;
        }
        let method = quantisation.get("quant_method").and_then(Value::as_str);
        Some(method.unwrap_or("an unnamed method").to_owned())
    }
}
