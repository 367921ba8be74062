//! `tokenizer.json` and `tokenizer_config.json` of a GGUF file with a byte-level BPE tokenizer.

use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use crate::gguf::{self, pre_tokenizer};

/// Token types of GGUF.
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// `tokenizer.json` as the `tokenizers` library reads it.
///
/// # Errors
/// Why there is none, in words.
pub(super) fn tokenizer(metadata: &Metadata) -> Result<Value, String> {
    let kind = metadata.text("tokenizer.ggml.model").unwrap_or("none");
    if kind != "gpt2" {
        return Err(format!("its kind {kind:?} is not byte-level BPE"));
    }
    let scheme = metadata.text("tokenizer.ggml.pre").unwrap_or("default");
    let cut = pre_tokenizer::pre_tokenizer(scheme)
        .ok_or_else(|| format!("the pre-tokenizer {scheme:?} is not known"))?;
    let tokens = metadata.texts("tokenizer.ggml.tokens").ok_or("it has no tokens")?;
    let merges = metadata.texts("tokenizer.ggml.merges").ok_or("it has no merges")?;
    let types = metadata.array("tokenizer.ggml.token_type").unwrap_or_default();
    let kind_of = |id: usize| match types.get(id) {
        Some(gguf::Value::Signed(kind)) => u64::try_from(*kind).unwrap_or(0),
        Some(gguf::Value::Unsigned(kind)) => *kind,
        _ => 0,
    };
    let added: Vec<Value> = tokens
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
        })
        .collect();
    let vocabulary: Map<String, Value> =
        tokens.iter().enumerate().map(|(id, &token)| (token.to_owned(), id.into())).collect();
    if vocabulary.len() != tokens.len() {
        return Err("it names a token twice".to_owned());
    }
    let merges = merges
        .iter()
        .map(|merge| merge.split_once(' ').map(|(left, right)| json!([left, right])))
        .collect::<Option<Vec<Value>>>()
        .ok_or("a merge is no pair")?;
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": cut,
        "post_processor": null,
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
            // Llama 3 takes a word that is a token whole, whatever the merges make of it.
            "ignore_merges": scheme == "llama-bpe",
            "vocab": vocabulary,
            "merges": merges,
        },
    }))
}

/// `tokenizer_config.json`: special tokens by name, and the chat template.
pub(super) fn settings(metadata: &Metadata) -> Value {
    let mut settings = Map::new();
    settings.insert("tokenizer_class".to_owned(), "PreTrainedTokenizerFast".into());
    settings.insert("clean_up_tokenization_spaces".to_owned(), false.into());
    let tokens = metadata.texts("tokenizer.ggml.tokens").unwrap_or_default();
    for (short, long) in [("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")] {
        let id = metadata.number(&format!("tokenizer.ggml.{long}_token_id"));
        if let Some(token) = id.and_then(|id| tokens.get(id as usize)) {
            settings.insert(format!("{short}_token"), (*token).into());
        }
    }
    if let Some(flag) = metadata.flag("tokenizer.ggml.add_bos_token") {
        settings.insert("add_bos_token".to_owned(), flag.into());
    }
    if let Some(template) = metadata.text("tokenizer.chat_template") {
        settings.insert("chat_template".to_owned(), template.into());
    }
    Value::Object(settings)
}
