//! Row scales: the affine map between weights and texels.
//!
//! Texel t = 0.5 + w/(2a), weight ŵ = a·(2t̂ - 1), a = max|w| of the row rounded up to f16, so
//! that every texel lies in [0, 1] and nothing clips.

use half::f16;

use crate::Error;
use crate::encode::largest_magnitude;
use crate::simd::Level;

/// The scale of a row of finite weights.
///
/// Zero where max|w| is below the smallest positive f16, 2^-24: such a row decodes to zeros.
pub(crate) fn row_scale(row: usize, weights: &[f32]) -> Result<f16, Error> {
    Ok(full_range_scale(largest_magnitude(Level::detect(), row, weights)?))
}

/// `max_abs` (at most 65504) rounded up to f16; 0 below the smallest positive f16.
pub(crate) fn full_range_scale(max_abs: f32) -> f16 {
    if max_abs < f16::MIN_POSITIVE_SUBNORMAL.to_f32() {
        return f16::ZERO;
    }
    let nearest = f16::from_f32(max_abs);
    let below = nearest.to_f32() < max_abs;
    f16::from_bits(nearest.to_bits() + u16::from(below))
}

/// Texel of a weight, mid-grey in a row whose scale is zero.
#[cfg(any(feature = "astcenc", test))]
pub(crate) fn texel(weight: f32, scale: f32) -> f32 {
    if scale == 0.0 { 0.5 } else { (0.5 + weight / (2.0 * scale)).clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scale_rounds_up_and_reports_its_limits() {
        assert_eq!(row_scale(0, &[0.5, -2.0]).unwrap(), f16::from_f32(2.0));
        // 1 + 2^-11 lies half way between two f16; nearest-even would give 1 and clip.
        assert_eq!(
            row_scale(0, &[1.0 + 2.0_f32.powi(-11)]).unwrap().to_f32(),
            1.0 + 2.0_f32.powi(-10)
        );
        assert_eq!(row_scale(0, &[]).unwrap(), f16::ZERO);
        assert_eq!(row_scale(0, &[2.0_f32.powi(-25)]).unwrap(), f16::ZERO);
        assert_eq!(row_scale(0, &[1.5 * 2.0_f32.powi(-24)]).unwrap().to_bits(), 2);
        assert_eq!(row_scale(0, &[-65504.0]).unwrap(), f16::MAX);
        let error = row_scale(3, &[1.0, 65505.0]).unwrap_err();
        assert_eq!(error, Error::ScaleOverflow { row: 3, max_abs: 65505.0 });
        assert_eq!(error.row(), Some(3));
        assert!(matches!(
            row_scale(1, &[0.0, f32::NAN]),
            Err(Error::NotFinite { row: 1, col: 1, .. })
        ));
    }

    proptest! {
        #[test]
        fn texels_stay_in_range_and_invert(weights in prop::collection::vec(-65504.0_f32..65504.0, 1..50)) {
            let scale = row_scale(0, &weights).unwrap().to_f32();
            for &w in &weights {
                let raw = 0.5 + w / (2.0 * scale);
                prop_assert!((0.0..=1.0).contains(&raw));
                let inverse = scale * (2.0 * texel(w, scale) - 1.0);
                prop_assert!((inverse - w).abs() <= scale * 2.0_f32.powi(-22));
            }
        }
    }
}
