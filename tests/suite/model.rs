//! The forward pass against logits of `transformers` and against itself.

use std::fs;
use std::path::{Path, PathBuf};

use compress_model::model::{
    CausalModel, Continuation, KvCache, Model, ModelOptions, Path as Implementation,
};
use compress_model::pipeline::{
    AdapterMode, CompressedFolder, DecompressOptions, OutputDtype, Silent, decompress,
};
use safetensors::SafeTensors;
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn exact() -> ModelOptions {
    ModelOptions { kv_cache: KvCache::F32, ..ModelOptions::default() }
}

fn plain() -> ModelOptions {
    ModelOptions { path: Some(Implementation::Plain), ..exact() }
}

/// Logits of all positions of all windows.
fn logits(model: &mut Model, windows: &[&[u32]]) -> Vec<f32> {
    let hidden = model.hidden(windows, 0..windows[0].len()).unwrap();
    let mut logits = vec![0.0; hidden.len() / model.hidden_size() * model.vocab_size()];
    model.logits(&hidden, &mut logits).unwrap();
    logits
}

/// ‖a - b‖ / ‖b‖.
fn difference(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let error: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(a - b))).sum();
    (error / b.iter().map(|b| square(f64::from(*b))).sum::<f64>()).sqrt()
}

struct Golden {
    windows: Vec<Vec<u32>>,
    logits: Vec<f32>,
}

