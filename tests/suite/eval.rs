//! `eval` and `generate` through the real command, on the trained fixture and folders made of it.

use std::fs;

use crate::support::{Model, Run, Workspace, fixture, tiny_llama};
use serde_json::Value;

/// The fixture under `model` and a compressed folder of it under `out`.
fn compressed() -> Workspace {
    let workspace = Workspace::with_tiny_llama(1);
    workspace.run("compress", "model", &["-o", "out", "--preset", "server"]).ok();
    workspace
}

fn eval(workspace: &Workspace, folder: &str, more: &[&str]) -> Run {
    let text = fixture("eval_cc0.txt");
    let args = ["--text", &text, "--ctx", "128", "--windows", "3"];
    workspace.run("eval", folder, &[&args[..], more].concat())
}

fn without_time(mut report: Value) -> Value {
    for key in ["seconds", "tokens_per_second", "peak_memory", "threads"] {
        report.as_object_mut().unwrap().remove(key);
    }
    report
}

#[test]
fn a_compressed_folder_beside_its_original() {
    let workspace = compressed();
    let run = eval(&workspace, "out", &["--against", "model", "--json", "--threads", "1"]).ok();
    assert_eq!(run.stderr, "");
    let report = run.json();
    assert_eq!(report["text"]["windows"], 3);
    assert_eq!(report["text"]["scored_tokens"], 3 * 63);
    assert_eq!(report["same_source"], true);
    assert_eq!((&report["passed"], report["gates"].as_array().unwrap().len()), (&true.into(), 0));
    let scores = &report["scores"];
    let figure = |path: &str| scores.pointer(path).unwrap().as_f64().unwrap();
    // The fixture was trained on such text: far better than its 1024 equal chances.
    assert!((5.0..200.0).contains(&figure("/perplexity_against/mean")), "{scores}");
    assert!((0.9..2.0).contains(&figure("/perplexity_ratio/mean")), "{scores}");
    assert!(figure("/kld/mean") > 0.0 && figure("/kld/median") < figure("/kld/p99"));
    assert!((0.5..=1.0).contains(&figure("/top1/mean")) && figure("/top5/mean") <= 1.0);
    let more = ["--against", "model", "--json", "--threads", "2"];
    let again = eval(&workspace, "out", &more).ok().json();
    assert_eq!(without_time(again), without_time(report.clone()));

    let text = eval(&workspace, "out", &["--against", "model"]).ok().stdout;
    for word in ["perplexity", "KLD", "same top", "change of p", "tokens/s", "peak"] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    let bare = eval(&workspace, "out", &["--against", "model", "--no-adapters", "--json"]).ok();
    let kld = |report: &Value| report.pointer("/scores/kld/mean").unwrap().as_f64().unwrap();
    assert!(kld(&bare.json()) > kld(&report), "adapters repair something");
}

#[test]
fn a_model_beside_itself() {
    let workspace = Workspace::with_tiny_llama(1);
    let gates = ["--max-kld", "0", "--max-ppl-ratio", "1", "--min-top1", "1"];
    let more = [&["--against", "model", "--json"], &gates[..]].concat();
    let report = eval(&workspace, "model", &more).ok().json();
    assert_eq!(report["scores"]["kld"]["max"], 0.0);
    assert_eq!(report["scores"]["top5"]["mean"], 1.0);
    let verdicts = report["gates"].as_array().unwrap();
    assert_eq!(verdicts.len(), 3);
    assert!(verdicts.iter().all(|v| v["passed"] == true && v["margin"] == 0.0), "{verdicts:?}");
    // Rounding the cache changes what the model says, a little.
    let int8 = ["--against", "model", "--json", "--kv-cache", "int8"];
    let report = eval(&workspace, "model", &int8).ok().json();
    let kld = report["scores"]["kld"]["mean"].as_f64().unwrap();
    assert!(kld > 0.0 && kld < 0.02, "{kld}");
}

#[test]
fn broken_gates_end_with_6_after_the_report() {
    let workspace = compressed();
    fs::write(workspace.path("gate.toml"), "max-kld = 1e-9\nmin-top1 = 0.01\n").unwrap();
    let more = ["--against", "model", "--gate", "gate.toml", "--min-top1", "0.02", "--json"];
    let run =
        eval(&workspace, "out", &more).fails(6, &["accuracy gate failed", "max-kld 0.000000001"]);
    let report = run.json();
    assert_eq!(report["passed"], false);
    let verdicts = report["gates"].as_array().unwrap();
    assert_eq!((&verdicts[0]["gate"], &verdicts[0]["passed"]), (&"max-kld".into(), &false.into()));
    assert!(verdicts[0]["margin"].as_f64().unwrap() < 0.0);
    assert_eq!((&verdicts[1]["bound"], &verdicts[1]["passed"]), (&0.02.into(), &true.into()));
}

#[test]
fn gates_on_nothing_are_refused_before_any_work() {
    // No such folder, but the gates are looked at first.
    let workspace = Workspace::new();
    for flag in ["--max-kld", "--max-ppl-ratio", "--min-top1"] {
        eval(&workspace, "none", &[flag, "0.5"]).fails(2, &[flag, "--against"]);
    }
    eval(&workspace, "none", &["--min-accuracy", "0.5"]).fails(2, &["--min-accuracy", "--tasks"]);
    eval(&workspace, "none", &["--against", "x", "--min-top1", "95"])
        .fails(2, &["between 0 and 1"]);
    fs::write(workspace.path("gate.toml"), "max-kdl = 1\n").unwrap();
    eval(&workspace, "none", &["--gate", "gate.toml"]).fails(2, &["gate.toml", "max-kdl"]);
    eval(&workspace, "none", &["--gate", "other.toml"]).fails(4, &["other.toml"]);
}

