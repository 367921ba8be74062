//! Rotary position embeddings (arXiv 2104.09864), in the halves of a head as Hugging Face has them.

use std::f64::consts::TAU;
use std::ops::Range;

use serde_json::{Map, Value};

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
    /// Reads `rope_parameters` or `rope_scaling`; `theta` is the base where they have none.
    pub(super) fn parse(
        parameters: Option<&Map<String, Value>>,
        theta: Option<f64>,
    ) -> Result<Self, String> {
        let get = |key: &str| parameters.and_then(|p| p.get(key));
        let number = |key: &str| get(key).and_then(Value::as_f64);
        let needed = |key: &str| number(key).ok_or_else(|| format!("the rope has no {key}"));
        let theta = number("rope_theta").or(theta).unwrap_or(10_000.0);
        let kind = get("rope_type").or_else(|| get("type")).and_then(Value::as_str);
        let scaling = match kind.unwrap_or("default") {
            "default" => Scaling::None,
            "linear" => Scaling::Linear { factor: needed("factor")? },
            "llama3" => Scaling::Llama3 {
                factor: needed("factor")?,
                low: needed("low_freq_factor")?,
                high: needed("high_freq_factor")?,
                original: needed("original_max_position_embeddings")?,
            },
            other => return Err(format!("rope type {other:?} is not supported")),
        };
        Ok(Self { theta, scaling })
    }

    /// Angle a position of each pair of elements of a head of `head_dim`, head_dim / 2 of them.
    fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        let plain = |i: usize| self.theta.powf(-((2 * i) as f64) / head_dim as f64);
        (0..head_dim / 2).map(plain).map(|f| self.scaling.apply(f)).collect()
    }

    /// Cosines and sines of `positions`, each row-major [positions, head_dim / 2].
    pub(super) fn tables(&self, head_dim: usize, positions: Range<usize>) -> (Vec<f32>, Vec<f32>) {
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
