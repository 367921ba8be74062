//! What an export changed in the weights: measured, tensor by tensor, not presumed.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::pipeline::{CompressedFolder, ErrorSums, WorstTensor, decibels};

/// How the exported weights compare with those of the compressed folder.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Precision {
    /// Tensors whose weights are the same bit for bit, zeros of either sign taken as one.
    pub exact: usize,
    /// Tensors with any other weight.
    pub rounded: usize,
    /// SQNR of all weights in dB; null if all are exact.
    #[serde(serialize_with = "decibels::serialize")]
    pub sqnr_db: Option<f64>,
    /// The tensor that changed most.
    pub worst: Option<WorstTensor>,
    #[serde(skip)]
    sums: ErrorSums,
}

impl Precision {
    /// Counts a tensor.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a tensor that changed, if `exact` is asked for.
    pub(super) fn add(
        &mut self,
        input: &CompressedFolder,
        name: &str,
        sums: ErrorSums,
        exact: bool,
    ) -> Result<()> {
        self.sums.add(sums);
        self.sqnr_db = self.sums.sqnr_db();
        let Some(db) = sums.sqnr_db() else {
            self.exact += 1;
            return Ok(());
        };
        if exact {
            let message = format!(
                "cannot be held exactly (SQNR {db:.1} dB); leave out --exact or choose another \
                 --dtype or --format"
            );
            return Err(Error::tensor(input.stored.folder(), name, message));
        }
        self.rounded += 1;
        if self.worst.as_ref().is_none_or(|worst| db < worst.sqnr_db) {
            self.worst = Some(WorstTensor { name: name.to_owned(), sqnr_db: db });
        }
        Ok(())
    }

    /// One line for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match (&self.worst, self.sqnr_db) {
            (Some(worst), Some(db)) => format!(
                "{} tensors exact, {} rounded: SQNR {db:.1} dB, worst {:.1} dB ({})",
                self.exact, self.rounded, worst.sqnr_db, worst.name
            ),
            _ => format!("all {} tensors exact", self.exact),
        }
    }
}
