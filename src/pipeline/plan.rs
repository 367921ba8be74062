//! The plan: what each tensor becomes and what that costs, before anything is read or written.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::checkpoint::config::ModelConfig;
use crate::checkpoint::dtype::{dtype_name, is_codable};
use crate::checkpoint::role::Role;
use crate::checkpoint::{Checkpoint, OutputTensor, ShardLayout, Tensor};
use crate::codec::{Codec, Part};
use crate::error::{Error, Result};
use crate::recipe::{Action, Recipe};

use super::manifest::Transformation;
use super::memory;

/// What becomes of one tensor.
#[derive(Debug, Clone)]
pub enum Fate {
    /// Copied as it is.
    Kept {
        /// Why.
        why: String,
    },
    /// Left out: the same bytes are stored under another name.
    Tied {
        /// The tensor that is stored.
        to: String,
    },
    /// Coded.
    Coded {
        /// The codec.
        codec: Arc<dyn Codec>,
        /// Rank of the adapter; 0 for none. Never more than the matrix has.
        rank: usize,
    },
}

/// One tensor of the plan.
#[derive(Debug, Clone)]
pub struct PlannedTensor {
    /// Index in [`Checkpoint::tensors`].
    pub source: usize,
    /// What becomes of it.
    pub fate: Fate,
    /// Stored tensors: none if tied, itself if kept, the codec's parts if coded.
    pub stored: Vec<OutputTensor>,
    /// Bytes of the adapter's two factors.
    pub adapter_bytes: u64,
}

impl PlannedTensor {
    /// Bytes stored for this tensor, adapter included.
    #[must_use]
    pub fn output_bytes(&self) -> u64 {
        self.stored.iter().map(OutputTensor::byte_len).sum::<u64>() + self.adapter_bytes
    }
}

/// A plan for a whole checkpoint.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The recipe it follows, overrides included.
    pub recipe: Recipe,
    /// One entry for each tensor of the checkpoint, in the same order.
    pub tensors: Vec<PlannedTensor>,
    /// Where everything goes.
    pub layout: ShardLayout,
    /// Sums.
    pub totals: Totals,
    /// Resident memory the run should stay under, in bytes.
    pub peak_memory: u64,
    /// What the checkpoint went through before; it is the transformed one that is planned.
    pub transformation: Option<Transformation>,
    /// A head that the configuration ties to the embedding, but that has weights of its own.
    pub untied: Option<String>,
}

/// Sums over a plan or a manifest.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Totals {
    /// Elements of all tensors, tied ones counted once.
    pub parameters: u64,
    /// Bytes of tensor data in the source.
    pub source_bytes: u64,
    /// Bytes of tensor data in the output, adapters included.
    pub output_bytes: u64,
    /// Bits per parameter of the output, everything counted.
    pub bits_per_weight: f64,
    /// Weights of linear layers and experts that were coded.
    pub linear_weights: u64,
    /// Bits per weight of those, codes, scales, padding and adapters counted.
    pub linear_bits_per_weight: f64,
    /// Number of coded, kept and tied tensors.
    pub coded: usize,
    /// Number of kept tensors.
    pub kept: usize,
    /// Number of tied tensors.
    pub tied: usize,
}

/// The largest rank that vLLM loads unless it is started with another `--max-lora-rank`.
const COMMON_RANK_LIMIT: usize = 16;

