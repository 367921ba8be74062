//! One transformer block: attention and feed-forward, each on a normed copy of the residual stream.

use candle_core::{Device, Result, Tensor};

use super::ops::{Attention, Linear, Path, Rotation, attention, gate, linear, norm, rotate};
use super::plan::{BlockPlan, FeedForwardPlan, GatedPlan, LinearPlan};
use super::weights::Weights;
use super::{Architecture, Experts, Layer};

/// The weights of a block.
#[derive(Debug)]
pub(super) struct Block {
    input_norm: Tensor,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    query_key_norms: Option<[Tensor; 2]>,
    after_attention_norm: Option<Tensor>,
    feed_forward_norm: Tensor,
    after_feed_forward_norm: Option<Tensor>,
    feed_forward: FeedForward,
}

/// act(x·gateᵀ)·(x·upᵀ) through down.
#[derive(Debug)]
struct Gated {
    gate: Linear,
    up: Linear,
    down: Linear,
}

#[derive(Debug)]
enum FeedForward {
    Dense(Gated),
    Experts { router: Linear, experts: Vec<Gated> },
}

/// A place in a block where linear layers read their inputs: layers of one site have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Site {
    /// What query, key and value see.
    Attention,
    /// What the output projection of attention sees.
    Output,
    /// What gate and up, or the router, see.
    FeedForward,
    /// What down sees.
    Down,
    /// What gate and up of one expert see.
    Expert(usize),
    /// What down of one expert sees.
    ExpertDown(usize),
}

impl Site {
    /// The sites of a block without experts, in the order in which they are reached.
    pub(crate) const DENSE: [Self; 4] =
        [Self::Attention, Self::Output, Self::FeedForward, Self::Down];

    /// Whether it is in an expert.
    pub(crate) fn is_expert(self) -> bool {
        matches!(self, Self::Expert(_) | Self::ExpertDown(_))
    }
}

/// Sees the inputs [n, in] of the linear layers of experts as they run.
pub(crate) type Observer<'a> = &'a dyn Fn(Site, &Tensor) -> Result<()>;

/// What the tokens of a call share.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'a> {
    pub(super) path: Path,
    /// Tokens of a window.
    pub(super) window: usize,
    /// Cosines and sines of their positions, for each rope of the architecture.
    pub(super) ropes: &'a [(Tensor, Tensor)],
    pub(super) observer: Option<Observer<'a>>,
}

impl Tokens<'_> {
    fn observe(&self, site: Site, x: &Tensor) -> Result<()> {
        self.observer.map_or(Ok(()), |observer| observer(site, x))
    }
}

/// Takes the keys and values of the tokens, [n, kv_heads·head_dim], and gives those to attend to:
/// the same for windows that start afresh, all so far for a sequence that grows.
pub(super) type KeysAndValues<'a> = &'a mut dyn FnMut(Tensor, Tensor) -> Result<(Tensor, Tensor)>;

impl Block {
    /// Reads the weights of a block.
    pub(super) fn read(
        weights: &Weights,
        plan: &BlockPlan,
        architecture: &Architecture,
        device: &Device,
    ) -> crate::Result<Self> {
        Reader { weights, architecture, device }.block(plan)
    }

    /// Runs `x` [n, hidden] through the block.
    pub(super) fn forward(
        &self,
        architecture: &Architecture,
        layer: &Layer,
        x: &Tensor,
        tokens: Tokens<'_>,
        keys_and_values: KeysAndValues<'_>,
    ) -> Result<Tensor> {
        let input = self.attention_input(architecture, x, tokens.path)?;
        let mixed = self.mix(architecture, layer, &input, tokens, keys_and_values)?;
        let x = self.add_attention(architecture, x, &mixed, tokens.path)?;
        let input = self.feed_forward_input(architecture, &x, tokens.path)?;
        let fed = self.feed_forward.forward(architecture, &input, tokens)?;
        self.add_feed_forward(architecture, &x, fed, tokens.path)
    }

