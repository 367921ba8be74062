//! Recipes with a `[transform]` through the real command, on the trained fixture.

use std::fs;

use crate::support::{Model, Run, Workspace, fixture, tiny_llama};
use serde_json::Value;

const EVERYTHING: &str = "rotation = 'hadamard'\nhead_rotation = 'hadamard'\n\
                          sort = ['channels', 'values']\n";

const GRID: &str = "[[rule]]\nrole = 'linear'\ncodec = 'grid2'\ngroup = 32\n\
                    [[rule]]\nrole = ['embedding', 'head']\ncodec = 'int4'\noptional = true\n";

/// Hardly anything is coded: what differs then is the transform's doing.
const ONE_TENSOR: &str = "[[rule]]\nmatch = '0\\.self_attn\\.k_proj'\ncodec = 'int4'\ngroup = 32\n";

fn compress(workspace: &Workspace, out: &str, transform: &str, rules: &str, more: &[&str]) -> Run {
    let table =
        if transform.is_empty() { String::new() } else { format!("[transform]\n{transform}") };
    fs::write(workspace.path("recipe.toml"), format!("{table}{rules}")).unwrap();
    let args = ["-o", out, "--recipe", "recipe.toml", "--json", "--seed", "5"];
    workspace.run("compress", "model", &[&args[..], more].concat())
}

fn text_args(text: &str) -> [&str; 6] {
    ["--calibration", text, "--calibration-ctx", "128", "--calibration-windows", "24"]
}

fn divergence(workspace: &Workspace, folder: &str) -> f64 {
    let text = fixture("eval_cc0.txt");
    let args = ["--against", "model", "--text", &text, "--ctx", "128", "--windows", "4", "--json"];
    let report = workspace.run("eval", folder, &args).ok().json();
    report.pointer("/scores/kld/mean").unwrap().as_f64().unwrap()
}

fn manifest(workspace: &Workspace, folder: &str) -> Value {
    serde_json::from_slice(&fs::read(workspace.path(folder).join("manifest.json")).unwrap())
        .unwrap()
}

/// The folder is one of the same model: verified against the original, as near to it as without
/// the transform, and described as what it is.
#[test]
fn a_transformed_model_is_the_same_model() {
    let workspace = Workspace::with_tiny_llama(2);
    compress(&workspace, "plain", "", ONE_TENSOR, &[]).ok();
    let report = compress(&workspace, "out", EVERYTHING, ONE_TENSOR, &[]).ok().json();
    let (plain, out) = (manifest(&workspace, "plain"), manifest(&workspace, "out"));
    assert_eq!(plain["source_fingerprint"], out["source_fingerprint"]);
    assert_eq!(out.pointer("/transform/rotation").unwrap(), "hadamard");
    assert_eq!(plain.get("transform"), None);
    assert_eq!(report["totals"]["source_bytes"], plain["totals"]["source_bytes"]);
    let entries = out["tensors"].as_array().unwrap();
    let reason = |name: &str| {
        let entry = entries.iter().find(|entry| entry["name"] == name).unwrap();
        entry["transformed"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(reason("model.norm.weight"), "norm gains folded");
    assert_eq!(
        reason("model.layers.1.self_attn.o_proj.weight"),
        "residual stream rotated, values of heads rotated, values of heads sorted"
    );
    let (plain, out) = (divergence(&workspace, "plain"), divergence(&workspace, "out"));
    assert!(plain < 1e-3 && out < 1e-3, "{plain} {out}");

    workspace.run("verify", "out", &[]).ok();
    let report = workspace.run("verify", "out", &["--against", "model", "--json"]).ok().json();
    assert_eq!(report["against"], "model");
    Model::read(&tiny_llama()).bf16().write(&workspace.path("other"), 1, &tiny_llama());
    workspace.run("verify", "out", &["--against", "other"]).fails(6, &["other weights"]);

    let args = ["-o", "back", "--dtype", "f32"];
    workspace.run("decompress", "out", &args).ok();
    assert!(divergence(&workspace, "back") < 1e-3);
    assert!(!workspace.path("back").join("manifest.json").exists());
    let expected = ["back", "model", "other", "out", "plain", "recipe.toml"];
    assert_eq!(workspace.names(), expected, "nothing is left beside the outputs");
}

/// A tokenizer of 67 words for the architectures, which have none.
fn word_tokenizer() -> Value {
    let vocabulary: serde_json::Map<String, Value> =
        (0..67).map(|id| (format!("w{id}"), id.into())).collect();
    serde_json::json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": null,
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "w0" },
    })
}

