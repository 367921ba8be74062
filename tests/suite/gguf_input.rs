//! GGUF files as input: what the metadata says is what the model is, or the file is refused.

use std::path::Path;

use crate::support::gguf::{Gguf, Value};
use crate::support::{noise, tiny_llama};
use compress_model::checkpoint::Checkpoint;
use compress_model::checkpoint::dtype::AlignedBytes;
use serde_json::{Value as Json, json};

const HIDDEN: usize = 32;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const WIDTH: usize = 8;
const LAYERS: usize = 2;

fn json_of(path: &Path) -> Json {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Rows of HF's order, two halves of a head, in llama.cpp's, pairs of neighbours.
fn paired(weights: &[f32], cols: usize) -> Vec<f32> {
    let row = |row: usize| {
        let (head, within) = (row / WIDTH, row % WIDTH);
        let from = head * WIDTH + within / 2 + within % 2 * (WIDTH / 2);
        weights[from * cols..][..cols].to_vec()
    };
    (0..weights.len() / cols).flat_map(row).collect()
}

fn keys() -> Vec<f32> {
    noise(KV_HEADS * WIDTH * HIDDEN, 5)
}

/// A Llama of two layers with the tokenizer of the fixture.
fn llama() -> Gguf {
    let tokenizer = json_of(&tiny_llama().join("tokenizer.json"));
    let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
    let mut tokens = vec![String::new(); vocabulary.len()];
    for (token, id) in vocabulary {
        tokens[id.as_u64().unwrap() as usize].clone_from(token);
    }
    let merges = tokenizer["model"]["merges"].as_array().unwrap().iter();
    let merges = merges.map(|m| format!("{} {}", m[0].as_str().unwrap(), m[1].as_str().unwrap()));
    let types = tokens.iter().map(|t| if t == "<|endoftext|>" { 3 } else { 1 }).collect();
    let size = |n: usize| Value::U32(n as u32);
    let mut file = Gguf::default()
        .set("general.architecture", "llama")
        .set("llama.context_length", size(64))
        .set("llama.embedding_length", size(HIDDEN))
        .set("llama.block_count", size(LAYERS))
        .set("llama.feed_forward_length", size(48))
        .set("llama.attention.head_count", size(HEADS))
        .set("llama.attention.head_count_kv", size(KV_HEADS))
        .set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5))
        .set("llama.rope.freq_base", Value::F32(5000.0))
        .set("tokenizer.ggml.model", "gpt2")
        .set("tokenizer.ggml.pre", "gpt-2")
        .set("tokenizer.ggml.merges", Value::Texts(merges.collect()))
        .set("tokenizer.ggml.token_type", Value::U32s(types))
        .set("tokenizer.ggml.bos_token_id", Value::U32(0))
        .set("tokenizer.ggml.eos_token_id", Value::U32(0));
    let rows = tokens.len();
    file = file.set("tokenizer.ggml.tokens", Value::Texts(tokens));
    let mut add = |name: &str, shape: &[usize]| {
        let weights = noise(shape.iter().product(), 1 + file.tensors.len() as u64);
        file.tensor(&format!("{name}.weight"), shape, weights);
    };
    add("token_embd", &[rows, HIDDEN]);
    add("output_norm", &[HIDDEN]);
    add("output", &[rows, HIDDEN]);
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("attn_norm", &[HIDDEN][..]),
            ("attn_q", &[HEADS * WIDTH, HIDDEN]),
            ("attn_k", &[KV_HEADS * WIDTH, HIDDEN]),
            ("attn_v", &[KV_HEADS * WIDTH, HIDDEN]),
            ("attn_output", &[HIDDEN, HEADS * WIDTH]),
            ("ffn_norm", &[HIDDEN]),
            ("ffn_gate", &[48, HIDDEN]),
            ("ffn_up", &[48, HIDDEN]),
            ("ffn_down", &[HIDDEN, 48]),
        ] {
            add(&format!("blk.{layer}.{name}"), shape);
        }
    }
    let shape = [KV_HEADS * WIDTH, HIDDEN];
    file.tensor("blk.1.attn_k.weight", &shape, paired(&keys(), HIDDEN));
    file
}

/// The file, opened.
struct Opened {
    checkpoint: Checkpoint,
    _folder: tempfile::TempDir,
}

fn open(file: &Gguf) -> Result<Opened, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    file.write(&path);
    let checkpoint = Checkpoint::open(&path).map_err(|error| {
        assert_eq!(error.exit_code(), 3, "{error}");
        error.to_string()
    })?;
    Ok(Opened { checkpoint, _folder: folder })
}

