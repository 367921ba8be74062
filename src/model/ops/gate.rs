//! The gate of a feed-forward block: activation(gate)·up.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use multiversion::multiversion;
use rayon::prelude::*;

use super::exp::exp;
use super::{Path, values};
use crate::model::Activation;

const TASK_VALUES: usize = 1 << 15;
/// sqrt(2 / pi) and the cubic term of the tanh form of GELU (arXiv 1606.08415).
const GELU_SCALE: f32 = 0.797_884_6;
const GELU_CUBIC: f32 = 0.044_715;

/// activation(`gate`)·`up`, element by element.
pub(crate) fn gate(path: Path, gate: &Tensor, up: &Tensor, by: Activation) -> Result<Tensor> {
    match (path, by) {
        (Path::Fast, _) => gate.apply_op2_no_bwd(up, &Gate(by)),
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
