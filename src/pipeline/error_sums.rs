//! Signal and noise of coded weights.

use super::decibels;

/// Σw² and Σ(w - ŵ)², added up in f64.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ErrorSums {
    /// Σw².
    pub signal: f64,
    /// Σ(w - ŵ)².
    pub noise: f64,
}

/// Lanes of the partial sums; fixed, so that every machine adds in the same order.
const LANES: usize = 16;

impl ErrorSums {
    /// Sums over a panel and its decoded copy, of equal length.
    #[must_use]
    pub fn of(weights: &[f32], decoded: &[f32]) -> Self {
        assert_eq!(weights.len(), decoded.len(), "invariant: one decoded weight a weight");
        let mut signal = [0.0f64; LANES];
        let mut noise = [0.0f64; LANES];
        let (w_chunks, w_rest) = weights.as_chunks::<LANES>();
        let (d_chunks, d_rest) = decoded.as_chunks::<LANES>();
        for (w, d) in w_chunks.iter().zip(d_chunks) {
            for lane in 0..LANES {
                let (w, d) = (f64::from(w[lane]), f64::from(d[lane]));
                signal[lane] += w * w;
                noise[lane] += (w - d) * (w - d);
            }
        }
        for (&w, &d) in w_rest.iter().zip(d_rest) {
            let (w, d) = (f64::from(w), f64::from(d));
            signal[0] += w * w;
            noise[0] += (w - d) * (w - d);
        }
        Self { signal: signal.iter().sum(), noise: noise.iter().sum() }
    }

    /// Adds the sums of the next panel.
    pub fn add(&mut self, other: Self) {
        self.signal += other.signal;
        self.noise += other.noise;
    }

    /// 10·log10(Σw² / Σ(w - ŵ)²) in dB; `None` if there is no error at all, negative infinity for an
    /// error where all weights are zero.
    #[must_use]
    pub fn sqnr_db(self) -> Option<f64> {
        decibels::ratio(self.signal, self.noise)
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorSums;

    #[test]
    fn by_hand() {
        let weights: Vec<f32> = (0..19).map(|i| i as f32).collect();
        let decoded: Vec<f32> = weights.iter().map(|w| w + 0.5).collect();
        let mut sums = ErrorSums::of(&weights, &decoded);
        assert_eq!(sums, ErrorSums { signal: 2109.0, noise: 4.75 });
        sums.add(sums);
        assert!((sums.sqnr_db().unwrap() - 26.474).abs() < 1e-3);
        assert_eq!(ErrorSums::of(&weights, &weights).sqnr_db(), None);
        let of_zeros = ErrorSums::of(&[0.0; 3], &[0.0, 1e-30, 0.0]);
        assert_eq!(of_zeros.sqnr_db(), Some(f64::NEG_INFINITY));
    }
}