impl Golden {
    fn read(folder: &Path) -> Self {
        let bytes = fs::read(folder.join("golden.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let ids = file.tensor("token_ids").unwrap();
        let len = ids.shape()[1];
        let ids: Vec<u32> = ids
            .data()
            .chunks_exact(8)
            .map(|id| i64::from_le_bytes(id.try_into().unwrap()) as u32)
            .collect();
        let logits = file.tensor("logits").unwrap();
        let logits =
            logits.data().chunks_exact(4).map(|l| f32::from_le_bytes(l.try_into().unwrap()));
        Self { windows: ids.chunks(len).map(<[u32]>::to_vec).collect(), logits: logits.collect() }
    }

    fn windows(&self) -> Vec<&[u32]> {
        self.windows.iter().map(Vec::as_slice).collect()
    }
}

/// Every case, once for each style of its configuration.
fn cases() -> Vec<(String, tempfile::TempDir)> {
    let mut cases = Vec::new();
    for entry in fs::read_dir(fixtures().join("architectures")).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        for config in ["config.json", "config.transformers5.json"] {
            if !folder.join(config).exists() {
                continue;
            }
            let copy = tempfile::tempdir().unwrap();
            fs::copy(folder.join(config), copy.path().join("config.json")).unwrap();
            for file in ["model.safetensors", "golden.safetensors"] {
                fs::copy(folder.join(file), copy.path().join(file)).unwrap();
            }
            let name = folder.file_name().unwrap().to_string_lossy().into_owned();
            cases.push((format!("{name}/{config}"), copy));
        }
    }
    assert!(cases.len() >= 16, "{}", cases.len());
    cases
}

#[test]
fn every_family_gives_the_logits_of_transformers() {
    let mut worst = 0.0_f64;
    for (name, folder) in cases() {
        let golden = Golden::read(folder.path());
        for options in [exact(), plain()] {
            let label = format!("{name}, {:?}", options.path);
            let mut model = Model::open(folder.path(), options).unwrap();
            let found = difference(&logits(&mut model, &golden.windows()), &golden.logits);
            println!("{label}: {found:.1e}");
            worst = worst.max(found);
        }
    }
    assert!(worst < 1e-5, "{worst}");
}

#[test]
fn a_growing_sequence_ends_where_whole_windows_do() {
    for (name, folder) in cases() {
        let golden = Golden::read(folder.path());
        // Values that differ in their last bits may be rounded to neighbouring steps.
        let bounds = [(KvCache::F32, 1e-5), (KvCache::F16, 1e-3), (KvCache::Int8, 2e-2)];
        for (kv_cache, bound) in bounds {
            let options = ModelOptions { kv_cache, resident: true, ..ModelOptions::default() };
            let mut model = Model::open(folder.path(), options).unwrap();
            for window in golden.windows() {
                let whole = logits(&mut model, &[window]);
                let mut sequence = model.start();
                sequence.extend(&window[..5]).unwrap();
                sequence.extend(&window[5..6]).unwrap();
                let last = sequence.extend(&window[6..]).unwrap();
                assert_eq!(sequence.position(), window.len());
                let expected = &whole[whole.len() - model.vocab_size()..];
                let found = difference(&last, expected);
                assert!(found < bound, "{name}, {kv_cache:?}: {found}");
            }
        }
    }
}

#[test]
fn an_8_bit_cache_costs_a_little_and_a_16_bit_one_less() {
    let folder = fixtures().join("architectures/llama");
    let golden = Golden::read(&folder);
    let of = |kv_cache| {
        let options = ModelOptions { kv_cache, ..ModelOptions::default() };
        let mut model = Model::open(&folder, options).unwrap();
        difference(&logits(&mut model, &golden.windows()), &golden.logits)
    };
    let (half, int8) = (of(KvCache::F16), of(KvCache::Int8));
    assert!(1e-6 < half && half < 1e-3, "{half}");
    assert!(half < int8 && int8 < 3e-2, "{int8}");
}

#[test]
fn real_weights_give_their_golden_logits_alone_and_in_batches() {
    let text = fs::read_to_string(fixtures().join("golden/tiny-llama-logits.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let ids: Vec<u32> = golden["token_ids"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect();
    let mut model = Model::open(&fixtures().join("tiny-llama"), exact()).unwrap();
    let alone = logits(&mut model, &[&ids]);
    let (found, expected): (Vec<f32>, Vec<f32>) = golden["logits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|sample| {
            let place = |key: &str| sample[key].as_u64().unwrap() as usize;
            let found = alone[place("position") * model.vocab_size() + place("id")];
            (found, sample["logit"].as_f64().unwrap() as f32)
        })
        .unzip();
    let error = difference(&found, &expected);
    assert!(error < 1e-5, "{error}");
    let other: Vec<u32> = ids.iter().rev().copied().collect();
    let both = logits(&mut model, &[&other, &ids]);
    assert!(difference(&both[alone.len()..], &alone) < 1e-6);
}

#[test]
fn a_compressed_folder_runs_as_its_decompressed_one_with_and_without_adapters() {
    let work = tempfile::tempdir().unwrap();
    let ids: Vec<u32> = (0..300).map(|i| i * 37 % 1000).collect();
    for (preset, adapters) in [("server", true), ("server", false), ("on-device", true)] {
        let out = work.path().join(format!("{preset}-{adapters}"));
        let run = crate::support::compress_model()
            .args(["compress", "--quiet", "--preset", preset, "-o"])
            .args([&out, &crate::support::tiny_llama()])
            .output();
        crate::support::Run::of(run.unwrap()).ok();
        let decoded = work.path().join(format!("{preset}-{adapters}-decoded"));
        let mode = if adapters { AdapterMode::Merge } else { AdapterMode::Separate };
        let options =
            DecompressOptions { dtype: OutputDtype::F32, adapters: mode, max_shard_bytes: 1 << 30 };
        let folder = CompressedFolder::open(&out).unwrap();
        decompress(&folder, &decoded, options, &Silent).unwrap();
        let options = ModelOptions { adapters, ..exact() };
        let mut direct = Model::open(&out, options).unwrap();
        let mut decoded = Model::open(&decoded, exact()).unwrap();
        let windows: [&[u32]; 2] = [&ids[..150], &ids[150..]];
        let found = difference(&logits(&mut direct, &windows), &logits(&mut decoded, &windows));
        assert!(found < 1e-6, "{preset}, adapters {adapters}: {found}");
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let ids: Vec<u32> = (0..400).map(|i| i * 13 % 1000).collect();
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut model =
                Model::open(&fixtures().join("tiny-llama"), ModelOptions::default()).unwrap();
            logits(&mut model, &[&ids])
        })
    };
    let (one, three) = (on(1), on(3));
    assert!(one.iter().zip(&three).all(|(a, b)| a.to_bits() == b.to_bits()));
}
