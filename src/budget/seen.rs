//! What the layers of one site see, factored once for all of them.

use std::sync::OnceLock;

use compress_model_feedback::{Damping, Error, Factor, Hessian, Order};

/// Second moments of inputs.
pub(super) struct Seen {
    width: usize,
    /// Mean of x·xᵀ; none for a table that is looked up, whose rows are the output.
    mean: Option<Vec<f32>>,
    factored: OnceLock<Result<Factored, Error>>,
}

/// H and its factor in natural order.
pub(super) struct Factored {
    pub(super) hessian: Hessian,
    pub(super) factor: Factor,
}

impl Seen {
    /// What layers of `width` inputs see. Errors in its norm are in units of their own where the
    /// inputs are very quiet or loud: they compare with each other alone.
    pub(super) fn new(width: usize, mut mean: Option<Vec<f32>>) -> Self {
        if let Some(mean) = &mut mean {
            let unit = Hessian::unit(mean, width);
            mean.iter_mut().for_each(|value| *value = (f64::from(*value) / unit) as f32);
        }
        Self { width, mean, factored: OnceLock::new() }
    }

    /// Mean of x·xᵀ, if there are inputs.
    pub(super) fn mean(&self) -> Option<&[f32]> {
        self.mean.as_deref()
    }

    /// Factors H, unless that has been done. A thread that waits for others in the midst of it must
    /// not come back for the same factor: not to be called where layers run side by side.
    pub(super) fn factor(&self) {
        // What is wrong with H is said where the factor is used.
        let _ = self.factored();
    }

    /// H and its factor, after [`Self::factor`].
    ///
    /// # Errors
    /// As [`Hessian::new`].
    pub(super) fn factored(&self) -> Result<&Factored, Error> {
        let factored = self.factored.get_or_init(|| {
            let n = self.width;
            let hessian = match &self.mean {
                Some(mean) => Hessian::new(mean.clone(), n, Damping::default())?,
                None => {
                    let mut identity = vec![0.0; n * n];
                    (0..n).for_each(|i| identity[i * n + i] = 1.0);
                    Hessian::new(identity, n, Damping::default())?
                }
            };
            let factor = Factor::new(&hessian, 1, Order::Natural);
            Ok(Factored { hessian, factor })
        });
        factored.as_ref().map_err(Clone::clone)
    }
}
