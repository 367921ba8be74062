//! `qat`, `recover` and `pack` through the real command, on the trained fixture.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Model, Tensor, Workspace, copy_folder, fixture, prepared};
use half::f16;
use serde_json::Value;

/// Arguments of a small run on `text`.
fn arguments<'a>(text: &'a str, out: &'a str) -> Vec<&'a str> {
    let mut args = vec!["--text", text, "-o", out, "--json", "--train", "held_out=4"];
    args.extend(["--ctx", "64", "--batch", "2"]);
    args
}

/// The fixture, and the first `bytes` of its training text as `text`.
fn workspace(bytes: usize) -> (Workspace, String) {
    let workspace = Workspace::with_tiny_llama(1);
    let text = fs::read_to_string(fixture("calib_cc0.txt")).unwrap();
    fs::write(workspace.path("text"), &text[..bytes]).unwrap();
    let text = workspace.path("text").display().to_string();
    (workspace, text)
}

/// A compressed folder `name` on the 2-bit grid, the same for all tests with a text of 60,000 bytes.
fn solved(workspace: &Workspace, name: &str, text: &str) {
    let solve = |out: &Path| {
        let out = out.to_str().unwrap();
        let args = ["-o", out, "--preset", "on-device", "--calibration", text];
        let windows = ["--calibration-ctx", "64", "--calibration-windows", "16"];
        workspace.run("compress", "model", &[&args[..], &windows].concat()).ok();
    };
    match fs::metadata(text).unwrap().len() {
        60_000 => copy_folder(&prepared("solved", solve), &workspace.path(name)),
        _ => solve(&workspace.path(name)),
    }
}

fn evaluation(report: &Value, which: usize, key: &str) -> f64 {
    report["evaluations"][which][key].as_f64().unwrap()
}

fn last(report: &Value) -> usize {
    report["evaluations"].as_array().unwrap().len() - 1
}

fn scores(workspace: &Workspace, folder: &str) -> (f64, f64) {
    let text = fixture("eval_cc0.txt");
    let args = ["--against", "model", "--text", &text, "--ctx", "256", "--windows", "40", "--json"];
    let report = workspace.run("eval", folder, &args).ok().json();
    let figure = |pointer: &str| report.pointer(pointer).unwrap().as_f64().unwrap();
    (figure("/scores/perplexity_ratio/mean"), figure("/scores/kld/mean"))
}

/// The fixture at 2 bits, trained from nothing: calibration, blocks, end to end.
#[test]
fn the_fixture_comes_within_a_tenth_of_its_perplexity_at_2_bits_in_3_minutes() {
    let workspace = Workspace::with_tiny_llama(1);
    let text = fixture("calib_cc0.txt");
    // One scale a row: no bits but those of the codes to speak of.
    let recipe = "[[rule]]\nrole = 'linear'\ncodec = 'grid2'\n\
                  [[rule]]\nrole = ['embedding', 'head']\ncodec = 'int4'\n";
    fs::write(workspace.path("recipe.toml"), recipe).unwrap();
    let recipe = workspace.path("recipe.toml").display().to_string();
    let start = Instant::now();
    let mut args = vec!["--text", &text, "-o", "out", "--json", "--recipe", &recipe];
    args.extend(["--ctx", "256", "--batch", "4", "--steps", "100", "--rate", "0.01"]);
    args.extend(["--train", "scales=learnt", "--train", "block_epochs=0"]);
    let report = workspace.run("qat", "model", &args).ok().json();
    assert!(start.elapsed() < Duration::from_secs(180), "{:?}", start.elapsed());
    let (ratio, kld) = scores(&workspace, "out");
    let end = last(&report);
    println!("ratio {ratio}, KLD {kld}, {:?}, {report:#}", start.elapsed());
    assert!(ratio < 1.1, "{ratio}");
    assert!(evaluation(&report, end, "kld") < 0.8 * evaluation(&report, 0, "kld"), "{report}");
    let linear = report.pointer("/compressed/totals/linear_bits_per_weight").unwrap();
    assert!(linear.as_f64().unwrap() < 2.12, "{linear}");
    workspace.run("verify", "out", &["--against", "model"]).ok();
    for file in ["train.jsonl", "training.svg"] {
        assert!(workspace.path("out").join(file).exists(), "{file}");
    }
    let leftovers = workspace.names();
    assert!(leftovers.iter().all(|name| !name.contains("partial")), "{leftovers:?}");
}

