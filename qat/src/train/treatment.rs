//! How the scales of the grid follow the weights in training.

/// A treatment of the scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// s ← β·s + (1 - β)·s*(W) after each step, with s* the least-squares scale of the weights as
    /// they are ([`crate::ScaleEma`]). Where training starts from a solution, whose scales serve the
    /// layer's output rather than its weights, the optimum is multiplied by what they were of it at
    /// the start.
    Ema,
    /// The published form: s = f·max|w| / 1.5 with one learnable factor f a tensor, its gradient
    /// scaled by 1/sqrt(number of weights); what is exported is a moving average of the weights.
    Report,
    /// Learnable scales with the gradient of LSQ (arXiv 1902.08153): q - w/s inside the range, q
    /// outside. On this grid it is ParetoQ's stretched elastic binarisation (arXiv 2502.02631).
    Lsq,
    /// Learnable scales with the gradient of the codes as they are, ∂ŵ/∂s = q (arXiv 2407.11062).
    Learnt,
    /// Scales stay as they start.
    Fixed,
}

impl Treatment {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ema, Self::Report, Self::Lsq, Self::Learnt, Self::Fixed];

    /// Its name in recipes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ema => "ema",
            Self::Report => "report",
            Self::Lsq => "lsq",
            Self::Learnt => "learnt",
            Self::Fixed => "fixed",
        }
    }

    /// The treatment of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|treatment| treatment.name() == name)
    }
}
