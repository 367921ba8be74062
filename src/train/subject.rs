//! What a run trains.

use crate::checkpoint::Checkpoint;
use crate::checkpoint::role::Role;
use crate::pipeline::{Fate, Plan, PlannedTensor};

/// What a run trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// The weights of linear layers on the 2-bit grid.
    Weights,
    /// The adapters of linear layers.
    Adapters,
}

impl Subject {
    /// The command that trains it.
    pub(super) fn command(self) -> &'static str {
        match self {
            Self::Weights => "qat",
            Self::Adapters => "recover",
        }
    }

    /// How many weights, or elements of adapters, `plan` has of it.
    pub(super) fn count(self, checkpoint: &Checkpoint, plan: &Plan) -> u64 {
        let of_tensor = |planned: &PlannedTensor| {
            let tensor = &checkpoint.tensors()[planned.source];
            match (&planned.fate, self) {
                _ if tensor.role != Role::Linear => 0,
                (Fate::Coded { codec, .. }, Self::Weights) if codec.name() == "grid2" => {
                    tensor.elements()
                }
                (Fate::Coded { rank, .. }, Self::Adapters) => {
                    let (_, rows, cols) = tensor.as_matrices().expect("invariant: it is coded");
                    ((rows + cols) * rank) as u64
                }
                _ => 0,
            }
        };
        plan.tensors.iter().map(of_tensor).sum()
    }
}
