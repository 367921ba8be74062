//! A model run site by site, for those who change its linear layers on the way.

use std::collections::HashMap;

use candle_core::{Device, Tensor};

use super::block::{Block, Observer, Site, Tokens};
use super::ops::{multiply_transposed, norm};
use super::plan::LinearPlan;
use super::transformer::Model;
use crate::error::Result;

/// The linear layers of a site.
#[derive(Debug, Clone)]
pub(crate) struct SiteLayers {
    /// Where they are.
    pub(crate) site: Site,
    /// Names of the weights: one a layer, or that of the stack of which one matrix has all layers of
    /// the site, one below the other.
    pub(crate) weights: Vec<String>,
    /// Which matrix of the stack.
    pub(crate) matrix: Option<usize>,
    /// Shapes [out, in] of the layers.
    pub(crate) shapes: Vec<(usize, usize)>,
}

impl SiteLayers {
    /// The layers at `site`; `alone` says whether a weight is of one layer only. None where they
    /// share a weight with other sites in another way than as a matrix of a stack.
    fn new(site: Site, layers: &[&LinearPlan], alone: impl Fn(&str) -> bool) -> Option<Self> {
        let shapes: Vec<(usize, usize)> = layers.iter().map(|layer| layer.shape).collect();
        let names = || layers.iter().map(|layer| layer.weight.clone());
        if layers.iter().all(|layer| alone(&layer.weight)) {
            return Some(Self { site, weights: names().collect(), matrix: None, shapes });
        }
        let first = layers.first()?;
        let mut next = first.first_row;
        for layer in layers {
            if layer.weight != first.weight || layer.first_row != next {
                return None;
            }
            next += layer.shape.0;
        }
        let rows = next - first.first_row;
        first.first_row.is_multiple_of(rows).then(|| Self {
            site,
            weights: names().take(1).collect(),
            matrix: Some(first.first_row / rows),
            shapes,
        })
    }
}

/// A block held by whoever runs the model stepwise.
#[derive(Debug)]
pub(crate) struct HeldBlock {
    pub(super) index: usize,
    pub(super) block: Block,
}

impl HeldBlock {
    /// Whether what the block computes is added to the residual stream as it is.
    pub(crate) fn adds_outputs(&self) -> bool {
        self.block.adds_outputs()
    }
}

/// Hidden states on their way through a block, whole windows.
#[derive(Debug)]
pub(crate) struct Passage {
    /// The residual stream [n, hidden].
    pub(crate) residual: Vec<f32>,
    /// What the linear layers of the last site saw, [n, in]; empty before the first.
    pub(crate) input: Vec<f32>,
}

impl Model {
    /// Number of blocks.
    pub(crate) fn block_count(&self) -> usize {
        self.architecture.layers.len()
    }

    /// Widest input of a linear layer of dense blocks.
    pub(crate) fn widest_input(&self) -> usize {
        let a = &self.architecture;
        a.hidden_size.max(a.intermediate_size).max(a.heads * a.head_dim)
    }

    /// The linear layers of block `index`, sites in the order in which they are reached.
    pub(crate) fn site_layers(&self, index: usize) -> Vec<SiteLayers> {
        let sites = self.plan.blocks[index].sites();
        let mut uses: HashMap<&str, usize> = HashMap::new();
        for layer in sites.iter().flat_map(|(_, layers)| layers) {
            *uses.entry(layer.weight.as_str()).or_default() += 1;
        }
        let alone = |weight: &str| uses[weight] == 1;
        sites.iter().filter_map(|(site, layers)| SiteLayers::new(*site, layers, alone)).collect()
    }

    /// Puts `weight`, row-major, in the place of weight number `position` of `layers`.
    ///
    /// # Errors
    /// [`crate::Error::Model`] if candle fails.
    pub(crate) fn set_site_weight(
        &self,
        held: &mut HeldBlock,
        layers: &SiteLayers,
        position: usize,
        weight: Vec<f32>,
    ) -> Result<()> {
        if layers.matrix.is_none() {
            return self.set_weight(held, layers.site, position, weight);
        }
        let mut rest = weight.as_slice();
        for (index, &(rows, cols)) in layers.shapes.iter().enumerate() {
            let (own, below) = rest.split_at(rows * cols);
            self.set_weight(held, layers.site, index, own.to_vec())?;
            rest = below;
        }
        Ok(())
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.weights.folder()
    }

