//! Bad input through the real command: the exit code, a message that names file and tensor, and
//! no output folder.

use std::collections::BTreeMap;
use std::fs;

use crate::support::{Model, Run, Tensor, Workspace, noise, tiny_llama, variants};
use serde_json::{Value, json};

const INDEX: &str = "model.safetensors.index.json";

fn compress(workspace: &Workspace) -> Run {
    let before = workspace.names();
    let run = workspace.run("compress", "model", &["-o", "out", "--preset", "on-device"]);
    assert_eq!(workspace.names(), before, "a failed run leaves nothing behind");
    run
}

/// Writes `model/model.safetensors` from a header and `data_len` bytes of zeros.
fn with_header(header: &[u8], claimed: u64, data_len: usize) -> Workspace {
    let workspace = Workspace::with_tensors(&[("a.weight", Tensor::f32(&[1, 1], &[1.0]))]);
    let mut file = claimed.to_le_bytes().to_vec();
    file.extend(header);
    file.resize(file.len() + data_len, 0);
    fs::write(workspace.path("model").join("model.safetensors"), file).unwrap();
    workspace
}

fn with_json(header: &Value, data_len: usize) -> Workspace {
    let header = header.to_string().into_bytes();
    with_header(&header, header.len() as u64, data_len)
}

fn tensor(dtype: &str, shape: &[u64], start: u64, end: u64) -> Value {
    json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] })
}

fn edit_index(workspace: &Workspace, edit: impl FnOnce(&mut Value)) {
    let path = workspace.path("model").join(INDEX);
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut index);
    fs::write(path, index.to_string()).unwrap();
}

#[test]
fn truncated_file() {
    let workspace = Workspace::with_tiny_llama(1);
    let path = workspace.path("model").join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    compress(&workspace).fails(3, &["model.safetensors", "tensor \"", "truncated file?"]);
    fs::write(&path, &bytes[..100]).unwrap();
    compress(&workspace).fails(3, &["model.safetensors", "truncated file?"]);
    fs::write(&path, b"abc").unwrap();
    compress(&workspace).fails(3, &["model.safetensors", "only 3 bytes"]);
    fs::write(&path, b"").unwrap();
    compress(&workspace).fails(3, &["model.safetensors", "only 0 bytes"]);
}

#[test]
fn header_length_past_the_end() {
    compress(&with_header(b"{}", 1000, 0)).fails(3, &["model.safetensors", "claims 1000 bytes"]);
    compress(&with_header(b"{}", u64::MAX, 0)).fails(3, &["model.safetensors", "at most 100 MB"]);
}

#[test]
fn header_that_is_not_json() {
    compress(&with_header(b"{\"a\":", 5, 8)).fails(3, &["model.safetensors", "not valid"]);
    compress(&with_header(b"[1, 2]", 6, 8)).fails(3, &["model.safetensors", "not valid"]);
    compress(&with_header(b"", 0, 8)).fails(3, &["model.safetensors", "not valid"]);
}

#[test]
fn overlapping_and_out_of_range_offsets() {
    let overlap =
        json!({ "a.weight": tensor("U8", &[4], 0, 4), "b.weight": tensor("U8", &[4], 2, 6) });
    compress(&with_json(&overlap, 6)).fails(3, &["\"a.weight\" and \"b.weight\" overlap"]);
    let outside = json!({ "a.weight": tensor("F32", &[2, 2], 0, 16) });
    compress(&with_json(&outside, 8)).fails(3, &["\"a.weight\"", "byte 16", "has 8"]);
    let reversed = json!({ "a.weight": tensor("F32", &[2, 2], 16, 0) });
    compress(&with_json(&reversed, 16)).fails(3, &["\"a.weight\"", "run backwards"]);
    let hole = json!({ "a.weight": tensor("F32", &[1, 1], 4, 8) });
    compress(&with_json(&hole, 8)).fails(3, &["4 bytes before tensor \"a.weight\""]);
    let lie = json!({ "a.weight": tensor("F32", &[2, 2], 0, 8) });
    compress(&with_json(&lie, 8)).fails(3, &["\"a.weight\"", "does not fit its 8 bytes"]);
    let huge = json!({ "a.weight": tensor("F32", &[1 << 62, 1 << 62], 0, 8) });
    compress(&with_json(&huge, 8)).fails(3, &["\"a.weight\"", "does not fit its 8 bytes"]);
}