/// What is exported is what was trained: a run that starts from the output of another finds, to the
/// last bit, the loss at which that one ended.
#[test]
fn exported_codes_and_scales_are_those_of_the_last_forward_pass() {
    let (workspace, text) = workspace(60_000);
    solved(&workspace, "start", &text);
    for scales in ["ema", "lsq", "learnt", "fixed", "report"] {
        let setting = format!("scales={scales}");
        let mut args = arguments(&text, "first");
        args.extend(["--start", "start", "--steps", "6", "--rate", "0.05", "--overwrite"]);
        args.extend(["--train", &setting, "--train", "keep_last=true"]);
        let first = workspace.run("qat", "model", &args).ok().json();
        let mut args = arguments(&text, "second");
        args.extend(["--start", "first", "--steps", "1", "--overwrite"]);
        args.extend(["--train", "keep_last=true"]);
        let second = workspace.run("qat", "model", &args).ok().json();
        for key in ["loss", "kld", "perplexity"] {
            let (end, start) = (evaluation(&first, last(&first), key), evaluation(&second, 0, key));
            assert_eq!(end.to_bits(), start.to_bits(), "{scales} {key}: {end} {start}");
        }
        let moved = evaluation(&first, 0, "loss") != evaluation(&first, last(&first), "loss");
        assert!(moved, "{scales}: training changed nothing");
        workspace.run("verify", "first", &["--against", "model"]).ok();
    }
}

#[test]
fn one_batch_can_be_learnt_by_heart() {
    let (workspace, text) = workspace(60_000);
    solved(&workspace, "start", &text);
    // Two windows, both in every step.
    fs::write(workspace.path("text"), &fs::read_to_string(&text).unwrap()[..430]).unwrap();
    let mut args = arguments(&text, "out");
    args.extend(["--start", "start", "--steps", "80", "--rate", "0.01"]);
    args.extend(["--train", "scales=learnt"]);
    let report = workspace.run("qat", "model", &args).ok().json();
    assert_eq!(report["windows"][1], 0, "nothing is held out of so little");
    let log = fs::read_to_string(workspace.path("out").join("train.jsonl")).unwrap();
    let losses: Vec<f64> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64())
        .collect();
    assert_eq!(losses.len(), 80);
    assert!(losses[79] < losses[0] / 8.0, "{} -> {}", losses[0], losses[79]);
}

