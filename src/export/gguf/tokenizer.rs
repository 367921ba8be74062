//! A byte-level BPE tokenizer as GGUF metadata.
//!
//! `tokenizer.json` spells out how text is cut before BPE; GGUF names the scheme and llama.cpp has
//! it built in. A scheme without a name here is refused: a tokenizer that cuts a little differently
//! would only make the model a little worse, and nobody would see why.

use serde_json::Value;

use super::chat::ChatTemplates;
use super::metadata::Model;
use crate::checkpoint::read_json;
use crate::error::{Error, Result};
use crate::gguf::{HeaderWriter, Scheme};
use crate::pipeline::CompressedFolder;

/// Token types of GGUF.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// Adds the tokenizer of the folder.
///
/// # Errors
/// [`Error::Checkpoint`] if there is none, or one that GGUF has no form for.
pub(super) fn describe(
    input: &CompressedFolder,
    model: &Model,
    header: &mut HeaderWriter,
) -> Result<()> {
    let folder = input.stored.folder();
    let path = folder.join("tokenizer.json");
    let wrong = |message: String| Error::checkpoint(&path, message);
    let json = read_json(&folder.join("tokenizer.json"))?;
    if json.is_null() {
        return Err(Error::checkpoint(folder, "has no tokenizer.json, which a GGUF file needs"));
    }
    let scheme = scheme(&json).map_err(wrong)?;
    let vocabulary = Vocabulary::read(&json, model.architecture.vocab_size).map_err(wrong)?;
    header.text("tokenizer.ggml.model", "gpt2");
    header.text("tokenizer.ggml.pre", scheme);
    header.texts("tokenizer.ggml.tokens", &vocabulary.tokens);
    header.i32s("tokenizer.ggml.token_type", &vocabulary.types);
    header.texts("tokenizer.ggml.merges", &merges(&json).map_err(wrong)?);

    let settings = read_json(&folder.join("tokenizer_config.json"))?;
    let id = |key: &str| -> Option<u32> {
        let numbers =
            [&model.generation, &model.config].map(|json| &json[format!("{key}_token_id")]);
        let first = |value: &Value| value.as_u64().or_else(|| value[0].as_u64());
        let named = &settings[format!("{key}_token")];
        let named = named.as_str().or_else(|| named["content"].as_str());
        let position = named.and_then(|name| vocabulary.tokens.iter().position(|t| t == name));
        position
            .map(|id| id as u32)
            .or_else(|| numbers.into_iter().find_map(first).and_then(|id| u32::try_from(id).ok()))
    };
    for (key, name) in [("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")] {
        if let Some(id) = id(key) {
            header.u32(&format!("tokenizer.ggml.{name}_token_id"), id);
        }
    }
    header.bool("tokenizer.ggml.add_bos_token", adds(&json, &settings, "bos"));
    header.bool("tokenizer.ggml.add_eos_token", adds(&json, &settings, "eos"));
    header.bool("tokenizer.ggml.add_space_prefix", false);
    ChatTemplates::read(folder, &settings)?.describe(header);
    Ok(())
}

/// llama.cpp's name of the way text is cut.
fn scheme(json: &Value) -> Result<&'static str, String> {
    let model = &json["model"];
    if model["type"] != "BPE" || model["byte_fallback"] == true {
        return Err("is no byte-level BPE tokenizer, the only kind that is written as GGUF".into());
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if model[key].as_str().is_some_and(|text| !text.is_empty()) {
            return Err(format!("has {key}, which llama.cpp does not know"));
        }
    }
    let normalizer = &json["normalizer"];
    // Qwen normalises to NFC, and llama.cpp does not: nearly all text is in that form.
    if !normalizer.is_null() && normalizer["type"] != "NFC" {
        return Err("changes text before it is cut, which llama.cpp does not".into());
    }
    let scheme = Scheme::of(&json["pre_tokenizer"], model["ignore_merges"] == true)?;
    Ok(scheme.name)
}

struct Vocabulary {
    tokens: Vec<String>,
    types: Vec<i32>,
}

impl Vocabulary {
    /// `size` tokens, those that the tokenizer lacks filled in as unused.
    fn read(json: &Value, size: usize) -> Result<Self, String> {
        let mut tokens: Vec<Option<String>> = vec![None; size];
        let mut types = vec![UNUSED; size];
        let mut put = |token: &str, id: &Value, kind: i32| -> Result<(), String> {
            let id = id.as_u64().map(|id| id as usize).filter(|&id| id < size);
            let id = id.ok_or_else(|| format!("token {token:?} has no id below {size}"))?;
            tokens[id] = Some(token.to_owned());
            types[id] = kind;
            Ok(())
        };
        let vocab = json["model"]["vocab"].as_object().ok_or("has no vocabulary")?;
        for (token, id) in vocab {
            put(token, id, NORMAL)?;
        }
        for added in json["added_tokens"].as_array().into_iter().flatten() {
            let token = added["content"].as_str().ok_or("an added token has no content")?;
            let kind = if added["special"] == true { CONTROL } else { USER_DEFINED };
            put(token, &added["id"], kind)?;
        }
        let fill = |(id, token): (usize, Option<String>)| token.unwrap_or(format!("[PAD{id}]"));
        Ok(Self { tokens: tokens.into_iter().enumerate().map(fill).collect(), types })
    }
}

