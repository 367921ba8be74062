//! The solver on small matrices: against an independent GPTQ, against all codes there are, and on
//! the properties that it promises.

use std::ops::Range;

use compress_model_feedback::{
    ColumnCoder, Damping, Factor, Gram, Hessian, Order, Panel, descend, round, squared_norm,
};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::distr::Distribution;
use rand_distr::StandardNormal;
use rand_pcg::Pcg64Mcg;

/// Levels step·k, -most <= k <= most, in tiles of `height` x `width`; one step for each row and
/// segment, [segments, rows].
struct Levels {
    width: usize,
    height: usize,
    segment: Option<usize>,
    most: f32,
    rows: usize,
    steps: Vec<f32>,
    codes: Vec<f32>,
    proposal: Vec<f32>,
}

impl Levels {
    fn new(rows: usize, cols: usize, step: f32) -> Self {
        // Steps for the shortest segments that there can be.
        Self {
            width: 1,
            height: 1,
            segment: None,
            most: 3.0,
            rows,
            steps: vec![step; rows * cols],
            codes: vec![f32::NAN; rows * cols],
            proposal: Vec::new(),
        }
    }
}

impl Levels {
    fn steps_of(&self, column: usize) -> Range<usize> {
        let segment = self.segment.map_or(0, |segment| column / segment);
        segment * self.rows..(segment + 1) * self.rows
    }
}

impl ColumnCoder for Levels {
    fn width(&self) -> usize {
        self.width
    }

    fn height(&self) -> usize {
        self.height
    }

    fn segment(&self) -> Option<usize> {
        self.segment
    }

    fn propose(&mut self, columns: Range<usize>, target: &[f32], _: &[f32], decoded: &mut [f32]) {
        let steps = self.steps_of(columns.start);
        self.proposal.clear();
        for (i, (target, decoded)) in target.iter().zip(decoded).enumerate() {
            let step = self.steps[steps.start + i % self.rows];
            let level = (target / step + 0.5).floor().clamp(-self.most, self.most);
            self.proposal.push(level);
            *decoded = step * level;
        }
    }

    fn accept(&mut self, columns: Range<usize>, tiles: &[bool]) {
        for (i, level) in self.proposal.iter().enumerate() {
            if tiles[i % self.rows / self.height] {
                self.codes[columns.start * self.rows + i] = *level;
            }
        }
    }

    fn rescale(&mut self, segment: usize, factors: &mut [f32]) {
        for (step, factor) in self.steps[segment * self.rows..].iter_mut().zip(factors) {
            *step *= *factor;
        }
    }
}

fn gaussian(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    (0..n).map(|_| StandardNormal.sample(&mut rng)).collect()
}

/// Inputs with strong correlations and a few loud channels.
fn hessian(n: usize, tokens: usize, seed: u64) -> Hessian {
    let noise = gaussian(tokens * n, seed);
    let common = gaussian(tokens, seed + 1);
    let x: Vec<f32> = noise
        .iter()
        .enumerate()
        .map(|(i, noise)| {
            let loud = if i % n % 7 == 3 { 4.0 } else { 1.0 };
            loud * (noise + common[i / n])
        })
        .collect();
    let mut gram = Gram::new(n);
    gram.add(&x);
    Hessian::new(gram.mean(), n, Damping::default()).expect("a damped sum of squares")
}

fn error(w: &[f32], decoded: &[f32], hessian: &Hessian) -> f64 {
    let e: Vec<f32> = w.iter().zip(decoded).map(|(w, d)| w - d).collect();
    squared_norm(&e, hessian.values(), hessian.width())
}

fn nearest(w: &[f32], step: f32) -> Vec<f32> {
    w.iter().map(|w| step * (w / step + 0.5).floor().clamp(-3.0, 3.0)).collect()
}

#[test]
fn the_levels_of_an_independent_gptq() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("golden/gptq.json")).unwrap();
    let numbers = |name: &str| -> Vec<f32> {
        let values = golden[name].as_array().unwrap();
        values.iter().map(|v| v.as_f64().unwrap() as f32).collect()
    };
    let number = |name: &str| golden[name].as_f64().unwrap();
    let (rows, cols) = (number("rows") as usize, number("cols") as usize);
    let damping = Damping { share: number("damping"), ..Damping::default() };
    let hessian = Hessian::new(numbers("hessian"), cols, damping).unwrap();
    for (order, name) in [(Order::Natural, "natural"), (Order::Activation, "activation")] {
        let mut panel = Panel::new(&numbers("weights"), cols);
        let mut coder = Levels::new(rows, cols, number("step") as f32);
        round(&mut panel, &Factor::new(&hessian, 1, order), &mut coder);
        let expected = numbers(name);
        for row in 0..rows {
            for col in 0..cols {
                let (ours, theirs) = (coder.codes[col * rows + row], expected[row * cols + col]);
                assert_eq!(ours, theirs, "{name}: row {row}, column {col}");
            }
        }
    }
}

