//! Quantisation-aware training: weights that are moved while they are seen rounded.
//!
//! The forward pass computes with ŵ = s·q(w/s); the gradient with respect to ŵ is taken as that of
//! the latent weight w where w lies in the grid's range, and as zero outside (the straight-through
//! estimator, arXiv 1308.3432). [`FakeGrid`] is one matrix of such weights with its scales and its
//! optimiser; [`Treatment`] says how the scales follow. [`train`] runs the steps of anything that
//! can give losses and gradients ([`Trainee`]), with a schedule, a guard against spikes, evaluation,
//! early stop and checkpoints.
//!
//! Nothing here knows about models, files or devices: matrices are row-major f32 slices.

mod adamw;
mod fake;
mod guard;
mod levels;
mod run;
mod schedule;
mod treatment;

pub use adamw::{AdamW, Step};
pub use fake::{FakeGrid, Rates};
pub use guard::{SpikeGuard, Verdict};
pub use levels::Levels;
pub use run::{Ended, Losses, Position, RunSettings, Trainee, Watcher, train};
pub use schedule::{Schedule, WindowOrder};
pub use treatment::Treatment;