impl Opened {
    fn config(&self) -> &Json {
        self.checkpoint.config().unwrap().json()
    }

    fn json(&self, name: &str) -> Json {
        json_of(&self.checkpoint.folder().join(name))
    }

    fn weights(&self, name: &str) -> Vec<f32> {
        let tensor = self.checkpoint.tensor(name).unwrap();
        let mut weights = vec![0.0; tensor.elements() as usize];
        let scratch = &mut AlignedBytes::default();
        self.checkpoint.read_weights(tensor, 0, scratch, &mut weights).unwrap();
        weights
    }

    fn warnings(&self) -> String {
        self.checkpoint.warnings().join("\n")
    }
}

#[track_caller]
fn refused(file: &Gguf, words: &[&str]) {
    let error = open(file).err().expect("must be refused");
    for word in words {
        assert!(error.contains(word), "no {word:?} in {error}");
    }
}

const KV: &str = "llama.attention.head_count_kv";
const KEYS: &str = "model.layers.1.self_attn.k_proj.weight";

#[test]
fn key_heads_as_a_number_a_list_or_not_at_all() {
    for kv in [Value::U32(2), Value::U32s(vec![2, 2])] {
        let opened = open(&llama().set(KV, kv)).unwrap();
        assert_eq!(opened.config()["num_key_value_heads"], 2);
        assert_eq!(opened.weights(KEYS), keys());
    }
    refused(&llama().set(KV, Value::U32s(vec![2, 1])), &[KV, "layer to layer"]);
    refused(&llama().set(KV, "two"), &[KV]);
    // As many as query heads then, which the rows are not.
    refused(&llama().unset(KV), &["blk.0.attn_k.weight", "[16, 32]", "[32, 32]"]);
    let widths = Value::U32s(vec![48, 48]);
    let opened = open(&llama().set("llama.feed_forward_length", widths)).unwrap();
    assert_eq!(opened.config()["intermediate_size"], 48);
}

#[test]
fn a_file_that_is_not_the_whole_model_is_refused() {
    let without = |part: &str| {
        let mut file = llama();
        file.tensors.retain(|name, _| !name.starts_with(part));
        file
    };
    refused(&without("token_embd"), &["token embedding"]);
    refused(&without("blk.1."), &["blk.1.attn_norm.weight", "missing"]);
    refused(&without("output_norm"), &["output_norm.weight", "missing"]);
    assert_eq!(open(&without("output.")).unwrap().config()["tie_word_embeddings"], true);
    refused(&llama().set("llama.block_count", Value::U32(1)), &["blk.1.", "no tensor"]);
    let mut more = llama();
    more.tensor("output.bias", &[1024], vec![0.0; 1024]);
    refused(&more, &["output.bias"]);
    let mut odd = llama();
    odd.tensor("blk.0.ffn_up.weight", &[40, HIDDEN], noise(40 * HIDDEN, 3));
    refused(&odd, &["blk.0.ffn_up.weight", "[40, 32]"]);
}

#[test]
fn biases_are_said_in_the_configuration() {
    let with = |parts: &[(&str, usize)], layers: usize| {
        let mut file = llama();
        for layer in 0..layers {
            for (part, rows) in parts {
                file.tensor(&format!("blk.{layer}.{part}.bias"), &[*rows], noise(*rows, 9));
            }
        }
        file
    };
    let attention = [
        ("attn_q", HEADS * WIDTH),
        ("attn_k", KV_HEADS * WIDTH),
        ("attn_v", KV_HEADS * WIDTH),
        ("attn_output", HIDDEN),
    ];
    let mlp = [("ffn_gate", 48), ("ffn_up", 48), ("ffn_down", HIDDEN)];
    let of = |file: &Gguf| {
        let opened = open(file).unwrap();
        [&opened.config()["attention_bias"], &opened.config()["mlp_bias"]].map(Json::clone)
    };
    assert_eq!(of(&llama()), [json!(false), json!(false)]);
    assert_eq!(of(&with(&attention, LAYERS)), [json!(true), json!(false)]);
    assert_eq!(of(&with(&mlp, LAYERS)), [json!(false), json!(true)]);
    assert_eq!(of(&with(&[&attention[..], &mlp[..]].concat(), LAYERS)), [json!(true), json!(true)]);
    // transformers has no place for some of them only.
    refused(&with(&attention[..3], LAYERS), &["attn_output.bias", "missing"]);
    refused(&with(&mlp, 1), &["blk.1.ffn_", ".bias", "missing"]);
}

