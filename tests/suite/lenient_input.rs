//! Checkpoints that are a little odd, and that every other program reads.

use std::fs;

use crate::support::{Model, Tensor, Workspace, noise, tiny_llama};
use half::f16;
use safetensors::Dtype;
use serde_json::{Value, json};

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

fn with(model: &Model) -> Workspace {
    let workspace = Workspace::new();
    model.write(&workspace.path("model"), 1, &tiny_llama());
    workspace
}

fn json_of(workspace: &Workspace, name: &str) -> Value {
    serde_json::from_slice(&fs::read(workspace.path(name)).unwrap()).unwrap()
}

const COMPRESS: [&str; 4] = ["--preset", "on-device", "-o", "out"];

#[test]
fn nothing_in_an_indexs_metadata_is_a_fault() {
    for (metadata, warns) in [
        (Value::Null, false),
        (json!({}), false),
        (json!("none"), false),
        (json!({ "total_size": "right" }), false),
        (json!({ "total_size": "12" }), true),
        (json!({ "total_size": 12 }), true),
        (json!({ "total_size": null }), false),
        (json!({ "total_size": "many" }), false),
        (json!({ "total_size": [1] }), false),
    ] {
        let workspace = Workspace::with_tiny_llama(3);
        let path = workspace.path("model/model.safetensors.index.json");
        let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let total = index["metadata"]["total_size"].to_string();
        index["metadata"] =
            serde_json::from_str(&metadata.to_string().replace("right", &total)).unwrap();
        fs::write(&path, index.to_string()).unwrap();
        let inspected = workspace.run("inspect", "model", &["--json"]).ok().json();
        let warnings = inspected["warnings"].as_array().unwrap();
        assert_eq!(!warnings.is_empty(), warns, "{metadata}: {warnings:?}");
        index.as_object_mut().unwrap().shift_remove("metadata");
        fs::write(&path, index.to_string()).unwrap();
        workspace.run("inspect", "model", &[]).ok();
    }
}

#[test]
fn tensors_without_elements_are_kept_as_they_are() {
    for shards in [1, 3] {
        let mut model = Model::read(&tiny_llama());
        model.tensors.insert("model.empty".to_owned(), Tensor::f32(&[0, 4], &[]));
        let matrix = "model.layers.0.mlp.extra_proj.weight";
        model.tensors.insert(matrix.to_owned(), Tensor::f32(&[16, 0], &[]));
        let workspace = Workspace::new();
        model.write(&workspace.path("model"), shards, &tiny_llama());
        workspace.run("inspect", "model", &[]).ok();
        workspace.run("plan", "model", &COMPRESS[..2]).ok();
        workspace.run("compress", "model", &COMPRESS).ok();
        let manifest = json_of(&workspace, "out/manifest.json");
        for name in ["model.empty", matrix] {
            let entries = manifest["tensors"].as_array().unwrap();
            let entry = entries.iter().find(|entry| entry["name"] == name).unwrap();
            assert_eq!(entry["status"], "kept", "{name}");
        }
        workspace.run("verify", "out", &["--against", "model"]).ok();
        workspace.run("decompress", "out", &["-o", "plain"]).ok();
        let plain = Model::read(&workspace.path("plain"));
        assert_eq!(plain.tensors["model.empty"].shape, [0, 4]);
        assert_eq!(plain.tensors[matrix].shape, [16, 0]);
    }
}