#[test]
fn questions() {
    let workspace = compressed();
    let tasks = fixture("tasks.jsonl");
    let args = ["--tasks", &tasks, "--shots", "1", "--against", "model"];
    let report = workspace.run("eval", "out", &[&args[..], &["--json"]].concat()).ok().json();
    let found = &report["tasks"];
    let asked = fs::read_to_string(&tasks).unwrap().lines().count() - 1;
    assert_eq!((&found["questions"], &found["shots"]), (&asked.into(), &1.into()));
    for method in ["letter", "text", "text_normalised"] {
        let accuracy = &found[method]["accuracy"];
        let [low, value, high] =
            ["low", "value", "high"].map(|key| accuracy[key].as_f64().unwrap());
        assert!(low < value + 1e-12 && value < high + 1e-12 && high - low < 0.6, "{accuracy}");
        assert!(found[method]["agreement"]["value"].as_f64().unwrap() > 0.3);
    }
    assert!(report.get("scores").is_none());
    let gated = [&args[..], &["--min-accuracy", "1"]].concat();
    workspace.run("eval", "out", &gated).fails(6, &["min-accuracy 1"]);
    fs::write(workspace.path("bad.jsonl"), "\n{\"question\": \"q\"}\n").unwrap();
    workspace.run("eval", "out", &["--tasks", "bad.jsonl"]).fails(3, &["bad.jsonl", "line 2"]);
}

#[test]
fn texts_and_contexts_that_do_not_fit() {
    let workspace = Workspace::with_tiny_llama(1);
    let run = |args: &[&str]| workspace.run("eval", "model", args);
    fs::write(workspace.path("short.txt"), "Too short.").unwrap();
    fs::write(workspace.path("latin1.txt"), b"caf\xe9").unwrap();
    run(&["--text", "short.txt"]).fails(3, &["short.txt", "shorter than one window of 512"]);
    run(&["--text", "latin1.txt"]).fails(3, &["latin1.txt", "not UTF-8 at byte 3"]);
    run(&["--text", "none.txt"]).fails(4, &["none.txt"]);
    assert_eq!(run(&[]).code, 2);
    let text = fixture("eval_cc0.txt");
    run(&["--text", &text, "--ctx", "513"]).fails(2, &["513", "512", "model"]);
    run(&["--text", &text, "--ctx", "2"]).fails(2, &["scores nothing"]);
    run(&["--text", &text, "--windows", "0"]).fails(2, &["0 windows"]);
    assert_eq!(run(&["--text", &text, "--batch", "0"]).code, 2);
}

#[test]
fn folders_that_cannot_be_compared() {
    let workspace = Workspace::with_tiny_llama(1);
    let tokenizer = workspace.path("model").join("tokenizer.json");
    let text = fs::read_to_string(&tokenizer).unwrap();
    // The same model with one merge less.
    Model::read(&tiny_llama()).write(&workspace.path("other"), 1, &tiny_llama());
    let mut changed: Value = serde_json::from_str(&text).unwrap();
    changed["model"]["merges"].as_array_mut().unwrap().remove(5);
    fs::write(workspace.path("other/tokenizer.json"), changed.to_string()).unwrap();
    eval(&workspace, "model", &["--against", "other"])
        .fails(3, &["model/tokenizer.json", "other/tokenizer.json", "other tokens"]);
    fs::write(&tokenizer, "{}").unwrap();
    eval(&workspace, "model", &[]).fails(3, &["tokenizer.json", "no tokenizer"]);
    fs::remove_file(&tokenizer).unwrap();
    eval(&workspace, "model", &[]).fails(3, &["model", "has no tokenizer.json"]);
    eval(&workspace, "nowhere", &[]).fails(4, &["nowhere"]);
}

#[test]
fn a_number_that_breaks_down_names_its_layer() {
    let workspace = Workspace::with_tiny_llama(1);
    let mut model = Model::read(&tiny_llama());
    let name = "model.layers.2.mlp.down_proj.weight";
    let tensor = model.tensors.get_mut(name).unwrap();
    tensor.data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    model.write(&workspace.path("broken"), 1, &tiny_llama());
    eval(&workspace, "broken", &[]).fails(3, &["broken", "layers.2"]);
}

#[test]
fn generation() {
    let workspace = compressed();
    let say = |folder: &str, more: &[&str]| {
        let args = ["--prompt", "The people of the", "--max-tokens", "12"];
        workspace.run("generate", folder, &[&args[..], more].concat())
    };
    let text = say("out", &[]).ok().stdout;
    assert!(text.starts_with("The people of the") && text.len() > 24, "{text}");
    assert_eq!(say("out", &["-t", "1"]).ok().stdout, text);
    let both = say("out", &["--against", "model"]).ok().stdout;
    assert!(both.starts_with(&format!("=== model: out\n{text}=== original: model\n")), "{both}");
    let report = say("model", &["--against", "model", "--json"]).ok().json();
    assert_eq!(report["tokens_alike"], report["model"]["tokens"].as_array().unwrap().len());
    assert_eq!(report["model"]["text"], report["against"]["text"]);

    let warm = ["--temperature", "1", "--top-p", "0.9", "--top-k", "50"];
    let drawn = |seed| say("model", &[&warm[..], &["--seed", seed]].concat()).ok().stdout;
    assert_eq!(drawn("3"), drawn("3"));
    assert_ne!(drawn("3"), drawn("4"));
    say("model", &["--temperature", "-1"]).fails(2, &["temperature"]);
    say("model", &["--top-p", "0", "--temperature", "1"]).fails(2, &["top-p"]);
    workspace.run("generate", "model", &["--prompt", ""]).fails(2, &["empty prompt"]);
}
