//! Gradients of whole models, on both paths, against slopes of their outputs.

use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex};

use super::*;
use crate::model::{ModelOptions, Path};

fn architectures() -> Vec<PathBuf> {
    let folder = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/architectures");
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    all.sort();
    all
}

const WINDOW: usize = 12;

/// Block, site, number at the site, shape and name of a layer.
type Place = (usize, Site, usize, (usize, usize), String);

/// A model with everything held, and where each layer is.
struct Case {
    model: Model,
    blocks: Vec<HeldBlock>,
    places: Vec<Place>,
    x: Vec<f32>,
    weights: Vec<f32>,
}

impl Case {
    fn open(folder: &FilePath, path: Path) -> Self {
        let options = ModelOptions { path: Some(path), ..ModelOptions::default() };
        let model = Model::open(folder, options).unwrap();
        let blocks: Vec<HeldBlock> =
            (0..model.block_count()).map(|i| model.hold_block(i).unwrap()).collect();
        let mut places = Vec::new();
        for block in 0..blocks.len() {
            for layers in model.site_layers(block) {
                for (index, name) in layers.weights.iter().enumerate() {
                    let shape = layers.shapes[index];
                    places.push((block, layers.site, index, shape, name.clone()));
                }
            }
        }
        let vocabulary = model.architecture.vocab_size as u32;
        let tokens: Vec<u32> = (0..2 * WINDOW as u32).map(|i| i * 7 % vocabulary).collect();
        let x = model.embeddings(&tokens).unwrap();
        let weights = (0..x.len()).map(|i| (i as f32 * 0.77).sin()).collect();
        Self { model, blocks, places, x, weights }
    }

    /// Σ c·h over the final hidden states.
    fn total(&self) -> f64 {
        let pass = self.model.pass(&self.blocks, &self.x, WINDOW, true, false).unwrap();
        let hidden = pass.hidden().unwrap();
        hidden.iter().zip(&self.weights).map(|(h, c)| f64::from(*h) * f64::from(*c)).sum()
    }

    fn gradients(&mut self, keep: bool) -> Vec<Vec<f32>> {
        let sums: Vec<GradientSum> = self
            .places
            .iter()
            .map(|(.., (rows, cols), _)| Arc::new(Mutex::new(vec![0.0; rows * cols])))
            .collect();
        for ((block, site, index, _, name), sum) in self.places.iter().zip(&sums) {
            let held = &mut self.blocks[*block];
            let trained = Trained::Weight(Arc::clone(sum));
            self.model.train_layer(held, *site, *index, trained).unwrap();
            let weight = self.model.stored_weight(name).unwrap();
            self.model.set_weight(held, *site, *index, weight).unwrap();
        }
        let pass = self.model.pass(&self.blocks, &self.x, WINDOW, true, keep).unwrap();
        self.model.backward(&self.blocks, pass, &self.weights).unwrap();
        sums.iter().map(|sum| sum.lock().unwrap().clone()).collect()
    }
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

#[test]
fn gradients_of_every_dense_architecture_are_its_slopes() {
    let mut dense = 0;
    for folder in architectures() {
        let mut case = Case::open(&folder, Path::Fast);
        if case.model.architecture.experts.is_some() {
            continue;
        }
        dense += 1;
        let fast = case.gradients(true);
        assert_eq!(fast, case.gradients(false), "computed again");
        let plain = Case::open(&folder, Path::Plain).gradients(true);
        for (number, (gradient, plain)) in fast.iter().zip(&plain).enumerate() {
            let (block, site, index, _, name) = case.places[number].clone();
            let label = format!("{}: {name}", folder.display());
            let apart: Vec<f32> = gradient.iter().zip(plain).map(|(a, b)| a - b).collect();
            let found = norm(&apart) / norm(plain);
            assert!(found < 2e-5, "{label}: the paths differ by {found}");
            // Along its own direction the slope is the gradient's length.
            let weight = case.model.stored_weight(&name).unwrap();
            let length = norm(gradient);
            let step = 3e-4 * norm(&weight) / length;
            let mut moved = |sign: f64| {
                let by = (sign * step) as f32;
                let weight = weight.iter().zip(gradient).map(|(w, g)| w + by * g).collect();
                let held = &mut case.blocks[block];
                case.model.set_weight(held, site, index, weight).unwrap();
                case.total()
            };
            let slope = (moved(1.0) - moved(-1.0)) / (2.0 * step * length);
            moved(0.0);
            assert!((slope / length - 1.0).abs() < 0.01, "{label}: {slope} for {length}");
        }
    }
    assert!(dense >= 8, "{dense}");
}
