//! Every architecture through the sequential solver.

use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::{Sequential, SolveOptions};
use crate::calibrate::CalibrationText;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::role::Role;
use crate::model::{CausalModel, Model, ModelOptions};
use crate::pipeline::{Plan, Silent, compress};
use crate::recipe::Recipe;

const RECIPE: &str = "[[rule]]\nrole = ['linear', 'experts']\ncodec = 'grid2'\ngroup = 16\n\
                      [[rule]]\nrole = ['embedding', 'head']\ncodec = 'int4'\noptional = true\n";

fn windows(vocabulary: usize, seed: u64) -> Vec<Vec<u32>> {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let window = |rng: &mut Pcg64Mcg| -> Vec<u32> {
        (0..24).map(|_| rng.random_range(0..vocabulary as u32)).collect()
    };
    (0..64).map(|_| window(&mut rng)).collect()
}

/// Mean squared change of final hidden states.
fn distance(folder: &Path, original: &Path, windows: &[Vec<u32>]) -> f64 {
    let windows: Vec<&[u32]> = windows.iter().map(Vec::as_slice).collect();
    let hidden = |folder| {
        let mut model = Model::open(folder, ModelOptions::default()).unwrap();
        model.hidden(&windows, 8..23).unwrap()
    };
    let (ours, theirs) = (hidden(folder), hidden(original));
    ours.iter().zip(&theirs).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / ours.len() as f64
}

#[test]
fn every_architecture_comes_nearer_than_plain_rounding() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/architectures");
    let mut seen = 0;
    for entry in std::fs::read_dir(fixtures).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.join("config.json").is_file() {
            continue;
        }
        seen += 1;
        let name = folder.display();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let vocabulary =
            Model::open(&folder, ModelOptions::default()).unwrap().architecture().vocab_size;
        let recipe = || Recipe::parse(RECIPE, "test").unwrap();
        let plan = || Plan::new(&checkpoint, recipe(), 1 << 30, 1).unwrap();
        let work = tempfile::tempdir().unwrap();
        let (plain, solved) = (work.path().join("plain"), work.path().join("solved"));
        compress(&checkpoint, &plan(), &plain, 0, None, &Silent).unwrap();
        let text = CalibrationText::of_windows(windows(vocabulary, 1));
        let solver = Sequential::new(&checkpoint, text, SolveOptions::default());
        let report = compress(&checkpoint, &plan(), &solved, 0, Some(&solver), &Silent).unwrap();
        let layers = report.solved.unwrap().layers;
        assert!(layers.iter().all(|layer| layer.solved_db.is_some_and(f64::is_finite)), "{name}");
        let (in_files, other) = (Sequential { states_memory: 0, ..solver }, work.path().join("2"));
        compress(&checkpoint, &plan(), &other, 0, Some(&in_files), &Silent).unwrap();
        let weights = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
        assert!(weights(&solved) == weights(&other), "{name}: with hidden states in files");
        let linear = |t: &&crate::checkpoint::Tensor| t.role == Role::Linear;
        let expected = checkpoint.tensors().iter().filter(linear).count();
        assert!(layers.len() >= expected, "{name}: {} of {expected}", layers.len());
        let fresh = windows(vocabulary, 2);
        let (plain, solved) =
            (distance(&plain, &folder, &fresh), distance(&solved, &folder, &fresh));
        assert!(solved < plain, "{name}: {plain} plain, {solved} solved");
    }
    assert!(seen >= 10, "{seen} architectures");
}
