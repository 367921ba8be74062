//! `gpu-info` and `verify --gpu` on the adapters of this machine.
//!
//! Without an adapter that samples ASTC and one to compute on, the tests say so and pass, unless
//! `COMPRESS_MODEL_REQUIRE_GPU` is 1.
#![cfg(feature = "gpu")]
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::{Run, Workspace, compress_model, tiny_llama};

/// Variables that keep the Vulkan and EGL loaders from finding any driver.
const NO_DRIVERS: [(&str, &str); 3] = [
    ("VK_DRIVER_FILES", "/nonexistent"),
    ("VK_ICD_FILENAMES", "/nonexistent"),
    ("__EGL_VENDOR_LIBRARY_FILENAMES", "/nonexistent"),
];

fn run_with(variables: &[(&str, &str)], args: &[&str]) -> Run {
    // libwayland complains on stderr where this folder is not set.
    let runtime = tempfile::tempdir().unwrap();
    let output = compress_model()
        .args(args)
        .envs(variables.iter().copied())
        .env("XDG_RUNTIME_DIR", runtime.path())
        .output()
        .unwrap();
    Run::of(output)
}

fn run(args: &[&str]) -> Run {
    run_with(&[], args)
}

/// The adapters as `gpu-info` lists them.
fn adapters() -> Vec<Value> {
    let Value::Array(adapters) = run(&["gpu-info", "--json"]).ok().json() else {
        panic!("no list")
    };
    if std::env::var("COMPRESS_MODEL_REQUIRE_GPU").is_ok_and(|value| value == "1") {
        assert!(adapters.iter().any(|a| a["verdict"] == "sampled"), "none samples ASTC");
        assert!(adapters.iter().any(|a| a["computed"] == true), "none computes");
    }
    if adapters.is_empty() {
        eprintln!("skipped: no GPU adapter");
    }
    adapters
}

