//! `calibrate` and `compress --calibration` through the real command, on the trained fixture.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::{Model, Workspace, fixture, tiny_llama};

const RECIPE: &str = "[[rule]]\nrole = 'linear'\ncodec = 'grid2'\ngroup = 32\n\
                      [[rule]]\nrole = ['embedding', 'head']\ncodec = 'int4'\noptional = true\n";

/// The fixture under `model`, and a recipe.
fn workspace() -> Workspace {
    let workspace = Workspace::with_tiny_llama(1);
    fs::write(workspace.path("recipe.toml"), RECIPE).unwrap();
    workspace
}

fn compress(workspace: &Workspace, out: &str, more: &[&str]) -> crate::support::Run {
    let recipe = workspace.path("recipe.toml").display().to_string();
    let args = ["-o", out, "--recipe", &recipe, "--json"];
    workspace.run("compress", "model", &[&args[..], more].concat())
}

fn text_args(text: &str) -> [&str; 6] {
    ["--calibration", text, "--calibration-ctx", "128", "--calibration-windows", "40"]
}

fn divergence(workspace: &Workspace, folder: &str) -> f64 {
    let text = fixture("eval_cc0.txt");
    let args = ["--against", "model", "--text", &text, "--ctx", "128", "--windows", "8", "--json"];
    let report = workspace.run("eval", folder, &args).ok().json();
    report.pointer("/scores/kld/mean").unwrap().as_f64().unwrap()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(path).unwrap())
        })
        .collect()
}

/// Text halves the divergence of 2-bit weights, statistics do most of that, bytes do not depend on
/// the number of threads, and the results pass verification.
#[test]
fn text_and_statistics_bring_the_model_nearer() {
    let workspace = workspace();
    let text = fixture("calib_cc0.txt");
    compress(&workspace, "plain", &[]).ok();
    let report = compress(&workspace, "solved", &text_args(&text)).ok().json();
    let solved = &report["solved"];
    assert_eq!((&solved["mode"], &solved["tokens"]), (&"sequential".into(), &(40 * 128).into()));
    let layers = solved["layers"].as_array().unwrap();
    let coded = report["totals"]["coded"].as_u64().unwrap() as usize;
    assert!(layers.len() + 2 >= coded && layers.len() > 6, "{} of {coded}", layers.len());
    for layer in layers {
        let figure = |name: &str| layer[name].as_f64().unwrap();
        assert!(figure("solved_db") > figure("plain_db"), "{layer}");
    }
    let args = ["--text", &text, "-o", "stats"];
    let windows = ["--calibration-ctx", "128", "--calibration-windows", "40"];
    workspace.run("calibrate", "model", &[&args[..], &windows].concat()).ok();
    let stats = workspace.path("stats").display().to_string();
    let report = compress(&workspace, "parallel", &["--calibration", &stats]).ok().json();
    assert_eq!(report["solved"]["mode"], "parallel");

    let plain = divergence(&workspace, "plain");
    let (solved, parallel) = (divergence(&workspace, "solved"), divergence(&workspace, "parallel"));
    assert!(solved < 0.5 * plain && parallel < 0.7 * plain, "{plain} {solved} {parallel}");

    let again = [&text_args(&text)[..], &["--threads", "1"]].concat();
    compress(&workspace, "again", &again).ok();
    assert!(files(&workspace.path("solved")) == files(&workspace.path("again")));
    let verdict = workspace.run("verify", "solved", &["--against"]).code;
    assert_ne!(verdict, 0, "--against needs a model");
    workspace.run("verify", "solved", &[]).ok();
}

/// Textures with adapters, and experts that hardly any token reaches.
#[test]
fn adapters_and_experts_are_solved_too() {
    let workspace = workspace();
    let text = fixture("calib_cc0.txt");
    let server = |out: &str, more: &[&str]| {
        let args = ["-o", out, "--preset", "server", "--json"];
        workspace.run("compress", "model", &[&args[..], more].concat()).ok().json()
    };
    server("plain", &[]);
    server("solved", &text_args(&text));
    let (plain, solved) = (divergence(&workspace, "plain"), divergence(&workspace, "solved"));
    assert!(solved < 0.6 * plain, "{plain} {solved}");
    workspace.run("verify", "solved", &[]).ok();
}

