//! Calibrated and trained runs at the border: layers that say nothing, or little, experts in stacks, and
//! work that is not of this checkpoint.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::{Model, Run, Tensor, Workspace, fixture, tiny_llama};
use serde_json::{Value, json};

const DOWN: &str = "model.layers.1.mlp.down_proj.weight";

/// The first `bytes` of the calibration text, as `text` in `workspace`.
fn text(workspace: &Workspace, bytes: usize) -> String {
    let text = fs::read_to_string(fixture("calib_cc0.txt")).unwrap();
    fs::write(workspace.path("text"), &text[..bytes]).unwrap();
    workspace.path("text").display().to_string()
}

/// The fixture with `edit` done to its weights, under `model`.
fn edited(edit: impl Fn(&str, &mut [f32])) -> Workspace {
    let mut model = Model::read(&tiny_llama());
    for (name, tensor) in &mut model.tensors {
        let mut values = tensor.weights();
        edit(name, &mut values);
        *tensor = Tensor::f32(&tensor.shape.clone(), &values);
    }
    let workspace = Workspace::new();
    model.write(&workspace.path("model"), 1, &tiny_llama());
    workspace
}

fn compress(workspace: &Workspace, out: &str, preset: &str, text: &str) -> Run {
    let args = ["-o", out, "--preset", preset, "--calibration", text, "--json", "--overwrite"];
    // Of statistics the windows were cut before.
    let windows: &[&str] = match Path::new(text).is_dir() {
        true => &[],
        false => &["--calibration-ctx", "64", "--calibration-windows", "24"],
    };
    workspace.run("compress", "model", &[&args[..], windows].concat())
}

