//! Gradients of a model: whole blocks forward, keeping what the way back needs.

use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor, Var};

use super::block::{Observer, Site, Tokens};
use super::ops::{GradientSum, Linear, Path, multiply, norm};
use super::stepwise::HeldBlock;
use super::transformer::Model;
use crate::error::Result;

/// What of a layer is trained. Gradients are added to the sums, [out, in] and for adapters
/// [rank, in] and [out, rank].
#[derive(Debug, Clone)]
pub(crate) enum Trained {
    /// The weight.
    Weight(GradientSum),
    /// A and B of an adapter of the given rank.
    Adapter { rank: usize, a: GradientSum, b: GradientSum },
}

/// A pass through a model, or through some of its blocks.
#[derive(Debug)]
pub(crate) struct Pass {
    window: usize,
    /// What each block got, and gave unless it is to be computed again.
    blocks: Vec<(Var, Option<Tensor>)>,
    /// What the last norm got and gave; absent where the pass ends before it.
    head: Option<(Var, Tensor)>,
    last: Tensor,
}

impl Pass {
    /// Final hidden states, after the last norm where the pass has it: [tokens, hidden].
    pub(crate) fn hidden(&self) -> CandleResult<Vec<f32>> {
        self.head.as_ref().map_or(&self.last, |(_, hidden)| hidden).flatten_all()?.to_vec1()
    }
}

/// Starts a backward pass: nothing forward, the gradient backward.
struct Seed(Tensor);

impl CustomOp1 for Seed {
    fn name(&self) -> &'static str {
        "seed"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), Shape::from(())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> CandleResult<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}

impl Linear {
    /// Puts `weight` [out, in], row-major, in the layer's place.
    fn set(&mut self, weight: Vec<f32>, path: Path) -> CandleResult<()> {
        let weight = Tensor::from_vec(weight, self.weight.shape(), self.weight.device())?;
        // Only candle's own operations find their gradients by variables.
        self.weight = if self.gradient.is_some() && path == Path::Plain {
            Var::from_tensor(&weight)?.into_inner()
        } else {
            weight
        };
        Ok(())
    }

    /// Adds what `backward` gave for variables to the sums.
    fn collect(&self, store: &candle_core::backprop::GradStore) -> CandleResult<()> {
        if let (Some(sum), Some(found)) = (&self.gradient, store.get(&self.weight)) {
            let found = found.flatten_all()?.to_vec1::<f32>()?;
            let mut sum = sum.lock().expect("invariant: no addition panics");
            sum.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
        }
        self.adapter.iter().flat_map(|adapter| adapter.iter()).try_for_each(|l| l.collect(store))
    }
}

impl Model {
    /// Says what of layer `index` at `site` of `held` is trained. An adapter starts as zeros.
    ///
    /// # Errors
    /// [`crate::Error::Model`] if candle fails.
    pub(crate) fn train_layer(
        &self,
        held: &mut HeldBlock,
        site: Site,
        index: usize,
        trained: Trained,
    ) -> Result<()> {
        let layer = held.block.layer_mut(site, index);
        let train = || -> CandleResult<()> {
            match trained {
                Trained::Weight(sum) => layer.gradient = Some(sum),
                Trained::Adapter { rank, a, b } => {
                    let (outputs, inputs) = layer.weight.dims2()?;
                    let part = |shape, sum| -> CandleResult<Linear> {
                        let zeros =
                            Tensor::zeros(shape, layer.weight.dtype(), layer.weight.device())?;
                        Ok(Linear { gradient: Some(sum), ..Linear::new(zeros, None) })
                    };
                    let factors = [part((rank, inputs), a)?, part((outputs, rank), b)?];
                    layer.adapter = Some(Box::new(factors));
                }
            }
            Ok(())
        };
        train().map_err(|e| self.weights.fault(e))
    }

    /// Puts `weight` [out, in] in the place of that of layer `index` at `site`.
    ///
    /// # Errors
    /// [`crate::Error::Model`] if candle fails.
    pub(crate) fn set_weight(
        &self,
        held: &mut HeldBlock,
        site: Site,
        index: usize,
        weight: Vec<f32>,
    ) -> Result<()> {
        let set = held.block.layer_mut(site, index).set(weight, self.path);
        set.map_err(|e| self.weights.fault(e))
    }

    /// Puts `a` [rank, in] and `b` [out, rank] in the place of the adapter of a layer.
    ///
    /// # Errors
    /// As [`Self::set_weight`].
    pub(crate) fn set_adapter(
        &self,
        held: &mut HeldBlock,
        site: Site,
        index: usize,
        factors: [Vec<f32>; 2],
    ) -> Result<()> {
        let adapter = &mut held.block.layer_mut(site, index).adapter;
        let layers = adapter.as_mut().expect("invariant: the layer was given an adapter");
        let mut parts = layers.iter_mut().zip(factors);
        parts
            .try_for_each(|(layer, factor)| layer.set(factor, self.path))
            .map_err(|e| self.weights.fault(e))
    }