#[test]
fn blocks_trained_alone_come_nearer_to_what_the_original_blocks_give() {
    let (workspace, text) = workspace(60_000);
    solved(&workspace, "start", &text);
    let mut args = arguments(&text, "out");
    args.extend(["--start", "start", "--steps", "0", "--train", "block_epochs=2"]);
    let report = workspace.run("qat", "model", &args).ok().json();
    let blocks = report["blocks"].as_array().unwrap();
    assert_eq!(blocks.len(), 4);
    for block in blocks {
        let (before, after) = (block["before"].as_f64().unwrap(), block["after"].as_f64().unwrap());
        assert!(after < 0.95 * before, "{block}");
    }
    let together = scores(&workspace, "out").1;
    let start = scores(&workspace, "start").1;
    assert!(together < start, "{start} -> {together}");
    workspace.run("verify", "out", &["--against", "model"]).ok();
    // Training end to end finds the same losses where blocks began and where they ended.
    for (folder, which) in [("start", 0), ("out", 1)] {
        let mut args = arguments(&text, "next");
        args.extend(["--start", folder, "--steps", "1", "--overwrite"]);
        args.extend(["--train", "keep_last=true"]);
        let next = workspace.run("qat", "model", &args).ok().json();
        let (found, wanted) = (evaluation(&report, which, "kld"), evaluation(&next, 0, "kld"));
        assert!((found / wanted - 1.0).abs() < 1e-5, "{folder}: {found} {wanted}");
    }

    // With nothing held out there is nothing to evaluate.
    let mut args = arguments(&text, "next");
    args.extend(["--start", "start", "--steps", "0", "--overwrite", "--train", "held_out=0"]);
    args.extend(["--train", "block_epochs=1"]);
    let unseen = workspace.run("qat", "model", &args).ok().json();
    assert_eq!(unseen["evaluations"], serde_json::json!([]));

    // Killed between two blocks, it goes on with those that were trained.
    let mut args = arguments(&text, "killed");
    args.extend(["--start", "start", "--steps", "0", "--train", "block_epochs=2"]);
    let mut child = spawn(&workspace, &args);
    while logged(&workspace, "killed", "trained_block") < 2 {
        assert!(child.try_wait().unwrap().is_none(), "ended before two blocks");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    args.extend(["--resume", "--threads", "1"]);
    let resumed = workspace.run("qat", "model", &args).ok().json();
    assert!(resumed["blocks"].as_array().unwrap().len() <= 2, "{resumed}");
    assert_eq!(resumed["evaluations"], report["evaluations"]);
    let weights = |out: &str| fs::read(workspace.path(out).join("model.safetensors")).unwrap();
    assert!(weights("killed") == weights("out"), "other weights");
}

/// Starts a run that may be killed.
fn spawn(workspace: &Workspace, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_compress-model"))
        .env_clear()
        .current_dir(workspace.path(""))
        .args(["qat", "model"])
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lines with `word` in the log of the run that writes `out`.
fn logged(workspace: &Workspace, out: &str, word: &str) -> usize {
    let log = workspace.path(&format!(".{out}.partial")).join("train.jsonl");
    fs::read_to_string(log).map_or(0, |log| log.lines().filter(|l| l.contains(word)).count())
}

/// Killed twice and stopped once, a run goes on to the bytes of one that was left alone, on another
/// number of threads.
#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let (workspace, text) = workspace(60_000);
    let settings = [
        "--preset",
        "on-device",
        "--calibration-windows",
        "16",
        "--steps",
        "24",
        "--train",
        "block_epochs=1",
    ];
    let mut args = arguments(&text, "whole");
    args.extend(settings);
    let whole = workspace.run("qat", "model", &args).ok().json();

    let mut args = arguments(&text, "out");
    args.extend(settings);
    let often = ["--train", "checkpoint_minutes=0.0001"];
    args.extend(often);
    for (round, steps) in [5, 11, 17].into_iter().enumerate() {
        let mut args = args.clone();
        if round > 0 {
            args.extend(["--resume", "--threads", "3"]);
        }
        let mut child = spawn(&workspace, &args);
        while logged(&workspace, "out", "norm") < steps {
            assert!(child.try_wait().unwrap().is_none(), "ended before step {steps}");
            std::thread::sleep(Duration::from_millis(5));
        }
        if round < 2 {
            child.kill().unwrap();
            child.wait().unwrap();
        } else {
            Command::new("kill").arg(child.id().to_string()).status().unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(75), "stopped safely");
        }
        assert!(!workspace.path("out").exists());
    }
    let mut other = args.clone();
    other.extend(["--resume", "--rate", "0.001"]);
    workspace.run("qat", "model", &other).fails(2, &["cannot resume", "recipe"]);
    workspace.run("qat", "model", &args).fails(2, &["--resume"]);
    args.extend(["--resume", "--threads", "1"]);
    let resumed = workspace.run("qat", "model", &args).ok().json();
    assert!(resumed["resumed_steps"].as_u64().unwrap() >= 17, "{resumed}");
    assert_eq!(resumed["evaluations"], whole["evaluations"]);
    let weights = |out: &str| fs::read(workspace.path(out).join("model.safetensors")).unwrap();
    assert!(weights("out") == weights("whole"), "other weights");
    // Losses of every step, but not the speed.
    let losses = |out: &str| -> Vec<String> {
        let log = fs::read_to_string(workspace.path(out).join("train.jsonl")).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let step = |v: &Value| v.get("gradient_norm").is_some();
        lines.filter(step).map(|v| format!("{} {}", v["step"], v["loss"])).collect()
    };
    assert_eq!(losses("out"), losses("whole"));
}

