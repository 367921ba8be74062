//! An adapter made by the Python packages peft and safetensors, see `golden/make.py`.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use compress_model_lora::PeftReader;
use serde_json::Value;

#[test]
fn adapters_of_peft_are_read_with_their_scale() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/peft");
    let text = std::fs::read(folder.join("updates.json")).unwrap();
    let expected: Value = serde_json::from_slice(&text).unwrap();
    let reader = PeftReader::open(&folder).unwrap();
    assert_eq!(reader.modules().count(), expected.as_object().unwrap().len());
    for (module, expected) in expected.as_object().unwrap() {
        let adapter = reader.read(module).unwrap();
        assert_eq!(adapter.rank() as u64, expected["rank"].as_u64().unwrap(), "{module}");
        let rows = expected["update"].as_array().unwrap();
        let update: Vec<f64> =
            rows.iter().flat_map(|r| r.as_array().unwrap()).map(|x| x.as_f64().unwrap()).collect();
        assert_eq!((adapter.out_features(), adapter.in_features()), (rows.len(), 4), "{module}");
        let mut ours = vec![0.0f32; update.len()];
        adapter.add_to(0, &mut ours);
        // Every number of the file is a small multiple of 1/16: no step rounds.
        assert!(ours.iter().zip(&update).all(|(&a, &b)| f64::from(a) == b), "{module}");
    }
}
