//! The four levels that weights are rounded to.

use crate::newton;

/// Four levels, in multiples of a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Levels {
    /// {-1.5, -0.5, 0.5, 1.5}: what [`crate::Grid2`] stores.
    Balanced,
    /// {-2, -1, 0, 1}: two's complement, for comparison only. No codec of ours holds it.
    TwosComplement,
}

impl Levels {
    /// q(w/s): the level nearest to `w`. Of two equally near ones the balanced grid takes the inner
    /// one, and +0.5 for zero, as [`crate::Grid2`] does.
    #[must_use]
    #[inline(always)]
    pub fn round(self, w: f32, s: f32) -> f32 {
        match self {
            Self::Balanced => {
                let code = u32::from(w >= -s) + u32::from(w >= 0.0) + u32::from(w > s);
                if s == 0.0 { 0.5 } else { code as f32 - 1.5 }
            }
            Self::TwosComplement => {
                if s == 0.0 {
                    0.0
                } else {
                    (w / s).round_ties_even().max(-2.0).min(1.0)
                }
            }
        }
    }

    /// Ends of the range, in multiples of the scale: half a step past the outer levels.
    #[must_use]
    pub fn range(self) -> (f32, f32) {
        match self {
            Self::Balanced => (-2.0, 2.0),
            Self::TwosComplement => (-2.5, 1.5),
        }
    }

    /// The least-squares scale of `w`: exact for the balanced grid ([`newton::fit_scale`]), the best
    /// fixed point of eight starts for the other.
    #[must_use]
    pub fn fit_scale(self, w: &[f32]) -> f32 {
        if self == Self::Balanced {
            return newton::fit_scale(w);
        }
        let mean = w.iter().map(|w| w.abs()).sum::<f32>() / w.len().max(1) as f32;
        let mut best = (f32::INFINITY, 0.0);
        for start in 1..=8 {
            let mut s = mean * 0.35 * start as f32;
            for _ in 0..32 {
                let (mut products, mut squares) = (0.0, 0.0);
                for &w in w {
                    let q = self.round(w, s);
                    products += w * q;
                    squares += q * q;
                }
                if squares == 0.0 || products <= 0.0 {
                    break;
                }
                s = products / squares;
            }
            let error: f32 = w.iter().map(|&w| w - s * self.round(w, s)).map(|e| e * e).sum();
            if error < best.0 {
                best = (error, s);
            }
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_levels() {
        let balanced = [(-3.0, -1.5), (-1.01, -1.5), (-1.0, -0.5), (-0.1, -0.5), (0.0, 0.5)];
        for (w, q) in balanced {
            assert_eq!(Levels::Balanced.round(2.0 * w, 2.0), q, "{w}");
        }
        assert_eq!(Levels::Balanced.round(1.0, 1.0), 0.5);
        assert_eq!(Levels::Balanced.round(1.01, 1.0), 1.5);
        for (w, q) in [(-9.0, -2.0), (-1.4, -1.0), (0.2, 0.0), (0.6, 1.0), (7.0, 1.0)] {
            assert_eq!(Levels::TwosComplement.round(0.5 * w, 0.5), q, "{w}");
        }
    }

    #[test]
    fn the_fit_of_twos_complement_is_a_minimum() {
        let w: Vec<f32> =
            (0..400).map(|i| (i as f32 * 1.7).sin() * (1.0 + (i % 5) as f32)).collect();
        let error = |s: f32| -> f32 {
            w.iter().map(|&w| w - s * Levels::TwosComplement.round(w, s)).map(|e| e * e).sum()
        };
        let s = Levels::TwosComplement.fit_scale(&w);
        assert!((1..300).all(|i| error(i as f32 * 0.02) >= 0.999 * error(s)), "{s}");
        assert_eq!(Levels::TwosComplement.fit_scale(&[0.0; 4]), 0.0);
    }
}
