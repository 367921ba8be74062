//! What mlx-lm's models (0.32) compute, held against what the configuration means.

use crate::architecture::{Activation, Architecture, Family, Scaling};

/// What the configuration has that mlx-lm's model of the family does not compute.
pub(super) fn not_in_mlx_lm(a: &Architecture) -> Option<String> {
    let family = a.family();
    let activation = match family {
        Family::Gemma3 => Activation::GeluTanh,
        _ => Activation::Silu,
    };
    if a.activation != activation {
        return Some(format!("activation {:?}", a.activation));
    }
    let takes_scaling = !matches!(family, Family::Mixtral | Family::Qwen3Moe);
    if a.ropes[0].scaling != Scaling::None && !takes_scaling {
        return Some("rope_scaling".to_owned());
    }
    if a.ropes.get(1).is_some_and(|local| local.scaling != Scaling::None) {
        return Some("scaled rope in layers that slide".to_owned());
    }
    if a.output_bias && family != Family::Llama {
        return Some("attention_bias".to_owned());
    }
    let fixed_heads = matches!(family, Family::Qwen2 | Family::Mixtral);
    if fixed_heads && a.head_dim * a.heads != a.hidden_size {
        return Some(format!(
            "head_dim but hidden_size / num_attention_heads, here {}",
            a.head_dim
        ));
    }
    if family == Family::Gemma3 && pattern(a).is_none() {
        return Some("layer_types but every N-th layer of full attention".to_owned());
    }
    None
}

/// Gemma's `sliding_window_pattern`: every how many layers one sees all. mlx-lm wants one at least.
pub(super) fn pattern(a: &Architecture) -> Option<usize> {
    let slides: Vec<bool> = a.layers.iter().map(|layer| layer.rope == 1).collect();
    let first = slides.iter().position(|slides| !slides)? + 1;
    let fits = slides.iter().zip(1..).all(|(&slides, layer)| slides != (layer % first == 0));
    fits.then_some(first)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn lacks(config: &Value) -> Option<String> {
        not_in_mlx_lm(&Architecture::parse(config).unwrap())
    }

    #[test]
    fn what_a_family_lacks_is_found() {
        for family in ["llama", "mistral", "qwen2", "qwen3", "gemma3_text"] {
            let linear = json!({ "rope_type": "linear", "factor": 2.0 });
            let config = json!({ "model_type": family, "rope_scaling": linear });
            assert_eq!(lacks(&config), None, "{family}");
        }
        for family in ["mixtral", "qwen3_moe"] {
            assert_eq!(lacks(&json!({ "model_type": family })), None);
            let linear = json!({ "rope_type": "linear", "factor": 2.0 });
            let config = json!({ "model_type": family, "rope_scaling": linear });
            assert_eq!(lacks(&config).as_deref(), Some("rope_scaling"));
        }
        for family in ["qwen3", "qwen3_moe", "gemma3_text"] {
            let config = json!({ "model_type": family, "attention_bias": true });
            assert_eq!(lacks(&config).as_deref(), Some("attention_bias"));
        }
        assert_eq!(lacks(&json!({ "model_type": "llama", "attention_bias": true })), None);
        let config = json!({ "model_type": "llama", "hidden_act": "gelu_pytorch_tanh" });
        assert!(lacks(&config).unwrap().contains("activation"));
        let config = json!({ "model_type": "qwen2", "head_dim": 64 });
        assert!(lacks(&config).unwrap().contains("here 64"));
    }

    #[test]
    fn gemma_patterns() {
        let of = |types: &[&str]| {
            let types: Vec<String> = types.iter().map(|t| format!("{t}_attention")).collect();
            let layers = types.len();
            let config = json!({
                "model_type": "gemma3_text", "num_hidden_layers": layers, "layer_types": types,
            });
            pattern(&Architecture::parse(&config).unwrap())
        };
        assert_eq!(of(&["sliding", "full", "sliding", "full", "sliding"]), Some(2));
        assert_eq!(of(&["full", "full"]), Some(1));
        assert_eq!(of(&["sliding", "full", "full"]), None);
        assert_eq!(of(&["full", "sliding"]), None);
        assert_eq!(of(&["sliding", "sliding"]), None);
    }
}