fn merges(json: &Value) -> Result<Vec<String>, String> {
    let merges = json["model"]["merges"].as_array().ok_or("has no merges")?;
    let one = |merge: &Value| match (merge.as_str(), merge[0].as_str(), merge[1].as_str()) {
        (Some(text), ..) => Ok(text.to_owned()),
        (_, Some(left), Some(right)) if !left.contains(' ') && !right.contains(' ') => {
            Ok(format!("{left} {right}"))
        }
        _ => Err(format!("the merge {merge} cannot be written as GGUF")),
    };
    merges.iter().map(one).collect()
}

/// Whether the tokenizer puts a token before (`bos`) or after (`eos`) every text.
fn adds(json: &Value, settings: &Value, end: &str) -> bool {
    let has = |processor: &Value| {
        let single = processor["single"].as_array().map(Vec::as_slice).unwrap_or_default();
        let part = if end == "bos" { single.first() } else { single.last() };
        processor["type"] == "TemplateProcessing"
            && part.is_some_and(|part| part["SpecialToken"].is_object())
    };
    settings[format!("add_{end}_token")].as_bool().unwrap_or_else(|| {
        let processor = &json["post_processor"];
        has(processor) || processor["processors"].as_array().into_iter().flatten().any(has)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds() {
        let bytes = Scheme::named("smollm").unwrap().pre_tokenizer();
        let mut json = json!({ "model": { "type": "BPE" }, "pre_tokenizer": bytes });
        assert_eq!(scheme(&json), Ok("smollm"));
        json["normalizer"] = json!({ "type": "NFC" });
        assert_eq!(scheme(&json), Ok("smollm"));
        json["normalizer"] = json!({ "type": "Lowercase" });
        assert!(scheme(&json).is_err());
        json["normalizer"] = Value::Null;
        json["model"]["byte_fallback"] = true.into();
        assert!(scheme(&json).is_err());
        assert!(scheme(&json!({ "model": { "type": "Unigram" } })).is_err());
        let llama = Scheme::named("llama-bpe").unwrap().pre_tokenizer();
        let mut json = json!({ "model": { "type": "BPE" }, "pre_tokenizer": llama });
        assert_eq!(scheme(&json), Ok("smaug-bpe"));
        json["model"]["ignore_merges"] = true.into();
        assert_eq!(scheme(&json), Ok("llama-bpe"));
        json["model"]["end_of_word_suffix"] = "</w>".into();
        assert!(scheme(&json).unwrap_err().contains("end_of_word_suffix"));
    }

    #[test]
    fn tokens_around_a_text() {
        let special = json!({ "SpecialToken": { "id": "<s>", "type_id": 0 } });
        let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
        let with = |single: Value| {
            let template = json!({ "type": "TemplateProcessing", "single": single });
            json!({ "post_processor": { "type": "Sequence", "processors": [template] } })
        };
        let none = Value::Null;
        for (single, bos, eos) in [
            (json!([special, text]), true, false),
            (json!([text, special]), false, true),
            (json!([special, text, special]), true, true),
            (json!([text]), false, false),
        ] {
            assert_eq!(adds(&with(single.clone()), &none, "bos"), bos, "{single}");
            assert_eq!(adds(&with(single.clone()), &none, "eos"), eos, "{single}");
        }
        let said = json!({ "add_bos_token": false, "add_eos_token": true });
        let json = with(json!([special, text]));
        assert!(!adds(&json, &said, "bos") && adds(&json, &said, "eos"));
    }

    #[test]
    fn gaps_are_filled_and_added_tokens_told_apart() {
        let json = json!({
            "model": { "vocab": { "a": 0, "<s>": 2 }, "merges": ["a b", ["c", "d"]] },
            "added_tokens": [
                { "content": "<s>", "id": 2, "special": true },
                { "content": "<tool>", "id": 3, "special": false },
            ],
        });
        let vocabulary = Vocabulary::read(&json, 5).unwrap();
        assert_eq!(vocabulary.tokens, ["a", "[PAD1]", "<s>", "<tool>", "[PAD4]"]);
        assert_eq!(vocabulary.types, [NORMAL, UNUSED, CONTROL, USER_DEFINED, UNUSED]);
        assert_eq!(merges(&json).unwrap(), ["a b", "c d"]);
        assert!(Vocabulary::read(&json, 3).is_err());
    }
}
