//! Exports of whole models and GGUF input through the real command. What other programs make of
//! the files is in `tests/clients`.

use std::fs;
use std::path::Path;

use crate::support::{Model, Tensor, Workspace, noise, tiny_llama};
use compress_model::checkpoint::Checkpoint;
use half::f16;
use serde_json::{Value, json};

/// A Llama of one layer with rows of 256 and 512, so that every grid fits Q2_K.
fn wide_llama() -> Model {
    let (hidden, ff, kv, vocab) = (256, 512, 128, 1024);
    let mut model = Model::read(&tiny_llama());
    model.tensors.clear();
    for (key, value) in [
        ("hidden_size", hidden),
        ("intermediate_size", ff),
        ("num_hidden_layers", 1),
        ("num_attention_heads", 8),
        ("num_key_value_heads", 4),
        ("head_dim", 32),
    ] {
        model.config[key] = value.into();
    }
    let mut add = |name: &str, shape: &[usize]| {
        let seed = model.tensors.len() as u64;
        let weights = noise(shape.iter().product(), seed);
        model.tensors.insert(name.to_owned(), Tensor::f32(shape, &weights));
    };
    add("model.embed_tokens.weight", &[vocab, hidden]);
    add("model.norm.weight", &[hidden]);
    add("lm_head.weight", &[vocab, hidden]);
    let layer = |part: &str| format!("model.layers.0.{part}.weight");
    add(&layer("input_layernorm"), &[hidden]);
    add(&layer("post_attention_layernorm"), &[hidden]);
    add(&layer("self_attn.q_proj"), &[hidden, hidden]);
    add(&layer("self_attn.k_proj"), &[kv, hidden]);
    add(&layer("self_attn.v_proj"), &[kv, hidden]);
    add(&layer("self_attn.o_proj"), &[hidden, hidden]);
    add(&layer("mlp.gate_proj"), &[ff, hidden]);
    add(&layer("mlp.up_proj"), &[ff, hidden]);
    add(&layer("mlp.down_proj"), &[hidden, ff]);
    model
}

fn with(model: &Model) -> Workspace {
    let workspace = Workspace::new();
    model.write(&workspace.path("model"), 1, &tiny_llama());
    workspace
}

