//! The gate of a feed-forward block: activation(gate)·up.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use multiversion::multiversion;
use rayon::prelude::*;

use super::exp::exp;
use super::{Path, tensor, values, with_values};
use crate::model::Activation;

const TASK_VALUES: usize = 1 << 15;
/// sqrt(2 / pi) and the cubic term of the tanh form of GELU (arXiv 1606.08415).
const GELU_SCALE: f32 = 0.797_884_6;
const GELU_CUBIC: f32 = 0.044_715;

/// activation(`gate`)·`up`, element by element.
pub(crate) fn gate(path: Path, gate: &Tensor, up: &Tensor, by: Activation) -> Result<Tensor> {
    match (path, by) {
        (Path::Fast, _) => gate.apply_op2(up, Gate(by)),
        (Path::Plain, Activation::Silu) => gate.silu()?.mul(up),
        (Path::Plain, Activation::GeluTanh) => gate.gelu()?.mul(up),
    }
}

struct Gate(Activation);

impl CustomOp2 for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gate, up) = (values(gate, gate_layout)?, values(up, up_layout)?);
        let mut out = vec![0.0; gate.len()];
        out.par_chunks_mut(TASK_VALUES)
            .zip(gate.par_chunks(TASK_VALUES))
            .zip(up.par_chunks(TASK_VALUES))
            .for_each(|((out, gate), up)| match self.0 {
                Activation::Silu => silu(gate, up, out),
                Activation::GeluTanh => gelu(gate, up, out),
            });
        Ok((CpuStorage::F32(out), gate_layout.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradients = |gate: &[f32], up: &[f32], dy: &[f32]| {
            let (mut dgate, mut dup) = (vec![0.0; gate.len()], vec![0.0; gate.len()]);
            dgate
                .par_chunks_mut(TASK_VALUES)
                .zip(dup.par_chunks_mut(TASK_VALUES))
                .zip(gate.par_chunks(TASK_VALUES))
                .zip(up.par_chunks(TASK_VALUES))
                .zip(dy.par_chunks(TASK_VALUES))
                .for_each(|((((dgate, dup), gate), up), dy)| match self.0 {
                    Activation::Silu => silu_gradient(gate, up, dy, dgate, dup),
                    Activation::GeluTanh => gelu_gradient(gate, up, dy, dgate, dup),
                });
            (dgate, dup)
        };
        let (dgate, dup) = with_values(gate, |gate| {
            with_values(up, |up| with_values(dy, |dy| gradients(gate, up, dy)))
        })???;
        Ok((Some(tensor(dgate, gate.shape())?), Some(tensor(dup, up.shape())?)))
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn silu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, x), up) in out.iter_mut().zip(gate).zip(up) {
        *out = x / (1.0 + exp(-x)) * up;
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn gelu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, x), up) in out.iter_mut().zip(gate).zip(up) {
        // (1 + tanh(t)) / 2 = 1 / (1 + e^(-2t))
        let t = GELU_SCALE * (x + GELU_CUBIC * x * x * x);
        *out = x / (1.0 + exp(-2.0 * t)) * up;
    }
}

/// With σ = sigmoid(x), the derivative of x·σ is σ + x·σ·(1 - σ).
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn silu_gradient(gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    for (i, (dgate, dup)) in dgate.iter_mut().zip(dup).enumerate() {
        let (x, up, dy) = (gate[i], up[i], dy[i]);
        let share = 1.0 / (1.0 + exp(-x));
        *dgate = dy * up * (share + x * share * (1.0 - share));
        *dup = dy * (x * share);
    }
}

/// As for SiLU with σ = sigmoid(2·t(x)), whose derivative is 2·t'(x)·σ·(1 - σ).
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn gelu_gradient(gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    for (i, (dgate, dup)) in dgate.iter_mut().zip(dup).enumerate() {
        let (x, up, dy) = (gate[i], up[i], dy[i]);
        let t = GELU_SCALE * (x + GELU_CUBIC * x * x * x);
        let slope = GELU_SCALE * (1.0 + 3.0 * GELU_CUBIC * x * x);
        let share = 1.0 / (1.0 + exp(-2.0 * t));
        *dgate = dy * up * (share + x * share * (1.0 - share) * 2.0 * slope);
        *dup = dy * (x * share);
    }
}
