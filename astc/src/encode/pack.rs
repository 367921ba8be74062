//! From a fitted block to its 16 bytes.

use super::config::Config;
use super::fit::Fit;
use super::patterns::Pattern;
use crate::tables::write_ise;

/// Bits below the endpoints: mode 11, partition count 2, and endpoint mode 4 (one partition) or
/// seed 10 and endpoint mode 6 (several, all of mode 0).
const ENDPOINTS_AT: [u32; 2] = [17, 29];

/// The block of a fit.
pub(super) fn pack(config: &Config, pattern: &Pattern, fit: &Fit) -> u128 {
    let texels: usize = pattern.subsets.iter().map(|subset| subset.texels.len()).sum();
    let mut weights = [0; 64];
    let mut ends = [0; 8];
    let mut lane = 0;
    for (subset, &(low, high)) in pattern.subsets.iter().zip(&fit.ends) {
        for (&texel, &step) in subset.texels.iter().zip(&fit.steps[lane..]) {
            weights[usize::from(texel)] = config.step_codes[usize::from(step)];
        }
        lane += subset.padded.len();
        let at = 2 * usize::from(subset.partition);
        ends[at] = config.endpoint_codes[usize::from(low)];
        ends[at + 1] = config.endpoint_codes[usize::from(high)];
    }
    let partitions = config.partitions;
    let several = usize::from(partitions > 1);
    let header = u128::from(config.mode)
        | ((partitions as u128 - 1) << 11)
        | (u128::from(pattern.seed) * several as u128) << 13;
    header
        | write_ise(config.endpoint_quant, &ends[..2 * partitions]) << ENDPOINTS_AT[several]
        | write_ise(config.weight_quant, &weights[..texels]).reverse_bits()
}