fn manifest(workspace: &Workspace, folder: &str) -> Value {
    let text = fs::read(workspace.path(folder).join("manifest.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn entry<'a>(manifest: &'a Value, name: &str) -> &'a Value {
    let entries = manifest["tensors"].as_array().unwrap();
    entries.iter().find(|entry| entry["name"] == name).unwrap()
}

fn decoded(workspace: &Workspace, folder: &str, name: &str) -> Vec<f32> {
    workspace.run("decompress", folder, &["-o", "plain", "--dtype", "f32", "--overwrite"]).ok();
    Model::read(&workspace.path("plain")).tensors[name].weights()
}

fn largest(weights: &[f32]) -> f32 {
    weights.iter().fold(0.0, |most, w| w.abs().max(most))
}

#[test]
fn zeros_stay_zeros_and_an_error_in_them_is_no_exactness() {
    let up = "model.layers.2.mlp.up_proj.weight";
    let hidden = Model::read(&tiny_llama()).tensors[up].shape[1];
    let workspace = edited(|name, values| {
        if name == DOWN {
            values.fill(0.0);
        }
        // A neuron that was taken out.
        if name == up {
            values[..hidden].fill(0.0);
        }
    });
    let text = text(&workspace, 60_000);
    for preset in ["on-device", "server"] {
        compress(&workspace, "out", preset, &text).ok();
        assert_eq!(entry(&manifest(&workspace, "out"), DOWN)["sqnr_db"], Value::Null, "{preset}");
        assert_eq!(largest(&decoded(&workspace, "out", DOWN)), 0.0, "{preset}");
        let row = &decoded(&workspace, "out", up)[..hidden];
        assert_eq!(largest(row), 0.0, "{preset}");
        workspace.run("verify", "out", &["--against", "model"]).ok();
    }
    compress(&workspace, "start", "on-device", &text).ok();
    for scales in ["ema", "learnt", "report"] {
        let setting = format!("scales={scales}");
        let mut args = vec!["--text", &text, "-o", "trained", "--start", "start", "--overwrite"];
        args.extend(["--ctx", "64", "--steps", "4", "--train", &setting]);
        args.extend(["--train", "keep_last=true"]);
        workspace.run("qat", "model", &args).ok();
        assert_eq!(largest(&decoded(&workspace, "trained", DOWN)), 0.0, "{scales}");
        workspace.run("verify", "trained", &["--against", "model"]).ok();
    }

    // Codes that are not zero: neither writer nor reader takes them for exact.
    let path = workspace.path("out").join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    let mut forged: Value = serde_json::from_str(&text).unwrap();
    for entry in forged["tensors"].as_array_mut().unwrap() {
        if entry["name"] == DOWN {
            entry["sqnr_db"] = json!("-inf");
        }
    }
    fs::write(&path, forged.to_string()).unwrap();
    let run = workspace.run("verify", "out", &["--against", "model"]);
    run.fails(6, &[DOWN, "against the original is exact", "the manifest says -inf dB"]);
    let run = workspace.run("verify", "out", &["--min-sqnr=-100", "--json"]);
    assert_eq!(run.code, 6);
    assert!(
        run.json()["tensors"].as_array().unwrap().iter().any(|t| t["manifest_sqnr_db"] == "-inf")
    );
}

#[test]
fn quiet_layers_get_no_loud_weights() {
    let quiet = ["model.layers.2.mlp.gate_proj.weight", "model.layers.2.mlp.up_proj.weight"];
    let down = "model.layers.2.mlp.down_proj.weight";
    for factor in [1e-3, 1e-8] {
        let workspace = edited(|name, values| {
            if quiet.contains(&name) {
                values.iter_mut().for_each(|w| *w *= factor);
            }
        });
        let text = text(&workspace, 60_000);
        let before = largest(&Model::read(&workspace.path("model")).tensors[down].weights());
        for preset in ["on-device", "server"] {
            compress(&workspace, "out", preset, &text).ok();
            let after = largest(&decoded(&workspace, "out", down));
            assert!(after < 100.0 * before, "{factor} {preset}: {after} of {before}");
            workspace.run("verify", "out", &["--against", "model"]).ok();
        }
        assert!(workspace.names().iter().all(|name| !name.contains("partial")));
    }
}

/// A mixture of experts with its experts in stacks is solved as the one with a tensor each.
#[test]
fn experts_in_stacks_are_solved_as_those_apart() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/architectures/qwen3-moe");
    let apart = Model::read(&folder);
    let (experts, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        apart.tensors.clone().into_iter().partition(|(name, _)| name.contains(".experts."));
    let config = apart.config.clone();
    let count = config["num_experts"].as_u64().unwrap() as usize;
    let mut stacked = others;
    // The one layer with experts.
    let name = |part: &str| format!("model.layers.1.mlp.experts.{part}_proj");
    let of = |expert: usize, part: &str| {
        &experts[&format!("model.layers.1.mlp.experts.{expert}.{part}_proj.weight")]
    };
    let [width, hidden] = of(0, "gate").shape[..] else { unreachable!() };
    let all = |parts: &[&str]| -> Vec<f32> {
        (0..count).flat_map(|e| parts.iter().flat_map(move |part| of(e, part).weights())).collect()
    };
    let (gate_up, down) = (all(&["gate", "up"]), all(&["down"]));
    stacked.insert(name("gate_up"), Tensor::f32(&[count, 2 * width, hidden], &gate_up));
    stacked.insert(name("down"), Tensor::f32(&[count, hidden, width], &down));
    let workspace = Workspace::new();
    apart.write(&workspace.path("apart"), 1, &folder);
    Model { tensors: stacked, config }.write(&workspace.path("stacked"), 1, &folder);
    let letters: Vec<char> =
        " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,.'-;:?!".chars().collect();
    let mut vocab: serde_json::Map<String, Value> =
        letters.iter().enumerate().map(|(i, c)| (c.to_string(), (i + 1).into())).collect();
    vocab.insert("?unk".to_owned(), 0.into());
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "post_processor": null, "decoder": null,
        "pre_tokenizer": { "type": "Split", "pattern": { "Regex": "(?s)." },
                           "behavior": "Isolated", "invert": false },
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "?unk" },
    });
    let text = text(&workspace, 20_000);
    let windows = ["--calibration-ctx", "32", "--calibration-windows", "40"];
    let solve = |name: &str, calibration: &str| {
        let out = format!("{name}-out");
        let args = ["-o", &out, "--preset", "on-device", "--json", "--overwrite"];
        let windows = if Path::new(calibration).is_dir() { &[][..] } else { &windows[..] };
        let args = [&args[..], &["--calibration", calibration], windows].concat();
        workspace.run("compress", name, &args).ok().json()
    };
    let experts_of = |report: &Value| -> Vec<Value> {
        let layers = report["solved"]["layers"].as_array().unwrap();
        let experts = layers.iter().filter(|l| l["name"].as_str().unwrap().contains(".experts."));
        experts.cloned().collect()
    };
    for name in ["apart", "stacked"] {
        fs::write(workspace.path(name).join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let stats = format!("{name}-stats");
        let args = [&["--text", text.as_str(), "-o", &stats][..], &windows].concat();
        workspace.run("calibrate", name, &args).ok();
    }
    for calibration in ["text", "stats"] {
        let path = |name: &str| match calibration {
            "text" => text.clone(),
            _ => workspace.path(&format!("{name}-stats")).display().to_string(),
        };
        let [ours, theirs] = ["stacked", "apart"].map(|name| solve(name, &path(name)));
        // Gate and up are one matrix of a stack.
        assert_eq!(experts_of(&ours).len() * 3, experts_of(&theirs).len() * 2);
        assert!(experts_of(&ours).iter().all(|layer| layer["matrix"].is_u64()), "{ours}");
        let [stacked, apart] = ["stacked-out", "apart-out"].map(|folder| {
            let args = ["-o", "plain", "--dtype", "f32", "--overwrite"];
            workspace.run("decompress", folder, &args).ok();
            Model::read(&workspace.path("plain")).tensors
        });
        let down = stacked["model.layers.1.mlp.experts.down_proj"].weights();
        let each: Vec<f32> = (0..count)
            .flat_map(|e| {
                apart[&format!("model.layers.1.mlp.experts.{e}.down_proj.weight")].weights()
            })
            .collect();
        assert!(down == each, "{calibration}: other codes than apart");
        workspace.run("verify", "stacked-out", &["--against", "stacked"]).ok();
    }

    // What is not solved is said: here the embedding, which stands beside a head of its own.
    let report = solve("stacked", &text);
    let warned = |report: &Value| report["warnings"].to_string();
    assert!(warned(&report).contains("model.embed_tokens.weight"), "{}", warned(&report));
    assert!(!warned(&report).contains("experts"), "{}", warned(&report));
    let unsolved = json!(["model.embed_tokens.weight"]);
    assert_eq!(manifest(&workspace, "stacked-out")["solved"]["unsolved"], unsolved);
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn statistics_are_of_one_configuration_and_one_tokenizer() {
    let workspace = Workspace::with_tiny_llama(1);
    let text = text(&workspace, 20_000);
    let windows = ["--calibration-ctx", "64", "--calibration-windows", "8"];
    let args = [&["--text", text.as_str(), "-o", "stats"][..], &windows].concat();
    workspace.run("calibrate", "model", &args).ok();
    let stats = workspace.path("stats").display().to_string();
    compress(&workspace, "out", "on-device", &stats).ok();
    let config = workspace.path("model/config.json");
    let before = fs::read_to_string(&config).unwrap();
    let mut json: Value = serde_json::from_str(&before).unwrap();
    // The same in other blanks.
    fs::write(&config, json.to_string()).unwrap();
    compress(&workspace, "out", "on-device", &stats).ok();
    json["rope_theta"] = json!(77.0);
    fs::write(&config, json.to_string()).unwrap();
    compress(&workspace, "out", "on-device", &stats)
        .fails(3, &["stats", "config.json", "calibrate"]);
    fs::write(&config, before).unwrap();
    replace(&workspace.path("model/tokenizer_config.json"), "{", "{\"x\": 1, ");
    compress(&workspace, "out", "on-device", &stats).fails(3, &["stats", "the tokenizer"]);
}

#[test]
fn units_are_of_one_checkpoint() {
    let workspace = Workspace::with_tiny_llama(1);
    let other = edited(|name, values| {
        if name == DOWN {
            values[5] += 0.25;
        }
    });
    fs::rename(other.path("model"), workspace.path("other")).unwrap();
    let plan = ["--preset", "on-device", "--units", "6", "-o", "units.json"];
    workspace.run("plan", "model", &plan).ok();
    let work = |unit: usize, model: &str| {
        let unit = unit.to_string();
        let args = ["--unit", &unit, "-o", "pieces", "--model", model];
        workspace.run("work", "units.json", &args)
    };
    let refused: Vec<Run> =
        (0..6).map(|unit| work(unit, "other")).filter(|run| run.code != 0).collect();
    assert!(!refused.is_empty());
    for run in refused {
        run.fails(3, &[DOWN, "other weights than the checkpoint that was cut into units"]);
    }
    (0..6).for_each(|unit| drop(work(unit, "model").ok()));
    workspace.run("merge", "units.json", &["pieces", "-o", "out"]).ok();
    workspace.run("verify", "out", &["--against", "model"]).ok();

    replace(&workspace.path("model/config.json"), "rope_theta", "rope_thetta");
    fs::remove_dir_all(workspace.path("pieces")).unwrap();
    work(0, "model").fails(3, &["config.json is not as in the checkpoint"]);
    workspace.run("merge", "units.json", &["pieces", "-o", "again"]).fails(3, &["config.json"]);
}

#[test]
fn verify_knows_the_files_and_the_checkpoint() {
    let workspace = Workspace::with_tiny_llama(1);
    workspace.run("compress", "model", &["-o", "out", "--preset", "server"]).ok();
    workspace.run("verify", "out", &["--against", "model"]).ok();
    let listed = manifest(&workspace, "out")["files"].as_object().unwrap().clone();
    for name in ["config.json", "recipe.toml", "tokenizer.json", "adapter_config.json"] {
        assert!(listed.contains_key(name), "{name} of {listed:?}");
        let path = workspace.path("out").join(name);
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{before}\n")).unwrap();
        workspace.run("verify", "out", &[]).fails(6, &[name, "does not have the hash"]);
        fs::write(&path, before).unwrap();
    }
    fs::remove_file(workspace.path("out/generation_config.json")).unwrap();
    workspace.run("verify", "out", &[]).fails(6, &["generation_config.json: is missing"]);
    fs::copy(
        workspace.path("model/generation_config.json"),
        workspace.path("out/generation_config.json"),
    )
    .unwrap();
    fs::write(workspace.path("out/README.md"), "A card of one's own.").unwrap();
    workspace.run("verify", "out", &[]).ok();

    // The original with another configuration, and another original.
    fs::create_dir(workspace.path("edited")).unwrap();
    for (name, contents) in workspace.files("model") {
        fs::write(workspace.path("edited").join(name), contents).unwrap();
    }
    let config = workspace.path("edited/config.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    json["rope_theta"] = json!(77.0);
    fs::write(&config, json.to_string()).unwrap();
    let run = workspace.run("verify", "out", &["--against", "edited"]);
    run.fails(6, &["config.json: differs from the original's in rope_theta"]);

    let other = edited(|_, values| values.iter_mut().for_each(|w| *w *= 1.5));
    let other = other.path("model").display().to_string();
    let run = workspace.run("verify", "out", &["--against", &other, "--json"]);
    assert_eq!(run.code, 6);
    let report = run.json();
    let first = report["failures"][0].as_str().unwrap();
    let fingerprint =
        manifest(&workspace, "out")["source_fingerprint"].as_str().unwrap().to_owned();
    assert!(first.starts_with("a different checkpoint") && first.contains(&fingerprint), "{first}");
    assert!(first.matches(|c: char| c.is_ascii_hexdigit()).count() >= 128, "{first}");
    let text = report["failures"].to_string();
    assert!(!text.contains("exact") && !text.contains("SQNR"), "{text}");
    assert!(report["tensors"].as_array().unwrap().iter().all(|t| t["compared"] == false));
    let run = workspace.run("verify", "out", &["--against", &other]);
    assert!(
        run.stderr
            .starts_with("compress-model: error: verification failed:\na different checkpoint"),
        "{}",
        run.stderr
    );
}

#[test]
fn training_that_makes_it_worse_is_refused() {
    let workspace = Workspace::with_tiny_llama(1);
    let text = text(&workspace, 60_000);
    compress(&workspace, "start", "on-device", &text).ok();
    let qat = |more: &[&str]| {
        let args =
            ["--text", text.as_str(), "-o", "out", "--start", "start", "--ctx", "64", "--json"];
        workspace.run("qat", "model", &[&args[..], more].concat())
    };
    let words = ["training made the model worse", "keep_last=true"];
    let rate = ["--steps", "6", "--rate", "100"];
    qat(&rate).fails(6, &words);
    assert_eq!(workspace.names(), ["model", "start", "text"]);
    let blocks = ["--steps", "0", "--train", "block_epochs=1", "--rate", "100"];
    qat(&blocks).fails(6, &words);
    assert_eq!(workspace.names(), ["model", "start", "text"]);
    // Nothing is held out of little text.
    fs::write(workspace.path("text"), &fs::read_to_string(&text).unwrap()[..600]).unwrap();
    let run = qat(&rate);
    run.fails(6, &words);
    let report = qat(&[&rate[..], &["--train", "keep_last=true"]].concat()).ok().json();
    assert_eq!(report["windows"][1], 0);

    // The best state, not the last.
    let text = fs::read_to_string(fixture("calib_cc0.txt")).unwrap();
    fs::write(workspace.path("text"), &text[..60_000]).unwrap();
    let rates = ["--steps", "8", "--rate", "0.02", "--train", "evaluate_every=1"];
    let more = ["--train", "floor=1.0", "--overwrite"];
    let report = qat(&[&rates[..], &more].concat()).ok().json();
    let losses: Vec<f64> = report["evaluations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["loss"].as_f64().unwrap())
        .collect();
    let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
    fs::rename(workspace.path("out"), workspace.path("start-again")).unwrap();
    let args = ["--text", workspace.path("text").to_str().unwrap(), "-o", "out", "--start"]
        .map(str::to_owned);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let more =
        ["start-again", "--ctx", "64", "--json", "--steps", "1", "--train", "keep_last=true"];
    let again = workspace.run("qat", "model", &[&args[..], &more].concat()).ok().json();
    let found = again["evaluations"][0]["loss"].as_f64().unwrap();
    assert_eq!(found.to_bits(), best.to_bits(), "{found} of {losses:?}");
}
