//! `gpu-info` and `verify --gpu` on the adapters of this machine.
//!
//! Without an adapter that samples ASTC and one to compute on, the tests say so and pass, unless
//! `COMPRESS_MODEL_REQUIRE_GPU` is 1.
#![cfg(feature = "gpu")]
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::{Workspace, run, tiny_llama};

/// The adapters as `gpu-info` lists them.
fn adapters() -> Vec<Value> {
    let Value::Array(adapters) = run(["gpu-info", "--json"]).ok().json() else { panic!("no list") };
    if std::env::var("COMPRESS_MODEL_REQUIRE_GPU").is_ok_and(|value| value == "1") {
        assert!(adapters.iter().any(|a| a["sampled"].is_string()), "none samples ASTC");
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
    let compress = ["compress", model.to_str().unwrap(), "-o"];
    let out = workspace.path("out");
    let out = out.to_str().unwrap();
    run(compress.into_iter().chain([out, "--preset", "server"])).ok();

    for adapter in &adapters {
        let index = adapter["index"].to_string();
        let paths = [("sampled", adapter["sampled"].is_string()), ("computed", true)];
        for (path, works) in paths {
            let flags = ["--gpu", "--gpu-adapter", &index, "--gpu-path", path, "--json"];
            let verified = run(["verify", out].into_iter().chain(flags));
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
    let text = run(["verify", out, "--gpu"]).ok().stdout;
    assert!(text.contains("compared with the CPU, 0 differ"), "{text}");
    run(["verify", out, "--gpu", "--gpu-adapter", "no such GPU"]).fails(2, &["no such GPU"]);
    assert_eq!(run(["verify", out, "--gpu-path", "sampled"]).code, 2, "--gpu is missing");

    let untextured = workspace.path("untextured");
    let untextured = untextured.to_str().unwrap();
    run(compress.into_iter().chain([untextured, "--preset", "on-device"])).ok();
    run(["verify", untextured, "--gpu"]).fails(3, &["no texture-coded tensor"]);
}

/// Both loaders can be told to look nowhere.
#[cfg(target_os = "linux")]
#[test]
fn a_machine_without_drivers_is_told_so_and_runs_everything_else() {
    let without_drivers = |args: &[&str]| {
        let output = support::compress_model()
            .args(args)
            .env("VK_DRIVER_FILES", "/nonexistent")
            .env("VK_ICD_FILENAMES", "/nonexistent")
            .env("__EGL_VENDOR_LIBRARY_FILENAMES", "/nonexistent")
            .output()
            .unwrap();
        support::Run {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    };
    assert!(without_drivers(&["gpu-info"]).ok().stdout.contains("no GPU adapter"));
    assert_eq!(without_drivers(&["gpu-info", "--json"]).ok().json(), Value::Array(Vec::new()));

    let workspace = Workspace::new();
    let (model, out) = (tiny_llama(), workspace.path("out"));
    let (model, out) = (model.to_str().unwrap(), out.to_str().unwrap());
    without_drivers(&["compress", model, "-o", out, "--preset", "server"]).ok();
    without_drivers(&["verify", out]).ok();
    without_drivers(&["verify", out, "--gpu"]).fails(3, &["no GPU adapter"]);
}
