//! Rotary position embeddings (arXiv 2104.09864), in the halves of a head as Hugging Face has them.

use std::f64::consts::TAU;
#[cfg(feature = "model")]
use std::ops::Range;

use serde_json::{Map, Value};

use super::fields::Fields;

/// Base and scaling of a rotary embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// How frequencies are stretched for longer windows.
    pub scaling: Scaling,
}

/// How frequencies are stretched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// All by one factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Low frequencies by the factor, high ones not, and a ramp between them (Llama 3.1).
    Llama3 {
        /// The factor.
        factor: f64,
        /// Turns in the original window below which a frequency is low.
        low: f64,
        /// Turns above which it is high.
        high: f64,
        /// The original window.
        original: f64,
    },
}

impl Rope {
    /// Reads `rope_parameters` or `rope_scaling`. `theta` is the base where they have none;
    /// `original` the window of training, where the configuration itself says it, else
    /// `max_positions` where they have none.
    pub(super) fn parse(
        parameters: Option<&Map<String, Value>>,
        theta: f64,
        max_positions: usize,
        original: Option<f64>,
    ) -> Result<Self, String> {
        let empty = Map::new();
        let fields = Fields(parameters.unwrap_or(&empty));
        let number = |key: &str| fields.number(key);
        let needed = |key: &str| match number(key)? {
            Some(x) if x > 0.0 => Ok(x),
            Some(x) => Err(format!("{key} {x} of the rope is not above zero")),
            None => Err(format!("the rope has no {key}")),
        };
        match number("partial_rotary_factor")? {
            None | Some(1.0) => {}
            Some(other) => {
                return Err(format!("partial_rotary_factor {other} is not supported"));
            }
        }
        let theta = number("rope_theta")?.unwrap_or(theta);
        if theta <= 0.0 {
            return Err(format!("rope_theta {theta} is not above zero"));
        }
        let kind = match fields.text("rope_type")? {
            None => fields.text("type")?,
            some => some,
        };
        let scaling = match kind.unwrap_or("default") {
            "default" => Scaling::None,
            "linear" => Scaling::Linear { factor: needed("factor")? },
            "llama3" => Scaling::Llama3 {
                factor: needed("factor")?,
                low: needed("low_freq_factor")?,
                high: needed("high_freq_factor")?,
                original: match (original, number("original_max_position_embeddings")?) {
                    (Some(original), _) | (None, Some(original)) => original,
                    (None, None) => max_positions as f64,
                },
            },
            other => return Err(format!("rope type {other:?} is not supported")),
        };
        Ok(Self { theta, scaling })
    }

    /// What each frequency of a head of `head_dim` is divided by, head_dim / 2 of them.
    pub(crate) fn factors(&self, head_dim: usize) -> Vec<f64> {
        self.plain(head_dim).map(|f| f / self.scaling.apply(f)).collect()
    }

    /// Angle a position of each pair of elements of a head of `head_dim`, head_dim / 2 of them.
    #[cfg(feature = "model")]
    fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        self.plain(head_dim).map(|f| self.scaling.apply(f)).collect()
    }

    /// The frequencies before they are stretched.
    fn plain(&self, head_dim: usize) -> impl Iterator<Item = f64> + use<> {
        let theta = self.theta;
        (0..head_dim / 2).map(move |i| theta.powf(-((2 * i) as f64) / head_dim as f64))
    }

    /// Cosines and sines of `positions`, each row-major [positions, head_dim / 2].
    #[cfg(feature = "model")]
    pub(crate) fn tables(&self, head_dim: usize, positions: Range<usize>) -> (Vec<f32>, Vec<f32>) {
        let frequencies = self.frequencies(head_dim);
        let angles =
            positions.flat_map(|position| frequencies.iter().map(move |f| position as f64 * f));
        angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip()
    }
}

impl Scaling {
    fn apply(self, frequency: f64) -> f64 {
        match self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 { factor, low, high, original } => {
                let turns = original * frequency / TAU;
                let share = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - share) * frequency / factor + share * frequency
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_high_frequencies_and_divides_low_ones() {
        let scaling = Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
        assert_eq!(scaling.apply(1.0), 1.0);
        assert_eq!(scaling.apply(1e-5), 1e-5 / 8.0);
        // 2.5 turns, half way: the mean of f and f / 8.
        let middle = 2.5 * TAU / 8192.0;
        assert!((scaling.apply(middle) / middle - 0.5625).abs() < 1e-12);
    }
}
