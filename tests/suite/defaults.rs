//! What a configuration means when it leaves a key out, against transformers' own classes
//! (`fixtures/architectures/defaults.py`).

use compress_model::architecture::{Activation, Architecture, Rope, Scaling};
use serde_json::{Map, Value, json};

fn fixture() -> Value {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/architectures");
    serde_json::from_slice(&std::fs::read(folder.join("defaults.json")).unwrap()).unwrap()
}

fn rope(rope: &Rope) -> Value {
    match rope.scaling {
        Scaling::None => json!([rope.theta, "default"]),
        Scaling::Linear { factor } => json!([rope.theta, "linear", factor]),
        Scaling::Llama3 { factor, low, high, original } => {
            json!([rope.theta, "llama3", factor, high, low, original as u64])
        }
    }
}

/// The words of the fixture.
fn means(config: &Value) -> Value {
    let a = Architecture::parse(config).unwrap_or_else(|e| panic!("{config}: {e}"));
    let windows: Vec<Option<usize>> = a.layers.iter().map(|layer| layer.window).collect();
    let activation = match a.activation {
        Activation::Silu => "silu",
        Activation::GeluTanh => "gelu_pytorch_tanh",
    };
    let mut means = json!({
        "vocab_size": a.vocab_size,
        "hidden_size": a.hidden_size,
        "intermediate_size": a.intermediate_size,
        "heads": a.heads,
        "kv_heads": a.kv_heads,
        "head_dim": a.head_dim,
        "max_positions": a.max_positions,
        "norm_eps": a.norm_eps.to_string().parse::<f64>().unwrap(),
        "qkv_bias": a.qkv_bias,
        "output_bias": a.output_bias,
        "mlp_bias": a.mlp_bias,
        "query_scalar": (1.0 / f64::from(a.attention_scale).powi(2)).round() as u64,
        "activation": activation,
        "tied": a.tied,
        "windows": windows,
        "ropes": a.ropes.iter().map(rope).collect::<Vec<Value>>(),
    });
    if let Some(experts) = a.experts {
        means["experts"] = json!({
            "count": experts.count,
            "per_token": experts.per_token,
            "width": experts.intermediate_size,
            "normalised": experts.normalised,
            "layers": a.layers.iter().map(|layer| layer.experts).collect::<Vec<bool>>(),
        });
    }
    means
}

fn with(whole: &Value, changes: &Value) -> Value {
    let mut all = whole.clone();
    for (key, value) in changes.as_object().unwrap() {
        all[key] = value.clone();
    }
    all
}

#[test]
fn every_key_that_is_left_out_means_what_transformers_takes_for_it() {
    let fixture = fixture();
    let mut cases = 0;
    for (name, family) in fixture["families"].as_object().unwrap() {
        let (config, whole) = (&family["config"], &family["means"]);
        assert_eq!(means(config), *whole, "{name}");
        assert_eq!(means(&json!({ "model_type": name })), family["nothing"], "{name}");
        for (key, changes) in family["without"].as_object().unwrap() {
            let mut less: Map<String, Value> = config.as_object().unwrap().clone();
            less.shift_remove(key).unwrap();
            assert_eq!(means(&less.into()), with(whole, changes), "{name} without {key}");
            cases += 1;
        }
        for (key, changes) in family["null"].as_object().unwrap() {
            let config = with(config, &json!({ key: null }));
            assert_eq!(means(&config), with(whole, changes), "{name}, {key} null");
        }
    }
    assert!(cases > 90, "{cases}");
}

#[test]
fn other_ways_to_say_it() {
    for (name, case) in fixture()["others"].as_object().unwrap() {
        assert_eq!(means(&case["config"]), case["means"], "{name}");
    }
    // Inside a multimodal configuration.
    let text = json!({ "model_type": "gemma3_text", "num_hidden_layers": 2 });
    let outer = json!({ "model_type": "gemma3", "text_config": text });
    assert_eq!(means(&outer), means(&text));
    let outer = with(&outer, &json!({ "tie_word_embeddings": false }));
    assert_eq!(means(&outer)["tied"], false);
}

#[test]
fn values_of_the_wrong_kind_are_refused_not_replaced() {
    let refused = |family: &str, key: &str, value: Value| {
        let config = json!({ "model_type": family, key: value });
        let why = Architecture::parse(&config).unwrap_err();
        assert!(why.contains(key), "{config}: {why}");
    };
    for (key, value) in [
        ("hidden_size", json!("4096")),
        ("hidden_size", json!(0)),
        ("vocab_size", json!(null)),
        ("rms_norm_eps", json!("1e-5")),
        ("rope_theta", json!("10000")),
        ("attention_bias", json!("yes")),
        ("tie_word_embeddings", json!(1)),
        ("hidden_act", json!("gelu")),
        ("hidden_act", json!(3)),
        ("rope_scaling", json!("linear")),
        ("partial_rotary_factor", json!(0.5)),
        ("text_config", json!([])),
    ] {
        refused("llama", key, value);
    }
    refused("gemma3_text", "hidden_activation", json!("gelu"));
    refused("gemma3_text", "layer_types", json!("full"));
    refused("qwen3", "use_sliding_window", json!("no"));
    let ropes = [
        (json!({ "rope_type": "linear" }), "factor"),
        (json!({ "rope_type": "linear", "factor": 0.0 }), "factor"),
        (json!({ "rope_type": "linear", "factor": "4" }), "factor"),
        (json!({ "rope_type": "yarn", "factor": 4.0 }), "yarn"),
        (json!({ "rope_type": "default", "rope_theta": -1.0 }), "rope_theta"),
        (json!({ "rope_type": "default", "partial_rotary_factor": 0.5 }), "partial_rotary_factor"),
        (json!({ "full_attention": {} }), "Gemma 3 only"),
    ];
    for (rope, word) in ropes {
        let config = json!({ "model_type": "llama", "rope_parameters": rope });
        let why = Architecture::parse(&config).unwrap_err();
        assert!(why.contains(word), "{config}: {why}");
    }
}