#[test]
fn unknown_and_unsupported_dtypes() {
    let unknown = json!({ "a.weight": tensor("Q4_K", &[2, 2], 0, 4) });
    compress(&with_json(&unknown, 4)).fails(3, &["\"a.weight\"", "unknown dtype \"Q4_K\""]);
    let fp8 = json!({ "a.weight": tensor("F8_E4M3", &[2, 2], 0, 4) });
    compress(&with_json(&fp8, 4)).fails(3, &["\"a.weight\"", "not F8_E4M3", "ignore the tensor"]);
}

#[test]
fn duplicate_name_in_one_header() {
    let entry = |from: u64| tensor("U8", &[1], from, from + 1).to_string();
    let header = format!("{{\"a.weight\":{},\"a.weight\":{}}}", entry(0), entry(1)).into_bytes();
    compress(&with_header(&header, header.len() as u64, 2))
        .fails(3, &["\"a.weight\" appears twice"]);
}

#[test]
fn missing_shard() {
    let workspace = Workspace::with_tiny_llama(3);
    fs::remove_file(workspace.path("model").join(variants::shard_name(1, 3))).unwrap();
    compress(&workspace).fails(3, &["model-00002-of-00003.safetensors", "missing shard", "tensor"]);
}

#[test]
fn no_weights_at_all() {
    let workspace = Workspace::with_tiny_llama(1);
    let path = workspace.path("model").join("model.safetensors");
    fs::remove_file(&path).unwrap();
    compress(&workspace).fails(3, &["has neither model.safetensors nor"]);
    fs::write(workspace.path("model").join("pytorch_model.bin"), b"").unwrap();
    compress(&workspace).fails(3, &["pytorch_model.bin", "convert it to safetensors"]);
    workspace.run("inspect", "nowhere", &[]).fails(4, &["nowhere", "no such file or folder"]);
    workspace
        .run("inspect", "model/pytorch_model.bin", &[])
        .fails(3, &["is a file; give the checkpoint folder"]);
}

#[test]
fn index_that_disagrees_with_its_files() {
    let workspace = Workspace::with_tiny_llama(3);
    let shard = variants::shard_name(0, 3);
    edit_index(&workspace, |index| index["weight_map"]["ghost.weight"] = shard.as_str().into());
    compress(&workspace).fails(3, &[&shard, "\"ghost.weight\"", "the shard lacks it"]);

    let workspace = Workspace::with_tiny_llama(3);
    edit_index(&workspace, |index| {
        let map = index["weight_map"].as_object_mut().unwrap();
        assert!(map.remove("model.norm.weight").is_some());
    });
    compress(&workspace).fails(3, &["\"model.norm.weight\"", "is not listed in", INDEX]);

    let workspace = Workspace::with_tiny_llama(3);
    edit_index(&workspace, |index| {
        let there = index["weight_map"]["model.norm.weight"].as_str().unwrap().to_owned();
        let other = (0..3).map(|i| variants::shard_name(i, 3)).find(|name| *name != there).unwrap();
        index["weight_map"]["model.norm.weight"] = other.into();
    });
    compress(&workspace).fails(3, &["\"model.norm.weight\"", "but it is in"]);

    for (text, words) in [("{", "not a valid shard index"), ("{\"weight_map\": {}}", "is empty")] {
        fs::write(workspace.path("model").join(INDEX), text).unwrap();
        compress(&workspace).fails(3, &[INDEX, words]);
    }
}

#[test]
fn one_tensor_in_two_shards() {
    let workspace = Workspace::with_tiny_llama(3);
    let model = Model::read(&tiny_llama());
    for (i, name) in ["lm_head.weight", "model.norm.weight"].iter().enumerate() {
        // The first shard gets a second copy of a tensor that lives elsewhere.
        let path = workspace.path("model").join(variants::shard_name(i, 3));
        let bytes = fs::read(&path).unwrap();
        let mut tensors: BTreeMap<String, Tensor> = safetensors::SafeTensors::deserialize(&bytes)
            .unwrap()
            .tensors()
            .into_iter()
            .map(|(name, v)| {
                let data = v.data().to_vec();
                (name, Tensor { dtype: v.dtype(), shape: v.shape().to_vec(), data })
            })
            .collect();
        if tensors.insert((*name).to_owned(), model.tensors[*name].clone()).is_none() {
            variants::write_safetensors(&path, &tensors);
            compress(&workspace).fails(3, &[&format!("{name:?}"), "is also in", "model-0000"]);
            return;
        }
    }
    panic!("the fixture changed: no tensor was added");
}