#[test]
fn rope_scaling_by_llama_cpps_rules() {
    let scaling = |keys: &[(&str, Value)]| {
        let mut file = llama();
        for (key, value) in keys {
            file = file.set(&format!("llama.rope.{key}"), value.clone());
        }
        open(&file).map(|opened| opened.config()["rope_scaling"].clone())
    };
    let four = || Value::F32(4.0);
    let linear = Ok(json!({ "rope_type": "linear", "factor": 4.0 }));
    let none = Ok(Json::Null);
    assert_eq!(scaling(&[("scaling.type", "linear".into()), ("scaling.factor", four())]), linear);
    assert_eq!(scaling(&[("scaling.factor", four())]), linear);
    assert_eq!(scaling(&[("scale_linear", four())]), linear);
    let both = [("scaling.factor", four()), ("scale_linear", Value::F32(2.0))];
    assert_eq!(scaling(&both), linear);
    assert_eq!(scaling(&[("scaling.type", "none".into()), ("scaling.factor", four())]), none);
    assert_eq!(scaling(&[("scaling.factor", Value::F32(1.0))]), none);
    assert_eq!(scaling(&[("scaling.type", "linear".into())]), none);
    assert_eq!(scaling(&[("scaling.original_context_length", Value::U32(32))]), none);
    for refused in [
        &[("scaling.type", Value::from("yarn")), ("scaling.factor", four())][..],
        &[("scaling.factor", Value::F32(-1.0))],
        &[("scaling.factor", "four".into())],
        &[("scaling.attn_factor", Value::F32(0.5))],
        &[("dimension_count", Value::U32(4))],
        &[("freq_base", "high".into())],
    ] {
        assert!(scaling(refused).unwrap_err().contains("rope"), "{refused:?}");
    }
    // A whole number is a number.
    let base = llama().set("llama.rope.freq_base", Value::U32(7000));
    assert_eq!(open(&base).unwrap().config()["rope_theta"], 7000.0);
    let base = open(&llama().unset("llama.rope.freq_base")).unwrap();
    assert_eq!(base.config()["rope_theta"], 10_000.0);
}

#[test]
fn metadata_that_nothing_reads_is_refused() {
    for key in ["attention.sliding_window", "logit_scale", "attention.clamp_kqv", "new_in_2027"] {
        refused(&llama().set(&format!("llama.{key}"), Value::F32(2.0)), &[key, "original"]);
    }
    refused(&llama().set("llama.expert_count", Value::U32(8)), &["expert_count"]);
    refused(&llama().set("general.type", "adapter"), &["adapter"]);
    refused(
        &llama().set("llama.attention.value_length", Value::U32(4)),
        &["heads", "4 for values"],
    );
    let harmless = llama()
        .set("general.type", "model")
        .set("llama.expert_count", Value::U32(0))
        .set("llama.vocab_size", Value::U32(1024))
        .set("quantize.imatrix.file", "x");
    open(&harmless).unwrap();
    let mut swapped = llama().bytes();
    swapped[4..8].reverse();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("m.gguf"), swapped).unwrap();
    let error = Checkpoint::open(&folder.path().join("m.gguf")).unwrap_err().to_string();
    assert!(error.contains("big-endian"), "{error}");
}

#[test]
fn a_split_model_is_read_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let name = |part: usize| folder.path().join(format!("m-{part:05}-of-00003.gguf"));
    let whole = llama();
    let part = |number: usize| {
        let mut part = if number == 0 { whole.clone() } else { Gguf::default() };
        part.tensors = whole.tensors.clone();
        part.tensors.retain(|tensor, _| match number {
            0 => tensor.starts_with("blk.0."),
            1 => tensor.starts_with("blk.1."),
            _ => !tensor.starts_with("blk."),
        });
        part.set("split.no", Value::U32(number as u32))
            .set("split.count", Value::U32(3))
            .set("split.tensors.count", Value::U32(whole.tensors.len() as u32))
    };
    let open_at = |path: &Path| Checkpoint::open(path).map_err(|error| error.to_string());
    for number in 0..3 {
        part(number).write(&name(number + 1));
    }
    let checkpoint = open_at(&name(1)).unwrap();
    let together = Opened { checkpoint, _folder: tempfile::tempdir().unwrap() };
    let alone = open(&whole).unwrap();
    assert_eq!(together.config(), alone.config());
    assert_eq!(together.checkpoint.tensors().len(), whole.tensors.len());
    for tensor in alone.checkpoint.tensors() {
        assert_eq!(together.weights(&tensor.name), alone.weights(&tensor.name), "{}", tensor.name);
    }
    let says = |path: &Path, words: &[&str]| {
        let error = open_at(path).unwrap_err();
        for word in words {
            assert!(error.contains(word), "no {word:?} in {error}");
        }
    };
    says(&name(2), &["part 2 of 3", "m-00001-of-00003.gguf"]);
    part(1).set("split.count", Value::U32(4)).write(&name(2));
    says(&name(1), &["m-00002-of-00003.gguf", "part 2 of 3"]);
    let mut less = part(1);
    less.tensors.remove("blk.1.ffn_up.weight");
    less.write(&name(2));
    says(&name(1), &["hold 20 tensors of 21"]);
    std::fs::remove_file(name(3)).unwrap();
    says(&name(1), &["m-00003-of-00003.gguf", "not there"]);
    part(0).write(&folder.path().join("first.gguf"));
    says(&folder.path().join("first.gguf"), &["part 1 of 3", "NAME-00001-of-00003.gguf"]);
}

