//! Exports of whole models hold what the configuration means, in the keys that the other program
//! reads, and every tensor that it means.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Model, Tensor, Workspace, noise, tiny_llama};
use compress_model::architecture::Architecture;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

fn architectures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/architectures")
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The fixture `name`, with the configuration in file `config`.
fn fixture(name: &str, config: &str) -> Model {
    let folder = architectures().join(name);
    Model { config: json_of(&folder.join(config)), ..Model::read(&folder) }
}

/// The model, compressed to `out`.
fn compressed(model: &Model, args: &[&str]) -> Workspace {
    let workspace = Workspace::new();
    model.write(&workspace.path("model"), 1, &tiny_llama());
    let compress = [&["--preset", "on-device", "-o", "out"][..], args].concat();
    workspace.run("compress", "model", &compress).ok();
    workspace
}

const MLX: [&str; 5] = ["--format", "mlx", "-o", "mlx", "--exact"];
const GGUF: [&str; 4] = ["--format", "gguf", "-o", "m.gguf"];

/// Names, types and shapes of the tensors of `file`.
fn shapes(file: &Path) -> Vec<(String, Dtype, Vec<usize>)> {
    let bytes = fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut shapes: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.dtype(), view.shape().to_vec()))
        .collect();
    shapes.sort_by(|a, b| a.0.cmp(&b.0));
    shapes
}

/// mlx-lm reads the older keys only: each style of a configuration gives the same ones.
#[test]
fn mlx_gets_the_same_keys_from_every_style_of_configuration() {
    let mut pairs = 0;
    for name in
        ["llama3-rope", "mistral", "mixtral", "qwen2", "qwen3", "gemma3-scaled", "llama-bias"]
    {
        let mut written = Vec::new();
        for style in ["config.json", "config.transformers5.json"] {
            if !architectures().join(name).join(style).exists() {
                continue;
            }
            let model = fixture(name, style);
            let workspace = compressed(&model, &[]);
            workspace.run("export", "out", &MLX).ok();
            let config = json_of(&workspace.path("mlx/config.json"));
            let (before, after) =
                (Architecture::parse(&model.config), Architecture::parse(&config));
            assert_eq!(before.unwrap(), after.unwrap(), "{name}/{style}");
            for key in ["rope_parameters", "layer_types"] {
                assert!(config.get(key).is_none(), "{name}/{style}: {key}");
            }
            for key in [
                "rope_theta",
                "head_dim",
                "num_key_value_heads",
                "rms_norm_eps",
                "tie_word_embeddings",
                "max_position_embeddings",
                "vocab_size",
            ] {
                assert!(!config[key].is_null(), "{name}/{style}: no {key}");
            }
            let numbers = ["rope_theta", "rope_scaling", "sliding_window_pattern"];
            written.push(numbers.map(|key| config[key].clone()));
        }
        pairs += usize::from(written.len() == 2);
        assert!(written.windows(2).all(|pair| pair[0] == pair[1]), "{name}: {written:?}");
    }
    assert!(pairs >= 4);

    let workspace = compressed(&fixture("llama3-rope", "config.transformers5.json"), &[]);
    workspace.run("export", "out", &MLX).ok();
    let config = json_of(&workspace.path("mlx/config.json"));
    assert_eq!(config["rope_theta"], 500_000.0);
    let scaling = json!({
        "type": "llama3", "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 40.0,
    });
    assert_eq!(config["rope_scaling"], scaling);
    let workspace = compressed(&fixture("gemma3-scaled", "config.json"), &[]);
    workspace.run("export", "out", &MLX).ok();
    let config = json_of(&workspace.path("mlx/config.json"));
    assert_eq!(config["rope_local_base_freq"], 10_000.0);
    assert_eq!(config["sliding_window_pattern"], 2);
    assert_eq!(config["query_pre_attn_scalar"], 3);
}

#[test]
fn what_mlx_lm_does_not_compute_is_refused_or_said() {
    let workspace = compressed(&fixture("gemma3", "config.json"), &[]);
    workspace.run("export", "out", &MLX).ok();
    let mut model = fixture("gemma3", "config.json");
    let kinds = ["full", "sliding", "sliding", "full"].map(|kind| format!("{kind}_attention"));
    model.config["layer_types"] = kinds.to_vec().into();
    compressed(&model, &[]).run("export", "out", &MLX).fails(3, &["config.json", "layer_types"]);
    let mut model = fixture("mixtral", "config.json");
    model.config["rope_scaling"] = json!({ "type": "linear", "factor": 2.0 });
    compressed(&model, &[]).run("export", "out", &MLX).fails(3, &["config.json", "rope_scaling"]);
    let mistral = compressed(&fixture("mistral", "config.json"), &[]);
    let said = mistral.run("export", "out", &MLX).ok().stderr;
    assert!(said.contains("sliding window") && said.contains("8 tokens"), "{said}");
    let mut model = Model::read(&tiny_llama());
    model.config["model_type"] = "unheard-of".into();
    model.config["rope_parameters"] = json!({ "rope_theta": 9.0, "rope_type": "default" });
    model.config.as_object_mut().unwrap().shift_remove("rope_theta");
    let unknown = compressed(&model, &[]);
    let said = unknown.run("export", "out", &MLX).ok().stderr;
    assert!(said.contains("unheard-of") && said.contains("not known here"), "{said}");
    assert_eq!(json_of(&unknown.path("mlx/config.json"))["rope_theta"], 9.0);
}

