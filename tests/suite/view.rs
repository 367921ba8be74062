//! `compress-model view`: the page holds what the folder holds, loads nothing, and takes no harm from
//! hostile names.

use std::fs;
use std::path::Path;

use crate::support::{Model, Tensor, Workspace, noise};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use half::f16;
use regex::Regex;
use safetensors::SafeTensors;
use serde_json::Value;

const HOSTILE: &str = "a</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)>.weight";

/// The data elements of a page: facts first, then a tensor each.
fn data(html: &str) -> Vec<Value> {
    Regex::new(r#"<script type="application/json" id="[a-z0-9-]*">([^<]*)</script>"#)
        .unwrap()
        .captures_iter(html)
        .map(|found| serde_json::from_str(&found[1]).unwrap())
        .collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

/// The stored bytes of a part in the folder `out`.
fn stored(workspace: &Workspace, name: &str) -> Vec<u8> {
    let file = fs::read(workspace.path("out").join("model.safetensors")).unwrap();
    SafeTensors::deserialize(&file).unwrap().tensor(name).unwrap().data().to_vec()
}

/// A model of one texture-coded tensor, compressed to `out`.
fn one_tensor(name: &str, rows: usize, cols: usize) -> (Workspace, Vec<f32>) {
    let weights = noise(rows * cols, 3);
    let workspace = Workspace::with_tensors(&[(name, Tensor::f32(&[rows, cols], &weights))]);
    let args = ["-o", "out", "--preset", "server", "--tensor-type", ".*=astc:effort=fast"];
    workspace.run("compress", "model", &args).ok();
    (workspace, weights)
}

/// Nothing in the page is fetched from anywhere.
fn assert_self_contained(html: &str) {
    let urls = Regex::new("https?://[^\\s\"'`)]*").unwrap();
    for url in urls.find_iter(html) {
        assert_eq!(url.as_str(), "http://www.w3.org/2000/svg");
    }
    for word in ["@import", "url(", " src=", "import(", "fetch(", "XMLHttpRequest"] {
        assert!(!html.contains(word), "{word}");
    }
    assert!(html.contains("default-src 'none'"));
}

#[test]
fn the_page_of_a_model() {
    let workspace = Workspace::with_tiny_llama(1);
    workspace.run("compress", "model", &["-o", "out", "--preset", "server"]).ok();
    let args = ["--original", "model", "--output", "page.html", "--json"];
    let run = workspace.run("view", "out", &args).ok();
    assert_eq!(run.stderr, "");
    let report = run.json();
    let html = fs::read_to_string(workspace.path("page.html")).unwrap();
    assert_eq!(report["bytes"], html.len());
    assert_self_contained(&html);

    let data = data(&html);
    assert_eq!(data.len(), 1 + 7, "the facts and seven kinds of layer");
    assert_eq!(data[0]["has_original"], true);
    assert_eq!(data[0]["texture_tensors"], 28);
    let q = data.iter().find(|t| t["name"] == "model.layers.0.self_attn.q_proj.weight").unwrap();
    assert_eq!(bytes(&q["blocks"]), stored(&workspace, "model.layers.0.self_attn.q_proj.weight"));
    assert_eq!(
        bytes(&q["side"]),
        stored(&workspace, "model.layers.0.self_attn.q_proj.weight.scales")
    );
    assert_eq!(q["adapter"]["rank"], 16);
    assert_eq!(bytes(&q["adapter"]["a"]).len(), 16 * 160 * 2);
    let model = Model::read(&workspace.path("model"));
    let original: Vec<u8> = model.tensors["model.layers.0.self_attn.q_proj.weight"]
        .weights()
        .iter()
        .flat_map(|&w| f16::from_f32(w).to_le_bytes())
        .collect();
    assert_eq!(bytes(&q["original"]), original);
}

#[test]
fn chosen_tensors_and_the_window_of_a_wide_one() {
    let (workspace, weights) = one_tensor("wide.weight", 8, 9000);
    let run =
        workspace.run("view", "out", &["--tensor", "wide.weight", "--original", "model"]).ok();
    assert!(run.stdout.contains("8 x 8178"), "{}", run.stdout);
    let html = fs::read_to_string(workspace.path("out.html")).unwrap();
    let tensor = &data(&html)[1];
    let window = &tensor["window"];
    assert_eq!((&window["rows"], &window["cols"]), (&8.into(), &8178.into()));
    assert_eq!(window["whole"], false);
    let (across, shown) = (9000 / 6 * 16, 8178 / 6 * 16);
    let all = stored(&workspace, "wide.weight");
    let expected = [&all[..shown], &all[across..across + shown]].concat();
    assert_eq!(bytes(&tensor["blocks"]), expected);
    let originals = bytes(&tensor["original"]);
    let second_row = &originals[2 * 8178..][..2];
    assert_eq!(second_row, f16::from_f32(weights[9000]).to_le_bytes());
}

#[test]
fn hostile_names_stay_text() {
    let (workspace, _) = one_tensor(HOSTILE, 12, 12);
    workspace.run("view", "out", &[]).ok();
    let html = fs::read_to_string(workspace.path("out.html")).unwrap();
    assert!(!html.contains("alert(1)</script>") && !html.contains("<img"));
    assert_eq!(html.matches("<script").count(), 3, "facts, one tensor, the program");
    assert_eq!(html.matches("</script").count(), 3);
    assert!(!html.contains("<!--"));
    let data = data(&html);
    assert_eq!(data[1]["name"], HOSTILE);
    assert_eq!(data[0]["tensors"][0]["name"], HOSTILE);
    assert_eq!(data[1]["original"], Value::Null);
}

#[test]
fn refusals() {
    let (workspace, _) = one_tensor("layers.0.q_proj.weight", 12, 12);
    let view = |args: &[&str]| workspace.run("view", "out", args);
    let before = workspace.names();
    view(&["--tensor", "q_proj"]).fails(2, &["\"q_proj\"", "near", "layers.0.q_proj.weight"]);
    view(&["-o", "out/page.html"]).fails(2, &["out/page.html", "may not lie in"]);
    view(&["-o", "none/page.html"]).fails(2, &["does not exist"]);
    view(&["-o", "model"]).fails(2, &["is a folder"]);
    fs::write(workspace.path("taken.html"), "mine").unwrap();
    view(&["-o", "taken.html"]).fails(4, &["taken.html", "--overwrite"]);
    assert_eq!(fs::read(workspace.path("taken.html")).unwrap(), b"mine");
    view(&["-o", "taken.html", "--overwrite"]).ok();
    fs::remove_file(workspace.path("taken.html")).unwrap();

    let other = Tensor::f32(&[12, 12], &noise(144, 4));
    let tensors = [("layers.0.q_proj.weight".to_owned(), other)].into();
    let model = Model { tensors, config: serde_json::json!({ "model_type": "llama" }) };
    model.write(&workspace.path("other"), 1, Path::new("/nonexistent"));
    view(&["--original", "other"]).fails(3, &["layers.0.q_proj.weight", "not what was compressed"]);
    fs::remove_dir_all(workspace.path("other")).unwrap();
    assert_eq!(workspace.names(), before, "a refused page leaves nothing behind");

    workspace.run("compress", "model", &["-o", "small", "--preset", "on-device"]).ok();
    workspace.run("view", "small", &[]).fails(3, &["small", "no texture-coded tensors"]);
    workspace.run("view", "model", &[]).fails(3, &["manifest.json"]);
}