#[test]
fn schemes_say_what_merges_and_first_tokens_do() {
    for (pre, ignores, bos) in [
        ("gpt-2", false, false),
        ("smollm", false, false),
        ("qwen2", false, false),
        ("deepseek-r1-qwen", false, false),
        ("smaug-bpe", false, false),
        ("llama-bpe", true, true),
        ("llama3", true, true),
        ("tekken", true, true),
    ] {
        let opened = open(&llama().set("tokenizer.ggml.pre", pre)).unwrap();
        let tokenizer = opened.json("tokenizer.json");
        assert_eq!(tokenizer["model"]["ignore_merges"], ignores, "{pre}");
        assert_eq!(tokenizer["post_processor"].is_object(), bos, "{pre}");
        assert_eq!(opened.json("tokenizer_config.json")["add_bos_token"], bos, "{pre}");
        // What the file says counts before the scheme.
        let said = Value::Bool(!bos);
        let file = llama().set("tokenizer.ggml.pre", pre).set("tokenizer.ggml.add_bos_token", said);
        let opened = open(&file).unwrap();
        assert_eq!(opened.json("tokenizer_config.json")["add_bos_token"], !bos, "{pre}");
        let processor = &opened.json("tokenizer.json")["post_processor"];
        assert_eq!(processor.is_object(), !bos, "{pre}");
        if !bos {
            let first = json!({ "SpecialToken": { "id": "<|endoftext|>", "type_id": 0 } });
            assert_eq!(processor["single"][0], first);
            assert_eq!(processor["special_tokens"]["<|endoftext|>"]["ids"], json!([0]));
        }
    }
}

#[test]
fn a_tokenizer_that_would_be_a_guess_is_left_out_with_a_warning() {
    let left_out = |file: &Gguf, word: &str| {
        let opened = open(file).unwrap();
        assert!(!opened.checkpoint.folder().join("tokenizer.json").exists());
        let warnings = opened.warnings();
        assert!(warnings.contains("tokenizer is left out"), "{warnings}");
        assert!(warnings.contains(word), "no {word:?} in {warnings}");
    };
    left_out(&llama().unset("tokenizer.ggml.pre"), "how it cuts text");
    left_out(&llama().set("tokenizer.ggml.pre", "default"), "default");
    let bos = llama().set("tokenizer.ggml.pre", "llama-bpe").unset("tokenizer.ggml.bos_token_id");
    left_out(&bos, "bos_token_id");
    let lower = llama().set("tokenizer.ggml.normalizer.lowercase", Value::Bool(true));
    left_out(&lower, "lowercase");
    let few = llama().set("tokenizer.ggml.tokens", Value::Texts(vec!["a".to_owned()]));
    left_out(&few, "other rows");
}

#[test]
fn chat_templates_come_one_or_many() {
    let of =
        |file: &Gguf| open(file).unwrap().json("tokenizer_config.json")["chat_template"].clone();
    assert_eq!(of(&llama()), Json::Null);
    let one = llama().set("tokenizer.chat_template", "{{ a }}");
    assert_eq!(of(&one), json!("{{ a }}"));
    let names = Value::Texts(vec!["tool_use".to_owned()]);
    let many = one
        .set("tokenizer.chat_templates", names)
        .set("tokenizer.chat_template.tool_use", "{{ b }}");
    let template = |name: &str, text: &str| json!({ "name": name, "template": text });
    let expected = json!([template("default", "{{ a }}"), template("tool_use", "{{ b }}")]);
    assert_eq!(of(&many), expected);
    let named = many.unset("tokenizer.chat_template");
    assert_eq!(of(&named), json!([template("tool_use", "{{ b }}")]));
}