    /// What query, key and value see of the residual stream.
    pub(super) fn attention_input(
        &self,
        a: &Architecture,
        x: &Tensor,
        path: Path,
    ) -> Result<Tensor> {
        norm(path, x, &self.input_norm, a.norm_eps)
    }

    /// The residual stream after attention, from the one before it and what the output projection
    /// sees.
    pub(super) fn add_attention(
        &self,
        architecture: &Architecture,
        x: &Tensor,
        mixed: &Tensor,
        path: Path,
    ) -> Result<Tensor> {
        let mut out = linear(path, mixed, &self.output)?;
        if let Some(gain) = &self.after_attention_norm {
            out = norm(path, &out, gain, architecture.norm_eps)?;
        }
        x + out
    }

    /// What the feed-forward block sees of the residual stream.
    pub(super) fn feed_forward_input(
        &self,
        architecture: &Architecture,
        x: &Tensor,
        path: Path,
    ) -> Result<Tensor> {
        norm(path, x, &self.feed_forward_norm, architecture.norm_eps)
    }

    /// What down sees, or nothing where there are experts.
    pub(super) fn gated(
        &self,
        architecture: &Architecture,
        input: &Tensor,
        path: Path,
    ) -> Result<Option<Tensor>> {
        match &self.feed_forward {
            FeedForward::Dense(gated) => gated.gated(architecture, input, path).map(Some),
            FeedForward::Experts { .. } => Ok(None),
        }
    }

    /// The feed-forward block from what down sees, or, where there are experts, from what it sees
    /// itself.
    pub(super) fn feed(
        &self,
        architecture: &Architecture,
        input: &Tensor,
        tokens: Tokens<'_>,
    ) -> Result<Tensor> {
        match &self.feed_forward {
            FeedForward::Dense(gated) => linear(tokens.path, input, &gated.down),
            FeedForward::Experts { .. } => self.feed_forward.forward(architecture, input, tokens),
        }
    }

    /// The residual stream after the block.
    pub(super) fn add_feed_forward(
        &self,
        architecture: &Architecture,
        x: &Tensor,
        mut fed: Tensor,
        path: Path,
    ) -> Result<Tensor> {
        if let Some(gain) = &self.after_feed_forward_norm {
            fed = norm(path, &fed, gain, architecture.norm_eps)?;
        }
        x + fed
    }

    /// Whether the outputs of attention and feed-forward are added to the residual stream as they
    /// are.
    pub(super) fn adds_outputs(&self) -> bool {
        self.after_attention_norm.is_none() && self.after_feed_forward_norm.is_none()
    }

    /// The layer that `site` and `index` name: the `index`th of [`BlockPlan::sites`].
    pub(super) fn layer_mut(&mut self, site: Site, index: usize) -> &mut Linear {
        match (site, index) {
            (Site::Attention, 0) => &mut self.query,
            (Site::Attention, 1) => &mut self.key,
            (Site::Attention, _) => &mut self.value,
            (Site::Output, _) => &mut self.output,
            _ => match &mut self.feed_forward {
                FeedForward::Dense(gated) => gated.layer_mut(site == Site::Down, index),
                FeedForward::Experts { router, experts } => match site {
                    Site::Expert(expert) => experts[expert].layer_mut(false, index),
                    Site::ExpertDown(expert) => experts[expert].layer_mut(true, index),
                    _ => router,
                },
            },
        }
    }

    /// All linear layers.
    pub(super) fn layers(&self) -> impl Iterator<Item = &Linear> {
        let (router, gated) = match &self.feed_forward {
            FeedForward::Dense(gated) => (None, std::slice::from_ref(gated)),
            FeedForward::Experts { router, experts } => (Some(router), experts.as_slice()),
        };
        [&self.query, &self.key, &self.value, &self.output]
            .into_iter()
            .chain(router)
            .chain(gated.iter().flat_map(|gated| [&gated.gate, &gated.up, &gated.down]))
    }

