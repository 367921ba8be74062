//! Gradients of the fast operations against candle's own and against finite differences.

use candle_core::{Device, Tensor, Var};
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64;

use super::*;
use crate::model::Activation;

fn random(rng: &mut Pcg64, rows: usize, cols: usize) -> Tensor {
    let values: Vec<f32> = (0..rows * cols).map(|_| StandardNormal.sample(rng)).collect();
    Tensor::from_vec(values, (rows, cols), &Device::Cpu).unwrap()
}

/// ‖a - b‖ / ‖b‖.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    let norm = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    f64::from(norm(&(a - b).unwrap()) / norm(b)).sqrt()
}

/// Gradients of Σ y·c, for a fixed random c, with respect to each of `inputs`: on both paths, and
/// for a few elements by central differences of the fast path.
fn check(
    name: &str,
    inputs: &[Tensor],
    trained: usize,
    run: impl Fn(Path, &[Tensor]) -> Result<Tensor>,
) {
    let mut rng = Pcg64::new(11, 7);
    let shape = run(Path::Fast, inputs).unwrap().dims2().unwrap();
    let weights = random(&mut rng, shape.0, shape.1);
    let total = |path, inputs: &[Tensor]| {
        run(path, inputs).and_then(|y| (y * &weights)?.sum_all()).unwrap()
    };
    let gradients = |path| -> Vec<Tensor> {
        let vars: Vec<Var> =
            inputs[..trained].iter().map(|x| Var::from_tensor(x).unwrap()).collect();
        let mut all: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        all.extend_from_slice(&inputs[trained..]);
        let store = total(path, &all).backward().unwrap();
        vars.iter().map(|var| store.get(var.as_tensor()).unwrap().clone()).collect()
    };
    let (fast, plain) = (gradients(Path::Fast), gradients(Path::Plain));
    for (k, (fast, plain)) in fast.iter().zip(&plain).enumerate() {
        let found = difference(fast, plain);
        assert!(found < 5e-6, "{name}, input {k}: {found}");
        let values = inputs[k].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let slopes = fast.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for place in [0, values.len() / 3, values.len() - 1] {
            let moved = |step: f32| {
                let mut values = values.clone();
                values[place] += step;
                let mut inputs = inputs.to_vec();
                inputs[k] = Tensor::from_vec(values, inputs[k].shape(), &Device::Cpu).unwrap();
                f64::from(total(Path::Fast, &inputs).to_scalar::<f32>().unwrap())
            };
            let step = 1e-2;
            let slope = (moved(step) - moved(-step)) / f64::from(2.0 * step);
            let error = (slope - f64::from(slopes[place])).abs();
            assert!(error < 2e-2 * (1.0 + slope.abs()), "{name}, input {k}: {slope}, {error}");
        }
    }
}

#[test]
fn gradients_of_a_linear_layer() {
    let rng = &mut Pcg64::new(1, 1);
    let inputs = [random(rng, 300, 40), random(rng, 130, 40)];
    check("linear", &inputs, 2, |path, x| linear(path, &x[0], &Linear::new(x[1].clone(), None)));
}

#[test]
fn gradients_of_adapters_and_sums_of_gradients() {
    let rng = &mut Pcg64::new(2, 1);
    let inputs = [random(rng, 70, 40), random(rng, 50, 40), random(rng, 3, 40), random(rng, 50, 3)];
    let layer = |x: &[Tensor]| {
        let adapter = [Linear::new(x[2].clone(), None), Linear::new(x[3].clone(), None)];
        Linear { adapter: Some(Box::new(adapter)), ..Linear::new(x[1].clone(), None) }
    };
    check("adapter", &inputs, 4, |path, x| linear(path, &x[0], &layer(x)));

    let sum = GradientSum::default();
    *sum.lock().unwrap() = vec![0.0; 50 * 40];
    let frozen = Linear { gradient: Some(sum.clone()), ..layer(&inputs) };
    let x = Var::from_tensor(&inputs[0]).unwrap();
    for passes in 1..=2 {
        let y = linear(Path::Fast, x.as_tensor(), &frozen).unwrap();
        y.sum_all().unwrap().backward().unwrap();
        // dy is all ones: each row of the gradient is the sum of the rows of x.
        let expected = inputs[0].sum(0).unwrap().to_vec1::<f32>().unwrap();
        for row in sum.lock().unwrap().chunks(40) {
            for (found, expected) in row.iter().zip(&expected) {
                assert!((found - passes as f32 * expected).abs() < 1e-3);
            }
        }
    }
}

#[test]
fn gradients_of_norm_gate_and_rotation() {
    let rng = &mut Pcg64::new(3, 1);
    let gain = random(rng, 1, 24).flatten_all().unwrap();
    check("norm", &[random(rng, 9, 48)], 1, |path, x| norm(path, &x[0], &gain, 1e-5));
    let pair = [random(rng, 9, 40), random(rng, 9, 40)];
    for activation in [Activation::Silu, Activation::GeluTanh] {
        check("gate", &pair, 2, |path, x| gate(path, &x[0], &x[1], activation));
    }
    let angles = random(rng, 5, 4);
    let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
    let rotation = Rotation { head_dim: 8, window: 5 };
    check("rotate", &[random(rng, 10, 24)], 1, |path, x| {
        rotate(path, &x[0], (&cos, &sin), rotation)
    });
}

#[test]
fn gradients_of_attention_with_shared_heads_and_windows() {
    let rng = &mut Pcg64::new(4, 1);
    for (queries, window) in [(70, None), (70, Some(13)), (5, None)] {
        let (heads, kv_heads, head_dim) = (4, 2, 6);
        let shape =
            Attention { queries, keys: queries, heads, kv_heads, head_dim, scale: 0.4, window };
        let n = 2 * queries;
        let inputs = [heads, kv_heads, kv_heads].map(|heads| random(rng, n, heads * head_dim));
        check("attention", &inputs, 3, |path, x| attention(path, &x[0], &x[1], &x[2], shape));
    }
}