    /// Runs whole windows of `window` tokens, `x` [tokens, hidden], through `blocks`, and if `finish`
    /// is set through the last norm. Without `keep`, what happens inside blocks is computed again
    /// on the way back.
    ///
    /// # Errors
    /// [`crate::Error::Model`] if candle fails.
    pub(crate) fn pass(
        &self,
        blocks: &[HeldBlock],
        x: &[f32],
        window: usize,
        finish: bool,
        keep: bool,
    ) -> Result<Pass> {
        let run = || -> CandleResult<Pass> {
            let mut x = self.rows(x, self.architecture.hidden_size)?;
            let mut passed = Vec::with_capacity(blocks.len());
            for held in blocks {
                let input = Var::from_tensor(&x)?;
                let y = if keep {
                    self.through(held, input.as_tensor(), window)?
                } else {
                    self.through(held, &x, window)?
                };
                x = y.detach();
                passed.push((input, keep.then_some(y)));
            }
            let head = if finish {
                let input = Var::from_tensor(&x)?;
                let eps = self.architecture.norm_eps;
                let hidden = norm(self.path, input.as_tensor(), &self.final_norm, eps)?;
                Some((input, hidden))
            } else {
                None
            };
            Ok(Pass { window, blocks: passed, head, last: x })
        };
        run().map_err(|e| self.weights.fault(e))
    }

    /// Takes `gradient`, with respect to [`Pass::hidden`], back through the `blocks` of a pass and
    /// adds to the sums of what is trained in them.
    ///
    /// # Errors
    /// [`crate::Error::Model`] if candle fails.
    pub(crate) fn backward(
        &self,
        blocks: &[HeldBlock],
        pass: Pass,
        gradient: &[f32],
    ) -> Result<()> {
        let run = || -> CandleResult<()> {
            let Pass { window, blocks: passed, head, .. } = pass;
            let mut gradient = self.rows(gradient, self.architecture.hidden_size)?;
            if let Some((input, hidden)) = head {
                gradient = back(&input, &hidden, gradient)?.0;
            }
            for (held, (input, output)) in blocks.iter().zip(passed).rev() {
                let output = match output {
                    Some(output) => output,
                    None => self.through(held, input.as_tensor(), window)?,
                };
                let store;
                (gradient, store) = back(&input, &output, gradient)?;
                if self.path == Path::Plain {
                    held.block.layers().try_for_each(|layer| layer.collect(&store))?;
                }
            }
            Ok(())
        };
        run().map_err(|e| self.weights.fault(e))
    }

    fn through(&self, held: &HeldBlock, x: &Tensor, window: usize) -> CandleResult<Tensor> {
        let ropes = self.ropes(&(0..window)).map_err(candle_core::Error::wrap)?;
        let none: Option<Observer<'_>> = None;
        let tokens = Tokens { path: self.path, window, ropes: &ropes, observer: none };
        let layer = &self.architecture.layers[held.index];
        held.block.forward(&self.architecture, layer, x, tokens, &mut |k, v| Ok((k, v)))
    }

    fn rows(&self, values: &[f32], width: usize) -> CandleResult<Tensor> {
        Tensor::from_slice(values, (values.len() / width, width), self.final_norm.device())
    }

    /// The gradient with respect to hidden states [n, hidden] from that with respect to their
    /// logits [n, vocabulary].
    ///
    /// # Errors
    /// What reading the head gives.
    pub(crate) fn logits_gradient(&self, gradient: &[f32], hidden: &mut [f32]) -> Result<()> {
        let head = self.head()?;
        let fault = |e| self.weights.fault(e);
        let weight = head.weight.flatten_all().map_err(fault)?;
        super::ops::with_values(&weight, |weight| {
            multiply(gradient, weight, self.architecture.hidden_size, hidden);
        })
        .map_err(fault)
    }
}

/// The gradient with respect to `input` from that with respect to `output`, and those of variables
/// in between.
fn back(
    input: &Var,
    output: &Tensor,
    gradient: Tensor,
) -> CandleResult<(Tensor, candle_core::backprop::GradStore)> {
    let mut store = match gradient.device().is_cpu() {
        true => output.apply_op1(Seed(gradient))?.backward()?,
        // The custom operation runs on the CPU alone.
        false => (output * gradient)?.sum_all()?.backward()?,
    };
    let found = store.remove(input.as_tensor());
    Ok((found.expect("invariant: a block's output depends on its input"), store))
}

#[cfg(test)]
#[path = "training_tests.rs"]
mod tests;