#[test]
fn both_a_single_file_and_an_index() {
    let workspace = Workspace::with_tiny_llama(3);
    Model::read(&tiny_llama()).write(&workspace.path("model"), 1, &tiny_llama());
    compress(&workspace).fails(3, &["both model.safetensors and an index"]);
}

#[test]
fn nan_and_infinity() {
    for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let mut weights = noise(40 * 30, 3);
        weights[7 * 30 + 4] = value;
        let workspace = Workspace::with_tensors(&[
            ("a.weight", Tensor::f32(&[40, 30], &noise(40 * 30, 4))),
            ("b.weight", Tensor::f32(&[40, 30], &weights)),
        ]);
        compress(&workspace).fails(3, &["model.safetensors", "\"b.weight\"", "[7, 4]", shown]);
    }
    // In a norm, which no codec would look at.
    let workspace = Workspace::with_tensors(&[
        ("a.weight", Tensor::f32(&[4, 4], &noise(16, 4))),
        ("norm.weight", Tensor::f32(&[2], &[1.0, f32::NAN])),
    ]);
    compress(&workspace).fails(3, &["\"norm.weight\"", "[1]", "NaN"]);
}

#[test]
fn a_scale_beyond_fp16() {
    let mut weights = noise(64, 5);
    weights[8..16].fill(1e6);
    let workspace = Workspace::with_tensors(&[("a.weight", Tensor::f32(&[8, 8], &weights))]);
    compress(&workspace).fails(3, &["model.safetensors", "\"a.weight\"", "row 1"]);
    let args = ["-o", "out", "--preset", "server", "--tensor-type", "a=astc"];
    workspace
        .run("compress", "model", &args)
        .fails(3, &["model.safetensors", "\"a.weight\"", "row 1"]);
}

#[test]
fn empty_tensor() {
    let empty = json!({ "a.weight": tensor("F32", &[0, 4], 0, 0) });
    compress(&with_json(&empty, 0)).fails(2, &["codes none of this checkpoint's tensors"]);
    compress(&with_json(&json!({}), 0)).fails(3, &["holds no tensors"]);
}

#[test]
fn names_that_are_not_utf8_or_leave_the_folder() {
    let header = b"{\"a\xff.weight\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}";
    compress(&with_header(header, header.len() as u64, 1)).fails(3, &["not UTF-8"]);

    for escape in ["../stolen.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ""] {
        let workspace = Workspace::with_tiny_llama(3);
        edit_index(&workspace, |index| index["weight_map"]["model.norm.weight"] = escape.into());
        compress(&workspace).fails(3, &[INDEX, "model.norm.weight", "outside the folder"]);
    }
}

#[cfg(unix)]
#[test]
fn symbolic_links_out_of_the_folder() {
    use std::os::unix::fs::symlink;
    for name in ["model.safetensors", "tokenizer.json"] {
        let workspace = Workspace::with_tiny_llama(1);
        let inside = workspace.path("model").join(name);
        fs::rename(&inside, workspace.path("elsewhere")).unwrap();
        symlink(workspace.path("elsewhere"), &inside).unwrap();
        compress(&workspace).fails(3, &[name, "links outside the checkpoint"]);
    }
    // The Hugging Face cache links its snapshots to blobs of the same repository.
    let workspace = Workspace::with_tiny_llama(1);
    fs::create_dir_all(workspace.path("hub/snapshots")).unwrap();
    fs::create_dir_all(workspace.path("hub/blobs")).unwrap();
    fs::rename(workspace.path("model"), workspace.path("hub/snapshots/rev")).unwrap();
    let inside = workspace.path("hub/snapshots/rev").join("model.safetensors");
    fs::rename(&inside, workspace.path("hub/blobs/0123")).unwrap();
    symlink("../../blobs/0123", &inside).unwrap();
    workspace.run("inspect", "hub/snapshots/rev", &[]).ok();
}