impl Plan {
    /// What a user should know before running the plan: oddities of `checkpoint`, and adapters that
    /// a common runtime refuses.
    #[must_use]
    pub fn warnings(&self, checkpoint: &Checkpoint) -> Vec<String> {
        let mut warnings = checkpoint.warnings().to_vec();
        if let Some(head) = &self.untied {
            warnings.push(format!(
                "{}: config.json ties {head:?} to the embedding, but it has weights of its own: both \
                 are taken as they are, and the output is not tied",
                checkpoint.origin().display()
            ));
        }
        let ranks = self.tensors.iter().filter_map(|tensor| match &tensor.fate {
            Fate::Coded { rank, .. } => Some(*rank),
            _ => None,
        });
        let (largest, above) = ranks.fold((0, 0), |(largest, above), rank| {
            (rank.max(largest), above + usize::from(rank > COMMON_RANK_LIMIT))
        });
        if above > 0 {
            warnings.push(format!(
                "{above} adapters have ranks above {COMMON_RANK_LIMIT}, up to {largest}: vLLM loads \
                 them only with --max-lora-rank {}",
                largest.next_power_of_two()
            ));
        }
        warnings.extend(self.dense_beside_experts(checkpoint));
        warnings
    }

    /// What PEFT makes of adapters of dense layers in a model that has experts: with transformers 5 it
    /// takes their names for those of the experts, which are parameters there, and drops them.
    fn dense_beside_experts(&self, checkpoint: &Checkpoint) -> Option<String> {
        let names = || checkpoint.tensors().iter().map(|tensor| tensor.name.as_str());
        if !names().any(|name| name.contains(".experts.")) {
            return None;
        }
        let adapted = self.tensors.iter().filter(|planned| {
            let name = &checkpoint.tensors()[planned.source].name;
            let ends = [".mlp.gate_proj.weight", ".mlp.up_proj.weight", ".mlp.down_proj.weight"];
            planned.adapter_bytes > 0 && ends.iter().any(|end| name.ends_with(end))
        });
        let count = adapted.count();
        (count > 0).then(|| {
            format!(
                "{count} adapters are of dense layers in a model that has experts: PEFT with \
                 transformers 5 leaves those out; use decompress --adapters merge, or rank = 0 for them"
            )
        })
    }

    /// Plans `checkpoint` by `recipe`; `threads` and `max_shard_bytes` shape memory and files.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a checkpoint that is quantised already, [`Error::Recipe`] for a
    /// rule without effect or a recipe that codes nothing, [`Error::Tensor`] for a rule that a tensor cannot follow.
    pub fn new(
        checkpoint: &Checkpoint,
        recipe: Recipe,
        max_shard_bytes: u64,
        threads: usize,
    ) -> Result<Self> {
        if let Some(method) = checkpoint.config().and_then(ModelConfig::quantised_by) {
            return Err(Error::checkpoint(
                checkpoint.origin(),
                format!("is already quantised, by {method}; start from the original weights"),
            ));
        }
        let (tie, untied) = match tied_head(checkpoint) {
            Some((head, embedding)) if checkpoint.same_weights(head, embedding)? => {
                (Some(Tie { head: head.name.clone(), embedding: embedding.name.clone() }), None)
            }
            Some((head, _)) => (None, Some(head.name.clone())),
            None => (None, None),
        };
        let tied =
            untied.is_none() && checkpoint.config().is_some_and(ModelConfig::ties_embeddings);
        let decisions = recipe.decide(
            checkpoint
                .tensors()
                .iter()
                .filter(|t| tie.as_ref().is_none_or(|tie| tie.head != t.name))
                .map(|t| (t.name.as_str(), t.role)),
        )?;
        let mut decisions = decisions.into_iter();
        let mut tensors = Vec::new();
        for (source, tensor) in checkpoint.tensors().iter().enumerate() {
            let fate = match &tie {
                Some(tie) if tie.head == tensor.name => Fate::Tied { to: tie.embedding.clone() },
                _ => match decisions.next().flatten() {
                    None => Fate::Kept { why: "no rule of the recipe matches it".to_owned() },
                    Some(rule) => decide(checkpoint, tensor, &rule.action, tied)?,
                },
            };
            tensors.push(planned(source, tensor, fate));
        }
        let groups: Vec<_> = tensors.iter().map(|t| t.stored.clone()).collect();
        check_stored_names(checkpoint, &tensors)?;
        let layout = ShardLayout::new(&groups, max_shard_bytes, &shard_metadata());
        let totals = totals(checkpoint, &tensors);
        if totals.coded == 0 {
            let message = "codes none of this checkpoint's tensors".to_owned();
            return Err(Error::Recipe { origin: recipe.name, message });
        }
        let peak_memory = memory::peak_bytes(checkpoint, &tensors, threads);
        Ok(Self { recipe, tensors, layout, totals, peak_memory, transformation: None, untied })
    }