#[test]
fn adapters_of_a_texture_model_recover_what_its_codes_lost() {
    let (workspace, text) = workspace(200_000);
    let compress =
        ["-o", "server", "--preset", "server", "--tensor-type", "proj=astc:footprint=10x8,rank=4"];
    workspace.run("compress", "model", &compress).ok();
    let mut args = vec!["--against", "model", "--text", &text, "-o", "out", "--json"];
    args.extend(["--ctx", "128", "--batch", "4", "--steps", "60", "--rate", "0.01"]);
    let report = workspace.run("recover", "server", &args).ok().json();
    let (_, before) = scores(&workspace, "server");
    let (_, after) = scores(&workspace, "out");
    println!("{before} -> {after}");
    assert!(after < 0.8 * before, "{before} -> {after}");
    assert!(report["compressed"]["totals"]["linear_bits_per_weight"].as_f64().unwrap() < 5.0);
    workspace.run("verify", "out", &["--against", "model"]).ok();
    // The codes are the same bytes.
    let blocks = |out: &str| fs::read(workspace.path(out).join("model.safetensors")).unwrap();
    assert!(blocks("server") == blocks("out"));

    // A folder without adapters gets new ones.
    workspace.run("compress", "model", &["-o", "plain", "--preset", "on-device"]).ok();
    let mut args =
        vec!["--against", "model", "--text", &text, "-o", "new", "--json", "--steps", "8"];
    workspace.run("recover", "plain", &args).fails(2, &["--rank"]);
    args.extend(["--rank", "3", "--ctx", "64", "--rate", "0.01"]);
    let report = workspace.run("recover", "plain", &args).ok().json();
    assert_eq!(report["layers"], 28);
    assert!(evaluation(&report, last(&report), "loss") < evaluation(&report, 0, "loss"));
    workspace.run("verify", "new", &["--against", "model"]).ok();
}

#[test]
fn what_cannot_be_trained_is_said_before_any_work() {
    let (workspace, text) = workspace(60_000);
    let with = |more: &[&str]| {
        let mut args = arguments(&text, "out");
        args.extend(["--preset", "on-device"]);
        args.extend(more);
        workspace.run("qat", "model", &args)
    };
    with(&["--train", "stpes=3"]).fails(2, &["stpes"]);
    with(&["--train", "rate"]).fails(2, &["KEY=VALUE"]);
    with(&["--train", "scales=lqs"]).fails(2, &["lqs", "learnt"]);
    with(&["--rate=-1"]).fails(2, &["rate"]);
    let long = ["--text", &text, "-o", "out", "--ctx", "2000000"];
    workspace.run("qat", "model", &long).fails(3, &["shorter than one window"]);
    fs::write(workspace.path("short"), "Too short.").unwrap();
    let short = workspace.path("short").display().to_string();
    with(&["--text", &short]).fails(3, &["short", "window"]);
    // Nothing on the grid.
    with(&["--ignore", "proj", "--steps", "1"]).fails(2, &["grid2"]);
    // Experts; their vocabulary has 67 tokens.
    let words = r#"{"version":"1.0","model":{"type":"WordLevel","vocab":{"?":0},"unk_token":"?"},
                    "pre_tokenizer":{"type":"Whitespace"}}"#;
    fs::create_dir(workspace.path("experts")).unwrap();
    for file in ["config.json", "model.safetensors"] {
        let mixtral = fixture(&format!("architectures/mixtral/{file}"));
        fs::copy(mixtral, workspace.path("experts").join(file)).unwrap();
    }
    fs::write(workspace.path("experts/tokenizer.json"), words).unwrap();
    let mut args = arguments(&text, "out");
    args.extend(["--preset", "on-device"]);
    workspace.run("qat", "experts", &args).fails(3, &["experts", "dense"]);
    // A tokenizer of another model.
    let mut small = Model::read(&crate::support::tiny_llama());
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        let rows: Vec<f32> = small.tensors[name].weights()[..160 * 300].to_vec();
        small.tensors.insert(name.to_owned(), Tensor::f32(&[300, 160], &rows));
    }
    small.config["vocab_size"] = 300.into();
    small.write(&workspace.path("small"), 1, &crate::support::tiny_llama());
    let mut args = arguments(&text, "out");
    args.extend(["--preset", "on-device"]);
    workspace.run("qat", "small", &args).fails(3, &["small", "tokenizer", "300"]);
    // An original that the folder was not made from.
    let mut other = Model::read(&crate::support::tiny_llama());
    let norm = other.tensors.get_mut("model.norm.weight").unwrap();
    norm.data[0] ^= 1;
    other.write(&workspace.path("other"), 1, &crate::support::tiny_llama());
    solved(&workspace, "solved", &text);
    let args = ["--against", "other", "--text", &text, "-o", "out", "--rank", "2"];
    workspace.run("recover", "solved", &args).fails(2, &["was not compressed from"]);
    let mut args = arguments(&text, "out");
    args.extend(["--start", "solved", "--steps", "1"]);
    workspace.run("qat", "other", &args).fails(2, &["solved was not compressed from other"]);
    assert!(!workspace.path(".out.partial").exists());
    assert!(!workspace.path("out").exists());
}