    /// What the output projection sees: attention over `x`.
    pub(super) fn mix(
        &self,
        architecture: &Architecture,
        layer: &Layer,
        x: &Tensor,
        tokens: Tokens<'_>,
        keys_and_values: KeysAndValues<'_>,
    ) -> Result<Tensor> {
        let &Architecture { heads, kv_heads, head_dim, norm_eps, attention_scale, .. } =
            architecture;
        let path = tokens.path;
        let mut q = linear(path, x, &self.query)?;
        let mut k = linear(path, x, &self.key)?;
        let v = linear(path, x, &self.value)?;
        if let Some([q_gain, k_gain]) = &self.query_key_norms {
            q = norm(path, &q, q_gain, norm_eps)?;
            k = norm(path, &k, k_gain, norm_eps)?;
        }
        let (cos, sin) = &tokens.ropes[layer.rope];
        let rotation = Rotation { head_dim, window: tokens.window };
        let q = rotate(path, &q, (cos, sin), rotation)?;
        let k = rotate(path, &k, (cos, sin), rotation)?;
        let windows = x.dim(0)? / tokens.window;
        let (k, v) = keys_and_values(k, v)?;
        let shape = Attention {
            queries: tokens.window,
            keys: k.dim(0)? / windows,
            heads,
            kv_heads,
            head_dim,
            scale: attention_scale,
            window: layer.window,
        };
        attention(path, &q, &k, &v, shape)
    }
}

impl Gated {
    /// Down, or else gate or up by its number.
    fn layer_mut(&mut self, down: bool, index: usize) -> &mut Linear {
        match (down, index) {
            (true, _) => &mut self.down,
            (false, 0) => &mut self.gate,
            (false, _) => &mut self.up,
        }
    }

    /// What down sees.
    fn gated(&self, architecture: &Architecture, x: &Tensor, path: Path) -> Result<Tensor> {
        let (left, right) = (linear(path, x, &self.gate)?, linear(path, x, &self.up)?);
        gate(path, &left, &right, architecture.activation)
    }
}

impl FeedForward {
    fn forward(
        &self,
        architecture: &Architecture,
        x: &Tensor,
        tokens: Tokens<'_>,
    ) -> Result<Tensor> {
        let (router, experts) = match self {
            Self::Dense(gated) => {
                let input = gated.gated(architecture, x, tokens.path)?;
                return linear(tokens.path, &input, &gated.down);
            }
            Self::Experts { router, experts } => (router, experts),
        };
        let path = tokens.path;
        let settings = architecture.experts.expect("invariant: layers with experts have them");
        let logits = linear(path, x, router)?.to_vec2::<f32>()?;
        let routes = routes(&logits, settings);
        let mut sum = x.zeros_like()?;
        for (number, (expert, route)) in experts.iter().zip(routes).enumerate() {
            if route.tokens.is_empty() {
                continue;
            }
            let count = route.tokens.len();
            let taken = Tensor::from_vec(route.tokens, count, x.device())?;
            let shares = Tensor::from_vec(route.shares, (count, 1), x.device())?;
            let x = x.index_select(&taken, 0)?;
            tokens.observe(Site::Expert(number), &x)?;
            let input = expert.gated(architecture, &x, path)?;
            tokens.observe(Site::ExpertDown(number), &input)?;
            let y = linear(path, &input, &expert.down)?;
            sum = sum.index_add(&taken, &y.broadcast_mul(&shares)?, 0)?;
        }
        Ok(sum)
    }
}

/// The tokens that go to one expert, and the share of its output that each takes.
#[derive(Debug, Default, Clone, PartialEq)]
struct Route {
    tokens: Vec<u32>,
    shares: Vec<f32>,
}