    /// The plan of a checkpoint that a transform made of another.
    #[must_use]
    pub fn of_transformed(mut self, transformation: Transformation) -> Self {
        self.totals.source_bytes = transformation.source_bytes;
        self.transformation = Some(transformation);
        self
    }

    /// Lowers the number of `threads` until the run, with `solving` more bytes for its solver, stays
    /// under `limit` bytes of memory, and gives that number.
    ///
    /// # Errors
    /// [`Error::Memory`] if one thread takes more, naming the tensor that does.
    pub fn fit_memory(
        &mut self,
        checkpoint: &Checkpoint,
        limit: u64,
        solving: u64,
        threads: usize,
    ) -> Result<usize> {
        let peak = |threads| memory::peak_bytes(checkpoint, &self.tensors, threads);
        if let Some(threads) = (1..=threads).rev().find(|&n| peak(n) + solving <= limit) {
            self.peak_memory = peak(threads);
            return Ok(threads);
        }
        let tensor = memory::largest(checkpoint, &self.tensors);
        Err(Error::Memory {
            file: checkpoint.file_of(tensor).to_path_buf(),
            tensor: tensor.name.clone(),
            needed: peak(1) + solving,
            limit,
        })
    }

    /// Bytes that the run needs on the disk of the output.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        let adapters: u64 = self.tensors.iter().map(|t| t.adapter_bytes).sum();
        self.layout.file_bytes() + adapters
    }
}

fn shard_metadata() -> BTreeMap<String, String> {
    let version = super::manifest::FORMAT_VERSION;
    BTreeMap::from([
        ("format".to_owned(), "compress-model".to_owned()),
        ("format_version".to_owned(), version.to_owned()),
    ])
}

/// An output projection that the model takes from its embedding table.
struct Tie {
    head: String,
    embedding: String,
}

/// The head and the embedding, where both are there and the configuration ties them.
fn tied_head(checkpoint: &Checkpoint) -> Option<(&Tensor, &Tensor)> {
    if !checkpoint.config().is_some_and(ModelConfig::ties_embeddings) {
        return None;
    }
    let of_role = |role| checkpoint.tensors().iter().find(|t| t.role == role);
    Some((of_role(Role::Head)?, of_role(Role::Embedding)?))
}

fn decide(checkpoint: &Checkpoint, tensor: &Tensor, action: &Action, tied: bool) -> Result<Fate> {
    if tensor.elements() == 0 {
        return Ok(Fate::Kept { why: "has no elements".to_owned() });
    }
    let (codec, rank) = match action {
        Action::Keep { why } => return Ok(Fate::Kept { why: why.clone() }),
        Action::Code { codec, rank } => (codec, *rank),
    };
    let refuse = |why: String| {
        let file = checkpoint.file_of(tensor);
        let hint = "; ignore the tensor or narrow the rule";
        Err(Error::tensor(file, &tensor.name, format!("{why}{hint}")))
    };
    let name = codec.name();
    if !is_codable(tensor.dtype) {
        let dtype = dtype_name(tensor.dtype);
        return refuse(format!("codec {name} takes F16, BF16 and F32, not {dtype}"));
    }
    let Some((matrices, rows, cols)) = tensor.as_matrices() else {
        let shape = &tensor.shape;
        return refuse(format!("codec {name} takes matrices and stacks of them, not {shape:?}"));
    };
    if rank > 0 && matrices > 1 {
        return refuse("stacked experts take no adapter (rank)".to_owned());
    }
    if rank > 0 && tied && tensor.role == Role::Embedding {
        // PEFT would apply the adapter where tokens come in, but not where they go out.
        return refuse("an embedding that is also the head takes no adapter (rank)".to_owned());
    }
    if rank > 0 && !tensor.name.ends_with(".weight") {
        return refuse("only a module's .weight takes an adapter (rank)".to_owned());
    }
    Ok(Fate::Coded { codec: Arc::clone(codec), rank: rank.min(rows).min(cols) })
}

