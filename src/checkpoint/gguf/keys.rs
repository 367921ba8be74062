//! Metadata that decides what a model computes: every key of the architecture is read, is known to
//! change nothing, or is refused.

use super::metadata::Metadata;
use crate::gguf::{Family, Value};

/// Keys that `config` reads.
const READ: [&str; 14] = [
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.factor",
    "rope.scaling.type",
];

/// Keys that llama.cpp does not use for these architectures, or only under a type of rope scaling
/// that is refused. `tensor_data_layout` notes where the weights came from.
const UNUSED: [&str; 11] = [
    "attention.layer_norm_epsilon",
    "pooling_type",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_log_multiplier",
    "tensor_data_layout",
    "vocab_size",
];

/// Keys that change nothing with this value, and the value.
const NEUTRAL: [(&str, Value); 7] = [
    ("attention.causal", Value::Bool(true)),
    ("expert_count", Value::Unsigned(0)),
    ("expert_group_count", Value::Unsigned(0)),
    ("expert_used_count", Value::Unsigned(0)),
    ("nextn_predict_layers", Value::Unsigned(0)),
    ("rope.scaling.attn_factor", Value::Float(1.0)),
    ("use_parallel_residual", Value::Bool(false)),
];

/// Refuses metadata of the architecture that nothing here reads, and files that are no model.
///
/// # Errors
/// The key.
pub(super) fn check(metadata: &Metadata, family: Family) -> Result<(), String> {
    if let Some(kind) = metadata.text("general.type")?
        && kind != "model"
    {
        return Err(format!("is of the type {kind:?}, not a model"));
    }
    let prefix = format!("{}.", family.gguf);
    let mut unknown: Vec<&str> = metadata
        .keys()
        .filter(|key| {
            let Some(rest) = key.strip_prefix(&prefix) else { return false };
            let neutral = NEUTRAL
                .iter()
                .any(|(known, value)| *known == rest && metadata.get(key) == Some(value));
            !(READ.contains(&rest) || UNUSED.contains(&rest) || neutral)
        })
        .collect();
    unknown.sort_unstable();
    match unknown.first() {
        None => Ok(()),
        Some(key) => Err(format!(
            "metadata {key:?} is not read here and may change what the model computes; start from \
             the original checkpoint"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::families;

    #[test]
    fn unknown_keys_and_values_that_matter_are_refused() {
        let llama = families().next().unwrap();
        let with = |key: &str, value: Value| {
            check(&Metadata::new([(key.to_owned(), value)].into()), llama)
        };
        for key in READ.into_iter().chain(UNUSED) {
            assert_eq!(with(&format!("llama.{key}"), Value::Unsigned(1)), Ok(()), "{key}");
        }
        for (key, value) in NEUTRAL {
            assert_eq!(with(&format!("llama.{key}"), value), Ok(()), "{key}");
            let refused = with(&format!("llama.{key}"), Value::Unsigned(7)).unwrap_err();
            assert!(refused.contains(key), "{refused}");
        }
        for key in ["llama.attention.sliding_window", "llama.logit_scale", "llama.anything"] {
            assert!(with(key, Value::Unsigned(1)).unwrap_err().contains(key));
        }
        for key in ["general.name", "tokenizer.ggml.pre", "qwen2.logit_scale", "imatrix.dataset"] {
            assert_eq!(with(key, Value::Text("x".to_owned())), Ok(()), "{key}");
        }
        let adapter = with("general.type", Value::Text("adapter".to_owned()));
        assert!(adapter.unwrap_err().contains("adapter"));
    }
}