#[test]
fn every_adapter_decodes_a_compressed_model_as_the_cpu_does() {
    let adapters = adapters();
    let workspace = Workspace::new();
    let model = tiny_llama();
    let (out, untextured) = (workspace.path("out"), workspace.path("untextured"));
    let [model, out, untextured] = [&model, &out, &untextured].map(|path| path.to_str().unwrap());
    run(&["compress", model, "-o", out, "--preset", "server"]).ok();

    for adapter in &adapters {
        let index = adapter["index"].to_string();
        let paths = [
            ("sampled", adapter["decode_mode"].is_string()),
            ("computed", adapter["computed"] == true),
        ];
        for (path, works) in paths {
            let flags = ["--gpu", "--gpu-adapter", &index, "--gpu-path", path, "--json"];
            let verified = run(&[&["verify", out], &flags[..]].concat());
            if !works {
                let name = adapter["name"].as_str().unwrap();
                verified.fails(3, &[name, "refused"]);
                continue;
            }
            let report = verified.ok().json();
            let gpu = &report["gpu"];
            assert_eq!((&gpu["differing"], report["ok"].as_bool()), (&0.into(), Some(true)));
            assert!(gpu["paths"][0].as_str().unwrap().starts_with(path), "{gpu}");
            let textures = report["tensors"].as_array().unwrap();
            let textures = textures.iter().filter(|t| t["codec"] == "astc").count();
            assert!(textures > 0 && gpu["tensors"] == textures, "{gpu}");
            assert!(gpu["texels"].as_u64().unwrap() > 500_000, "{gpu}");
        }
    }
    if adapters.is_empty() {
        return;
    }
    let text = run(&["verify", out, "--gpu"]).ok().stdout;
    assert!(text.contains("compared with the CPU, 0 differ"), "{text}");
    run(&["verify", out, "--gpu", "--gpu-adapter", "no such GPU"]).fails(2, &["no such GPU"]);
    assert_eq!(run(&["verify", out, "--gpu-path", "sampled"]).code, 2, "--gpu is missing");

    // BC4 as well, on whatever path each adapter has.
    let desktop = workspace.path("desktop");
    let desktop = desktop.to_str().unwrap();
    run(&["compress", model, "-o", desktop, "--preset", "server-desktop"]).ok();
    for adapter in &adapters {
        let index = adapter["index"].to_string();
        for (path, works) in
            [("sampled", adapter["decode_mode_bc4"].is_string()), ("computed", true)]
        {
            let flags = ["--gpu", "--gpu-adapter", &index, "--gpu-path", path, "--json"];
            let verified = run(&[&["verify", desktop], &flags[..]].concat());
            if works {
                let gpu = verified.ok().json()["gpu"].clone();
                assert_eq!(gpu["differing"], 0, "{gpu}");
                assert!(gpu["texels"].as_u64().unwrap() > 500_000, "{gpu}");
            } else {
                verified.fails(3, &["refused"]);
            }
        }
    }

    // A texture unit with a rounding of its own is not what the file was written for.
    for adapter in adapters.iter().filter(|a| a["decode_mode_bc4"] == "llvmpipe") {
        let index = adapter["index"].to_string();
        let flags = ["--gpu", "--gpu-adapter", &index, "--gpu-path", "sampled"];
        let recorded =
            [&["verify", desktop], &flags[..], &["--gpu-reference", "recorded"]].concat();
        let verified = run(&[&recorded[..], &["--json"]].concat());
        assert_eq!(verified.code, 6, "{verified:?}");
        let gpu = verified.json()["gpu"].clone();
        assert_eq!(
            (&gpu["reference"], gpu["first"].as_array().unwrap().len()),
            (&"recorded".into(), 10)
        );
        let differing = gpu["differing"].as_u64().unwrap();
        assert!(0 < differing && differing < gpu["texels"].as_u64().unwrap(), "{gpu}");
        assert_eq!(gpu["texels_by_codec"]["bc4"], gpu["texels"]);
        let count = format!("{differing} of ");
        run(&recorded).fails(6, &[&count, "texels differ on", "row", "instead of"]);
    }

    // HDR textures are named, and not enough on their own.
    let hdr = workspace.path("hdr");
    let hdr = hdr.to_str().unwrap();
    let some = "layers\\.0\\..*q_proj=astc:profile=hdr";
    run(&["compress", model, "-o", hdr, "--preset", "server", "--tensor-type", some]).ok();
    let report = run(&["verify", hdr, "--gpu", "--json"]).ok().json();
    let skipped = report["gpu"]["skipped"].as_array().unwrap();
    assert!(skipped.len() == 1 && skipped[0]["tensor"].as_str().unwrap().contains("q_proj"));
    assert!(run(&["verify", hdr, "--gpu"]).ok().stdout.contains("not checked on the GPU: "));
    let all = ["--preset", "on-device", "--tensor-type", some, "--overwrite"];
    run(&[&["compress", model, "-o", hdr][..], &all].concat()).ok();
    run(&["verify", hdr, "--gpu"]).fails(3, &["nothing to check on a GPU", "hdr"]);

    run(&["compress", model, "-o", untextured, "--preset", "on-device"]).ok();
    run(&["verify", untextured, "--gpu"]).fails(3, &["no texture-coded tensor"]);
}

/// Both loaders can be told to look nowhere.
#[cfg(target_os = "linux")]
#[test]
fn a_machine_without_drivers_is_told_so_and_runs_everything_else() {
    let without_drivers = |args: &[&str]| run_with(&NO_DRIVERS, args);
    assert!(without_drivers(&["gpu-info"]).ok().stdout.contains("no GPU adapter"));
    assert_eq!(without_drivers(&["gpu-info", "--json"]).ok().json(), Value::Array(Vec::new()));

    let workspace = Workspace::new();
    let (model, out) = (tiny_llama(), workspace.path("out"));
    let (model, out) = (model.to_str().unwrap(), out.to_str().unwrap());
    without_drivers(&["compress", model, "-o", out, "--preset", "server"]).ok();
    without_drivers(&["verify", out]).ok();
    without_drivers(&["verify", out, "--gpu"]).fails(3, &["no GPU adapter"]);
}
