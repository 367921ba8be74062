//! `tokenizer.json` and `tokenizer_config.json` of a GGUF file with a byte-level BPE tokenizer.

use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use crate::gguf::{self, Scheme};

/// Token types of GGUF.
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// `tokenizer.json` as the `tokenizers` library reads it, and `tokenizer_config.json`: special tokens
/// by name, and the chat templates. `rows` are those of the embedding.
///
/// # Errors
/// Why there is none, in words.
pub(super) fn tokenizer(metadata: &Metadata, rows: Option<u64>) -> Result<(Value, Value), String> {
    let kind = metadata.text("tokenizer.ggml.model")?.unwrap_or("none");
    if kind != "gpt2" {
        return Err(format!("its kind {kind:?} is not byte-level BPE"));
    }
    // Without the name of a scheme, and under "default", llama.cpp cuts in a way of its own, which no
    // model was trained with.
    let scheme = metadata.text("tokenizer.ggml.pre")?;
    let scheme = scheme.ok_or("the file does not say how it cuts text")?;
    let scheme = Scheme::named(scheme)
        .ok_or_else(|| format!("the pre-tokenizer {scheme:?} is not known"))?;
    for key in ["normalizer.lowercase", "normalizer.strip_accents"] {
        if metadata.flag(&format!("tokenizer.ggml.{key}"))? == Some(true) {
            return Err(format!("{key} is not read"));
        }
    }
    let tokens = metadata.texts("tokenizer.ggml.tokens")?.ok_or("it has no tokens")?;
    if rows.is_some_and(|rows| rows != tokens.len() as u64) {
        return Err(format!("it has {} tokens, and the embedding other rows", tokens.len()));
    }
    let settings = settings(metadata, scheme, &tokens)?;
    let vocabulary: Map<String, Value> =
        tokens.iter().enumerate().map(|(id, &token)| (token.to_owned(), id.into())).collect();
    if vocabulary.len() != tokens.len() {
        return Err("it names a token twice".to_owned());
    }
    let merges = metadata.texts("tokenizer.ggml.merges")?.ok_or("it has no merges")?;
    let merges = merges
        .iter()
        .map(|merge| merge.split_once(' ').map(|(left, right)| json!([left, right])))
        .collect::<Option<Vec<Value>>>()
        .ok_or("a merge is no pair")?;
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added(metadata, &tokens)?,
        "normalizer": null,
        "pre_tokenizer": scheme.pre_tokenizer(),
        "post_processor": ends(&settings, &vocabulary),
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": true,
            "trim_offsets": true,
            "use_regex": true,
        },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": scheme.ignore_merges,
            "vocab": vocabulary,
            "merges": merges,
        },
    });
    Ok((tokenizer, Value::Object(settings)))
}

/// Tokens that are found in a text before it is cut.
fn added(metadata: &Metadata, tokens: &[&str]) -> Result<Vec<Value>, String> {
    let types = metadata.array("tokenizer.ggml.token_type")?.unwrap_or_default();
    let kind_of = |id: usize| types.get(id).and_then(gguf::Value::as_number).unwrap_or(0);
    let added = tokens
        .iter()
        .enumerate()
        .filter(|&(id, _)| matches!(kind_of(id), CONTROL | USER_DEFINED))
        .map(|(id, token)| {
            json!({
                "id": id,
                "content": token,
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": kind_of(id) == CONTROL,
            })
        });
    Ok(added.collect())
}

/// `tokenizer_config.json`.
fn settings(
    metadata: &Metadata,
    scheme: &Scheme,
    tokens: &[&str],
) -> Result<Map<String, Value>, String> {
    let mut settings = Map::new();
    settings.insert("tokenizer_class".to_owned(), "PreTrainedTokenizerFast".into());
    settings.insert("clean_up_tokenization_spaces".to_owned(), false.into());
    for (short, long) in [("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")] {
        let id = metadata.number(&format!("tokenizer.ggml.{long}_token_id"))?;
        if let Some(token) = id.and_then(|id| tokens.get(id as usize)) {
            settings.insert(format!("{short}_token"), (*token).into());
        }
    }
    // What llama.cpp does where the file does not say it goes with the scheme.
    for (end, default) in [("bos", scheme.adds_bos), ("eos", false)] {
        let adds = metadata.flag(&format!("tokenizer.ggml.add_{end}_token"))?.unwrap_or(default);
        if adds && !settings.contains_key(&format!("{end}_token")) {
            return Err(format!("it adds a token to every text, and has no {end}_token_id"));
        }
        settings.insert(format!("add_{end}_token"), adds.into());
    }
    if let Some(templates) = chat_templates(metadata)? {
        settings.insert("chat_template".to_owned(), templates);
    }
    Ok(settings)
}

/// The chat template, or a list of them by name where there are several.
fn chat_templates(metadata: &Metadata) -> Result<Option<Value>, String> {
    let default = metadata.text("tokenizer.chat_template")?;
    let names = metadata.texts("tokenizer.chat_templates")?.unwrap_or_default();
    let mut all: Vec<Value> = Vec::new();
    let named = default.map(|template| ("default", template)).into_iter();
    let listed = names.iter().filter_map(|name| {
        let template = metadata.text(&format!("tokenizer.chat_template.{name}")).transpose()?;
        Some(template.map(|template| (*name, template)))
    });
    for named in named.map(Ok).chain(listed) {
        let (name, template) = named?;
        all.push(json!({ "name": name, "template": template }));
    }
    Ok(match (default, all.len()) {
        (_, 0) => None,
        (Some(template), 1) => Some(template.into()),
        _ => Some(all.into()),
    })
}

/// What puts the tokens around a text that `settings` says are added; null if none is.
fn ends(settings: &Map<String, Value>, vocabulary: &Map<String, Value>) -> Value {
    let token = |end: &str| {
        let adds = settings.get(&format!("add_{end}_token")) == Some(&Value::Bool(true));
        settings.get(&format!("{end}_token")).and_then(Value::as_str).filter(|_| adds)
    };
    let (bos, eos) = (token("bos"), token("eos"));
    if bos.is_none() && eos.is_none() {
        return Value::Null;
    }
    let template = |sequences: &[&str]| -> Vec<Value> {
        let mut parts = Vec::new();
        for (kind, &id) in sequences.iter().enumerate() {
            let special = |token: &str| json!({ "SpecialToken": { "id": token, "type_id": kind } });
            parts.extend(bos.map(special));
            parts.push(json!({ "Sequence": { "id": id, "type_id": kind } }));
            parts.extend(eos.map(special));
        }
        parts
    };
    let mut special = Map::new();
    for token in [bos, eos].into_iter().flatten() {
        let ids = [&vocabulary[token]];
        special.insert(token.to_owned(), json!({ "id": token, "ids": ids, "tokens": [token] }));
    }
    json!({
        "type": "TemplateProcessing",
        "single": template(&["A"]),
        "pair": template(&["A", "B"]),
        "special_tokens": special,
    })
}
