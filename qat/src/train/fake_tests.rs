use std::num::NonZeroUsize;

use half::f16;

use super::*;
use crate::Grid2;

fn weights(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * i) as f32 * 0.37).sin() * (0.02 + 0.01 * (i % 7) as f32)).collect()
}

const RATES: Rates = Rates { weight: 0.01, scale: 0.01, scale_decay: 0.9, average_decay: 0.9 };

fn step(number: u64) -> Step {
    Step { number, factor: 1.0, beta1: 0.9, beta2: 0.95, epsilon: 1e-12, decay: 0.0 }
}

/// Rows of 24 in groups of 10: the last is shorter.
fn grid(treatment: Treatment) -> FakeGrid {
    FakeGrid::new(&weights(96), 24, 10, Levels::Balanced, treatment)
}

#[test]
fn codes_and_scales_that_grid2_stores_decode_to_what_training_saw() {
    for treatment in Treatment::ALL {
        let mut fake = grid(treatment);
        for number in 1..=30 {
            let mut gradient: Vec<f32> = fake.weights.iter().map(|w| (w * 91.0).cos()).collect();
            fake.backward(&mut gradient);
            fake.step(&gradient, &RATES, &step(number));
        }
        let mut seen = vec![0.0; 96];
        fake.round_exported(&mut seen);
        let codec = match treatment {
            Treatment::Report => Grid2::per_row(),
            _ => Grid2::grouped(NonZeroUsize::new(10).unwrap()),
        };
        let mut scales: Vec<f16> =
            fake.exported_scales().iter().map(|&s| f16::from_f32(s)).collect();
        if treatment == Treatment::Report {
            scales = vec![scales[0]; 4];
        }
        let mut codes = vec![0; 4 * codec.code_bytes_per_row(24)];
        codec.encode_rows_at(fake.exported_weights(), 24, &scales, &mut codes);
        let mut decoded = vec![0.0; 96];
        codec.decode_rows(&codes, &scales, 24, &mut decoded);
        assert_eq!(seen, decoded, "{treatment:?}");
        if treatment != Treatment::Report {
            fake.round(&mut decoded);
            assert_eq!(seen, decoded, "{treatment:?}");
        }
    }
}

#[test]
fn a_solution_is_where_training_starts() {
    let w = weights(60);
    let solved: Vec<f32> = w.iter().map(|w| if w.sin() > 0.0 { 0.04 } else { -0.12 }).collect();
    let fake = FakeGrid::from_solution(&w, 20, 20, Treatment::Ema, &solved, vec![0.08; 3]);
    let mut rounded = vec![0.0; 60];
    fake.round(&mut rounded);
    let s = f16::from_f32(0.08).to_f32();
    for ((rounded, solved), (w, start)) in
        rounded.iter().zip(&solved).zip(w.iter().zip(&fake.weights))
    {
        assert_eq!(*rounded, s * if *solved > 0.0 { 0.5 } else { -1.5 });
        assert!(start.abs() < 2.0 * s);
        if *w > 0.01 && *w < 0.07 && *solved > 0.0 {
            assert_eq!(w, start, "weights inside their cell stay");
        }
    }
}

/// Σ c·ŵ as a function of the scale, with codes as they are or with w/s as it is.
#[test]
fn scale_gradients_are_those_of_their_formulas() {
    let c: Vec<f32> = (0..96).map(|i| (i as f32 * 0.7).cos()).collect();
    let mut learnt = grid(Treatment::Learnt);
    let mut gradient = c.clone();
    learnt.backward(&mut gradient);
    let mut first = vec![0.0; 96];
    learnt.round(&mut first);
    // ŵ = s·q: the sum over a group of c·ŵ, over s.
    let s = f16::from_f32(learnt.scales[0]).to_f32();
    let expected: f32 = c[..10].iter().zip(&first).map(|(c, w)| c * w / s).sum();
    assert!((learnt.scale_gradients[0] - expected).abs() < 1e-5);

    let mut lsq = grid(Treatment::Lsq);
    lsq.weights[3] = 2.5 * lsq.scales[0];
    let mut gradient = c.clone();
    lsq.backward(&mut gradient);
    assert_eq!(gradient[3], 0.0, "outside the range");
    assert_eq!(gradient[4], c[4], "inside");
    let mut rounded = vec![0.0; 96];
    lsq.round(&mut rounded);
    let inside = |w: f32| if w.abs() < 2.0 * s { w } else { 0.0 };
    let slope = |i: usize| (rounded[i] - inside(lsq.weights[i])) / s;
    let expected: f32 = (0..10).map(|i| c[i] * slope(i)).sum::<f32>() / 15f32.sqrt();
    let found = lsq.scale_gradients[0];
    assert!((found - expected).abs() < 1e-4, "{found} {expected}");
}

#[test]
fn each_treatment_moves_what_it_says() {
    for treatment in Treatment::ALL {
        let mut fake = grid(treatment);
        let before = fake.clone();
        let mut gradient = vec![1.0; 96];
        fake.backward(&mut gradient);
        fake.step(&gradient, &RATES, &step(1));
        assert!(fake.weights.iter().zip(&before.weights).all(|(a, b)| a <= b));
        let unit = before.unit * RATES.weight;
        assert!(fake.weights.iter().zip(&before.weights).all(|(a, b)| b - a <= 1.001 * unit));
        let same = fake.scales == before.scales;
        assert_eq!(same, treatment == Treatment::Fixed, "{treatment:?}");
        match treatment {
            Treatment::Ema => {
                let optimum = Levels::Balanced.fit_scale(&fake.weights[..10]);
                let expected = 0.9 * before.scales[0] + 0.1 * optimum;
                assert!((fake.scales[0] - expected).abs() < 1e-7);
            }
            Treatment::Report => {
                assert_eq!(fake.scales.len(), 1);
                let expected = fake.factor * max_abs(&fake.weights) / 1.5;
                assert_eq!(fake.scales[0], expected);
                let average = 0.9 * before.weights[5] + 0.1 * fake.weights[5];
                assert!((fake.average[5] - average).abs() < 1e-7);
            }
            _ => {}
        }
    }
}
