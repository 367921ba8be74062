use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp1, StandardNormal, StudentT};
use rand_pcg::Pcg64Mcg;

use super::*;

/// Draws n weights from a seed.
type Draw = fn(usize, u64) -> Vec<f32>;

/// Least error over all splits of the sorted magnitudes, in f64, for error weights `h`.
fn least_error(w: &[f32], h: &[f32]) -> f64 {
    let mut pairs: Vec<(f64, f64)> =
        w.iter().zip(h).map(|(w, h)| (f64::from(w.abs()), f64::from(*h))).collect();
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    let energy: f64 = pairs.iter().map(|(w, h)| h * w * w).sum();
    let mut products: f64 = pairs.iter().map(|(w, h)| 0.5 * h * w).sum();
    let mut squares: f64 = pairs.iter().map(|(_, h)| 0.25 * h).sum();
    let mut gain = products * products / squares;
    for (w, h) in pairs {
        products += h * w;
        squares += 2.0 * h;
        gain = gain.max(products * products / squares);
    }
    energy - gain
}

/// Σ h·(w - s·q)² with the nearest levels.
fn error(w: &[f32], h: &[f32], s: f32) -> f64 {
    let s = f64::from(s);
    w.iter()
        .zip(h)
        .map(|(w, h)| {
            let w = f64::from(w.abs());
            let q = if w > s { 1.5 } else { 0.5 };
            f64::from(*h) * (w - s * q).powi(2)
        })
        .sum()
}

fn ones(w: &[f32]) -> Vec<f32> {
    vec![1.0; w.len()]
}

fn gaussian(n: usize, seed: u64) -> Vec<f32> {
    Pcg64Mcg::seed_from_u64(seed).sample_iter(StandardNormal).take(n).collect()
}

fn laplace(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let mut draw = || -> f32 { Exp1.sample(&mut rng) };
    (0..n).map(|_| draw() - draw()).collect()
}

fn student_t(n: usize, seed: u64) -> Vec<f32> {
    let t = StudentT::new(3.0_f32).unwrap();
    Pcg64Mcg::seed_from_u64(seed).sample_iter(t).take(n).collect()
}

#[test]
fn levels_are_recovered_by_hand() {
    // T = 6; one large weight: s = (3 + 3) / (1 + 2) = 2, and 1, 3 are its levels.
    assert_eq!(fit_scale(&[1.0, -1.0, 1.0, -3.0]), 2.0);
    // From s = 5 nothing is large: s = 3 / 1, and 3 > 3 is false, so that 3 is a fixed point too.
    assert_eq!(newton_step(&[1.0, -1.0, 1.0, -3.0], 5.0), 3.0);
    assert_eq!(newton_step(&[1.0, -1.0, 1.0, -3.0], 3.0), 3.0);
    // The outlier does not count where its Hessian entry is zero.
    assert_eq!(fit_scale_weighted(&[1.0, 3.0, 10.0], &[1.0, 1.0, 0.0]), 2.0);
    // h = 2, 1: s = (2·1·0.5 + 4·1.5) / (2·0.25 + 2.25) = 7 / 2.75.
    assert_eq!(fit_scale_weighted(&[1.0, 4.0], &[2.0, 1.0]), 7.0 / 2.75);
}

#[test]
fn zeros_have_scale_zero() {
    assert_eq!(fit_scale(&[]), 0.0);
    assert_eq!(newton_step(&[], 1.0), 0.0);
    for n in [1, 31, 32, 33, 600] {
        let mut zeros = vec![0.0; n];
        zeros[n / 2] = -0.0;
        assert_eq!(fit_scale(&zeros).to_bits(), 0);
        assert_eq!(fit_scale_weighted(&zeros, &ones(&zeros)), 0.0);
        assert_eq!(newton_step(&zeros, 0.0), 0.0);
    }
}

#[test]
fn one_magnitude_is_exact() {
    for n in [1, 2, 32, 33, 64, 4096] {
        let w: Vec<f32> = (0..n).map(|k| if k % 3 == 0 { 0.375 } else { -0.375 }).collect();
        assert_eq!(fit_scale(&w), 0.75);
    }
}

#[test]
fn up_to_32_weights_the_fit_is_the_global_optimum() {
    for n in 1..=EXACT_LEN {
        for seed in 0..20 {
            for w in [gaussian(n, seed), laplace(n, seed), student_t(n, seed)] {
                let h = ones(&w);
                let least = least_error(&w, &h);
                let energy: f64 = w.iter().map(|w| f64::from(*w).powi(2)).sum();
                assert!(error(&w, &h, fit_scale(&w)) <= least + 1e-6 * energy, "{w:?}");
            }
        }
    }
}

/// Mean and largest excess over the least error, and the share of fits that are not the optimum.
fn excess(groups: usize, len: usize, draw: Draw) -> (f64, f64, f64) {
    let (mut total, mut least_total, mut worst, mut off) = (0.0, 0.0, 0.0_f64, 0);
    for seed in 0..groups as u64 {
        let w = draw(len, seed);
        let h = ones(&w);
        let (error, least) = (error(&w, &h, fit_scale(&w)), least_error(&w, &h));
        total += error;
        least_total += least;
        worst = worst.max(error / least - 1.0);
        off += usize::from(error > least * (1.0 + 1e-6));
    }
    (total / least_total - 1.0, worst, off as f64 / groups as f64)
}

