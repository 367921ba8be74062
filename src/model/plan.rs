//! Which tensor is which weight: names and shapes, checked when a model is opened.

use std::collections::{HashMap, HashSet};

use super::block::Site;
use super::{Architecture, Experts, Layer};

/// Where each weight of a model is.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) embedding: String,
    pub(crate) final_norm: String,
    /// Name of the head; the embedding's where they are tied.
    pub(crate) head: String,
    pub(crate) blocks: Vec<BlockPlan>,
}

/// A linear layer: names of weight and bias, and the shape [out, in].
#[derive(Debug)]
pub(crate) struct LinearPlan {
    pub(crate) weight: String,
    /// Where the layer starts among the rows of a weight that holds several.
    pub(crate) first_row: usize,
    pub(crate) bias: Option<String>,
    pub(crate) shape: (usize, usize),
}

/// A gated feed-forward block or one expert.
#[derive(Debug)]
pub(crate) struct GatedPlan {
    pub(crate) gate: LinearPlan,
    pub(crate) up: LinearPlan,
    pub(crate) down: LinearPlan,
}

#[derive(Debug)]
pub(crate) enum FeedForwardPlan {
    Dense(GatedPlan),
    Experts { router: LinearPlan, experts: Vec<GatedPlan> },
}

/// One block.
#[derive(Debug)]
pub(crate) struct BlockPlan {
    /// Where the block's tensors start, such as `model.layers.7`.
    pub(crate) name: String,
    pub(crate) input_norm: String,
    pub(crate) query: LinearPlan,
    pub(crate) key: LinearPlan,
    pub(crate) value: LinearPlan,
    pub(crate) output: LinearPlan,
    pub(crate) query_key_norms: Option<[String; 2]>,
    pub(crate) after_attention_norm: Option<String>,
    pub(crate) feed_forward_norm: String,
    pub(crate) after_feed_forward_norm: Option<String>,
    pub(crate) feed_forward: FeedForwardPlan,
}

impl BlockPlan {
    /// The linear layers at every site, sites in the order in which they are reached.
    pub(crate) fn sites(&self) -> Vec<(Site, Vec<&LinearPlan>)> {
        let mut sites = vec![
            (Site::Attention, vec![&self.query, &self.key, &self.value]),
            (Site::Output, vec![&self.output]),
        ];
        match &self.feed_forward {
            FeedForwardPlan::Dense(gated) => {
                sites.push((Site::FeedForward, vec![&gated.gate, &gated.up]));
                sites.push((Site::Down, vec![&gated.down]));
            }
            FeedForwardPlan::Experts { router, experts } => {
                sites.push((Site::FeedForward, vec![router]));
                for (number, expert) in experts.iter().enumerate() {
                    sites.push((Site::Expert(number), vec![&expert.gate, &expert.up]));
                    sites.push((Site::ExpertDown(number), vec![&expert.down]));
                }
            }
        }
        sites
    }
}

/// Where the text model starts, on its own and inside multimodal ones.
const PREFIXES: [&str; 3] = ["model.", "model.language_model.", "language_model.model."];

impl Plan {
    /// Finds every weight of `architecture` among the tensors `shapes`.
    ///
    /// # Errors
    /// The tensor and what is wrong with it: missing, of another shape, or not part of the model.
    pub(crate) fn new(
        architecture: &Architecture,
        shapes: &HashMap<String, Vec<usize>>,
    ) -> Result<Self, (String, String)> {
        let embeds = |prefix: &&str| shapes.contains_key(&format!("{prefix}embed_tokens.weight"));
        let prefix = PREFIXES.into_iter().find(embeds).unwrap_or(PREFIXES[0]);
        let mut finder = Finder { architecture, shapes, used: HashSet::new() };
        let (vocab, hidden) = (architecture.vocab_size, architecture.hidden_size);
        let embedding = finder.find(format!("{prefix}embed_tokens.weight"), &[vocab, hidden])?;
        let final_norm = finder.find(format!("{prefix}norm.weight"), &[hidden])?;
        let head = if prefix == "language_model.model." {
            "language_model.lm_head.weight"
        } else {
            "lm_head.weight"
        };
        // A stored head counts even where the configuration ties it: files may hold both.
        let head = if architecture.tied && !shapes.contains_key(head) {
            embedding.clone()
        } else {
            finder.find(head.to_owned(), &[vocab, hidden])?
        };
        let block = |(index, layer)| finder.block(format!("{prefix}layers.{index}"), layer);
        let blocks = architecture.layers.iter().enumerate().map(block).collect::<Result<_, _>>()?;
        finder.check_rest(prefix)?;
        Ok(Self { embedding, final_norm, head, blocks })
    }
}

struct Finder<'a> {
    architecture: &'a Architecture,
    shapes: &'a HashMap<String, Vec<usize>>,
    used: HashSet<String>,
}

type Found<T> = Result<T, (String, String)>;

