//! e^x in plain arithmetic, so that loops over it become vector code.

use std::f32::consts::LOG2_E;

/// Adding it leaves the nearest integer, ties to even, in the low bits of the mantissa: rounding
/// without an instruction that the oldest processors lack.
const ROUND: f32 = 12_582_912.0;
/// ln 2 as the sum of a number with few bits and the rest (Cody and Waite).
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// e^x within 2e-7 of its value; 0 below -87, e^88 above 88; NaN for NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let bounded = if x > 88.0 { 88.0 } else { x };
    let n = (bounded * LOG2_E + ROUND) - ROUND;
    let r = (bounded - n * LN2_HIGH) - n * LN2_LOW;
    // Taylor's series up to r⁷, |r| <= ln 2 / 2.
    let mut sum = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * r + coefficient;
    }
    // A NaN becomes 0 here, but the sum keeps it.
    let exponent = ((n as i32 + 127).max(0) as u32) << 23;
    let value = sum * f32::from_bits(exponent);
    if x < -87.0 { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_library_over_its_range() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0 + 0.003;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(((found - expected) / expected).abs() < 2e-7, "{x}: {found} for {expected}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::INFINITY) > 1e38);
    }

    #[test]
    fn exp_is_close_everywhere() {
        for step in 0..870_000 {
            let x = -(step as f32) * 1e-4;
            let (got, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(((got - exact) / exact).abs() < 2.5e-7, "exp({x}) = {got}, not {exact}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1e30) < 2e-38);
    }
}
