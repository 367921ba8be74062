//! `config.json` and `generation_config.json` of a GGUF file.

use serde_json::{Value, json};

use super::super::Tensor;
use super::metadata::Metadata;
use crate::gguf::Family;

/// `config.json` as transformers reads it.
///
/// # Errors
/// What the metadata lacks.
pub(super) fn config(
    metadata: &Metadata,
    family: Family,
    tensors: &[Tensor],
) -> Result<Value, String> {
    let key = |key: &str| format!("{}.{key}", family.gguf);
    let (heads, kv_heads) = metadata.heads(family)?;
    let hidden = metadata.size(family, "embedding_length")?;
    let find = |name: &str| tensors.iter().find(|tensor| tensor.name == name);
    let embedding = find("model.embed_tokens.weight").ok_or("has no token embedding")?;
    let epsilon = metadata.float(&key("attention.layer_norm_rms_epsilon"));
    let epsilon = epsilon.ok_or("metadata has no attention.layer_norm_rms_epsilon")?;
    let scaling = match metadata.text(&key("rope.scaling.type")) {
        None | Some("none") => Value::Null,
        Some("linear") => json!({
            "rope_type": "linear",
            "factor": metadata.float(&key("rope.scaling.factor")).unwrap_or(1.0),
        }),
        Some(other) => return Err(format!("rope scaling {other:?} is not read")),
    };
    let token = |name: &str| metadata.number(&format!("tokenizer.ggml.{name}_token_id"));
    let biased = find("model.layers.0.self_attn.q_proj.bias").is_some();
    Ok(json!({
        "_name_or_path": metadata.text("general.name").unwrap_or_default(),
        "architectures": [family.class],
        "model_type": family.hf,
        "hidden_size": hidden,
        "intermediate_size": metadata.size(family, "feed_forward_length")?,
        "num_hidden_layers": metadata.size(family, "block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": metadata.size(family, "attention.key_length").unwrap_or(hidden / heads),
        "max_position_embeddings": metadata.size(family, "context_length")?,
        "vocab_size": embedding.shape[0],
        "rms_norm_eps": six_digits(epsilon),
        "rope_theta": metadata.float(&key("rope.freq_base")).map_or(10_000.0, six_digits),
        "rope_scaling": scaling,
        "hidden_act": "silu",
        "tie_word_embeddings": find("lm_head.weight").is_none(),
        "attention_bias": biased,
        "attention_dropout": 0.0,
        "mlp_bias": false,
        "bos_token_id": token("bos"),
        "eos_token_id": token("eos"),
        "pad_token_id": token("padding"),
        "initializer_range": 0.02,
        "use_cache": true,
        "torch_dtype": if embedding.dtype == safetensors::Dtype::F16 { "float16" } else { "float32" },
    }))
}

/// Metadata is stored as f32: six digits give back the decimal that the model was trained with.
fn six_digits(x: f64) -> f64 {
    format!("{x:.5e}").parse().unwrap_or(x)
}

/// `generation_config.json`.
pub(super) fn generation(config: &Value) -> Value {
    json!({ "bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"] })
}
