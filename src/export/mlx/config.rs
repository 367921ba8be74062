//! `config.json` of an mlx-lm folder: what the configuration means, in the keys that mlx-lm reads.
//!
//! mlx-lm has defaults of its own for keys that are not there, and reads `rope_theta` and
//! `rope_scaling` where transformers 5 writes `rope_parameters`. So every key that decides numbers
//! is written.

use half::bf16;
use serde_json::{Map, Value, json};

use super::client;
use super::layout::Form;
use crate::architecture::{Architecture, Family, LOCAL_THETA, QUERY_SCALAR, Scaling};
use crate::error::{Error, Result};
use crate::pipeline::CompressedFolder;

/// Keys that say a second time, or to other programs, what [`numbers`] says.
const REMOVED: [&str; 7] = [
    "rope_parameters",
    "rope_local_base_freq",
    "rope_traditional",
    "original_max_position_embeddings",
    "layer_types",
    "sliding_window_pattern",
    "_sliding_window_pattern",
];

/// The configuration of the folder, and the model that it means: `None` for one that is not known
/// here, or inside another that is not, with a warning.
///
/// # Errors
/// [`Error::Checkpoint`] without a `config.json`, and for a configuration that mlx-lm's model of the
/// family has no form for.
pub(super) fn read(input: &CompressedFolder) -> Result<(&Value, Option<Architecture>)> {
    let config = input.stored.config().ok_or_else(|| {
        Error::checkpoint(input.stored.folder(), "has no config.json, which mlx-lm needs")
    })?;
    let json = config.json();
    let path = config.path().display();
    if Family::named(config.model_type()).is_none() {
        tracing::warn!(
            "{path}: model_type {:?} is not known here; whether mlx-lm computes what this \
             configuration means is for you to check",
            config.model_type()
        );
        return Ok((json, None));
    }
    let wrong = |message: String| Error::checkpoint(config.path(), message);
    let architecture = Architecture::parse(json).map_err(wrong)?;
    if let Some(what) = client::not_in_mlx_lm(&architecture) {
        let family = &architecture.model_type;
        return Err(wrong(format!("mlx-lm's {family} models have no {what}")));
    }
    if architecture.family() != Family::Gemma3
        && let Some(window) = architecture.short_window()
    {
        tracing::warn!(
            "{path}: mlx-lm's {} models have no sliding window: texts longer than {window} tokens \
             give other numbers",
            architecture.model_type
        );
    }
    let scale = architecture.embedding_scale;
    let rounded = bf16::from_f32(scale).to_f32();
    if rounded != scale {
        tracing::warn!(
            "{path}: mlx-lm multiplies embeddings by {rounded}, which is {scale} in bf16: numbers \
             differ a little from those of fp32"
        );
    }
    Ok((json, Some(architecture)))
}

/// `json`, the configuration of the folder, for mlx-lm: with the numbers of `architecture`, tied
/// where the folder stores no head, and with `quantization`: defaults, and what each coded module
/// has. A module that is not listed and has no scales stays plain.
pub(super) fn mlx_config(
    json: &Value,
    architecture: Option<&Architecture>,
    tied: bool,
    coded: &[(&str, Form)],
) -> Value {
    let mut json = json.clone();
    let map = json.as_object_mut().expect("invariant: a configuration is an object");
    map.shift_remove("quantization_config");
    match architecture {
        Some(architecture) => numbers(map, architecture, tied),
        None => rope_of_unknown(map),
    }
    let settings = |form: &Form| match *form {
        Form::Affine { bits, group, .. } => Some((bits, group)),
        Form::Plain(_) => None,
    };
    let coded: Vec<(&str, (usize, usize))> =
        coded.iter().filter_map(|(module, form)| Some((*module, settings(form)?))).collect();
    if let Some((_, (bits, group))) =
        coded.iter().find(|(_, (bits, _))| *bits == 2).or(coded.first())
    {
        let of = |bits: usize, group: usize| json!({ "group_size": group, "bits": bits, "mode": "affine" });
        let mut quantization = of(*bits, *group);
        for (module, (bits, group)) in &coded {
            quantization[*module] = of(*bits, *group);
        }
        map.insert("quantization".to_owned(), quantization.clone());
        map.insert("quantization_config".to_owned(), quantization);
    }
    json
}

