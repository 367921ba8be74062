//! How text is cut before byte-level BPE: GGUF names a scheme, Hugging Face spells it out.

use serde_json::{Value, json};

/// Regular expressions of `Split` pre-tokenizers, and llama.cpp's names of them.
const SPLITS: [(&str, &str); 3] = [
    (
        "llama-bpe",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    (
        "qwen2",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    (
        "tekken",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
];

/// llama.cpp's name of the way that a `pre_tokenizer` of Hugging Face cuts text; `None` for one
/// without a name here.
pub(crate) fn scheme(cut: &Value) -> Option<&'static str> {
    let plain_bytes =
        |step: &Value| step["type"] == "ByteLevel" && step["add_prefix_space"] != true;
    let with_regex = |step: &Value| plain_bytes(step) && step["use_regex"] != false;
    match cut["pretokenizers"].as_array().map(Vec::as_slice) {
        None if with_regex(cut) => Some("gpt-2"),
        Some([bytes]) if with_regex(bytes) => Some("gpt-2"),
        Some([digits, bytes])
            if digits["type"] == "Digits"
                && digits["individual_digits"] == true
                && with_regex(bytes) =>
        {
            Some("smollm")
        }
        Some([split, bytes])
            if split["type"] == "Split"
                && split["behavior"] == "Isolated"
                && split["invert"] != true
                && plain_bytes(bytes)
                && bytes["use_regex"] == false =>
        {
            let pattern = split["pattern"]["Regex"].as_str();
            SPLITS.iter().find(|(_, regex)| Some(*regex) == pattern).map(|(name, _)| *name)
        }
        _ => None,
    }
}

/// The `pre_tokenizer` of Hugging Face for llama.cpp's `name`; `None` for one that is not known
/// here.
pub(crate) fn pre_tokenizer(name: &str) -> Option<Value> {
    let bytes = |use_regex: bool| {
        json!({
            "type": "ByteLevel",
            "add_prefix_space": false,
            "trim_offsets": true,
            "use_regex": use_regex,
        })
    };
    let sequence =
        |first: Value, bytes: Value| json!({ "type": "Sequence", "pretokenizers": [first, bytes] });
    match name {
        "default" | "gpt-2" => Some(bytes(true)),
        "smollm" => {
            let digits = json!({ "type": "Digits", "individual_digits": true });
            Some(sequence(digits, bytes(true)))
        }
        _ => {
            let (_, regex) = SPLITS.iter().find(|(known, _)| *known == name)?;
            let split = json!({
                "type": "Split",
                "pattern": { "Regex": regex },
                "behavior": "Isolated",
                "invert": false,
            });
            Some(sequence(split, bytes(false)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_both_ways() {
        for name in ["gpt-2", "smollm", "llama-bpe", "qwen2", "tekken"] {
            assert_eq!(scheme(&pre_tokenizer(name).unwrap()), Some(name));
        }
        let mut changed = pre_tokenizer("qwen2").unwrap();
        changed["pretokenizers"][0]["pattern"]["Regex"] = r"\s+".into();
        assert_eq!(scheme(&changed), None);
        assert_eq!(scheme(&json!({ "type": "Whitespace" })), None);
        assert_eq!(scheme(&json!({ "type": "ByteLevel", "use_regex": false })), None);
        assert_eq!(pre_tokenizer("unheard-of"), None);
    }
}