/// A budget is met from below, spends on several formats, and brings the model nearer.
#[test]
fn a_budget_is_met_and_well_spent() {
    let workspace = workspace();
    let text = fixture("calib_cc0.txt");
    let budget = |target: &str, value: &str, out: &str| {
        compress(&workspace, out, &[&text_args(&text)[..], &[target, value]].concat())
    };
    let report = budget("--target-bpw", "3.4", "out").ok().json();
    let bits = report.pointer("/totals/bits_per_weight").unwrap().as_f64().unwrap();
    assert!((3.4 * 0.99..=3.4).contains(&bits), "{bits}");
    let budgeted = &report["budget"];
    let lines = budgeted["choices"].as_array().unwrap();
    assert_eq!(lines.len() as u64, report.pointer("/totals/coded").unwrap().as_u64().unwrap());
    let kinds: std::collections::BTreeSet<&str> =
        lines.iter().map(|line| line["becomes"].as_str().unwrap()).collect();
    assert!(kinds.len() > 2, "{kinds:?}");
    assert_eq!(budgeted["output_bytes"], report.pointer("/totals/output_bytes").unwrap().clone());
    workspace.run("verify", "out", &[]).ok();
    // The recipe itself takes fewer bits.
    let plain = compress(&workspace, "plain", &text_args(&text)).ok().json();
    assert!(plain.pointer("/totals/bits_per_weight").unwrap().as_f64().unwrap() < bits);
    assert!(divergence(&workspace, "out") < divergence(&workspace, "plain"));

    let bytes =
        (bits * 1.1 / 8.0 * report.pointer("/totals/parameters").unwrap().as_f64().unwrap()) as u64;
    let sized = |out: &str| {
        let report = budget("--target-size", &bytes.to_string(), out).ok().json();
        let output = report.pointer("/totals/output_bytes").unwrap().as_u64().unwrap();
        assert!(output <= bytes && output as f64 > 0.99 * bytes as f64, "{output} of {bytes}");
        report
    };
    sized("sized");

    // Of several kinds of codecs, a texture's bits are worth more to some weights.
    let kinds = "codec = 'grid2'\nbudget = ['grid2', 'int4', 'astc']\n";
    fs::write(workspace.path("recipe.toml"), RECIPE.replacen("codec = 'grid2'\n", kinds, 1))
        .unwrap();
    let report = sized("mixed");
    let lines = report.pointer("/budget/choices").unwrap().as_array().unwrap();
    let codecs: std::collections::BTreeSet<&str> = lines
        .iter()
        .filter(|line| line["name"].as_str().unwrap().ends_with("proj.weight"))
        .map(|line| line["becomes"].as_str().unwrap().split_whitespace().next().unwrap())
        .collect();
    assert!(codecs.contains("astc") && codecs.len() > 1, "{codecs:?}");
    workspace.run("verify", "mixed", &[]).ok();
    let (mixed, single) = (divergence(&workspace, "mixed"), divergence(&workspace, "sized"));
    println!("of one kind {single}, of several {mixed}");
    assert!(mixed < single, "{mixed} {single}");
    budget("--target-bpw", "1.5", "never").fails(2, &["too small", "bits per weight"]);
    budget("--target-bpw", "0", "never").fails(2, &["--target-bpw"]);
    assert!(!workspace.path("never").exists());
}

/// Killed after its first block, the pass goes on there and gives the same bytes.
#[test]
fn a_killed_pass_goes_on() {
    let workspace = workspace();
    let text = fixture("calib_cc0.txt");
    let args = |output: &str, more: &[&str]| -> Vec<String> {
        let fixed = ["--text", &text, "-o", output, "--calibration-ctx", "64"];
        let windows: &[&str] = if more.iter().any(|arg| arg.contains("windows")) {
            &[]
        } else {
            &["--calibration-windows", "400"]
        };
        [&fixed[..], windows, more].concat().iter().map(|arg| (*arg).to_owned()).collect()
    };
    let run = |args: Vec<String>| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        workspace.run("calibrate", "model", &args)
    };
    run(args("whole", &[])).ok();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_compress-model"))
        .current_dir(workspace.path("."))
        .args(["calibrate", "model"])
        .args(args("stats", &[]))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let journal = workspace.path(".stats.partial").join("progress.json");
    while !journal.exists() {
        assert!(child.try_wait().unwrap().is_none(), "ended before it could be killed");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    run(args("stats", &[])).fails(2, &[".stats.partial", "--resume"]);
    run(args("stats", &["--calibration-windows=399", "--resume"])).fails(2, &["windows changed"]);
    let report = run(args("stats", &["--resume", "--json"])).ok().json();
    assert!(report["resumed_blocks"].as_u64().unwrap() > 0);
    assert!(files(&workspace.path("whole")) == files(&workspace.path("stats")));
    run(args("stats", &[])).fails(4, &["stats", "--overwrite"]);
    run(args("stats", &["--overwrite"])).ok();
}

#[test]
fn faults_of_the_calibration_are_named() {
    let workspace = workspace();
    let short = workspace.path("short.txt").display().to_string();
    fs::write(&short, "A few words only.").unwrap();
    compress(&workspace, "out", &["--calibration", &short]).fails(3, &["short.txt", "shorter"]);
    compress(&workspace, "out", &["--calibration", "nowhere.txt"]).fails(4, &["nowhere.txt"]);

    let text = fixture("calib_cc0.txt");
    let windows = ["--calibration-ctx", "64", "--calibration-windows", "1"];
    let args = [&["--text", text.as_str(), "-o", "stats"][..], &windows].concat();
    workspace.run("calibrate", "model", &args).ok();
    let stats = workspace.path("stats").display().to_string();
    // Fewer tokens than inputs: reported, damped, and no reason to stop.
    let report = compress(&workspace, "few", &["--calibration", &stats]).ok().json();
    assert!(report["solved"]["layers"].as_array().unwrap().iter().any(|l| l["few_tokens"] == true));

    // Another checkpoint.
    let model = Model::read(&tiny_llama()).bf16();
    let other = Workspace::new();
    model.write(&other.path("model"), 1, &tiny_llama());
    fs::write(other.path("recipe.toml"), RECIPE).unwrap();
    compress(&other, "out", &["--calibration", &stats]).fails(3, &["another checkpoint"]);
    assert!(!other.path("out").exists());

    // A truncated file of statistics.
    let file = workspace.path("stats").join("block-00000.safetensors");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    compress(&workspace, "out", &["--calibration", &stats]).fails(3, &["block-00000.safetensors"]);
    assert!(!workspace.path("out").exists());
}