fn decoded(workspace: &Workspace, folder: &str) -> Model {
    let plain = format!("{folder}-plain");
    workspace.run("decompress", folder, &["-o", &plain, "--dtype", "f32"]).ok();
    Model::read(&workspace.path(&plain))
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn gguf_out_and_in_again_gives_the_same_weights_and_codes() {
    for (model, grid) in [(wide_llama(), "Q2_K"), (Model::read(&tiny_llama()), "Q4_0")] {
        let workspace = with(&model);
        let compress = ["--preset", "on-device"];
        workspace.run("compress", "model", &[&compress[..], &["-o", "out"]].concat()).ok();
        let export = ["--format", "gguf", "-o", "m.gguf", "--exact", "--json"];
        let report = workspace.run("export", "out", &export).ok().json();
        assert_eq!(report["precision"]["rounded"], 0, "{report}");
        let types: Vec<&Value> =
            report["types"].as_array().unwrap().iter().map(|t| &t[0]).collect();
        assert!(types.contains(&&json!(grid)) && types.contains(&&json!("Q4_1")), "{report}");

        // As it is, but for the head, since something must be coded: every weight comes back, in
        // its own place.
        let keep = ["-o", "kept", "--preset", "on-device", "--ignore", r"model\."];
        let kept = workspace.run("compress", "m.gguf", &keep).ok();
        assert!(kept.stderr.contains("quantised already"), "{}", kept.stderr);
        let (ours, theirs) = (decoded(&workspace, "out"), decoded(&workspace, "kept"));
        assert_eq!(
            ours.tensors.keys().collect::<Vec<_>>(),
            theirs.tensors.keys().collect::<Vec<_>>()
        );
        for (name, tensor) in ours.tensors.iter().filter(|(name, _)| *name != "lm_head.weight") {
            assert_eq!(tensor.weights(), theirs.tensors[name].weights(), "{name}");
        }
        // Coded again: the same codes and scales.
        let again = [&compress[..], &["-o", "again", "-q"]].concat();
        workspace.run("compress", "m.gguf", &again).ok();
        let stored = [Model::read(&workspace.path("out")), Model::read(&workspace.path("again"))];
        let mut grids = 0;
        for (name, tensor) in &stored[0].tensors {
            if name.contains("_proj") {
                assert_eq!(tensor.data, stored[1].tensors[name].data, "{name}");
                grids += 1;
            }
        }
        assert!(grids > 0);
        let (before, after) = (
            json_of(&workspace.path("model/config.json")),
            json_of(&workspace.path("kept/config.json")),
        );
        for key in
            ["model_type", "hidden_size", "head_dim", "rope_theta", "rms_norm_eps", "vocab_size"]
        {
            assert_eq!(before[key], after[key], "{key}");
        }
        let tokenizer = |folder: &str| json_of(&workspace.path(folder).join("tokenizer.json"));
        let (before, after) = (tokenizer("model"), tokenizer("kept"));
        for key in ["vocab", "merges"] {
            assert_eq!(before["model"][key], after["model"][key], "{key}");
        }
        assert_eq!(before["added_tokens"], after["added_tokens"]);
        assert_eq!(before["pre_tokenizer"], after["pre_tokenizer"]);
    }
}

#[test]
fn mlx_scales_of_f32_decode_to_the_same_weights() {
    let workspace = with(&Model::read(&tiny_llama()));
    let recipe = ["--preset", "on-device", "--tensor-type", "up_proj=grid2:group=32"];
    workspace.run("compress", "model", &[&recipe[..], &["-o", "out"]].concat()).ok();
    let export = ["--format", "mlx", "-o", "mlx", "--exact", "--max-shard-size", "200kB", "--json"];
    let report = workspace.run("export", "out", &export).ok().json();
    assert_eq!(report["precision"]["rounded"], 0, "{report}");
    assert!(workspace.path("mlx/tokenizer.json").is_file());
    let config = json_of(&workspace.path("mlx/config.json"));
    let index = json_of(&workspace.path("mlx/model.safetensors.index.json"));
    let expected = decoded(&workspace, "out");
    let mut coded = 0;
    for (name, tensor) in &expected.tensors {
        let module = name.strip_suffix(".weight").unwrap();
        let own = &config["quantization"][module];
        let read = |name: &str| {
            let file = index["weight_map"][name].as_str().unwrap();
            let bytes = fs::read(workspace.path("mlx").join(file)).unwrap();
            let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            tensors.tensor(name).unwrap().data().to_vec()
        };
        let floats = |bytes: Vec<u8>| -> Vec<f32> {
            bytes.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
        };
        if own.is_null() {
            assert_eq!(floats(read(name)), tensor.weights(), "{name}");
            continue;
        }
        let bits = own["bits"].as_u64().unwrap() as usize;
        let group = own["group_size"].as_u64().unwrap() as usize;
        let codes = read(name);
        let scales = floats(read(&format!("{module}.scales")));
        let biases = floats(read(&format!("{module}.biases")));
        for (i, want) in tensor.weights().into_iter().enumerate() {
            // MLX: words of 32 bits, the first code in the lowest bits.
            let word = &codes[i * bits / 32 * 4..][..4];
            let word = u32::from_le_bytes(word.try_into().unwrap());
            let code = word >> (i * bits % 32) & ((1 << bits) - 1);
            assert_eq!(scales[i / group] * code as f32 + biases[i / group], want, "{name} {i}");
        }
        coded += 1;
    }
    assert_eq!(coded, 30);
}

#[test]
fn what_cannot_be_exact_is_refused_or_reported() {
    let workspace = with(&Model::read(&tiny_llama()));
    let recipe = ["--preset", "server", "--tensor-type", "layers\\.[1-9].*proj=grid2"];
    workspace.run("compress", "model", &[&recipe[..], &["-o", "out"]].concat()).ok();
    for format in ["gguf", "mlx"] {
        let exact = ["--format", format, "-o", "x", "--exact"];
        workspace
            .run("export", "out", &[&exact[..], &["--dtype", "f16"]].concat())
            .fails(3, &["tensor", "cannot be held exactly", "dB"]);
        assert!(!workspace.names().iter().any(|name| name.contains('x') && !name.contains("out")));
        workspace.run("export", "out", &exact).ok();
        let again = workspace.run("export", "out", &exact);
        again.fails(4, &["already exists"]);
        let lossy = ["--format", format, "-o", "x", "--overwrite", "--dtype", "f16", "--json"];
        let report = workspace.run("export", "out", &lossy).ok().json();
        let precision = &report["precision"];
        assert!(precision["rounded"].as_u64().unwrap() > 0, "{report}");
        assert!(precision["sqnr_db"].as_f64().unwrap() > 60.0, "{report}");
        assert!(precision["worst"]["sqnr_db"].as_f64() <= precision["sqnr_db"].as_f64());
        let path = workspace.path("x");
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }
    fs::write(workspace.path("notes"), "thesis").unwrap();
    workspace
        .run("export", "out", &["--format", "gguf", "-o", "notes", "--overwrite"])
        .fails(2, &["notes", "will not remove"]);
    workspace
        .run("export", "out", &["--format", "mlx", "-o", "x", "--dtype", "q8_0"])
        .fails(2, &["q8_0"]);
}

/// A scale of an odd multiple of 2^-24 has no fp16 half.
#[test]
fn subnormal_scales_are_the_ones_that_gguf_loses() {
    let mut model = wide_llama();
    let name = "model.layers.0.mlp.up_proj.weight";
    let tiny = f16::from_bits(3).to_f32();
    let mut weights = model.tensors[name].weights();
    for (i, w) in weights[..256].iter_mut().enumerate() {
        *w = tiny * (i as f32 % 4.0 - 1.5);
    }
    model.tensors.insert(name.to_owned(), Tensor::f32(&[512, 256], &weights));
    let workspace = with(&model);
    workspace.run("compress", "model", &["--preset", "on-device", "-o", "out"]).ok();
    let export = ["--format", "gguf", "-o", "m.gguf"];
    workspace
        .run("export", "out", &[&export[..], &["--exact"]].concat())
        .fails(3, &[name, "cannot be held exactly"]);
    let report = workspace.run("export", "out", &[&export[..], &["--json"]].concat()).ok().json();
    assert_eq!(report["precision"]["rounded"], 1);
    assert_eq!(report["precision"]["worst"]["name"], name);
}

fn gguf() -> (Workspace, Vec<u8>) {
    let workspace = with(&wide_llama());
    workspace.run("compress", "model", &["--preset", "on-device", "-o", "out"]).ok();
    workspace.run("export", "out", &["--format", "gguf", "-o", "m.gguf"]).ok();
    let bytes = fs::read(workspace.path("m.gguf")).unwrap();
    (workspace, bytes)
}

#[test]
fn damaged_gguf_files_are_refused_by_name() {
    let (workspace, bytes) = gguf();
    let path = workspace.path("bad.gguf");
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).unwrap();
        let error = Checkpoint::open(&path).expect_err(what);
        assert_eq!(error.exit_code(), 3, "{what}: {error}");
        error.to_string()
    };
    // Cut off anywhere.
    let header = 40_000;
    for len in (4..header).step_by(997).chain([bytes.len() / 2, bytes.len() - 1]) {
        refused(&bytes[..len], &format!("cut at {len}"));
    }
    let patched = |at: usize, value: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let position = |needle: &[u8]| bytes.windows(needle.len()).position(|w| w == needle).unwrap();
    let huge = u64::MAX.to_le_bytes();
    assert!(refused(&patched(4, &9_u32.to_le_bytes()), "version").contains("version 9"));
    for (at, what) in [(8, "tensor count"), (16, "value count"), (24, "length of a key")] {
        refused(&patched(at, &huge), what);
    }
    let array = position(b"tokenizer.ggml.tokens") + b"tokenizer.ggml.tokens".len() + 4 + 4;
    assert!(refused(&patched(array, &huge), "array").contains("tokenizer.ggml.tokens"));
    refused(&patched(array - 4, &9_u32.to_le_bytes()), "array of arrays");
    // A tensor's name, then rank, dimensions, type and offset.
    let name = b"blk.0.attn_q.weight";
    let rank = position(name) + name.len();
    let tensor = |at: usize, value: &[u8], what: &str| refused(&patched(rank + at, value), what);
    assert!(tensor(0, &77_u32.to_le_bytes(), "rank").contains("77 dimensions"));
    assert!(tensor(4, &huge, "columns").contains("attn_q"));
    assert!(tensor(4, &255_u64.to_le_bytes(), "no whole blocks").contains("Q2_K"));
    assert!(tensor(12, &huge, "rows").contains("no size"));
    assert!(tensor(12, &[0; 8], "no rows").contains("no size"));
    assert!(tensor(20, &99_u32.to_le_bytes(), "type").contains("type number 99"));
    assert!(tensor(24, &huge, "offset").contains("truncated"));
    assert!(tensor(24, &33_u64.to_le_bytes(), "alignment").contains("not in the file"));
    let other = patched(position(name) + 4, b"9.attn_q.weighX");
    assert!(refused(&other, "name").contains("no tensor"));
    fs::write(&path, &bytes[..1000]).unwrap();
    for command in ["inspect", "plan", "compress"] {
        let args: &[&str] = match command {
            "inspect" => &[],
            "plan" => &["--preset", "on-device"],
            _ => &["--preset", "on-device", "-o", "never"],
        };
        workspace.run(command, "bad.gguf", args).fails(3, &["bad.gguf"]);
    }
}

#[test]
fn inspect_and_plan_take_gguf_files() {
    let (workspace, _) = gguf();
    let inspected = workspace.run("inspect", "m.gguf", &["--json"]).ok().json();
    assert_eq!(inspected["tensors"].as_array().unwrap().len(), 12);
    workspace.run("plan", "m.gguf", &["--preset", "server"]).ok();
}
