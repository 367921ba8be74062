//! The main job through the real command, on the trained fixture and its variants.

use std::collections::BTreeMap;
use std::fs;

use crate::support::{Model, Tensor, Workspace, noise, run, tiny_llama};
use serde_json::Value;

const PRESETS: [&str; 2] = ["on-device", "server"];

/// Lowest SQNR in dB that each preset must reach on the fixture's linear layers. A 2-bit grid with
/// one scale a row gives 9.25 dB on Gaussian weights, ASTC 6x6 about 14 dB, BC4 about 18.6 dB, and
/// their adapters more.
fn floor_db(preset: &str) -> f64 {
    match preset {
        "server" => 13.5,
        "server-desktop" => 18.0,
        _ => 7.5,
    }
}

fn sqnr(weights: &[f32], decoded: &[f32]) -> f64 {
    let mut signal = 0.0;
    let mut noise = 0.0;
    for (&w, &d) in weights.iter().zip(decoded) {
        signal += f64::from(w).powi(2);
        noise += (f64::from(w) - f64::from(d)).powi(2);
    }
    10.0 * (signal / noise).log10()
}

fn manifest(workspace: &Workspace, folder: &str) -> Value {
    serde_json::from_slice(&fs::read(workspace.path(folder).join("manifest.json")).unwrap())
        .unwrap()
}

#[test]
fn both_presets_compress_verify_and_decompress_every_variant() {
    let variants: [(&str, Model); 5] = {
        let model = Model::read(&tiny_llama());
        [
            ("f32", model.clone()),
            ("bf16", model.clone().bf16()),
            ("tied", model.clone().tied(false)),
            ("tied copy", model.clone().tied(true)),
            ("experts", model.stacked_experts(4)),
        ]
    };
    for (variant, model) in variants {
        let workspace = Workspace::new();
        let shards = if variant == "bf16" { 3 } else { 1 };
        model.write(&workspace.path("model"), shards, &tiny_llama());
        for preset in PRESETS {
            check_preset(&workspace, &model, preset, variant);
        }
    }
}

#[test]
fn server_desktop_compresses_verifies_and_decompresses() {
    let workspace = Workspace::new();
    let model = Model::read(&tiny_llama()).stacked_experts(4);
    model.write(&workspace.path("model"), 1, &tiny_llama());
    check_preset(&workspace, &model, "server-desktop", "experts");
    let manifest = manifest(&workspace, "out-server-desktop");
    let coded_as = |codec| {
        let tensors = manifest["tensors"].as_array().unwrap().iter();
        tensors.filter(|tensor| tensor["codec"] == codec).count()
    };
    assert!(coded_as("bc4") > 10);
    assert_eq!(coded_as("astc"), 0);
}