fn planned(source: usize, tensor: &Tensor, fate: Fate) -> PlannedTensor {
    let (stored, adapter_bytes) = match &fate {
        Fate::Tied { .. } => (Vec::new(), 0),
        Fate::Kept { .. } => {
            let itself = OutputTensor {
                name: tensor.name.clone(),
                dtype: tensor.dtype,
                shape: tensor.shape.clone(),
            };
            (vec![itself], 0)
        }
        Fate::Coded { codec, rank } => {
            let (matrices, rows, cols) =
                tensor.as_matrices().expect("invariant: decide accepts matrices only");
            let stacked = tensor.shape.len() == 3;
            let stored = stored_parts(&tensor.name, &codec.parts(rows, cols), stacked, matrices);
            (stored, memory::ADAPTER_WEIGHT_BYTES * (rank * (rows + cols)) as u64)
        }
    };
    PlannedTensor { source, fate, stored, adapter_bytes }
}

/// The stored tensors of weight `name`: its codec's parts, with the experts as first dimension
/// where the weight is a stack. The first part has the name of the weight itself: a program that
/// looks for the weight finds a tensor of another shape and gives up, where without one transformers
/// takes random numbers.
pub(super) fn stored_parts(
    name: &str,
    parts: &[Part],
    stacked: bool,
    matrices: usize,
) -> Vec<OutputTensor> {
    parts
        .iter()
        .enumerate()
        .map(|(number, part)| {
            let mut shape = part.shape.clone();
            if stacked {
                shape.insert(0, matrices);
            }
            let name = match number {
                0 => name.to_owned(),
                _ => format!("{name}.{}", part.suffix),
            };
            OutputTensor { name, dtype: part.dtype, shape }
        })
        .collect()
}

/// Refuses the freak case of a source tensor named like another one's part.
fn check_stored_names(checkpoint: &Checkpoint, tensors: &[PlannedTensor]) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for planned in tensors {
        for stored in &planned.stored {
            if !seen.insert(stored.name.as_str()) {
                let tensor = &checkpoint.tensors()[planned.source];
                return Err(Error::tensor(
                    checkpoint.file_of(tensor),
                    &tensor.name,
                    format!("the output would hold two tensors named {:?}", stored.name),
                ));
            }
        }
    }
    Ok(())
}

fn totals(checkpoint: &Checkpoint, tensors: &[PlannedTensor]) -> Totals {
    let mut totals = Totals::default();
    let mut linear_bytes = 0;
    for planned in tensors {
        let tensor = &checkpoint.tensors()[planned.source];
        totals.source_bytes += tensor.byte_len;
        totals.output_bytes += planned.output_bytes();
        if !matches!(planned.fate, Fate::Tied { .. }) {
            totals.parameters += tensor.elements();
        }
        match &planned.fate {
            Fate::Kept { .. } => totals.kept += 1,
            Fate::Tied { .. } => totals.tied += 1,
            Fate::Coded { .. } => {
                totals.coded += 1;
                if matches!(tensor.role, Role::Linear | Role::Experts) {
                    totals.linear_weights += tensor.elements();
                    linear_bytes += planned.output_bytes();
                }
            }
        }
    }
    totals.bits_per_weight = bits_per_weight(totals.output_bytes, totals.parameters);
    totals.linear_bits_per_weight = bits_per_weight(linear_bytes, totals.linear_weights);
    totals
}

/// Bits per weight; 0 where there are no weights.
#[must_use]
pub fn bits_per_weight(bytes: u64, weights: u64) -> f64 {
    if weights == 0 { 0.0 } else { bytes as f64 * 8.0 / weights as f64 }
}