    /// The weight `name` as it is stored, decoded where it is coded; row-major.
    ///
    /// # Errors
    /// What reading weights gives.
    pub(crate) fn stored_weight(&self, name: &str) -> Result<Vec<f32>> {
        self.weights.read(name)
    }

    /// Name of the embedding table.
    pub(crate) fn embedding(&self) -> &str {
        &self.plan.embedding
    }

    /// Logits of `hidden` [n, hidden] through `head` [vocabulary, hidden] in place of the model's.
    pub(crate) fn logits_of(&self, hidden: &[f32], head: &[f32], logits: &mut [f32]) {
        multiply_transposed(hidden, head, self.architecture.hidden_size, logits);
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
        self.values(&x)
    }

    /// Takes windows of `window` tokens, which have passed the site before it, to `site`, one of
    /// the four of a dense block; the last is empty where there are experts.
    ///
    /// # Errors
    /// [`crate::Error::Model`] if candle fails.
    pub(crate) fn reach(
        &self,
        held: &HeldBlock,
        site: Site,
        window: usize,
        passage: &mut Passage,
    ) -> Result<()> {
        let (a, block) = (&self.architecture, &held.block);
        let x = self.states(&passage.residual, a.hidden_size)?;
        let fault = |e| self.weights.fault(e);
        let input = match site {
            Site::Attention => block.attention_input(a, &x, self.path).map_err(fault)?,
            Site::Output => {
                let ropes = self.ropes(&(0..window))?;
                let tokens = Tokens { path: self.path, window, ropes: &ropes, observer: None };
                let layer = &a.layers[held.index];
                let input = block.attention_input(a, &x, self.path).map_err(fault)?;
                block.mix(a, layer, &input, tokens, &mut |k, v| Ok((k, v))).map_err(fault)?
            }
            Site::FeedForward => {
                let mixed = self.states(&passage.input, a.heads * a.head_dim)?;
                let x = block.add_attention(a, &x, &mixed, self.path).map_err(fault)?;
                passage.residual = self.values(&x)?;
                block.feed_forward_input(a, &x, self.path).map_err(fault)?
            }
            Site::Down => {
                let input = block.feed_forward_input(a, &x, self.path).map_err(fault)?;
                match block.gated(a, &input, self.path).map_err(fault)? {
                    Some(gated) => gated,
                    None => input,
                }
            }
            Site::Expert(_) | Site::ExpertDown(_) => {
                unreachable!("invariant: experts run as a whole")
            }
        };
        passage.input = self.values(&input)?;
        Ok(())
    }

    /// Takes windows from the last site to the end of the block; `observer` sees the inputs of
    /// experts.
    ///
    /// # Errors
    /// [`crate::Error::Model`] for values that are not finite, naming the block.
    pub(crate) fn leave(
        &self,
        held: &HeldBlock,
        window: usize,
        passage: &mut Passage,
        observer: Option<Observer<'_>>,
    ) -> Result<()> {
        let (a, block) = (&self.architecture, &held.block);
        let x = self.states(&passage.residual, a.hidden_size)?;
        let width = passage.input.len() * a.hidden_size / passage.residual.len().max(1);
        let input = self.states(&passage.input, width)?;
        let tokens = Tokens { path: self.path, window, ropes: &[], observer };
        let fed = block.feed(a, &input, tokens);
        let y = fed
            .and_then(|fed| block.add_feed_forward(a, &x, fed, self.path))
            .map_err(|e| self.weights.fault(e))?;
        self.check_finite(&y, &self.plan.blocks[held.index].name)?;
        *passage = Passage { residual: self.values(&y)?, input: Vec::new() };
        Ok(())
    }

    /// The final norm of hidden states [n, hidden]: what the head sees.
    ///
    /// # Errors
    /// [`crate::Error::Model`] if candle fails.
    pub(crate) fn head_input(&self, x: &[f32]) -> Result<Vec<f32>> {
        let x = self.states(x, self.architecture.hidden_size)?;
        let x = norm(self.path, &x, &self.final_norm, self.architecture.norm_eps);
        self.values(&x.map_err(|e| self.weights.fault(e))?)
    }

    fn states(&self, values: &[f32], width: usize) -> Result<Tensor> {
        let rows = values.len().checked_div(width).unwrap_or(0);
        self.weights.tensor(values.to_vec(), (rows, width), &Device::Cpu)
    }

    fn values(&self, x: &Tensor) -> Result<Vec<f32>> {
        x.flatten_all().and_then(|x| x.to_vec1()).map_err(|e| self.weights.fault(e))
    }
}