fn check_preset(workspace: &Workspace, model: &Model, preset: &str, variant: &str) {
    let (out, back) = (format!("out-{preset}"), format!("back-{preset}"));
    let plan = workspace.run("plan", "model", &["--preset", preset, "--json"]).ok().json();
    let report =
        workspace.run("compress", "model", &["-o", &out, "--preset", preset, "--json"]).ok().json();
    assert_eq!(plan["totals"], report["totals"], "{variant}: the plan is what happens");

    let stored: u64 = workspace
        .files(&out)
        .iter()
        .filter(|(name, _)| name.ends_with(".safetensors"))
        .map(|(_, bytes)| {
            safetensors::SafeTensors::deserialize(bytes)
                .unwrap()
                .tensors()
                .iter()
                .map(|(_, view)| view.data().len() as u64)
                .sum::<u64>()
        })
        .sum();
    assert_eq!(report["totals"]["output_bytes"], stored, "{variant}: every byte is counted");

    // Every source tensor is in the manifest, once.
    let manifest = manifest(workspace, &out);
    let names: Vec<&str> = manifest["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), model.tensors.len());
    assert!(names.iter().all(|name| model.tensors.contains_key(*name)));

    let floor = floor_db(preset).to_string();
    workspace.run("verify", &out, &["--against", "model", "--min-sqnr", &floor]).ok();
    workspace.run("decompress", &out, &["-o", &back, "--dtype", "f32"]).ok();
    check_decompressed(workspace, model, &manifest, &back, variant);
}

/// The decompressed weights have the SQNR that the manifest claims, by our own arithmetic.
fn check_decompressed(
    workspace: &Workspace,
    model: &Model,
    manifest: &Value,
    back: &str,
    variant: &str,
) {
    let decoded = Model::read(&workspace.path(back));
    assert!(decoded.config.get("quantization_config").is_none());
    let mut coded = 0;
    for entry in manifest["tensors"].as_array().unwrap() {
        let name = entry["name"].as_str().unwrap();
        let source = &model.tensors[name];
        match entry["status"].as_str().unwrap() {
            "tied" => assert!(!decoded.tensors.contains_key(name)),
            "kept" => assert_eq!(decoded.tensors[name].weights(), source.weights(), "{name}"),
            _ => {
                coded += 1;
                let found = sqnr(&source.weights(), &decoded.tensors[name].weights());
                let claimed = entry["sqnr_db"].as_f64().unwrap();
                assert!((found - claimed).abs() < 1e-3, "{variant} {name}: {found} {claimed}");
            }
        }
    }
    assert!(coded > 10);
}

#[test]
fn the_bytes_depend_on_input_recipe_and_seed_alone() {
    for preset in PRESETS {
        let one = Workspace::with_tiny_llama(1);
        let three = Workspace::with_tiny_llama(3);
        one.run("compress", "model", &["-o", "a", "--preset", preset, "--threads", "1"]).ok();
        one.run("compress", "model", &["-o", "b", "--preset", preset, "--threads", "3"]).ok();
        three.run("compress", "model", &["-o", "c", "--preset", preset, "--threads", "16"]).ok();
        let expected = one.files("a");
        for (what, files) in [("threads", one.files("b")), ("shards", three.files("c"))] {
            let names = |files: &[(String, Vec<u8>)]| {
                files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
            };
            assert_eq!(names(&expected), names(&files), "{preset} {what}");
            for ((name, a), (_, b)) in expected.iter().zip(&files) {
                assert!(a == b, "{preset}: {name} depends on {what}");
            }
        }
    }
}

#[test]
fn adapters_kept_apart_and_merged_are_the_same_model() {
    let workspace = Workspace::with_tiny_llama(1);
    workspace.run("compress", "model", &["-o", "out", "--preset", "server"]).ok();
    workspace.run("decompress", "out", &["-o", "merged", "--dtype", "f32"]).ok();
    workspace
        .run("decompress", "out", &["-o", "apart", "--dtype", "f32", "--adapters", "separate"])
        .ok();
    let (merged, apart) =
        (Model::read(&workspace.path("merged")), Model::read(&workspace.path("apart")));
    let adapter =
        fs::read(workspace.path("apart").join("adapter/adapter_model.safetensors")).unwrap();
    let adapter = safetensors::SafeTensors::deserialize(&adapter).unwrap();
    let factor = |key: String| {
        let view = adapter.tensor(&key).unwrap();
        Tensor { dtype: view.dtype(), shape: view.shape().to_vec(), data: view.data().to_vec() }
    };
    let module = "model.layers.1.mlp.up_proj";
    let a = factor(format!("base_model.model.{module}.lora_A.weight"));
    let b = factor(format!("base_model.model.{module}.lora_B.weight"));
    let (rank, cols) = (a.shape[0], a.shape[1]);
    assert_eq!((rank, b.shape[1]), (16, 16));
    let (a, b) = (a.weights(), b.weights());
    assert!(b.iter().any(|&x| x != 0.0));
    let (merged, apart) = (
        merged.tensors[&format!("{module}.weight")].weights(),
        apart.tensors[&format!("{module}.weight")].weights(),
    );
    let mut largest: f32 = 0.0;
    for (i, (&merged, &apart)) in merged.iter().zip(&apart).enumerate() {
        let (row, col) = (i / cols, i % cols);
        let product: f32 = (0..rank).map(|k| b[row * rank + k] * a[k * cols + col]).sum();
        assert!((merged - (apart + product)).abs() < 1e-5, "[{row}, {col}]");
        largest = largest.max(product.abs());
    }
    assert!(largest > 1e-2, "the adapter carries something");
}

#[test]
fn recipes_and_overrides_decide() {
    let workspace = Workspace::with_tiny_llama(1);
    fs::write(
        workspace.path("recipe.toml"),
        "[[rule]]\nmatch = 'layers\\.0\\.'\nrole = 'linear'\ncodec = 'grid2'\ngroup = 32\nrank = 4\n\
         [[rule]]\nrole = 'linear'\ncodec = 'int4'\ngroup = 32\n",
    )
    .unwrap();
    workspace
        .run(
            "compress",
            "model",
            &[
                "-o",
                "out",
                "--recipe",
                "recipe.toml",
                "--tensor-type",
                "layers\\.1\\..*v_proj=grid2:group=128",
                "--ignore",
                "layers\\.2\\.",
            ],
        )
        .ok();
    let manifest = manifest(&workspace, "out");
    let find = |name: &str| {
        let entries = manifest["tensors"].as_array().unwrap();
        entries.iter().find(|t| t["name"] == name).unwrap().clone()
    };
    let zero = find("model.layers.0.mlp.up_proj.weight");
    assert_eq!((&zero["codec"], &zero["params"]["group"]), (&"grid2".into(), &32.into()));
    assert_eq!(zero["adapter"]["rank"], 4);
    let one = find("model.layers.1.self_attn.v_proj.weight");
    assert_eq!((&one["codec"], &one["params"]["group"]), (&"grid2".into(), &128.into()));
    assert_eq!(find("model.layers.1.self_attn.q_proj.weight")["codec"], "int4");
    let two = find("model.layers.2.self_attn.q_proj.weight");
    assert_eq!((&two["status"], &two["why"]), (&"kept".into(), &"--ignore layers\\.2\\.".into()));
    assert_eq!(find("lm_head.weight")["why"], "no rule of the recipe matches it");

    // The resolved recipe gives the same bytes again.
    workspace.run("compress", "model", &["-o", "again", "--recipe", "out/recipe.toml"]).ok();
    let weights =
        |folder: &str| fs::read(workspace.path(folder).join("model.safetensors")).unwrap();
    assert!(weights("out") == weights("again"));

    workspace
        .run("compress", "model", &["-o", "none", "--preset", "server", "--ignore", "no_such"])
        .fails(2, &["--ignore no_such", "decides for no tensor"]);
    workspace
        .run(
            "compress",
            "model",
            &["-o", "none", "--preset", "server", "--tensor-type", "norm=grid2"],
        )
        .fails(3, &["norm.weight", "grid2 takes matrices"]);
    workspace
        .run("compress", "model", &["-o", "none", "--preset", "server", "--ignore", "."])
        .fails(2, &["server", "codes none of this checkpoint's tensors"]);
    assert!(!workspace.path("none").exists());
}

/// ARM's encoder stays available, and the native one beats its default on every tensor.
#[cfg(feature = "astcenc")]
#[test]
fn the_native_astc_encoder_beats_astcenc_medium() {
    let workspace = Workspace::with_tiny_llama(1);
    let sqnr = |encoder: &str| -> BTreeMap<String, f64> {
        let rule = format!("_proj=astc:{encoder}");
        let args = ["-o", encoder, "--preset", "on-device", "--tensor-type", &rule];
        workspace.run("compress", "model", &args).ok();
        let manifest = manifest(&workspace, encoder);
        let entries = manifest["tensors"].as_array().unwrap().iter();
        entries
            .filter(|entry| entry["codec"] == "astc")
            .map(|e| (e["name"].as_str().unwrap().to_owned(), e["sqnr_db"].as_f64().unwrap()))
            .collect()
    };
    let (native, arm) = (sqnr("encoder=native"), sqnr("encoder=astcenc,quality=medium"));
    assert_eq!(native.len(), 28);
    for (name, native) in native {
        assert!(native > arm[&name], "{name}: native {native}, astcenc {}", arm[&name]);
    }
}

/// The published system's form: an offset a block and no row scales.
#[test]
fn the_hdr_profile_of_astc_round_trips_and_refuses_parameters_of_ldr() {
    let workspace = Workspace::with_tensors(&[
        ("a.weight", Tensor::f32(&[20, 31], &noise(620, 9))),
        ("b.weight", Tensor::f32(&[6, 6], &noise(36, 10))),
    ]);
    let run = |out: &str, params: &str| {
        let rule = format!("weight=astc:{params}");
        let args = ["-o", out, "--preset", "server", "--tensor-type", &rule];
        workspace.run("compress", "model", &args)
    };
    for offset in ["fitted", "minimum"] {
        run(offset, &format!("profile=hdr,offset={offset}")).ok();
        workspace.run("verify", offset, &["--against", "model"]).ok();
        let stored = Model::read(&workspace.path(offset));
        assert_eq!(stored.tensors["a.weight"].shape, [4, 6, 16]);
        assert_eq!(stored.tensors["a.weight.offsets"].shape, [4, 6]);
        assert!(!stored.tensors.contains_key("a.weight.scales"));
        let manifest = manifest(&workspace, offset);
        let params = &manifest["tensors"][0]["params"];
        assert_eq!((&params["profile"], &params["offset"]), (&"hdr".into(), &offset.into()));
        assert!(params.get("decode").is_none());
    }
    run("bad", "profile=hdr,decode=fp16").fails(2, &["decode", "profile \"ldr\""]);
    run("bad", "profile=hdr,effort=best").fails(2, &["effort", "profile \"ldr\""]);
    run("bad", "offset=minimum").fails(2, &["offset", "profile \"hdr\""]);
    run("bad", "profile=hrd").fails(2, &["profile", "hrd"]);
    assert!(!workspace.path("bad").exists());
}

#[test]
fn shapes_at_the_edge_work() {
    let shapes: [&[usize]; 9] = [
        &[1, 1],
        &[1, 13],
        &[13, 1],
        &[7, 11],
        &[6, 6],
        &[97, 101],
        &[3, 5, 7],
        &[1, 1, 1],
        &[2, 6, 1],
    ];
    let mut tensors: Vec<(String, Tensor)> = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| {
            let count = shape.iter().product();
            let name =
                if shape.len() == 3 { format!("experts.{i}") } else { format!("l{i}.weight") };
            (name, Tensor::f32(shape, &noise(count, i as u64 + 1)))
        })
        .collect();
    // A row of zeros, a matrix of zeros, and an outlier that needs the full range.
    let mut weights = noise(50 * 64, 77);
    weights[64..128].fill(0.0);
    tensors.push(("zero_row.weight".into(), Tensor::f32(&[50, 64], &weights)));
    tensors.push(("zeros.weight".into(), Tensor::f32(&[12, 12], &[0.0; 144])));
    weights[3 * 64 + 5] = 4.0;
    tensors.push(("outlier.weight".into(), Tensor::f32(&[50, 64], &weights)));
    let tensors: Vec<(&str, Tensor)> =
        tensors.iter().map(|(name, t)| (name.as_str(), t.clone())).collect();
    let workspace = Workspace::with_tensors(&tensors);
    for preset in [PRESETS[0], PRESETS[1], "server-desktop"] {
        let (out, back) = (format!("out-{preset}"), format!("back-{preset}"));
        workspace.run("compress", "model", &["-o", &out, "--preset", preset]).ok();
        workspace.run("verify", &out, &["--against", "model"]).ok();
        workspace.run("decompress", &out, &["-o", &back]).ok();
        let decoded = Model::read(&workspace.path(&back));
        let source: BTreeMap<&str, &Tensor> = tensors.iter().map(|(n, t)| (*n, t)).collect();
        assert_eq!(decoded.tensors.len(), source.len());
        for (name, tensor) in &decoded.tensors {
            assert_eq!(tensor.shape, source[name.as_str()].shape);
        }
        let zero_row = decoded.tensors["zero_row.weight"].weights();
        let largest = zero_row[64..128].iter().fold(0.0f32, |m, w| m.max(w.abs()));
        assert!(largest < 1e-4, "{preset}: a row of zeros decodes to {largest}");
        assert!(decoded.tensors["zeros.weight"].weights().iter().all(|&w| w == 0.0), "{preset}");
    }
}

