//! Running a model: decoder-only transformers of several families, from an original checkpoint or
//! a compressed folder.
//!
//! [`Architecture`] describes a model as data, and one block serves every family. Weights are
//! f32 when they compute, whatever they are stored as.
//!
//! ```no_run
//! use compress_model::model::{CausalModel, Model, ModelOptions};
//!
//! let mut model = Model::open("SmolLM2-135M".as_ref(), ModelOptions::default())?;
//! let hidden = model.hidden(&[&[1, 2, 3]], 2..3)?;
//! let mut logits = vec![0.0; model.vocab_size()];
//! model.logits(&hidden, &mut logits)?;
//! # Ok::<(), compress_model::Error>(())
//! ```

mod block;
mod cache;
mod causal;
mod ops;
mod plan;
mod stepwise;
mod training;
mod transformer;
mod weights;

pub use crate::architecture::{Activation, Architecture, Experts, Layer, Rope, Scaling};
pub(crate) use block::{Observer, Site};
pub use cache::KvCache;
pub use causal::{CausalModel, Continuation};
pub use ops::Path;
pub(crate) use ops::{GradientSum, exp};
pub(crate) use plan::{BlockPlan, FeedForwardPlan, GatedPlan, LinearPlan, Plan as WeightPlan};
pub(crate) use stepwise::{HeldBlock, Passage, SiteLayers};
pub(crate) use training::{Pass, Trained};
pub use transformer::{Model, ModelOptions, Sequence};
