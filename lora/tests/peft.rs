//! PEFT files: what is written comes back, is read by the safetensors crate, and every fault of a
//! foreign file is named.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use compress_model_lora::{
    Adapter, CONFIG_FILE, DenseMatrix, Error, PeftReader, PeftWriter, PlannedAdapter, SvdOptions,
    WEIGHTS_FILE, truncated_svd,
};
use half::f16;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

fn plan(module: &str, out_features: usize, in_features: usize, rank: usize) -> PlannedAdapter {
    let module = module.to_owned();
    PlannedAdapter { module, out_features, in_features, rank, embedding: false }
}

fn adapter(rows: usize, cols: usize, rank: usize) -> Adapter {
    let w: Vec<f32> = (0..rows * cols).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let svd = truncated_svd(&DenseMatrix::new(&w, cols), &SvdOptions::new(rank)).unwrap();
    Adapter::from_svd(&svd).unwrap()
}

fn write(folder: &Path) -> [Adapter; 3] {
    let planned = [plan("l.0.up", 9, 5, 2), plan("l.0.down", 5, 9, 3), plan("l.1.up", 9, 5, 2)];
    let mut writer = PeftWriter::create(folder, &planned, "org/base").unwrap();
    let adapters = [adapter(9, 5, 2), adapter(5, 9, 3), adapter(9, 5, 2)];
    // Not in the order of the plan.
    for i in [2, 0, 1] {
        writer.write(&planned[i].module, &adapters[i]).unwrap();
    }
    writer.finish().unwrap();
    adapters
}

#[test]
fn adapters_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let written = write(folder.path());
    let reader = PeftReader::open(folder.path()).unwrap();
    assert_eq!(reader.modules().collect::<Vec<_>>(), ["l.0.down", "l.0.up", "l.1.up"]);
    assert_eq!(reader.shape("l.0.down"), Some((5, 9, 3)));
    assert_eq!(reader.shape("l.9.up"), None);
    assert_eq!(reader.read("l.0.up").unwrap(), written[0]);
    assert_eq!(reader.read("l.0.down").unwrap(), written[1]);
    assert_eq!(reader.read("l.1.up").unwrap(), written[2]);
}

/// PEFT looks rows of an embedding up in the transposes, under keys of their own.
#[test]
fn an_embedding_has_its_factors_transposed() {
    let folder = tempfile::tempdir().unwrap();
    let planned = PlannedAdapter { embedding: true, ..plan("embed", 7, 4, 2) };
    let written = adapter(7, 4, 2);
    let mut writer = PeftWriter::create(folder.path(), &[planned], "").unwrap();
    writer.write("embed", &written).unwrap();
    writer.finish().unwrap();
    let bytes = fs::read(folder.path().join(WEIGHTS_FILE)).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut names = tensors.names();
    names.sort_unstable();
    assert_eq!(
        names,
        ["base_model.model.embed.lora_embedding_A", "base_model.model.embed.lora_embedding_B"]
    );
    let at = |name: &str, index: usize| {
        let data = tensors.tensor(name).unwrap().data();
        f16::from_le_bytes([data[2 * index], data[2 * index + 1]])
    };
    assert_eq!(tensors.tensor(names[0]).unwrap().shape(), [2, 7]);
    assert_eq!(tensors.tensor(names[1]).unwrap().shape(), [4, 2]);
    for k in 0..2 {
        for row in 0..7 {
            assert_eq!(at(names[0], k * 7 + row), written.b[row * 2 + k]);
        }
        for col in 0..4 {
            assert_eq!(at(names[1], col * 2 + k), written.a[k * 4 + col]);
        }
    }
    let reader = PeftReader::open(folder.path()).unwrap();
    assert_eq!(reader.shape("embed"), Some((7, 4, 2)));
    assert_eq!(reader.read("embed").unwrap(), written);
}

#[test]
fn files_are_those_of_peft() {
    let folder = tempfile::tempdir().unwrap();
    let written = write(folder.path());
    let bytes = fs::read(folder.path().join(WEIGHTS_FILE)).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), 6);
    let a = tensors.tensor("base_model.model.l.0.down.lora_A.weight").unwrap();
    assert_eq!((a.dtype(), a.shape()), (Dtype::F16, &[3, 9][..]));
    let expected: Vec<u8> = written[1].a.iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(a.data(), expected);
    assert_eq!(tensors.tensor("base_model.model.l.0.down.lora_B.weight").unwrap().shape(), [5, 3]);

    let text = fs::read(folder.path().join(CONFIG_FILE)).unwrap();
    let config: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(config["peft_type"], "LORA");
    assert_eq!(config["task_type"], "CAUSAL_LM");
    assert_eq!(config["base_model_name_or_path"], "org/base");
    assert_eq!((&config["r"], &config["lora_alpha"]), (&2.into(), &2.into()));
    assert_eq!(config["rank_pattern"], json!({ r"^l\.0\.down": 3 }));
    assert_eq!(config["alpha_pattern"], config["rank_pattern"]);
    assert_eq!(config["target_modules"], json!(["l.0.down", "l.0.up", "l.1.up"]));
}

#[cfg(unix)]
#[test]
fn files_have_the_usual_mode() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let mode = |name| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
    fs::write(folder.path().join("other"), "").unwrap();
    assert_eq!(mode(WEIGHTS_FILE), mode("other"));
    assert_eq!(mode(CONFIG_FILE), mode("other"));
}

