//! How hard and in which way to solve.

use compress_model_feedback::{Damping, Order};

/// Options of the solvers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SolveOptions {
    /// Order in which columns are coded.
    pub order: Order,
    /// What is added to the diagonal of H.
    pub damping: Damping,
    /// Passes of coordinate descent after error feedback.
    pub passes: usize,
    /// How much of what compressing the layers before it changed a layer makes up for: 1 for all
    /// that the calibration text shows, which fits its noise too, 0 for nothing. Anything but 0
    /// takes a second copy of the text through the original model.
    pub drift: f32,
    /// How often codes and adapter are fitted in turn.
    pub rounds: usize,
    /// Share of an adapter's rank that holds structure taken out before the first coding.
    pub structure: f64,
}

impl Default for SolveOptions {
    fn default() -> Self {
        let (order, damping) = (Order::default(), Damping::default());
        Self { order, damping, passes: 2, drift: 0.5, rounds: 2, structure: 1.0 }
    }
}
