//! Chat templates as GGUF metadata, by gguf-py's keys.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::checkpoint::{CHAT_TEMPLATES, read_json, read_member};
use crate::error::{Error, IoContext, Result};
use crate::gguf::HeaderWriter;

/// The templates of a model by name; the one that counts without a name is `default`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ChatTemplates(BTreeMap<String, String>);

impl ChatTemplates {
    /// Reads the templates of `folder`, whose `tokenizer_config.json` is `settings`. As in transformers,
    /// files of their own count before `chat_template` of the settings, which is a text or a list.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Checkpoint`] for a file that is not understood.
    pub(super) fn read(folder: &Path, settings: &Value) -> Result<Self> {
        let mut files = BTreeMap::new();
        if let Some(text) = read_text(&folder.join("chat_template.jinja"))? {
            files.insert("default".to_owned(), text);
        }
        let more = folder.join(CHAT_TEMPLATES);
        let entries =
            if more.is_dir() { Some(std::fs::read_dir(&more).at("list", &more)?) } else { None };
        for entry in entries.into_iter().flatten() {
            let path = entry.at("list", &more)?.path();
            let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
            if path.extension().is_some_and(|extension| extension == "jinja")
                && let Some(text) = read_text(&path)?
            {
                files.insert(name.to_owned(), text);
            }
        }
        if !files.is_empty() {
            return Ok(Self(files));
        }
        let wrong = || {
            let message = "chat_template is neither a text nor a list of names and templates";
            Error::checkpoint(folder.join("tokenizer_config.json"), message)
        };
        let of_settings = &settings["chat_template"];
        if !of_settings.is_null() {
            return Self::parse(of_settings).ok_or_else(wrong);
        }
        let of_processor = &read_json(&folder.join("chat_template.json"))?["chat_template"];
        Ok(Self::parse(of_processor).unwrap_or_else(|| Self(BTreeMap::new())))
    }

    /// A text, or a list of names and templates.
    fn parse(value: &Value) -> Option<Self> {
        if let Some(text) = value.as_str() {
            return Some(Self([("default".to_owned(), text.to_owned())].into()));
        }
        let named = |item: &Value| {
            Some((item["name"].as_str()?.to_owned(), item["template"].as_str()?.to_owned()))
        };
        value.as_array()?.iter().map(named).collect::<Option<_>>().map(Self)
    }

    /// Adds the templates. A name may have letters, digits and underscores only.
    pub(super) fn describe(&self, header: &mut HeaderWriter) {
        let plain = |name: &str| -> String {
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
        };
        let named: BTreeMap<String, &String> = self
            .0
            .iter()
            .filter(|(name, _)| *name != "default")
            .map(|(name, text)| (plain(name), text))
            .collect();
        if let Some(text) = self.0.get("default") {
            header.text("tokenizer.chat_template", text);
        }
        if !named.is_empty() {
            let names: Vec<String> = named.keys().cloned().collect();
            header.texts("tokenizer.chat_templates", &names);
        }
        for (name, text) in named {
            header.text(&format!("tokenizer.chat_template.{name}"), text);
        }
    }
}

fn read_text(path: &Path) -> Result<Option<String>> {
    const MOST: u64 = 16 << 20;
    let Some(bytes) = read_member(path, MOST)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_| Error::checkpoint(path, "is not UTF-8"))?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    #[test]
    fn files_count_before_settings_and_lists_have_names() {
        let folder = tempfile::tempdir().unwrap();
        let list = json!({ "chat_template": [
            { "name": "default", "template": "a" }, { "name": "tool_use", "template": "b" },
        ]});
        let read = |settings: &Value| ChatTemplates::read(folder.path(), settings).unwrap().0;
        let of = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
        };
        assert_eq!(read(&json!({})), of(&[]));
        assert_eq!(read(&json!({ "chat_template": "x" })), of(&[("default", "x")]));
        assert_eq!(read(&list), of(&[("default", "a"), ("tool_use", "b")]));
        let odd = json!({ "chat_template": 5 });
        assert!(ChatTemplates::read(folder.path(), &odd).is_err());
        fs::write(folder.path().join("chat_template.jinja"), "c").unwrap();
        fs::create_dir(folder.path().join(CHAT_TEMPLATES)).unwrap();
        fs::write(folder.path().join(CHAT_TEMPLATES).join("rag.jinja"), "d").unwrap();
        assert_eq!(read(&list), of(&[("default", "c"), ("rag", "d")]));
    }
}