#[test]
fn existing_output() {
    let workspace = Workspace::with_tiny_llama(1);
    let args = ["-o", "out", "--preset", "on-device"];
    workspace.run("compress", "model", &args).ok();
    let first = workspace.files("out");
    workspace.run("compress", "model", &args).fails(4, &["out", "already exists", "--overwrite"]);
    assert!(workspace.files("out") == first);
    workspace.run("compress", "model", &["-o", "out", "--preset", "server", "--overwrite"]).ok();
    assert!(workspace.files("out") != first);
    assert_eq!(workspace.names(), ["model", "out"]);

    workspace
        .run("compress", "model", &["-o", "model", "--preset", "server", "--overwrite"])
        .fails(2, &["must lie outside the input"]);
    workspace
        .run("compress", "model", &["-o", "no/where", "--preset", "server"])
        .fails(2, &["does not exist"]);
    workspace.run("decompress", "out", &["-o", "model"]).fails(4, &["model", "already exists"]);
}

#[test]
fn already_compressed_input() {
    let workspace = Workspace::with_tiny_llama(1);
    workspace.run("compress", "model", &["-o", "once", "--preset", "on-device"]).ok();
    workspace
        .run("compress", "once", &["-o", "out", "--preset", "on-device"])
        .fails(3, &["once", "already quantised, by compress-model"]);
    workspace.run("decompress", "model", &["-o", "out"]).fails(3, &["manifest.json"]);
    workspace.run("verify", "model", &[]).fails(3, &["manifest.json"]);
    let mut model = Model::read(&tiny_llama());
    model.config["quantization_config"] = json!({ "quant_method": "gptq", "bits": 4 });
    model.write(&workspace.path("gptq"), 1, &tiny_llama());
    workspace
        .run("plan", "gptq", &["--preset", "server"])
        .fails(3, &["gptq", "already quantised, by gptq"]);
}

#[test]
fn config_faults() {
    let workspace = Workspace::with_tiny_llama(1);
    let path = workspace.path("model").join("config.json");
    for (text, words) in [("{", "not valid JSON"), ("[]", "not a JSON object")] {
        fs::write(&path, text).unwrap();
        compress(&workspace).fails(3, &["config.json", words]);
    }
    fs::remove_file(&path).unwrap();
    compress(&workspace).fails(3, &["has no config.json"]);
}

/// A disk of 1 MB, mounted in a namespace of the test's own.
#[cfg(target_os = "linux")]
#[test]
fn full_disk() {
    let workspace = Workspace::with_tiny_llama(1);
    fs::create_dir(workspace.path("disk")).unwrap();
    let run = |size: &str, plan_fits: &str| {
        let script = format!(
            "mount -t tmpfs -o size={size} tmpfs disk || exit 77; {plan_fits}\
             \"$0\" compress model -o disk/out --preset on-device; code=$?; ls -A disk; exit $code"
        );
        let output = std::process::Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
            .arg(env!("CARGO_BIN_EXE_compress-model"))
            .current_dir(workspace.path(""))
            .output();
        output.ok().map(|output| Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    };
    // Too small from the start: refused before work.
    let refused = run("200k", "");
    let Some(refused) = refused.filter(|run| run.code != 77 && !run.stderr.contains("unshare"))
    else {
        eprintln!("skipped: this system lets nobody mount a small disk");
        return;
    };
    assert_eq!(refused.stdout, "", "nothing is left on the disk");
    refused.fails(4, &["disk/out", "needs", "free"]);
    // Fits by the plan's count of weights, but not with the tokenizer beside them.
    let weights = workspace.run("plan", "model", &["--preset", "on-device", "--json"]).ok().json();
    let size = weights["disk_bytes"].as_u64().unwrap() / 4096 * 4096 + 8192;
    let full = run(&size.to_string(), "").unwrap();
    assert_eq!(full.stdout.trim(), ".out.partial", "what is done stays for --resume");
    assert_eq!(full.code, 4, "{full:?}");
    for word in ["disk/.out.partial", "No space left", "--resume"] {
        assert!(full.stderr.contains(word), "no {word:?} in {}", full.stderr);
    }
}
