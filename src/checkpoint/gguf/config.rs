//! `config.json` and `generation_config.json` of a GGUF file.

use serde_json::{Value, json};

use super::super::Tensor;
use super::metadata::Metadata;
use crate::architecture::{EMBEDDING, HEAD};
use crate::gguf::Family;

/// `config.json` as transformers reads it.
///
/// # Errors
/// What the metadata lacks, or says that a configuration has no form for.
pub(super) fn config(
    metadata: &Metadata,
    family: Family,
    tensors: &[Tensor],
) -> Result<Value, String> {
    let key = |key: &str| format!("{}.{key}", family.gguf);
    let (heads, kv_heads) = metadata.heads(family)?;
    let hidden = metadata.size(family, "embedding_length")?;
    let head_dim = head_dim(metadata, family, hidden / heads)?;
    let find = |name: &str| tensors.iter().find(|tensor| tensor.name == name);
    let embedding = find(EMBEDDING).ok_or("has no token embedding")?;
    let epsilon = metadata.float(&key("attention.layer_norm_rms_epsilon"))?;
    let epsilon = epsilon.ok_or("metadata has no attention.layer_norm_rms_epsilon")?;
    let theta = metadata.float(&key("rope.freq_base"))?.map_or(10_000.0, six_digits);
    let token = |name: &str| metadata.number(&format!("tokenizer.ggml.{name}_token_id"));
    // Any bias means all of them: a missing one is found when the tensors are checked.
    let biased = |module: &str| {
        tensors.iter().any(|tensor| tensor.name.contains(module) && tensor.name.ends_with(".bias"))
    };
    Ok(json!({
        "_name_or_path": metadata.text("general.name")?.unwrap_or_default(),
        "architectures": [family.class],
        "model_type": family.hf,
        "hidden_size": hidden,
        "intermediate_size": metadata.size(family, "feed_forward_length")?,
        "num_hidden_layers": metadata.size(family, "block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": metadata.size(family, "context_length")?,
        "vocab_size": embedding.shape[0],
        "rms_norm_eps": six_digits(epsilon),
        "rope_theta": theta,
        "rope_scaling": scaling(metadata, family)?,
        "hidden_act": "silu",
        "tie_word_embeddings": find(HEAD).is_none(),
        "attention_bias": biased(".self_attn."),
        "attention_dropout": 0.0,
        "mlp_bias": biased(".mlp."),
        "bos_token_id": token("bos")?,
        "eos_token_id": token("eos")?,
        "pad_token_id": token("padding")?,
        "initializer_range": 0.02,
        "use_cache": true,
        "torch_dtype": if embedding.dtype == safetensors::Dtype::F16 { "float16" } else { "float32" },
    }))
}

/// Width of a head, all of which is rotated.
fn head_dim(metadata: &Metadata, family: Family, default: usize) -> Result<usize, String> {
    let of = |key: &str| metadata.optional_size(family, key);
    let keys = of("attention.key_length")?.unwrap_or(default);
    let values = of("attention.value_length")?.unwrap_or(default);
    let rotated = of("rope.dimension_count")?.unwrap_or(keys);
    if values != keys || rotated != keys {
        return Err(format!(
            "metadata gives heads {keys} wide for keys and {values} for values, of which \
             rope.dimension_count {rotated} are rotated; only one width for all is read"
        ));
    }
    Ok(keys)
}

/// `rope_scaling`, by llama.cpp's rules: a factor without a type is a linear one, `rope.scale_linear`
/// is the factor's old name, and a factor of 0 is none.
fn scaling(metadata: &Metadata, family: Family) -> Result<Value, String> {
    let key = |key: &str| format!("{}.rope.{key}", family.gguf);
    let kind = metadata.text(&key("scaling.type"))?.unwrap_or("linear");
    let factor = match metadata.float(&key("scaling.factor"))? {
        None => metadata.float(&key("scale_linear"))?,
        some => some,
    };
    match (kind, factor.unwrap_or(0.0)) {
        ("none", _) | ("linear", 0.0 | 1.0) => Ok(Value::Null),
        ("linear", factor) if factor > 0.0 => {
            Ok(json!({ "rope_type": "linear", "factor": six_digits(factor) }))
        }
        ("linear", factor) => Err(format!("rope scaling factor {factor} is below zero")),
        (other, _) => Err(format!("rope scaling {other:?} is not read")),
    }
}

/// Metadata is stored as f32: six digits give back the decimal that the model was trained with.
fn six_digits(x: f64) -> f64 {
    format!("{x:.5e}").parse().unwrap_or(x)
}

/// `generation_config.json`.
pub(super) fn generation(config: &Value) -> Value {
    json!({ "bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"] })
}