/// mlx-lm wants the text model under one prefix, and a vocabulary outside.
#[test]
fn multimodal_models_of_both_styles_get_the_names_of_mlx_lm() {
    for (text, tower) in [
        ("language_model.model.", "vision_tower."),
        ("model.language_model.", "model.vision_tower."),
    ] {
        let mut model = fixture("gemma3", "config.json");
        model.config = json!({ "model_type": "gemma3", "text_config": model.config });
        let tensors = std::mem::take(&mut model.tensors);
        let rename = |name: &str| format!("{text}{}", name.strip_prefix("model.").unwrap());
        model.tensors = tensors.into_iter().map(|(name, t)| (rename(&name), t)).collect();
        let vision = Tensor::f32(&[4, 4], &noise(16, 1));
        model.tensors.insert(format!("{tower}fc.weight"), vision);
        let workspace = compressed(&model, &["--ignore", "vision"]);
        workspace.run("export", "out", &MLX).ok();
        let config = json_of(&workspace.path("mlx/config.json"));
        assert_eq!(config["vocab_size"], 67);
        assert_eq!(config["text_config"]["sliding_window_pattern"], 3);
        let found = shapes(&workspace.path("mlx/model.safetensors"));
        assert!(found.iter().any(|(name, ..)| name == "vision_tower.fc.weight"), "{found:?}");
        // Norms to which mlx-lm adds 1 have room for the sum.
        let norm = ("language_model.model.norm.weight".to_owned(), Dtype::F32, vec![24]);
        assert!(found.contains(&norm), "{found:?}");
    }
}

/// mlx-lm's module of a layer's experts, from experts one by one and from stacks.
#[test]
fn experts_become_one_module_a_layer() {
    for (name, module, layer) in [
        ("qwen3-moe", "mlp", 1),
        ("qwen3-moe-stacked", "mlp", 0),
        ("mixtral", "block_sparse_moe", 0),
        ("mixtral-stacked", "block_sparse_moe", 0),
    ] {
        let mut model = fixture(name, "config.json");
        // Rows that MLX's groups divide.
        let wide = |weights: &Tensor, cols: usize, seed: u64| {
            let mut shape = weights.shape.clone();
            *shape.last_mut().unwrap() = cols;
            let count = shape.iter().product();
            Tensor::f32(&shape, &noise(count, seed))
        };
        model.config["hidden_size"] = 32.into();
        model.config["head_dim"] = 8.into();
        for (seed, (name, tensor)) in model.tensors.iter_mut().enumerate() {
            let into_hidden = ["down_proj", "o_proj", "w2"].iter().any(|part| name.contains(part));
            let cols = *tensor.shape.last().unwrap();
            let stack = tensor.shape.len() == 3;
            if into_hidden {
                let mut shape = tensor.shape.clone();
                let rows = shape.len() - 2;
                shape[rows] = 32;
                if name.contains("o_proj") {
                    shape[1] = 32;
                }
                let count = shape.iter().product();
                *tensor = Tensor::f32(&shape, &noise(count, seed as u64));
            } else if !name.ends_with("_norm.weight") && (cols == 24 || stack) {
                *tensor = wide(tensor, 32, seed as u64);
            }
            if ["q_proj", "k_proj", "v_proj"].iter().any(|part| name.contains(part)) {
                let heads = if name.contains("q_proj") { 4 } else { 2 };
                *tensor = Tensor::f32(&[heads * 8, 32], &noise(heads * 256, seed as u64));
            }
        }
        let workspace = compressed(&model, &["--tensor-type", "experts=int4:group=32"]);
        let report = workspace.run("export", "out", &[&MLX[..], &["--json"]].concat()).ok().json();
        assert_eq!(report["precision"]["rounded"], 0, "{name}: {report}");
        let config = json_of(&workspace.path("mlx/config.json"));
        let found = shapes(&workspace.path("mlx/model.safetensors"));
        let count = Architecture::parse(&model.config).unwrap().experts.unwrap();
        let (experts, width) = (count.count, count.intermediate_size);
        assert!(!found.iter().any(|(tensor, ..)| tensor.contains(".experts.")), "{name}");
        for projection in ["gate_proj", "up_proj"] {
            let path = format!("model.layers.{layer}.{module}.switch_mlp.{projection}");
            let of = |suffix: &str, dtype, last| {
                let want = (format!("{path}.{suffix}"), dtype, vec![experts, width, last]);
                assert!(found.contains(&want), "{name}: no {want:?} in {found:?}");
            };
            of("weight", Dtype::U32, 4);
            of("scales", Dtype::F32, 1);
            of("biases", Dtype::F32, 1);
            assert_eq!(config["quantization"][&path]["bits"], 4, "{name}: {path}");
        }
        // The same weights, in the same places.
        workspace.run("decompress", "out", &["-o", "plain", "--dtype", "f32"]).ok();
        let plain = Model::read(&workspace.path("plain"));
        let gate = gate_of(&plain, name, layer, width);
        let path = format!("model.layers.{layer}.{module}.switch_mlp.gate_proj");
        assert_eq!(
            mlx_weights(&workspace.path("mlx/model.safetensors"), &path, 4, 32),
            gate,
            "{name}"
        );
    }
}

