//! The function stays: logits of transformed models against those of the originals.

use std::path::{Path, PathBuf};

use super::Transformed;
use crate::checkpoint::Checkpoint;
use crate::model::{CausalModel, KvCache, Model, ModelOptions};
use crate::pipeline::Silent;
use crate::recipe::{Recipe, Transform};

const ALL: [&str; 4] = [
    "head_rotation = 'hadamard'",
    "scaling = { weights = 0.7 }",
    "sort = ['channels', 'values']",
    "head_rotation = 'orthogonal'\nsort = ['channels', 'values']\nscaling = { weights = 1 }",
];

const ROTATIONS: [&str; 3] = [
    "rotation = 'hadamard'\nuntie_head = true",
    "rotation = 'orthogonal'\nuntie_head = true",
    "rotation = 'hadamard'\nuntie_head = true\nhead_rotation = 'hadamard'\n\
     sort = ['channels', 'values']\nscaling = { weights = 0.5 }",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn options(table: &str) -> Transform {
    let text = format!("[transform]\n{table}\n[[rule]]\nrole = 'linear'\ncodec = 'grid2'");
    Recipe::parse(&text, "test").unwrap().transform.unwrap()
}

fn logits(folder: &Path) -> Vec<f32> {
    let options = ModelOptions { kv_cache: KvCache::F32, ..ModelOptions::default() };
    let mut model = Model::open(folder, options).unwrap();
    let window: Vec<u32> = (0..24).map(|i| (i * 29 + 3) % 67).collect();
    let hidden = model.hidden(&[&window], 0..window.len()).unwrap();
    let mut logits = vec![0.0; hidden.len() / model.hidden_size() * model.vocab_size()];
    model.logits(&hidden, &mut logits).unwrap();
    logits
}

/// ‖a - b‖ / ‖b‖.
fn difference(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let error: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(a - b))).sum();
    (error / b.iter().map(|b| square(f64::from(*b))).sum::<f64>()).sqrt()
}

fn transformed(folder: &Path, table: &str) -> crate::Result<(Transformed, tempfile::TempDir)> {
    let beside = tempfile::tempdir().unwrap();
    let original = Checkpoint::open(folder)?;
    let output = beside.path().join("out");
    let made = Transformed::create(&original, &options(table), None, 7, &output, &Silent)?;
    Ok((made, beside))
}

fn folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(fixtures().join("architectures")).unwrap();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.is_dir());
    folders.push(fixtures().join("tiny-llama"));
    folders.sort();
    assert_eq!(folders.len(), 13);
    folders
}

#[test]
fn every_transform_keeps_the_function_of_every_family() {
    let mut worst = 0.0_f64;
    for folder in folders() {
        let before = logits(&folder);
        let sandwich = folder.file_name().unwrap().to_string_lossy().starts_with("gemma3");
        let rotations = ROTATIONS.iter().filter(|_| !sandwich);
        for table in ALL.iter().chain(rotations) {
            let (made, _beside) = transformed(&folder, table).unwrap();
            let found = difference(&logits(made.checkpoint().folder()), &before);
            println!("{}: {table:?}: {found:.1e}", folder.display());
            worst = worst.max(found);
            assert!(!made.record().changes.is_empty());
        }
    }
    // 8e-7 was found; rounding only.
    assert!(worst < 5e-6, "{worst}");
}

#[test]
fn what_is_not_legal_is_refused_by_name() {
    let architectures = fixtures().join("architectures");
    let error = transformed(&architectures.join("gemma3"), ROTATIONS[0]).unwrap_err();
    assert!(error.to_string().contains("gemma3"), "{error}");
    let error = transformed(&architectures.join("qwen3"), "rotation = 'hadamard'").unwrap_err();
    assert!(error.to_string().contains("untie_head = true"), "{error}");
    let error = transformed(&architectures.join("llama"), "scaling = { activations = 1 }");
    assert!(error.unwrap_err().to_string().contains("--calibration"));
}

#[test]
fn only_what_changes_is_written_anew() {
    let folder = fixtures().join("architectures/qwen3");
    let original = Checkpoint::open(&folder).unwrap();
    let (made, _beside) = transformed(&folder, "head_rotation = 'hadamard'").unwrap();
    for tensor in made.checkpoint().tensors() {
        let changes = tensor.name.contains("v_proj") || tensor.name.contains("o_proj");
        assert_eq!(made.record().changes.contains_key(&tensor.name), changes, "{}", tensor.name);
        let before = original.tensor(&tensor.name).unwrap();
        assert_eq!(tensor.dtype == before.dtype, !changes, "{}", tensor.name);
    }
    // A tied head gets a weight of its own, and the plan's outline has it too.
    let (made, beside) = transformed(&folder, ROTATIONS[0]).unwrap();
    let outline = Transformed::outline(&original, &options(ROTATIONS[0]), &beside.path().join("o"));
    let outline = outline.unwrap();
    assert_eq!(outline.record().changes, made.record().changes);
    let names = |made: &Transformed| -> Vec<(String, Vec<usize>)> {
        let tensors = made.checkpoint().tensors().iter();
        tensors.map(|t| (t.name.clone(), t.shape.clone())).collect()
    };
    assert_eq!(names(&outline), names(&made));
    assert!(made.checkpoint().tensor("lm_head.weight").is_some());
    assert!(!made.checkpoint().config().unwrap().ties_embeddings());
    let folder = made.checkpoint().folder().to_path_buf();
    drop(made);
    assert!(!folder.exists());
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let folder = fixtures().join("architectures/llama");
    let bytes = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (made, _beside) = transformed(&folder, ROTATIONS[2]).unwrap();
            std::fs::read(made.checkpoint().folder().join("model.safetensors")).unwrap()
        })
    };
    assert!(bytes(1) == bytes(3));
}
