//! `gpu-info` and `verify --gpu` on the adapters of this machine.
//!
//! Without an adapter that samples ASTC and one to compute on, the tests say so and pass, unless
//! `COMPRESS_MODEL_REQUIRE_GPU` is 1.

use crate::support::{Run, Workspace, compress_model, tiny_llama};
use serde_json::Value;

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
        let any = |verdict: &str| adapters.iter().any(|a| codec(a, "astc")["verdict"] == verdict);
        assert!(any("sampled") && any("computed"), "none samples ASTC, or none has to compute it");
    }
    if adapters.is_empty() {
        eprintln!("skipped: no GPU adapter");
    }
    adapters
}

/// What `gpu-info` says of a codec on an adapter.
fn codec<'a>(adapter: &'a Value, name: &str) -> &'a Value {
    let codecs = adapter["codecs"].as_array().unwrap();
    codecs.iter().find(|codec| codec["codec"] == name).unwrap()
}

#[test]
fn gpu_info_says_of_every_codec_which_path_and_why() {
    let adapters = adapters();
    let text = run(&["gpu-info"]).ok().stdout;
    for adapter in &adapters {
        assert_eq!(adapter["refused"], Value::Null);
        let features = &adapter["features"];
        for (name, reported) in [("astc", "astc"), ("astc-hdr", "astc_hdr"), ("bc4", "bc")] {
            let codec = codec(adapter, name);
            assert_eq!(codec["computed"], true, "{codec}");
            let (path, why) = (codec["paths"][0].as_str().unwrap(), codec["why"].as_str().unwrap());
            assert!(path.starts_with(codec["verdict"].as_str().unwrap()), "{codec}");
            assert!(text.contains(path) && text.contains(why), "{text}");
            if features[reported] == false {
                assert_eq!(codec["verdict"], "computed");
                assert!(why.contains("it reports no "), "{why}");
                assert_eq!(
                    (&codec["sampled_refused"], &codec["decode_mode"]),
                    (&why.into(), &Value::Null)
                );
            }
            if codec["verdict"] == "sampled" {
                let mode = codec["decode_mode"].as_str().unwrap();
                assert!(path.ends_with(mode) && why.contains("passed the self-test"), "{codec}");
            }
        }
    }
}

/// Verifies `folder`, whose textures are all of codec `name`, on every adapter along both paths.
fn verify_everywhere(adapters: &[Value], folder: &str, name: &str) {
    for adapter in adapters {
        let index = adapter["index"].to_string();
        let found = codec(adapter, name);
        for (path, works) in
            [("sampled", found["decode_mode"].is_string()), ("computed", found["computed"] == true)]
        {
            let flags = ["--gpu", "--gpu-adapter", &index, "--gpu-path", path, "--json"];
            let verified = run(&[&["verify", folder], &flags[..]].concat());
            if !works {
                let label = adapter["name"].as_str().unwrap();
                verified.fails(3, &[label, "refused"]);
                continue;
            }
            let report = verified.ok().json();
            let gpu = &report["gpu"];
            assert_eq!((&gpu["differing"], report["ok"].as_bool()), (&0.into(), Some(true)));
            let path = format!("{name}: {path}, ");
            assert!(gpu["paths"][0].as_str().unwrap().starts_with(&path), "{gpu}");
            let tensors = report["tensors"].as_array().unwrap();
            let coded = |t: &&Value| matches!(t["codec"].as_str(), Some("astc" | "bc4"));
            let textures = tensors.iter().filter(coded).count();
            assert!(textures > 0 && gpu["tensors"] == textures, "{gpu}");
            assert!(gpu["texels"].as_u64().unwrap() > 500_000, "{gpu}");
            assert_eq!(gpu["texels_by_codec"][name], gpu["texels"]);
        }
    }
}

#[test]
fn every_adapter_decodes_a_compressed_model_as_the_cpu_does() {
    let adapters = adapters();
    let workspace = Workspace::new();
    let model = tiny_llama();
    let folders = ["out", "desktop", "hdr", "mixed", "untextured"].map(|name| workspace.path(name));
    let [out, desktop, hdr, mixed, untextured] = folders.each_ref().map(|p| p.to_str().unwrap());
    let model = model.to_str().unwrap();
    run(&["compress", model, "-o", out, "--preset", "server"]).ok();
    verify_everywhere(&adapters, out, "astc");
    if adapters.is_empty() {
        return;
    }
    let text = run(&["verify", out, "--gpu"]).ok().stdout;
    assert!(text.contains("compared with the CPU, 0 differ"), "{text}");
    run(&["verify", out, "--gpu", "--gpu-adapter", "no such GPU"]).fails(2, &["no such GPU"]);
    assert_eq!(run(&["verify", out, "--gpu-path", "sampled"]).code, 2, "--gpu is missing");

    run(&["compress", model, "-o", desktop, "--preset", "server-desktop"]).ok();
    verify_everywhere(&adapters, desktop, "bc4");

    // The adapter is the first that samples what the folder holds.
    for (folder, name) in [(out, "astc"), (desktop, "bc4")] {
        let found = run(&["verify", folder, "--gpu", "--json"]).ok().json()["gpu"].clone();
        let feature = if name == "bc4" { "bc" } else { name };
        let samples = |a: &&Value| a["kind"] == "cpu" && a["features"][feature] == true;
        if adapters.iter().all(|a| a["kind"] == "cpu") {
            let first = adapters.iter().find(samples).unwrap_or(&adapters[0]);
            let backend = format!("{}: ", first["backend"].as_str().unwrap());
            assert!(found["adapter"].as_str().unwrap().starts_with(&backend), "{name}: {found}");
        }
    }

    // A texture unit with a rounding of its own is not what the file was written for.
    for adapter in adapters.iter().filter(|a| codec(a, "bc4")["decode_mode"] == "llvmpipe") {
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

    // HDR on its own, where no software renderer samples it, and beside other codecs.
    let all = ["--preset", "server", "--tensor-type", ".*_proj=astc:profile=hdr"];
    run(&[&["compress", model, "-o", hdr][..], &all].concat()).ok();
    verify_everywhere(&adapters, hdr, "astc-hdr");
    let some = ["q_proj=astc:profile=hdr", "k_proj=bc4:effort=fast"];
    let some = ["--preset", "server", "--tensor-type", some[0], "--tensor-type", some[1]];
    run(&[&["compress", model, "-o", mixed][..], &some].concat()).ok();
    let gpu = run(&["verify", mixed, "--gpu", "--json"]).ok().json()["gpu"].clone();
    assert_eq!((gpu["paths"].as_array().unwrap().len(), &gpu["differing"]), (3, &0.into()));
    assert_eq!(gpu["texels_by_codec"].as_object().unwrap().len(), 3);

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
