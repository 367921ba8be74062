//! Probe.
use compress_model_astc::bc4::*;
use compress_model_astc::encode::Importance;
use half::f16;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal, StudentT};
use rand_pcg::Pcg64Mcg;
fn main() {
    let (rows, cols) = (128, 4096);
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    for dist in ["gauss", "laplace", "t4"] {
        let w: Vec<f32> = (0..rows * cols).map(|_| {
            let g: f32 = match dist {
                "gauss" => StandardNormal.sample(&mut rng),
                "laplace" => { let a: f32 = rand_distr::Exp1.sample(&mut rng); let b: f32 = rand_distr::Exp1.sample(&mut rng); a - b }
                _ => StudentT::new(4.0f32).unwrap().sample(&mut rng),
            };
            0.02 * g
        }).collect();
        for decode in [DecodeMode::Exact, DecodeMode::Unorm8] {
            for effort in [Effort::Fast, Effort::Best] {
                let mut c = Coder::new(Params { decode, effort });
                let mut b = vec![0; byte_len(rows, cols)];
                let mut s = vec![f16::ZERO; rows];
                let mut times = vec![];
                for _ in 0..(if effort == Effort::Fast { 7 } else { 2 }) {
                    let t = std::time::Instant::now();
                    c.encode_rows(&w, rows, cols, Importance::Equal, &mut b, &mut s).unwrap();
                    times.push(t.elapsed().as_secs_f64());
                }
                times.sort_by(f64::total_cmp);
                let mut d = vec![0.0; rows * cols];
                let t = std::time::Instant::now();
                c.decode_rows(&b, &s, rows, cols, &mut d).unwrap();
                let td = t.elapsed().as_secs_f64();
                let (mut sg, mut n) = (0.0, 0.0);
                for (a, b) in w.iter().zip(&d) { sg += f64::from(*a).powi(2); n += f64::from(a - b).powi(2); }
                let five = b.chunks(8).filter(|b| b[0] <= b[1]).count();
                let f = (rows * cols) as f64 / 1e6;
                println!("{dist} {decode:?} {effort:?}: {:.4} dB, {:.1} M/s (best {:.1}), dec {:.0}, five {:.1}%", 10.0 * (sg / n).log10(), f / times[times.len() / 2], f / times[0], f / td, 100.0 * five as f64 / (b.len() / 8) as f64);
            }
        }
    }
}