/// Gate projections of all experts of a layer, one after the other.
fn gate_of(model: &Model, name: &str, layer: usize, width: usize) -> Vec<f32> {
    let at = |rest: &str| format!("model.layers.{layer}.{rest}");
    if name.ends_with("-stacked") {
        let stack = &model.tensors[&at("mlp.experts.gate_up_proj")];
        let both = 2 * width * 32;
        return stack.weights().chunks(both).flat_map(|both| both[..width * 32].to_vec()).collect();
    }
    let one = |expert: usize| {
        let part = if name == "mixtral" {
            at(&format!("block_sparse_moe.experts.{expert}.w1.weight"))
        } else {
            at(&format!("mlp.experts.{expert}.gate_proj.weight"))
        };
        model.tensors.get(&part).map(Tensor::weights)
    };
    (0..).map_while(one).flatten().collect()
}

/// Affine weights by MLX's rule.
fn mlx_weights(file: &Path, module: &str, bits: usize, group: usize) -> Vec<f32> {
    let bytes = fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let read = |suffix: &str| file.tensor(&format!("{module}.{suffix}")).unwrap().data().to_vec();
    let floats = |bytes: Vec<u8>| -> Vec<f32> {
        bytes.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
    };
    let (codes, scales, biases) = (read("weight"), floats(read("scales")), floats(read("biases")));
    let weight = |i: usize| {
        let word = &codes[i * bits / 32 * 4..][..4];
        let code =
            u32::from_le_bytes(word.try_into().unwrap()) >> (i * bits % 32) & ((1 << bits) - 1);
        scales[i / group] * code as f32 + biases[i / group]
    };
    (0..scales.len() * group).map(weight).collect()
}

/// A model that lacks something, or has something else, than its configuration means.
#[test]
fn models_that_are_not_whole_are_refused_by_both() {
    let refused = |model: &Model, words: &[&str]| {
        let workspace = compressed(model, &[]);
        for format in [&GGUF[..], &MLX[..4]] {
            workspace.run("export", "out", format).fails(3, words);
        }
        assert_eq!(workspace.names(), ["model", "out"]);
    };
    let whole = Model::read(&tiny_llama());
    let mut model = whole.clone();
    let embedding = model.tensors.remove("model.embed_tokens.weight").unwrap();
    model.tensors.insert("lm_head.weight".to_owned(), embedding);
    refused(&model, &["model.embed_tokens.weight", "is missing"]);
    let mut model = whole.clone();
    model.tensors.retain(|name, _| !name.contains("layers.1."));
    refused(&model, &["model.layers.1.", "is missing"]);
    let mut model = whole.clone();
    model.config["vocab_size"] = 1000.into();
    refused(&model, &["lm_head.weight", "1000"]);
    let mut model = whole.clone();
    let name = "model.layers.0.self_attn.q_proj.bias";
    let rows = model.tensors["model.layers.0.self_attn.q_proj.weight"].shape[0];
    model.tensors.insert(name.to_owned(), Tensor::f32(&[rows], &noise(rows, 3)));
    refused(&model, &[name, "no tensor of a llama model"]);
    let mut model = whole;
    model.config["tie_word_embeddings"] = false.into();
    model.tensors.remove("lm_head.weight");
    refused(&model, &["lm_head.weight", "is missing"]);
}

