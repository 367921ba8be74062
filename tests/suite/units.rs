//! One compression on many machines: units, pieces, and what they merge into.

use std::fs;

use crate::support::{Run, Workspace};

fn plan(workspace: &Workspace, count: &str, args: &[&str]) -> Run {
    let units = ["--units", count, "-o", "units.json"];
    workspace.run("plan", "model", &[args, &units].concat())
}

fn work(workspace: &Workspace, unit: usize, more: &[&str]) -> Run {
    let unit = unit.to_string();
    workspace.run("work", "units.json", &[&["--unit", &unit, "-o", "pieces"], more].concat())
}

fn merge(workspace: &Workspace, output: &str) -> Run {
    workspace.run("merge", "units.json", &["pieces", "-o", output])
}

#[test]
fn pieces_merge_into_the_bytes_of_one_machine() {
    for (preset, shards) in [("on-device", 1), ("server", 3)] {
        let workspace = Workspace::with_tiny_llama(shards);
        let args = ["--preset", preset, "--max-shard-size", "500KB", "--seed", "5"];
        workspace.run("compress", "model", &[&args[..], &["-o", "whole"]].concat()).ok();
        for count in [1, 7, 1000] {
            plan(&workspace, &count.to_string(), &args).ok();
            let text = fs::read_to_string(workspace.path("units.json")).unwrap();
            let units: serde_json::Value = serde_json::from_str(&text).unwrap();
            let found = units["units"].as_array().unwrap().len();
            assert!(found <= count && (count == 1000 || found == count), "{found} of {count}");
            // The last first, on other numbers of threads.
            for unit in (0..found).rev() {
                let threads = (1 + unit % 3).to_string();
                work(&workspace, unit, &["-t", &threads]).ok();
            }
            let again = work(&workspace, 0, &["--json"]).ok().json();
            assert_eq!(again["already_done"], true);
            merge(&workspace, "merged").ok();
            assert!(workspace.files("whole") == workspace.files("merged"), "{preset} {count}");
            for folder in ["merged", "pieces"] {
                fs::remove_dir_all(workspace.path(folder)).unwrap();
            }
        }
    }
}

#[test]
fn what_is_missing_or_damaged_is_named() {
    let workspace = Workspace::with_tiny_llama(1);
    plan(&workspace, "3", &["--preset", "on-device"]).ok();
    work(&workspace, 3, &[]).fails(2, &["--unit 3", "units 0 to 2"]);
    work(&workspace, 1, &[]).ok();
    merge(&workspace, "out").fails(3, &["2 of 3 units are missing: 0, 2"]);
    work(&workspace, 0, &[]).ok();
    work(&workspace, 2, &[]).ok();

    let piece = workspace.path("pieces/unit-00001-of-00003");
    let data = piece.join("model.safetensors");
    let bytes = fs::read(&data).unwrap();
    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 4;
    fs::write(&data, flipped).unwrap();
    merge(&workspace, "out").fails(3, &["unit-00001-of-00003", "does not have its checksum"]);
    fs::write(&data, &bytes[..bytes.len() - 1]).unwrap();
    merge(&workspace, "out").fails(3, &["unit-00001-of-00003", "truncated"]);
    fs::write(&data, bytes).unwrap();

    // A piece of another plan, and a plan that was edited.
    let text = fs::read_to_string(workspace.path("units.json")).unwrap();
    fs::write(workspace.path("units.json"), format!("{text} ")).unwrap();
    merge(&workspace, "out").fails(3, &["unit-00000-of-00003", "another plan"]);
    fs::write(workspace.path("units.json"), text.replace("compress-model 0", "x 0")).unwrap();
    work(&workspace, 0, &[]).fails(3, &["units.json", "was made by x 0"]);
    fs::write(workspace.path("units.json"), "{").unwrap();
    work(&workspace, 0, &[]).fails(3, &["units.json", "not a plan of units"]);
    fs::write(workspace.path("units.json"), text).unwrap();
    assert!(!workspace.path("out").exists());

    let description = piece.join("unit.json");
    let text = fs::read_to_string(&description).unwrap();
    fs::write(&description, text.replace("\"fused\"", "\"other\"")).unwrap();
    merge(&workspace, "out").fails(3, &["unit 1 with other", "their adapters differ"]);
    fs::write(&description, text).unwrap();

    // A source whose tensors are others.
    let other =
        Workspace::with_tensors(&[("a.weight", crate::support::Tensor::f32(&[1, 1], &[1.0]))]);
    let model = other.path("model");
    work(&workspace, 0, &["--model", model.to_str().unwrap()]).fails(3, &["has other tensors"]);
    merge(&workspace, "out").ok();
    workspace.run("verify", "out", &["--against", "model"]).ok();
}
