//! How text is cut before byte-level BPE: GGUF names a scheme, Hugging Face spells it out.

use serde_json::{Value, json};

/// Regular expression of Llama 3's cut.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Regular expression of Qwen's.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Regular expression of Mistral's newer tokenizers.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A way to cut text that llama.cpp has a name for, and what it does besides under that name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scheme {
    /// Name that is written.
    pub(crate) name: &'static str,
    /// Other names of the same.
    others: &'static [&'static str],
    cut: Cut,
    /// Takes a piece that is a token whole, whatever the merges make of it.
    pub(crate) ignore_merges: bool,
    /// Puts the first token in front of texts where the file does not say.
    pub(crate) adds_bos: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Cut {
    /// GPT-2's, built into `ByteLevel`.
    Bytes,
    /// Single digits first, then GPT-2's.
    Digits,
    /// By a regular expression.
    Split(&'static str),
}

const SCHEMES: [Scheme; 6] = [
    Scheme { name: "gpt-2", others: &[], cut: Cut::Bytes, ignore_merges: false, adds_bos: false },
    Scheme { name: "smollm", others: &[], cut: Cut::Digits, ignore_merges: false, adds_bos: false },
    Scheme {
        name: "llama-bpe",
        others: &["llama3", "llama-v3"],
        cut: Cut::Split(LLAMA3),
        ignore_merges: true,
        adds_bos: true,
    },
    Scheme {
        name: "smaug-bpe",
        others: &[],
        cut: Cut::Split(LLAMA3),
        ignore_merges: false,
        adds_bos: false,
    },
    Scheme {
        name: "qwen2",
        others: &["deepseek-r1-qwen"],
        cut: Cut::Split(QWEN2),
        ignore_merges: false,
        adds_bos: false,
    },
    Scheme {
        name: "tekken",
        others: &[],
        cut: Cut::Split(TEKKEN),
        ignore_merges: true,
        adds_bos: true,
    },
];

impl Scheme {
    /// The scheme that llama.cpp calls `name`; `None` for one that is not known here. `default` is
    /// none: llama.cpp cuts in a way of its own then, for want of the model's.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        SCHEMES.iter().find(|scheme| scheme.name == name || scheme.others.contains(&name))
    }

    /// The scheme of a `pre_tokenizer` of Hugging Face whose model ignores merges or does not.
    ///
    /// # Errors
    /// Why there is none, to follow "the tokenizer".
    pub(crate) fn of(cut: &Value, ignore_merges: bool) -> Result<&'static Self, String> {
        let cut = Cut::of(cut)
            .ok_or("cuts text in a way that llama.cpp has no name for that is known here")?;
        let scheme = SCHEMES
            .iter()
            .find(|scheme| scheme.cut == cut && scheme.ignore_merges == ignore_merges);
        scheme.ok_or_else(|| {
            format!(
                "has ignore_merges {ignore_merges}, which llama.cpp does not do with this way of \
                 cutting text"
            )
        })
    }

    /// The `pre_tokenizer` of Hugging Face.
    pub(crate) fn pre_tokenizer(&self) -> Value {
        let bytes = |use_regex: bool| {
            json!({
                "type": "ByteLevel",
                "add_prefix_space": false,
                "trim_offsets": true,
                "use_regex": use_regex,
            })
        };
        let sequence = |first: Value, bytes: Value| json!({ "type": "Sequence", "pretokenizers": [first, bytes] });
        match self.cut {
            Cut::Bytes => bytes(true),
            Cut::Digits => {
                sequence(json!({ "type": "Digits", "individual_digits": true }), bytes(true))
            }
            Cut::Split(regex) => {
                let split = json!({
                    "type": "Split",
                    "pattern": { "Regex": regex },
                    "behavior": "Isolated",
                    "invert": false,
                });
                sequence(split, bytes(false))
            }
        }
    }
}

impl Cut {
    fn of(cut: &Value) -> Option<Self> {
        let plain_bytes =
            |step: &Value| step["type"] == "ByteLevel" && step["add_prefix_space"] != true;
        let with_regex = |step: &Value| plain_bytes(step) && step["use_regex"] != false;
        match cut["pretokenizers"].as_array().map(Vec::as_slice) {
            None if with_regex(cut) => Some(Self::Bytes),
            Some([bytes]) if with_regex(bytes) => Some(Self::Bytes),
            Some([digits, bytes])
                if digits["type"] == "Digits"
                    && digits["individual_digits"] == true
                    && with_regex(bytes) =>
            {
                Some(Self::Digits)
            }
            Some([split, bytes])
                if split["type"] == "Split"
                    && split["behavior"] == "Isolated"
                    && split["invert"] != true
                    && plain_bytes(bytes)
                    && bytes["use_regex"] == false =>
            {
                let pattern = split["pattern"]["Regex"].as_str()?;
                let known = [LLAMA3, QWEN2, TEKKEN].into_iter().find(|regex| *regex == pattern);
                known.map(Self::Split)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_both_ways() {
        for name in ["gpt-2", "smollm", "llama-bpe", "smaug-bpe", "qwen2", "tekken"] {
            let scheme = Scheme::named(name).unwrap();
            let back = Scheme::of(&scheme.pre_tokenizer(), scheme.ignore_merges).unwrap();
            assert_eq!(back.name, name);
        }
        assert_eq!(Scheme::named("llama3").unwrap().name, "llama-bpe");
        for unknown in ["default", "", "unheard-of"] {
            assert_eq!(Scheme::named(unknown), None);
        }
        let qwen = Scheme::named("qwen2").unwrap().pre_tokenizer();
        assert!(Scheme::of(&qwen, true).unwrap_err().contains("ignore_merges true"));
        let tekken = Scheme::named("tekken").unwrap().pre_tokenizer();
        assert!(Scheme::of(&tekken, false).unwrap_err().contains("ignore_merges false"));
        let mut changed = qwen;
        changed["pretokenizers"][0]["pattern"]["Regex"] = r"\s+".into();
        for cut in [
            changed,
            json!({ "type": "Whitespace" }),
            json!({ "type": "ByteLevel", "use_regex": false }),
        ] {
            assert!(Scheme::of(&cut, false).unwrap_err().contains("no name"), "{cut}");
        }
    }
}