#[test]
fn longer_runs_come_close_to_the_global_optimum() {
    let draws: [(&str, Draw); 3] =
        [("Gaussian", gaussian), ("Laplace", laplace), ("Student-t 3", student_t)];
    for (name, draw) in draws {
        for (len, groups, mean_limit, worst_limit) in [
            (64, 400, 1e-3, 3e-2),
            (128, 400, 7e-4, 2e-2),
            (512, 100, 2e-4, 5e-3),
            (513, 100, 3e-4, 5e-3),
            (4096, 25, 2e-5, 1e-4),
        ] {
            let (mean, worst, off) = excess(groups, len, draw);
            println!("{name} {len}: mean {mean:.1e}, worst {worst:.1e}, {off:.2} not optimal");
            assert!(mean < mean_limit, "{name} {len}: mean excess {mean:e}");
            assert!(worst < worst_limit, "{name} {len}: worst excess {worst:e}");
        }
    }
}

#[test]
fn mixtures_and_outliers_do_not_trap_long_rows() {
    let mut rows = vec![gaussian(4096, 1); 6];
    rows[0][7] = 1000.0;
    rows[1][7] = 60.0;
    for (row, (every, factor)) in
        rows[2..].iter_mut().zip([(20, 10.0), (3, 8.0), (2, 0.01), (50, 40.0)])
    {
        row.iter_mut().step_by(every).for_each(|w| *w *= factor);
    }
    for (k, w) in rows.iter().enumerate() {
        let h = ones(w);
        let (error, least) = (error(w, &h, fit_scale(w)), least_error(w, &h));
        assert!(error <= least * 1.001, "row {k}: {error} against {least}");
    }
}

#[test]
fn the_weighted_fit_comes_close_to_its_global_optimum() {
    for len in [8, 64, 1000] {
        let (mut total, mut least) = (0.0, 0.0);
        for seed in 0..60 {
            let w = gaussian(len, seed);
            let h: Vec<f32> = gaussian(len, seed + 1000).iter().map(|x| (1.5 * x).exp()).collect();
            total += error(&w, &h, fit_scale_weighted(&w, &h));
            least += least_error(&w, &h);
        }
        assert!(total <= least * 1.005, "{len}: {}", total / least - 1.0);
    }
}

#[test]
fn a_dead_hessian_falls_back_to_equal_weights() {
    let w = gaussian(100, 3);
    assert_eq!(fit_scale_weighted(&w, &vec![0.0; 100]), fit_scale(&w));
}

#[test]
fn the_published_factor_converts_both_ways() {
    assert_eq!(scale_from_factor(0.4, 3.0), 0.4 * 3.0 / 1.5);
    assert_eq!(factor_from_scale(2.0, 3.0), 1.0);
    assert_eq!(factor_from_scale(0.0, 0.0), 0.0);
    let (s, max_abs) = (0.0123_f32, 0.31_f32);
    let back = scale_from_factor(factor_from_scale(s, max_abs), max_abs);
    assert!((back - s).abs() <= 1e-7 * s);
}

proptest! {
    #[test]
    fn a_step_never_raises_the_error(
        w in prop::collection::vec(-2.0_f32..2.0, 1..200),
        s in 0.0_f32..3.0,
    ) {
        let h = ones(&w);
        let before = error(&w, &h, s);
        prop_assert!(error(&w, &h, newton_step(&w, s)) <= before * (1.0 + 1e-5) + 1e-9);
    }

    #[test]
    fn the_fit_is_a_fixed_point(w in prop::collection::vec(-2.0_f32..2.0, 1..700)) {
        let s = fit_scale(&w);
        // A magnitude within rounding of the threshold may count either way.
        prop_assume!(w.iter().all(|w| (w.abs() - s).abs() > 1e-5 * s));
        prop_assert!((newton_step(&w, s) - s).abs() <= 2e-6 * s);
    }

    #[test]
    fn signs_do_not_matter_and_powers_of_two_scale_exactly(
        w in prop::collection::vec(-2.0_f32..2.0, 1..700),
        exponent in -20..20,
    ) {
        let factor = -(2.0_f32.powi(exponent));
        let scaled: Vec<f32> = w.iter().map(|w| w * factor).collect();
        prop_assert_eq!(fit_scale(&scaled), fit_scale(&w) * factor.abs());
    }

    #[test]
    fn the_weighted_fit_is_a_fixed_point_and_ignores_the_unit_of_the_hessian(
        pairs in prop::collection::vec((-2.0_f32..2.0, 0.0_f32..4.0), 1..300),
        exponent in -20..20,
    ) {
        let (w, h): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        let s = fit_scale_weighted(&w, &h);
        let other_unit: Vec<f32> = h.iter().map(|h| h * 2.0_f32.powi(exponent)).collect();
        prop_assert_eq!(fit_scale_weighted(&w, &other_unit), s);

        prop_assume!(w.iter().all(|w| (w.abs() - s).abs() > 1e-5 * s));
        let (mut products, mut squares) = (0.0, 0.0);
        for (w, h) in w.iter().zip(&h) {
            let q = if w.abs() > s { 1.5 } else { 0.5 };
            products += f64::from(h * w.abs()) * q;
            squares += f64::from(*h) * q * q;
        }
        prop_assert!((products / squares - f64::from(s)).abs() <= 2e-6 * f64::from(s));
    }
}