/// Sends each token to the experts with its largest logits, the lower index first among equals.
/// No expert has a capacity: nothing is dropped.
fn routes(logits: &[Vec<f32>], experts: Experts) -> Vec<Route> {
    let mut routes = vec![Route::default(); experts.count];
    for (token, logits) in logits.iter().enumerate() {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exps: Vec<f32> = logits.iter().map(|logit| (logit - largest).exp()).collect();
        let mut order: Vec<usize> = (0..experts.count).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        let taken = &order[..experts.per_token];
        let total: f32 = if experts.normalised {
            taken.iter().map(|&expert| exps[expert]).sum()
        } else {
            exps.iter().sum()
        };
        for &expert in taken {
            routes[expert].tokens.push(token as u32);
            routes[expert].shares.push(exps[expert] / total);
        }
    }
    routes
}

struct Reader<'a> {
    weights: &'a Weights,
    architecture: &'a Architecture,
    device: &'a Device,
}

impl Reader<'_> {
    fn block(&self, plan: &BlockPlan) -> crate::Result<Block> {
        let optional =
            |name: &Option<String>| name.as_ref().map(|name| self.norm(name)).transpose();
        let query_key_norms = match &plan.query_key_norms {
            Some([q, k]) => Some([self.norm(q)?, self.norm(k)?]),
            None => None,
        };
        Ok(Block {
            input_norm: self.norm(&plan.input_norm)?,
            query: self.linear(&plan.query)?,
            key: self.linear(&plan.key)?,
            value: self.linear(&plan.value)?,
            output: self.linear(&plan.output)?,
            query_key_norms,
            after_attention_norm: optional(&plan.after_attention_norm)?,
            feed_forward_norm: self.norm(&plan.feed_forward_norm)?,
            after_feed_forward_norm: optional(&plan.after_feed_forward_norm)?,
            feed_forward: match &plan.feed_forward {
                FeedForwardPlan::Dense(gated) => FeedForward::Dense(self.gated(gated)?),
                FeedForwardPlan::Experts { router, experts } => FeedForward::Experts {
                    router: self.linear(router)?,
                    experts: experts
                        .iter()
                        .map(|expert| self.gated(expert))
                        .collect::<crate::Result<_>>()?,
                },
            },
        })
    }

    fn norm(&self, name: &str) -> crate::Result<Tensor> {
        self.weights.gains(name, self.architecture, self.device)
    }

    fn linear(&self, plan: &LinearPlan) -> crate::Result<Linear> {
        let vector = |name: &String| {
            self.weights.tensor(self.weights.read(name)?, plan.shape.0, self.device)
        };
        let rows: Vec<usize> = (plan.first_row..plan.first_row + plan.shape.0).collect();
        let weight = self.weights.read_rows(&plan.weight, plan.shape.1, &rows)?;
        let weight = self.weights.tensor(weight, plan.shape, self.device)?;
        Ok(Linear::new(weight, plan.bias.as_ref().map(vector).transpose()?))
    }

    fn gated(&self, plan: &GatedPlan) -> crate::Result<Gated> {
        Ok(Gated {
            gate: self.linear(&plan.gate)?,
            up: self.linear(&plan.up)?,
            down: self.linear(&plan.down)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_reaches_its_experts_with_shares_of_the_taken_or_of_all() {
        let experts = Experts { count: 3, per_token: 2, intermediate_size: 1, normalised: true };
        let logits = [vec![0.0, 2.0_f32.ln(), 0.0], vec![0.0, 0.0, 3.0_f32.ln()]];
        let taken = routes(&logits, experts);
        let close = |route: &Route, tokens: &[u32], shares: &[f32]| {
            assert_eq!(route.tokens, tokens);
            route.shares.iter().zip(shares).for_each(|(a, b)| assert!((a - b).abs() < 1e-6));
        };
        // Equal logits: the lower index.
        close(&taken[0], &[0, 1], &[1.0 / 3.0, 0.25]);
        close(&taken[1], &[0], &[2.0 / 3.0]);
        close(&taken[2], &[1], &[0.75]);
        let all = routes(&logits, Experts { normalised: false, ..experts });
        close(&all[0], &[0, 1], &[0.25, 0.2]);
        close(&all[2], &[1], &[0.6]);
    }
}