/// Positions, masks and nothing at all are no weights: the programs compute them themselves.
#[test]
fn tensors_without_weights_are_left_out_with_a_warning() {
    let mut model = Model::read(&tiny_llama());
    let buffer = Tensor { dtype: Dtype::I64, shape: vec![1, 4], data: vec![0; 32] };
    model.tensors.insert("model.position_ids".to_owned(), buffer);
    model.tensors.insert("model.empty".to_owned(), Tensor::f32(&[0, 4], &[]));
    let frequencies = Tensor::f32(&[8], &[1.0; 8]);
    let old = "model.layers.0.self_attn.rotary_emb.inv_freq";
    model.tensors.insert(old.to_owned(), frequencies);
    let workspace = compressed(&model, &[]);
    for format in [&GGUF[..], &MLX] {
        let said = workspace.run("export", "out", format).ok().stderr;
        for name in ["model.position_ids", "model.empty", old] {
            assert!(said.contains(name), "no {name} in {said}");
        }
    }
    let found = shapes(&workspace.path("mlx/model.safetensors"));
    assert!(!found.iter().any(|(name, ..)| name.contains("position") || name.contains("empty")));
}

/// Text, with the metadata of the exported file read back.
fn again(workspace: &Workspace) -> (Value, Value) {
    let near = ["-o", "again", "--preset", "on-device", "--overwrite"];
    workspace.run("compress", "m.gguf", &near).ok();
    let read = |name: &str| json_of(&workspace.path("again").join(name));
    (read("tokenizer.json"), read("tokenizer_config.json"))
}

#[test]
fn tokenizers_go_through_gguf_with_their_merges_ends_and_templates() {
    let model = Model::read(&tiny_llama());
    let workspace = compressed(&model, &[]);
    let tokenizer_path = workspace.path("out/tokenizer.json");
    let settings_path = workspace.path("out/tokenizer_config.json");
    let write = |path: &Path, json: &Value| fs::write(path, json.to_string()).unwrap();
    let plain = json_of(&tokenizer_path);
    let mut settings = json_of(&settings_path);
    let template = |name: &str, text: &str| json!({ "name": name, "template": text });
    settings["chat_template"] = json!([template("default", "D"), template("tool-use", "T")]);
    settings["bos_token"] = "<|endoftext|>".into();
    settings["add_bos_token"] = true.into();
    write(&settings_path, &settings);
    // Llama 3's cut, spelled out as its own file has it.
    let regex = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let split = json!({
        "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false,
    });
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
    });
    let mut llama3 = plain.clone();
    llama3["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [split, bytes] });
    for ignores in [false, true] {
        llama3["model"]["ignore_merges"] = ignores.into();
        write(&tokenizer_path, &llama3);
        workspace.run("export", "out", &[&GGUF[..], &["--overwrite"]].concat()).ok();
        let (tokenizer, settings) = again(&workspace);
        assert_eq!(tokenizer["model"]["ignore_merges"], ignores);
        assert_eq!(tokenizer["pre_tokenizer"], llama3["pre_tokenizer"]);
        assert_eq!(tokenizer["post_processor"]["single"][0]["SpecialToken"]["id"], "<|endoftext|>");
        assert_eq!(settings["add_bos_token"], true);
        let templates = json!([template("default", "D"), template("tool_use", "T")]);
        assert_eq!(settings["chat_template"], templates);
    }
    let mut ignoring = plain;
    ignoring["model"]["ignore_merges"] = true.into();
    write(&tokenizer_path, &ignoring);
    let export = [&GGUF[..], &["--overwrite"]].concat();
    workspace.run("export", "out", &export).fails(3, &["tokenizer.json", "ignore_merges true"]);
}

#[test]
fn chat_templates_in_files_of_their_own_stay_with_the_model() {
    let workspace = Workspace::with_tiny_llama(1);
    let folder = workspace.path("model/additional_chat_templates");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("rag.jinja"), "R").unwrap();
    fs::write(workspace.path("model/chat_template.jinja"), "C").unwrap();
    workspace.run("compress", "model", &["--preset", "on-device", "-o", "out"]).ok();
    workspace.run("export", "out", &MLX).ok();
    workspace.run("decompress", "out", &["-o", "plain"]).ok();
    for name in ["out", "mlx", "plain"] {
        let copied = workspace.path(name).join("additional_chat_templates/rag.jinja");
        assert_eq!(fs::read_to_string(copied).unwrap(), "R", "{name}");
    }
    workspace.run("export", "out", &GGUF).ok();
    let (_, settings) = again(&workspace);
    assert_eq!(settings["chat_template"][0], json!({ "name": "default", "template": "C" }));
    assert_eq!(settings["chat_template"][1], json!({ "name": "rag", "template": "R" }));
}
