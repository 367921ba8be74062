//! A model run block by block, for those who look at what its linear layers see.

use candle_core::Device;

use super::block::{Block, LinearInput, Observer, Tokens};
use super::ops::norm;
use super::transformer::Model;
use crate::error::Result;

/// Linear layers that see the same inputs.
#[derive(Debug, Clone)]
pub(crate) struct FedLayers {
    /// Where the inputs come from.
    pub(crate) input: LinearInput,
    /// Names of the weights.
    pub(crate) weights: Vec<String>,
}

/// A block held by whoever runs the model stepwise.
#[derive(Debug)]
pub(crate) struct HeldBlock {
    index: usize,
    block: Block,
}

impl Model {
    /// Number of blocks.
    pub(crate) fn block_count(&self) -> usize {
        self.architecture.layers.len()
    }

    /// The linear layers of block `index`, by their inputs, in the order in which inputs arise.
    pub(crate) fn fed_layers(&self, index: usize) -> Vec<FedLayers> {
        let fed = self.plan.blocks[index].fed_by();
        fed.into_iter()
            .map(|(input, layers)| FedLayers {
                input,
                weights: layers.iter().map(|layer| layer.weight.clone()).collect(),
            })
            .collect()
    }

    /// Name of the head's weight, if it is not the embedding table's as well.
    pub(crate) fn own_head(&self) -> Option<&str> {
        Some(self.plan.head.as_str()).filter(|head| *head != self.plan.embedding)
    }

    /// Reads block `index`.
    ///
    /// # Errors
    /// What reading weights gives.
    pub(crate) fn hold_block(&self, index: usize) -> Result<HeldBlock> {
        let plan = &self.plan.blocks[index];
        let block = Block::read(&self.weights, plan, &self.architecture, &Device::Cpu)?;
        Ok(HeldBlock { index, block })
    }

    /// Embeddings of `tokens`, [n, hidden].
    ///
    /// # Errors
    /// As [`super::CausalModel::hidden`].
    pub(crate) fn embeddings(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let x = self.embed(tokens)?;
        x.flatten_all().and_then(|x| x.to_vec1()).map_err(|e| self.weights.fault(e))
    }

    /// Runs whole windows of `window` tokens, `x` [n, hidden], through a block.
    ///
    /// # Errors
    /// [`crate::Error::Model`] for values that are not finite, naming the block.
    pub(crate) fn step(
        &self,
        held: &HeldBlock,
        x: Vec<f32>,
        window: usize,
        observer: Option<Observer<'_>>,
    ) -> Result<Vec<f32>> {
        let (architecture, layer) = (&self.architecture, &self.architecture.layers[held.index]);
        let rows = x.len() / architecture.hidden_size;
        let x = self.weights.tensor(x, (rows, architecture.hidden_size), &Device::Cpu)?;
        let ropes = self.ropes(&(0..window))?;
        let tokens = Tokens { path: self.path, window, ropes: &ropes, observer };
        let y = held
            .block
            .forward(architecture, layer, &x, tokens, &mut |k, v| Ok((k, v)))
            .map_err(|e| self.weights.fault(e))?;
        self.check_finite(&y, &self.plan.blocks[held.index].name)?;
        y.flatten_all().and_then(|y| y.to_vec1()).map_err(|e| self.weights.fault(e))
    }

    /// The final norm of hidden states [n, hidden]: what the head sees.
    ///
    /// # Errors
    /// [`crate::Error::Model`] if candle fails.
    pub(crate) fn head_input(&self, x: Vec<f32>) -> Result<Vec<f32>> {
        let hidden = self.architecture.hidden_size;
        let rows = x.len() / hidden;
        let x = self.weights.tensor(x, (rows, hidden), &Device::Cpu)?;
        let x = norm(self.path, &x, &self.final_norm, self.architecture.norm_eps);
        x.and_then(|x| x.flatten_all()?.to_vec1()).map_err(|e| self.weights.fault(e))
    }
}

impl HeldBlock {
    /// Puts `weight`, row-major, in the place of layer `index` of those that `input` feeds.
    ///
    /// # Errors
    /// [`crate::Error::Model`] if it has another size.
    pub(crate) fn replace(
        &mut self,
        model: &Model,
        input: LinearInput,
        index: usize,
        weight: Vec<f32>,
    ) -> Result<()> {
        let fed = model.plan.blocks[self.index].fed_by();
        let (_, layers) = fed
            .iter()
            .find(|(known, _)| *known == input)
            .expect("invariant: an input of this block");
        let weight = model.weights.tensor(weight, layers[index].shape, &Device::Cpu)?;
        self.block.replace(input, index, weight);
        Ok(())
    }
}
