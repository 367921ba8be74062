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
    /// How often codes and adapter are fitted in turn.
    pub rounds: usize,
    /// Share of an adapter's rank that holds structure taken out before the first coding.
    pub structure: f64,
}

impl Default for SolveOptions {
    fn default() -> Self {
        let e = |k: &str, d: f64| std::env::var(k).ok().and_then(|v| v.parse().ok()).unwrap_or(d);
        let order = if e("X_NAT", 0.0) > 0.0 { Order::Natural } else { Order::Activation };
        let damping = Damping { share: e("X_DAMP", 0.01), most: 10.0 };
        Self {
            order,
            damping,
            passes: e("X_PASSES", 2.0) as usize,
            rounds: e("X_ROUNDS", 2.0) as usize,
            structure: e("X_STRUCT", 0.5),
        }
    }
}