/// One tensor is coded, nearly without error (two weights a group), and everything else of every
/// family goes through all transforms that are legal on it. The divergence is then that of fp16
/// scales: at most 1.3e-7 with any transform or none when this was written.
#[test]
fn every_family_keeps_its_function() {
    let rule = "[[rule]]\nmatch = 'layers\\.1\\.self_attn\\.k_proj\\.weight'\n\
                codec = 'int4'\ngroup = 2\n";
    let words: Vec<String> = (0..24 * 8).map(|i| format!("w{}", (i * i + 5 * i) % 67)).collect();
    let mut seen = 0;
    for entry in fs::read_dir(fixture("architectures")).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        let workspace = Workspace::new();
        fs::create_dir(workspace.path("model")).unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(folder.join(file), workspace.path("model").join(file)).unwrap();
        }
        let tokenizer = word_tokenizer().to_string();
        fs::write(workspace.path("model").join("tokenizer.json"), tokenizer).unwrap();
        fs::write(workspace.path("words.txt"), words.join(" ")).unwrap();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let scaling = "scaling = { weights = 0.5 }\n";
        let rest = EVERYTHING.split_once('\n').unwrap().1;
        let transform = if name.starts_with("gemma3") {
            format!("{rest}{scaling}")
        } else {
            format!("{EVERYTHING}untie_head = true\n{scaling}")
        };
        compress(&workspace, "out", &transform, rule, &[]).ok();
        let args = ["--against", "model", "--text", "words.txt", "--ctx", "24", "--json"];
        let exact = ["--kv-cache", "f32"];
        let report = workspace.run("eval", "out", &[&args[..], &exact].concat()).ok().json();
        let found = report.pointer("/scores/kld/mean").unwrap().as_f64().unwrap();
        assert!(found.abs() < 5e-7, "{name}: {found}");
        seen += 1;
    }
    assert_eq!(seen, 12);
}

#[test]
fn bytes_depend_on_the_seed_alone() {
    let workspace = Workspace::with_tiny_llama(1);
    let text = fixture("calib_cc0.txt");
    let run = |out: &str, more: &[&str]| {
        let more = [&text_args(&text)[..], more].concat();
        compress(&workspace, out, EVERYTHING, GRID, &more).ok();
    };
    run("one", &["--threads", "1"]);
    run("three", &["--threads", "3"]);
    assert!(workspace.files("one") == workspace.files("three"));
    // The resolved recipe gives the same again.
    fs::copy(workspace.path("one").join("recipe.toml"), workspace.path("again.toml")).unwrap();
    let args = ["-o", "again", "--recipe", "again.toml", "--seed", "5"];
    workspace.run("compress", "model", &[&args[..], &text_args(&text)].concat()).ok();
    assert!(workspace.files("one") == workspace.files("again"));
}

/// Scales from what the layers see, with a text and with statistics of the original; the
/// statistics are good for the transformed model too.
#[test]
fn calibrations_are_for_the_original() {
    let workspace = Workspace::with_tiny_llama(1);
    let text = fixture("calib_cc0.txt");
    let scaling = format!("{EVERYTHING}scaling = {{ weights = 0.3, activations = 0.3 }}\n");
    compress(&workspace, "out", &scaling, GRID, &[]).fails(2, &["activations", "--calibration"]);
    let args = ["--text", &text, "-o", "stats", "--calibration-ctx", "128"];
    let windows = ["--calibration-windows", "24"];
    workspace.run("calibrate", "model", &[&args[..], &windows].concat()).ok();
    let statistics = ["--calibration", "stats"];
    compress(&workspace, "plain", "", GRID, &[]).ok();
    let plain = divergence(&workspace, "plain");
    for (out, calibration) in [("text", &text_args(&text)[..]), ("statistics", &statistics)] {
        compress(&workspace, out, &scaling, GRID, calibration).ok();
        let found = divergence(&workspace, out);
        assert!(found < 0.8 * plain, "{out}: {found} {plain}");
        workspace.run("verify", out, &[]).ok();
        let refused = workspace.run("verify", out, &["--against", "model"]);
        refused.fails(2, &["calibration text", "eval --against"]);
    }
    let expected = ["model", "plain", "recipe.toml", "statistics", "stats", "text"];
    assert_eq!(workspace.names(), expected);
}

/// A rotation takes a tied head's tie; the plan says what that costs.
#[test]
fn a_tied_head_is_untied_only_when_asked() {
    let workspace = Workspace::new();
    Model::read(&tiny_llama()).tied(false).write(&workspace.path("model"), 1, &tiny_llama());
    let plan = |transform: &str| {
        fs::write(workspace.path("recipe.toml"), format!("[transform]\n{transform}{GRID}"))
            .unwrap();
        workspace.run("plan", "model", &["--recipe", "recipe.toml", "--json"])
    };
    plan(EVERYTHING).fails(2, &["model.embed_tokens.weight", "163840 weights more", "untie_head"]);
    let untied = format!("{EVERYTHING}untie_head = true\n");
    let planned = plan(&untied).ok().json();
    let lines = planned["tensors"].as_array().unwrap();
    let head = lines.iter().find(|line| line["name"] == "lm_head.weight").unwrap();
    assert!(head["transformed"].as_str().unwrap().starts_with("a head of its own"), "{head}");
    assert_eq!(workspace.names(), ["model", "recipe.toml"]);

    let report = compress(&workspace, "out", &untied, GRID, &[]).ok().json();
    assert_eq!(report["totals"]["output_bytes"], planned["totals"]["output_bytes"]);
    workspace.run("verify", "out", &["--against", "model"]).ok();
    let head = manifest(&workspace, "out");
    let entries = head["tensors"].as_array().unwrap();
    assert!(entries.iter().any(|e| e["name"] == "lm_head.weight" && e["status"] == "coded"));
    compress(&workspace, "one", &untied, ONE_TENSOR, &[]).ok();
    assert!(divergence(&workspace, "one") < 1e-3);
}