#[test]
fn a_plan_must_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer =
        PeftWriter::create(folder.path(), &[plan("m", 9, 5, 2), plan("n", 9, 5, 2)], "").unwrap();
    assert!(matches!(writer.write("x", &adapter(9, 5, 2)), Err(Error::Plan { .. })));
    writer.write("m", &adapter(9, 5, 2)).unwrap();
    assert!(matches!(writer.write("m", &adapter(9, 5, 2)), Err(Error::Plan { .. })));
    let error = writer.finish().unwrap_err();
    assert!(error.to_string().contains("\"n\": was planned but never written"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let mut writer = PeftWriter::create(folder.path(), &[plan("m", 9, 5, 2)], "").unwrap();
    let error = writer.write("m", &adapter(9, 5, 3)).unwrap_err();
    assert!(error.to_string().contains("another shape than planned"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    assert!(PeftWriter::create(folder.path(), &[plan("m", 9, 5, 0)], "").is_err());
    let twice = [plan("m", 9, 5, 2), plan("m", 9, 5, 2)];
    assert!(matches!(PeftWriter::create(folder.path(), &twice, ""), Err(Error::Plan { .. })));
}

/// Stored tensors by key: dtype, shape, data.
type Tensors = BTreeMap<&'static str, (Dtype, Vec<usize>, Vec<u8>)>;

/// Writes an adapter of one module as another program would.
fn foreign(folder: &Path, config: &Value, tensors: &Tensors) {
    fs::write(folder.join(CONFIG_FILE), config.to_string()).unwrap();
    let views = tensors.iter().map(|(key, (dtype, shape, data))| {
        (*key, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    fs::write(folder.join(WEIGHTS_FILE), safetensors::serialize(views, None).unwrap()).unwrap();
}

const A: &str = "base_model.model.m.lora_A.weight";
const B: &str = "base_model.model.m.lora_B.weight";

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn good() -> (Value, Tensors) {
    let config = json!({
        "peft_type": "LORA", "r": 1, "lora_alpha": 8, "target_modules": "m", "task_type": null,
    });
    let tensors = BTreeMap::from([
        (A, (Dtype::F32, vec![1, 2], f32s(&[1.0, 2.0]))),
        (B, (Dtype::F32, vec![3, 1], f32s(&[1.0, -1.0, 0.5]))),
    ]);
    (config, tensors)
}

#[test]
fn the_scale_of_a_foreign_adapter_counts() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, tensors) = good();
    let b = |folder: &Path| {
        let adapter = PeftReader::open(folder).unwrap().read("m").unwrap();
        assert_eq!(adapter.a, [1.0, 2.0].map(f16::from_f32));
        adapter.b.iter().map(|x| x.to_f32()).collect::<Vec<_>>()
    };
    foreign(folder.path(), &config, &tensors);
    assert_eq!(b(folder.path()), [8.0, -8.0, 4.0]);
    config["alpha_pattern"] = json!({ "m": 2 });
    foreign(folder.path(), &config, &tensors);
    assert_eq!(b(folder.path()), [2.0, -2.0, 1.0]);
}

#[test]
fn faults_are_named() {
    type Edit = fn(&mut Value, &mut Tensors);
    let faults: [(Edit, &str); 14] = [
        (|c, _| c["peft_type"] = "IA3".into(), "peft_type is \"IA3\""),
        (|c, _| c["use_dora"] = true.into(), "use_dora"),
        (|c, _| c["bias"] = "all".into(), "bias"),
        (|c, _| c["r"] = "x".into(), "not a LoRA configuration"),
        (|c, _| c["r"] = 2.into(), "rank 2 is stated for \"base_model.model.m.lora_A.weight\""),
        (|c, _| c["rank_pattern"] = json!({ "(?=m)": 1 }), "rank_pattern \"(?=m)\" is no regular"),
        (|c, _| c["alpha_pattern"] = json!({ "m": "x" }), "alpha_pattern \"m\" is \"x\""),
        (|c, _| c["init_lora_weights"] = "pissa_niter_4".into(), "changed base weights"),
        (|c, _| c["lora_bias"] = true.into(), "lora_bias is not supported"),
        (|_, t| drop(t.remove(B)), "lora_A.weight\" is there without"),
        (|_, t| drop(t.remove(A)), "lora_B.weight\" is there without"),
        (|_, t| drop(t.insert("m.lora_A.weight", t[A].clone())), "unknown key \"m.lora_A.weight\""),
        (
            |_, t| drop(t.insert(B, (Dtype::F32, vec![1, 3], f32s(&[0.0; 3])))),
            "[1, 2] and [1, 3] of \"m\" are no adapter",
        ),
        (|_, t| drop(t.insert(B, (Dtype::I64, vec![1, 1], vec![0; 8]))), "not F16, BF16 or F32"),
    ];
    for (edit, message) in faults {
        let folder = tempfile::tempdir().unwrap();
        let (mut config, mut tensors) = good();
        edit(&mut config, &mut tensors);
        foreign(folder.path(), &config, &tensors);
        let error = PeftReader::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let (config, mut tensors) = good();
    tensors.insert(B, (Dtype::F32, vec![3, 1], f32s(&[1.0, f32::NAN, 0.0])));
    foreign(folder.path(), &config, &tensors);
    let error = PeftReader::open(folder.path()).unwrap().read("m").unwrap_err().to_string();
    assert!(error.contains("lora_B.weight\" holds NaN at element 1"), "{error}");

    let path = folder.path().join(WEIGHTS_FILE);
    let bytes = fs::read(&path).unwrap();
    for cut in [3, 20, bytes.len() - 1] {
        fs::write(&path, &bytes[..cut]).unwrap();
        assert!(matches!(PeftReader::open(folder.path()), Err(Error::BadFile { .. })), "{cut}");
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(PeftReader::open(folder.path()), Err(Error::Io { .. })));
}