#[test]
fn damage_is_found_and_named() {
    let workspace = Workspace::with_tiny_llama(1);
    workspace.run("compress", "model", &["-o", "out", "--preset", "server"]).ok();
    let weights = workspace.path("out").join("model.safetensors");
    let intact = fs::read(&weights).unwrap();

    let mut bytes = intact.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&weights, &bytes).unwrap();
    workspace
        .run("verify", "out", &[])
        .fails(6, &["model.layers", "does not have the hash of the manifest"]);

    fs::write(&weights, &intact[..intact.len() - 3]).unwrap();
    workspace.run("verify", "out", &[]).fails(3, &["model.safetensors", "truncated"]);

    fs::write(&weights, &intact).unwrap();
    let adapter = workspace.path("out").join("adapter_model.safetensors");
    let intact = fs::read(&adapter).unwrap();
    let mut bytes = intact.clone();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(&adapter, &bytes).unwrap();
    workspace.run("verify", "out", &[]).fails(6, &["adapter", "hash"]);

    fs::write(&adapter, &intact).unwrap();
    workspace.run("verify", "out", &[]).ok();
    workspace
        .run("verify", "out", &["--min-sqnr", "100"])
        .fails(6, &["model.layers.0.mlp.down_proj.weight", "under 100 dB"]);

    // Another model of the same shapes is not the original.
    let mut other = Model::read(&tiny_llama());
    let name = "model.layers.0.mlp.down_proj.weight";
    let mut weights = other.tensors[name].weights();
    weights[0] += 1.0;
    other.tensors.insert(name.into(), Tensor::f32(&other.tensors[name].shape.clone(), &weights));
    other.write(&workspace.path("other"), 1, &tiny_llama());
    workspace
        .run("verify", "out", &["--against", "other"])
        .fails(6, &[name, "other weights than those that were compressed"]);
}