/// transformers takes both tensors as they are then, whatever the configuration says.
#[test]
fn a_head_of_its_own_beats_the_configuration() {
    let mut model = Model::read(&tiny_llama()).tied(true);
    let count = model.tensors[HEAD].shape.iter().product();
    let own = Tensor::f32(&model.tensors[HEAD].shape.clone(), &noise(count, 77));
    model.tensors.insert(HEAD.to_owned(), own.clone());
    assert_eq!(model.config["tie_word_embeddings"], true);
    let workspace = with(&model);
    for command in ["plan", "compress"] {
        let args = if command == "plan" { &COMPRESS[..2] } else { &COMPRESS[..] };
        let said = workspace.run(command, "model", args).ok().stderr;
        assert!(said.contains(HEAD) && said.contains("weights of its own"), "{command}: {said}");
    }
    assert_eq!(json_of(&workspace, "out/config.json")["tie_word_embeddings"], false);
    let manifest = json_of(&workspace, "out/manifest.json");
    assert_eq!(manifest["totals"]["tied"], 0);
    workspace.run("verify", "out", &["--against", "model"]).ok();
    workspace.run("decompress", "out", &["-o", "plain", "--dtype", "f32"]).ok();
    assert_eq!(json_of(&workspace, "plain/config.json")["tie_word_embeddings"], false);
    let plain = Model::read(&workspace.path("plain"));
    let error = |name: &str| {
        let pairs = plain.tensors[name].weights().into_iter().zip(model.tensors[name].weights());
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    assert!(error(HEAD) < 0.02 && error(EMBEDDING) < 0.1, "{} {}", error(HEAD), error(EMBEDDING));
    assert_ne!(plain.tensors[HEAD].weights(), plain.tensors[EMBEDDING].weights());
}

#[test]
fn the_same_head_in_another_type_is_tied() {
    let mut model = Model::read(&tiny_llama()).bf16().tied(true);
    let weights = model.tensors[EMBEDDING].weights();
    let shape = model.tensors[EMBEDDING].shape.clone();
    model.tensors.insert(HEAD.to_owned(), Tensor::f32(&shape, &weights));
    let workspace = with(&model);
    let run = workspace.run("compress", "model", &COMPRESS).ok();
    assert!(!run.stderr.contains("weights of its own"), "{}", run.stderr);
    let manifest = json_of(&workspace, "out/manifest.json");
    assert_eq!(manifest["totals"]["tied"], 1);
    assert_eq!(json_of(&workspace, "out/config.json")["tie_word_embeddings"], true);
    workspace.run("verify", "out", &["--against", "model"]).ok();
    // Rounded to fp16 they are the same no more.
    let rounded: Vec<u8> =
        weights.iter().flat_map(|&w| f16::from_f32(w * 1.01).to_le_bytes()).collect();
    model.tensors.insert(HEAD.to_owned(), Tensor { dtype: Dtype::F16, shape, data: rounded });
    model.write(&workspace.path("model"), 1, &tiny_llama());
    let run = workspace.run("plan", "model", &COMPRESS[..2]).ok();
    assert!(run.stderr.contains("weights of its own"), "{}", run.stderr);
}

/// What PEFT and mlx-lm do not take of a mixture's adapters is said before they are made.
#[test]
fn adapters_of_mixtures() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/architectures");
    for (name, dense) in [("qwen3-moe", true), ("mixtral", false)] {
        let workspace = Workspace::new();
        Model::read(&folder.join(name)).write(&workspace.path("model"), 1, &tiny_llama());
        let run = workspace.run("compress", "model", &["--preset", "server", "-o", "out"]).ok();
        assert_eq!(run.stderr.contains("dense layers"), dense, "{name}: {}", run.stderr);
        let export = ["--format", "mlx-adapter", "-o", "a"];
        workspace.run("export", "out", &export).fails(3, &[".experts.0.", "single experts"]);
    }
}

#[test]
fn a_tied_embedding_takes_no_adapter_and_another_does() {
    let recipe = "name = \"r\"\n[[rule]]\nrole = [\"linear\"]\ncodec = \"grid2\"\nrank = 4\n\
                  [[rule]]\nrole = [\"embedding\", \"head\"]\ncodec = \"int4\"\nrank = 2\noptional = true\n";
    let model = Model::read(&tiny_llama());
    let workspace = with(&model.clone().tied(false));
    fs::write(workspace.path("r.toml"), recipe).unwrap();
    let args = ["--recipe", "r.toml", "-o", "out"];
    workspace.run("compress", "model", &args).fails(3, &[EMBEDDING, "also the head", "rank"]);

    let mut model = model;
    let embedding = model.tensors[EMBEDDING].clone();
    model.tensors.entry(HEAD.to_owned()).or_insert(embedding);
    model.config["tie_word_embeddings"] = false.into();
    model.write(&workspace.path("model"), 1, &tiny_llama());
    workspace.run("compress", "model", &args).ok();
    let bytes = fs::read(workspace.path("out/adapter_model.safetensors")).unwrap();
    let adapters = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let [rows, cols] = model.tensors[EMBEDDING].shape[..] else { panic!() };
    let shape =
        |key: &str| adapters.tensor(&format!("base_model.model.{key}")).unwrap().shape().to_vec();
    assert_eq!(shape("model.embed_tokens.lora_embedding_A"), [2, rows]);
    assert_eq!(shape("model.embed_tokens.lora_embedding_B"), [cols, 2]);
    assert_eq!(shape("lm_head.lora_A.weight"), [2, cols]);
    assert_eq!(shape("lm_head.lora_B.weight"), [rows, 2]);
    workspace.run("verify", "out", &[]).ok();
    // llama.cpp looks rows up in the first factor.
    let export = ["--format", "gguf-adapter", "-o", "a.gguf"];
    workspace.run("export", "out", &export).ok();
    let bytes = fs::read(workspace.path("a.gguf")).unwrap();
    let dimensions = |name: &str| {
        let at = bytes.windows(name.len()).position(|w| w == name.as_bytes()).unwrap() + name.len();
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        [number(at + 4), number(at + 12)]
    };
    assert_eq!(dimensions("token_embd.weight.lora_a"), [2, rows as u64]);
    assert_eq!(dimensions("token_embd.weight.lora_b"), [2, cols as u64]);
    assert_eq!(dimensions("output.weight.lora_a"), [cols as u64, 2]);
}
