//! A guard against losses that jump.

/// Watches the losses of a run. A loss is a spike when it is not finite or lies so far above what
/// the last steps gave that no batch explains it.
#[derive(Debug, Clone, PartialEq)]
pub struct SpikeGuard {
    /// How many standard deviations above the mean a loss may be.
    pub deviations: f64,
    /// Mean and variance of the losses so far, moving averages.
    pub mean: f64,
    /// Variance.
    pub variance: f64,
    /// Losses seen since the start or the last rollback.
    pub seen: u64,
}

/// What a loss means for the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Usual,
    /// The step is not to be taken, and the run should go back.
    Spike,
}

/// Share of the averages that a new loss takes.
const SHARE: f64 = 0.05;
/// Losses before any is called a spike, unless it is not finite.
const FIRST: u64 = 20;
/// A spike is at least this many times the mean: losses that hardly vary are no reason for alarm.
const LEAST_RATIO: f64 = 1.5;

impl SpikeGuard {
    /// One that has seen nothing and lets `deviations` standard deviations pass.
    #[must_use]
    pub fn new(deviations: f64) -> Self {
        Self { deviations, mean: 0.0, variance: 0.0, seen: 0 }
    }

    /// Judges the next loss, and learns from it unless it is a spike.
    pub fn judge(&mut self, loss: f64) -> Verdict {
        let limit = self.mean + self.deviations * self.variance.sqrt();
        let high = self.seen >= FIRST && loss > limit.max(LEAST_RATIO * self.mean);
        if !loss.is_finite() || high {
            return Verdict::Spike;
        }
        let share = SHARE.max(1.0 / (self.seen + 1) as f64);
        let distance = loss - self.mean;
        self.mean += share * distance;
        self.variance = (1.0 - share) * (self.variance + share * distance * distance);
        self.seen += 1;
        Verdict::Usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_passes_and_spikes_do_not() {
        let mut guard = SpikeGuard::new(6.0);
        for i in 0..200 {
            let loss = 2.0 - f64::from(i) * 0.002 + 0.2 * (f64::from(i) * 2.3).sin();
            assert_eq!(guard.judge(loss), Verdict::Usual, "{i}");
        }
        let before = guard.clone();
        for spike in [9.0, f64::NAN, f64::INFINITY] {
            assert_eq!(guard.judge(spike), Verdict::Spike);
        }
        assert_eq!(guard, before, "spikes teach nothing");
        assert_eq!(guard.judge(2.1), Verdict::Usual);
    }

    #[test]
    fn the_first_losses_may_be_anything_finite() {
        let mut guard = SpikeGuard::new(3.0);
        assert_eq!(guard.judge(1.0), Verdict::Usual);
        assert_eq!(guard.judge(50.0), Verdict::Usual);
        assert_eq!(guard.judge(f64::NAN), Verdict::Spike);
    }
}