/// What a run is expected to take is an upper estimate, and not a wild one.
#[test]
fn memory_stays_under_the_plan() {
    let (workspace, text) = workspace(60_000);
    workspace.run("compress", "model", &["-o", "grid", "--preset", "on-device"]).ok();
    let rank = ["--tensor-type", "proj=bc4:rank=4"];
    let args = [&["-o", "texture", "--preset", "server-desktop"], &rank[..]].concat();
    workspace.run("compress", "model", &args).ok();
    let shape = ["--ctx", "256", "--batch", "16", "--train", "held_out=2"];
    for (command, folder, of) in
        [("qat", "model", ["--start", "grid"]), ("recover", "texture", ["--against", "model"])]
    {
        let blocks = ["--steps", "0", "--train", "block_epochs=1"];
        for kind in [&["--steps", "1"][..], &["--steps", "1", "--recompute"], &blocks] {
            let args = ["--text", &text, "-o", "out", "--overwrite", "--json"];
            let args = [&args[..], &shape, &of, kind].concat();
            let report = workspace.run(command, folder, &args).ok().json();
            let bytes = |key: &str| report[key].as_f64().unwrap();
            let share = bytes("peak_memory") / bytes("planned_peak_memory");
            println!("{command} {kind:?}: {:.0} MB, {share:.3}", bytes("peak_memory") / 1e6);
            assert!((0.5..=1.0).contains(&share), "{command} {kind:?}: {share}");
        }
    }
}

#[test]
fn a_loss_that_diverges_ends_the_run_after_its_rollbacks() {
    let (workspace, text) = workspace(60_000);
    solved(&workspace, "start", &text);
    let mut args = arguments(&text, "out");
    args.extend(["--start", "start", "--steps", "60", "--rate", "1e30", "--train", "rollbacks=2"]);
    args.extend(["--train", "scales=lsq", "--train", "scale_rate=1e6"]);
    workspace.run("qat", "model", &args).fails(3, &["diverged 3 times", "rate"]);
    assert!(!workspace.path("out").exists());
}

/// Latent weights and scales of another trainer decode to scale · level, computed here.
#[test]
fn latent_weights_are_packed_with_the_scales_that_came_with_them() {
    let workspace = Workspace::with_tiny_llama(1);
    let model = Model::read(&crate::support::tiny_llama());
    let name = "model.layers.1.mlp.up_proj.weight";
    let weights = model.tensors[name].weights();
    let scales: Vec<f32> = weights
        .chunks(160)
        .map(|row| f16::from_f32(row.iter().map(|w| w.abs()).sum::<f32>() / 130.0).to_f32())
        .collect();
    let write = |file: &str, name: &str, tensor: Tensor| {
        let tensors = std::iter::once((name.to_owned(), tensor)).collect();
        crate::support::variants::write_safetensors(&workspace.path(file), &tensors);
    };
    let key = name.replace(".weight", ".scale");
    write("scales", &key, Tensor::f32(&[448, 1], &scales));
    let args = |scales: &str| {
        let args = ["pack", "--latent", "model", "-o", "out", "--preset", "on-device", "--scales"];
        let mut command = crate::support::compress_model();
        command.current_dir(workspace.path("")).args(args).arg(scales);
        crate::support::Run::of(command.output().unwrap())
    };
    args("scales").ok();
    workspace.run("decompress", "out", &["-o", "plain", "--dtype", "f32"]).ok();
    let decoded = Model::read(&workspace.path("plain")).tensors[name].weights();
    for ((w, decoded), i) in weights.iter().zip(&decoded).zip(0..) {
        let s = scales[i / 160];
        let level = if w.abs() > s { 1.5 } else { 0.5 };
        assert_eq!(*decoded, if *w < 0.0 { -level * s } else { level * s });
    }
    fs::remove_dir_all(workspace.path("out")).unwrap();
    write("wrong", &key, Tensor::f32(&[7], &scales[..7]));
    args("wrong").fails(3, &["up_proj", "7 scales"]);
    write("unknown", "model.nothing.scale", Tensor::f32(&[1], &[0.1]));
    args("unknown").fails(3, &["no such weight"]);
    write("kept", "model.norm.scale", Tensor::f32(&[1], &[0.1]));
    args("kept").fails(3, &["grid2"]);
    write("negative", &key, Tensor::f32(&[1], &[-0.1]));
    args("negative").fails(3, &["is no scale"]);
    assert!(!workspace.path("out").exists());
}
