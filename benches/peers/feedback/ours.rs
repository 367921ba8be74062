//! Seconds to code a matrix on the 2-bit grid, groups of 64, by error feedback: damping, factors
//! and the sweep. Reads the files that `gptq.py` writes; driven by it.
//!
//! Arguments: folder with `w.f32` and `h.f32`, rows, columns, passes of descent. Prints seconds and
//! tr(E·H·Eᵀ).

#![allow(clippy::unwrap_used)]

use std::time::Instant;

use compress_model::codec::{self, WorkerPools};
use compress_model_feedback::{
    Damping, Factor, Hessian, Order, Panel, descend, round, squared_norm,
};
use rayon::prelude::*;

const PANEL_ROWS: usize = 96;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let read = |name: &str| -> Vec<f32> {
        let bytes = std::fs::read(format!("{}/{name}", args[1])).unwrap();
        bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
    };
    let number = |i: usize| args[i].parse::<usize>().unwrap();
    let (rows, n, passes) = (number(2), number(3), number(4));
    let (w, h) = (read("w.f32"), read("h.f32"));
    assert_eq!((w.len(), h.len()), (rows * n, n * n));
    let params = serde_json::json!({ "group": 64 }).as_object().unwrap().clone();
    let pool = WorkerPools::default().of(&codec::build("grid2", params).unwrap());

    let start = Instant::now();
    let hessian = Hessian::new(h.clone(), n, Damping::default()).unwrap();
    let factor = Factor::new(&hessian, 1, Order::Activation);
    let importance: Vec<f32> = (0..n).map(|i| hessian.diagonal(i)).collect();
    let decoded: Vec<Vec<f32>> = w
        .par_chunks(PANEL_ROWS * n)
        .map(|w| {
            pool.with(|worker| {
                let mut coder = worker.column_coder(w, n, &importance)?;
                let mut panel = Panel::new(w, n);
                round(&mut panel, &factor, &mut *coder);
                descend(&mut panel, &hessian, &mut *coder, passes);
                Ok(panel.decoded())
            })
            .unwrap()
        })
        .collect();
    let seconds = start.elapsed().as_secs_f64();
    let error: Vec<f32> = w.iter().zip(decoded.concat()).map(|(w, d)| w - d).collect();
    println!("{seconds} {}", squared_norm(&error, &h, n));
}