#[test]
fn inspect_lists_everything() {
    let inspection =
        run([std::ffi::OsStr::new("inspect"), tiny_llama().as_os_str(), "--json".as_ref()])
            .ok()
            .json();
    let model = Model::read(&tiny_llama());
    let tensors = inspection["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), model.tensors.len());
    for line in tensors {
        let tensor = &model.tensors[line["name"].as_str().unwrap()];
        assert_eq!(line["bytes"], tensor.data.len());
        assert_eq!(line["dtype"], "F32");
    }
    assert_eq!(inspection["roles"]["head"]["tensors"], 1);
    assert_eq!(inspection["roles"]["embedding"]["tensors"], 1);
    let bytes: usize = model.tensors.values().map(|t| t.data.len()).sum();
    assert_eq!(inspection["bytes"], bytes);
}

/// A manifest is input too: what it says is checked before anything is decoded.
#[test]
fn a_manifest_that_lies_is_refused() {
    let workspace = Workspace::with_tiny_llama(1);
    workspace.run("compress", "model", &["-o", "out", "--preset", "on-device"]).ok();
    let intact = manifest(&workspace, "out");
    let name = "model.layers.0.mlp.down_proj.weight";
    let position = |manifest: &Value| {
        manifest["tensors"].as_array().unwrap().iter().position(|t| t["name"] == name).unwrap()
    };
    type Lie = fn(&mut Value);
    let lies: [(Lie, &str); 5] = [
        (|entry| entry["dtype"] = "Q9".into(), "no weight dtype"),
        (|entry| entry["dtype"] = "I64".into(), "no weight dtype"),
        (|entry| entry["shape"] = serde_json::json!([160]), "no matrix"),
        (|entry| entry["codec"] = "grid9".into(), "unknown codec \"grid9\""),
        (|entry| entry["parts"][0]["name"] = "x".into(), "parts of codec grid2"),
    ];
    let refused = |changed: &Value, words: &str| {
        let path = workspace.path("out").join("manifest.json");
        fs::write(path, changed.to_string()).unwrap();
        for args in [&["verify"][..], &["decompress", "-o", "back"]] {
            workspace
                .run(args[0], "out", &args[1..])
                .fails(3, &["manifest.json", &format!("{name:?}"), words]);
            assert_eq!(workspace.names(), ["model", "out"]);
        }
    };
    for (lie, words) in lies {
        let mut changed = intact.clone();
        lie(&mut changed["tensors"][position(&intact)]);
        refused(&changed, words);
    }
    let mut twice = intact.clone();
    let entry = twice["tensors"][position(&intact)].clone();
    twice["tensors"].as_array_mut().unwrap().push(entry);
    refused(&twice, "is listed twice");
}