impl Finder<'_> {
    fn find(&mut self, name: String, shape: &[usize]) -> Found<String> {
        match self.shapes.get(&name) {
            None => Err((name, "is missing".to_owned())),
            Some(found) if found != shape => {
                Err((name, format!("has shape {found:?}, but the configuration means {shape:?}")))
            }
            Some(_) => {
                self.used.insert(name.clone());
                Ok(name)
            }
        }
    }

    fn linear(&mut self, name: &str, shape: (usize, usize), bias: bool) -> Found<LinearPlan> {
        let weight = self.find(format!("{name}.weight"), &[shape.0, shape.1])?;
        let bias = if bias { Some(self.find(format!("{name}.bias"), &[shape.0])?) } else { None };
        Ok(LinearPlan { weight, first_row: 0, bias, shape })
    }

    fn gated(&mut self, names: [String; 3], width: usize, bias: bool) -> Found<GatedPlan> {
        let hidden = self.architecture.hidden_size;
        let [gate, up, down] = names;
        Ok(GatedPlan {
            gate: self.linear(&gate, (width, hidden), bias)?,
            up: self.linear(&up, (width, hidden), bias)?,
            down: self.linear(&down, (hidden, width), bias)?,
        })
    }

    fn block(&mut self, name: String, layer: &Layer) -> Found<BlockPlan> {
        let a = self.architecture;
        let hidden = a.hidden_size;
        let (q_width, kv_width) = (a.heads * a.head_dim, a.kv_heads * a.head_dim);
        let attention = |part: &str| format!("{name}.self_attn.{part}");
        let norm = |part: &str| format!("{name}.{part}layernorm.weight");
        let query_key_norms = if a.qk_norms {
            let [q, k] = ["q_norm.weight", "k_norm.weight"].map(attention);
            Some([self.find(q, &[a.head_dim])?, self.find(k, &[a.head_dim])?])
        } else {
            None
        };
        // With sandwich norms the norm after attention has the name that elsewhere belongs to the
        // one before the feed-forward block.
        let (after_attention, before, after) = if a.sandwich_norms {
            (Some("post_attention_"), "pre_feedforward_", Some("post_feedforward_"))
        } else {
            (None, "post_attention_", None)
        };
        let mut optional =
            |part: Option<&str>| part.map(|part| self.find(norm(part), &[hidden])).transpose();
        let after_attention_norm = optional(after_attention)?;
        let after_feed_forward_norm = optional(after)?;
        Ok(BlockPlan {
            input_norm: self.find(norm("input_"), &[hidden])?,
            query: self.linear(&attention("q_proj"), (q_width, hidden), a.qkv_bias)?,
            key: self.linear(&attention("k_proj"), (kv_width, hidden), a.qkv_bias)?,
            value: self.linear(&attention("v_proj"), (kv_width, hidden), a.qkv_bias)?,
            output: self.linear(&attention("o_proj"), (hidden, q_width), a.output_bias)?,
            query_key_norms,
            after_attention_norm,
            feed_forward_norm: self.find(norm(before), &[hidden])?,
            after_feed_forward_norm,
            feed_forward: self.feed_forward(&name, layer)?,
            name,
        })
    }

    fn feed_forward(&mut self, name: &str, layer: &Layer) -> Found<FeedForwardPlan> {
        let a = self.architecture;
        let Some(experts) = a.experts.filter(|_| layer.experts) else {
            let names = ["gate", "up", "down"].map(|part| format!("{name}.mlp.{part}_proj"));
            return Ok(FeedForwardPlan::Dense(self.gated(
                names,
                a.intermediate_size,
                a.mlp_bias,
            )?));
        };
        let router = (experts.count, a.hidden_size);
        let stacks = ["gate_up_proj", "down_proj"].map(|part| format!("{name}.mlp.experts.{part}"));
        if stacks.iter().any(|stack| self.shapes.contains_key(stack)) {
            let router = self.linear(&format!("{name}.mlp.gate"), router, false)?;
            return Ok(FeedForwardPlan::Experts {
                router,
                experts: self.stacked(stacks, experts)?,
            });
        }
        let (module, parts) = if a.model_type == "mixtral" {
            ("block_sparse_moe", ["w1", "w3", "w2"])
        } else {
            ("mlp", ["gate_proj", "up_proj", "down_proj"])
        };
        let router = self.linear(&format!("{name}.{module}.gate"), router, false)?;
        let mut expert = |index: usize| {
            let names = parts.map(|part| format!("{name}.{module}.experts.{index}.{part}"));
            self.gated(names, experts.intermediate_size, false)
        };
        let experts = (0..experts.count).map(&mut expert).collect::<Found<_>>()?;
        Ok(FeedForwardPlan::Experts { router, experts })
    }

    /// Experts as the modules of transformers 5 hold them: gate and up in one tensor
    /// [experts, 2·width, hidden], gate first, and down in another [experts, hidden, width].
    fn stacked(&mut self, stacks: [String; 2], experts: Experts) -> Found<Vec<GatedPlan>> {
        let Experts { count, intermediate_size: width, .. } = experts;
        let hidden = self.architecture.hidden_size;
        let [gate_up, down] = stacks;
        let gate_up = self.find(gate_up, &[count, 2 * width, hidden])?;
        let down = self.find(down, &[count, hidden, width])?;
        let slice = |weight: &String, first_row, shape| LinearPlan {
            weight: weight.clone(),
            first_row,
            bias: None,
            shape,
        };
        let expert = |index: usize| GatedPlan {
            gate: slice(&gate_up, 2 * index * width, (width, hidden)),
            up: slice(&gate_up, (2 * index + 1) * width, (width, hidden)),
            down: slice(&down, index * hidden, (hidden, width)),
        };
        Ok((0..count).map(expert).collect())
    }

    /// Nothing of the text model may be left over: a weight that is not used is a model that is
    /// not understood. Towers of multimodal models stand outside its prefix.
    fn check_rest(&self, prefix: &str) -> Found<()> {
        let belongs = |name: &str| prefix == "model." || name.starts_with(prefix);
        let old_rope_buffer = |name: &str| name.ends_with(".rotary_emb.inv_freq");
        let rest = self
            .shapes
            .keys()
            .filter(|name| !self.used.contains(*name) && belongs(name) && !old_rope_buffer(name));
        match rest.min() {
            None => Ok(()),
            Some(name) => {
                let family = &self.architecture.model_type;
                Err((name.clone(), format!("is no tensor of a {family} model")))
            }
        }
    }
}