/// Writes every key that an mlx-lm model of the family reads.
fn numbers(outer: &mut Map<String, Value>, a: &Architecture, tied: bool) {
    if !outer.get("text_config").is_some_and(Value::is_object) {
        return text_numbers(outer, a, tied);
    }
    // mlx-lm's multimodal module has a vocabulary of its own, which counts.
    outer.insert("vocab_size".to_owned(), a.vocab_size.into());
    outer.insert("tie_word_embeddings".to_owned(), tied.into());
    if let Some(text) = outer["text_config"].as_object_mut() {
        text_numbers(text, a, tied);
    }
}

fn text_numbers(map: &mut Map<String, Value>, a: &Architecture, tied: bool) {
    let family = a.family();
    for key in REMOVED {
        map.shift_remove(key);
    }
    let mut set = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
    set("model_type", a.model_type[..].into());
    set("vocab_size", a.vocab_size.into());
    set("hidden_size", a.hidden_size.into());
    set("intermediate_size", a.intermediate_size.into());
    set("num_hidden_layers", a.layers.len().into());
    set("num_attention_heads", a.heads.into());
    set("num_key_value_heads", a.kv_heads.into());
    set("head_dim", a.head_dim.into());
    set("max_position_embeddings", a.max_positions.into());
    set("rms_norm_eps", shortest(a.norm_eps));
    set("tie_word_embeddings", tied.into());
    set("rope_theta", a.ropes[0].theta.into());
    set("rope_scaling", scaling(a.ropes[0].scaling));
    match family {
        Family::Llama | Family::Mistral => {
            set("attention_bias", a.output_bias.into());
            set("mlp_bias", a.mlp_bias.into());
        }
        Family::Qwen2 | Family::Qwen3 => {}
        Family::Mixtral | Family::Qwen3Moe => {
            let experts = a.experts.expect("invariant: the family has experts");
            let count = if family == Family::Mixtral { "num_local_experts" } else { "num_experts" };
            set(count, experts.count.into());
            set("num_experts_per_tok", experts.per_token.into());
            if family == Family::Qwen3Moe {
                let dense = a.layers.iter().enumerate().filter(|(_, layer)| !layer.experts);
                set("moe_intermediate_size", experts.intermediate_size.into());
                set("norm_topk_prob", experts.normalised.into());
                set("decoder_sparse_step", 1.into());
                set("mlp_only_layers", dense.map(|(index, _)| index).collect());
            }
        }
        Family::Gemma3 => {
            let windows = a.layers.iter().find_map(|layer| layer.window);
            let pattern =
                client::pattern(a).expect("invariant: checked before anything is written");
            set("sliding_window", windows.unwrap_or(a.max_positions).into());
            set("sliding_window_pattern", pattern.into());
            set("rope_local_base_freq", a.ropes.last().map_or(LOCAL_THETA, |r| r.theta).into());
            if map.get("query_pre_attn_scalar").is_none_or(Value::is_null) {
                map.insert("query_pre_attn_scalar".to_owned(), QUERY_SCALAR.into());
            }
        }
    }
}

/// The decimal that an f32 was read from, or one that gives it again.
fn shortest(x: f32) -> Value {
    x.to_string().parse::<f64>().unwrap_or(f64::from(x)).into()
}

/// Both names of the type: mlx-lm looks at `type` first.
fn scaling(scaling: Scaling) -> Value {
    match scaling {
        Scaling::None => Value::Null,
        Scaling::Linear { factor } => {
            json!({ "type": "linear", "rope_type": "linear", "factor": factor })
        }
        Scaling::Llama3 { factor, low, high, original } => json!({
            "type": "llama3",
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": original,
        }),
    }
}

/// The rope of a family that is not known here, in the older keys, which most of mlx-lm's models
/// read alone.
fn rope_of_unknown(map: &mut Map<String, Value>) {
    let Some(Value::Object(parameters)) = map.get("rope_parameters").cloned() else { return };
    let Some(theta) = parameters.get("rope_theta").filter(|theta| theta.is_number()) else {
        return;
    };
    map.entry("rope_theta").or_insert(theta.clone());
    let plain = parameters.get("rope_type").is_none_or(|kind| kind == "default");
    if !plain && map.get("rope_scaling").is_none_or(Value::is_null) {
        map.insert("rope_scaling".to_owned(), Value::Object(parameters));
    }
}
