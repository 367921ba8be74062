//! Whether two tensors hold the same weights.

use super::dtype::{AlignedBytes, is_codable};
use super::{Checkpoint, Tensor};
use crate::error::Result;

/// Weights compared at a time: a difference is nearly always in the first few.
const RUN: u64 = 1 << 18;

impl Checkpoint {
    /// Whether `a` and `b` have the same shape and the same weights, be they of one type or of two.
    /// Reads no further than to the first difference.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub(crate) fn same_weights(&self, a: &Tensor, b: &Tensor) -> Result<bool> {
        if a.shape != b.shape {
            return Ok(false);
        }
        if !(is_codable(a.dtype) && is_codable(b.dtype)) {
            return Ok(false);
        }
        let mut scratch = AlignedBytes::default();
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for from in (0..a.elements()).step_by(RUN as usize) {
            let count = RUN.min(a.elements() - from) as usize;
            left.resize(count, 0.0);
            right.resize(count, 0.0);
            self.read_weights(a, from, &mut scratch, &mut left)?;
            self.read_weights(b, from, &mut scratch, &mut right)?;
            // A NaN differs from itself; both are refused when the weights are scanned.
            if left != right {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