#[test]
fn independent_inputs_leave_rounding_to_the_nearest() {
    let (rows, n) = (7, 150);
    let w = gaussian(rows * n, 1);
    let mut values = vec![0.0; n * n];
    (0..n).for_each(|i| values[i * n + i] = 1.0 + (i % 5) as f32);
    let hessian = Hessian::new(values, n, Damping::default()).unwrap();
    let mut panel = Panel::new(&w, n);
    let mut coder = Levels::new(rows, n, 0.5);
    round(&mut panel, &Factor::new(&hessian, 1, Order::Activation), &mut coder);
    assert_eq!(panel.decoded(), nearest(&w, 0.5));
    descend(&mut panel, &hessian, &mut coder, 2);
    assert_eq!(panel.decoded(), nearest(&w, 0.5));
}

/// All 3^6 codes of a row: descent ends within a tenth of the best, and never below it.
#[test]
fn close_to_the_best_of_all_codes() {
    let (n, step) = (6, 0.7);
    let hessian = hessian(n, 40, 5);
    let (mut ours, mut best, mut plain) = (0.0, 0.0, 0.0);
    for seed in 0..40 {
        let w = gaussian(n, 100 + seed);
        let mut panel = Panel::new(&w, n);
        let mut coder = Levels { most: 1.0, ..Levels::new(1, n, step) };
        round(&mut panel, &Factor::new(&hessian, 1, Order::Activation), &mut coder);
        descend(&mut panel, &hessian, &mut coder, 3);
        let found = error(&w, &panel.decoded(), &hessian);
        let all = (0..3usize.pow(n as u32)).map(|code| {
            let level = |i: usize| (code / 3usize.pow(i as u32) % 3) as f32 - 1.0;
            let decoded: Vec<f32> = (0..n).map(|i| step * level(i)).collect();
            error(&w, &decoded, &hessian)
        });
        let optimum = all.fold(f64::INFINITY, f64::min);
        assert!(found >= optimum * 0.9999, "{found} below the optimum {optimum}");
        ours += found;
        best += optimum;
        let clipped: Vec<f32> = nearest(&w, step).iter().map(|d| d.clamp(-step, step)).collect();
        plain += error(&w, &clipped, &hessian);
    }
    assert!(ours < 1.1 * best, "{ours} against {best} at best");
    assert!(plain > 1.5 * best, "plain rounding is already near the best: {plain}, {best}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any width of units, height of tiles and segments: feedback beats the nearest levels (of a few
    /// weights it need not: it never looks back), every pass of descent lowers the error, and the
    /// panel holds what the coder's codes mean.
    #[test]
    fn errors_fall_at_every_step(
        rows in 1usize..9, n in 8usize..300, width in 1usize..7, height in 1usize..4,
        segment in prop_oneof![Just(None), Just(Some(usize::MAX)), Just(Some(48)), Just(Some(64))],
        seed in 0u64..1000,
    ) {
        // A unit lies in one segment.
        let segment = segment.filter(|s| *s == usize::MAX || s % width == 0);
        let hessian = hessian(n, 2 * n, seed);
        let w = gaussian(rows * n, seed + 7);
        let mut panel = Panel::new(&w, n);
        let mut coder = Levels { width, height, segment, ..Levels::new(rows, n, 0.6) };
        round(&mut panel, &Factor::new(&hessian, width, Order::Activation), &mut coder);
        let mut last = error(&w, &panel.decoded(), &hessian);
        prop_assert!(rows * n < 256 || last < error(&w, &nearest(&w, 0.6), &hessian));
        for _ in 0..3 {
            descend(&mut panel, &hessian, &mut coder, 1);
            let now = error(&w, &panel.decoded(), &hessian);
            prop_assert!(now <= last * 1.00001, "{now} after {last}");
            last = now;
        }
        let decoded = panel.decoded();
        for row in 0..rows {
            for col in 0..n {
                let step = coder.steps[coder.steps_of(col).start + row];
                let meant = step * coder.codes[col * rows + row];
                prop_assert!((decoded[row * n + col] - meant).abs() <= 1e-5 * meant.abs());
            }
        }
    }
}
