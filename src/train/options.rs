//! Settings of a training run, as the `[train]` table of a recipe has them.

use std::time::Duration;

use compress_model_qat::train::{Levels, Rates, RunSettings, Schedule, Treatment};
use serde::{Deserialize, Serialize};

use super::loss::LossWeights;

/// How `qat` and `recover` train. Everything has a default, and unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainOptions {
    /// Steps of end-to-end training. Default: 500.
    pub steps: u64,
    /// Passes over the text that each block is trained for on its own, before that. Default: 0.
    pub block_epochs: u64,
    /// Tokens a window. Default: 512.
    pub ctx: usize,
    /// Windows whose gradients are computed together. Default: 2.
    pub batch: usize,
    /// Batches that make a step. Default: 1.
    pub accumulate: usize,
    /// Rate of weights, in multiples of the root mean square of each matrix as it starts, and of
    /// adapters' factors, in multiples of those of the columns of A and the rows of B. Default:
    /// 0.004; of `recover` 0.002.
    pub rate: f32,
    /// Rate of learnt scales, in multiples of themselves. Default: 0.0005.
    pub scale_rate: f32,
    /// Share of the steps until the rate is full. Default: 0.05.
    pub warmup: f32,
    /// Share of the full rate that the last step has. Default: 0.02.
    pub floor: f32,
    /// Decays of the optimiser's moments. Default: 0.9, 0.95.
    pub betas: (f32, f32),
    /// Decoupled weight decay, in multiples of the rate. Default: 0.
    pub weight_decay: f32,
    /// Largest L2 norm of the gradient. Default: 1.
    pub clip: f32,
    /// How scales follow the weights: ema, report, lsq, learnt or fixed. Default: ema.
    #[serde(with = "treatment_name")]
    pub scales: Treatment,
    /// β of the moving average of `ema`. Default: 0.99.
    pub scale_decay: f32,
    /// Decay of the average of the weights of `report`. Default: 0.98.
    pub average_decay: f32,
    /// One scale for a whole matrix where the recipe has no groups. Default: false.
    pub scale_per_tensor: bool,
    /// Weights start from the calibrated solution; false for the original weights and their
    /// least-squares scales. Default: true.
    pub from_solution: bool,
    /// Weight of the KLD from the original. Default: 1.
    pub divergence: f32,
    /// Weight of the cross entropy with the text. Default: 0.
    pub cross_entropy: f32,
    /// Weight of the relative squared difference of the last hidden states. Default: 1; of
    /// `recover` 0.
    pub hidden: f32,
    /// Blocks are computed again on the way back: less memory, a third more time. Default: false.
    pub recompute: bool,
    /// Steps between evaluations on held-out windows. Default: 50.
    pub evaluate_every: u64,
    /// Windows of the text that are held out. Default: 8, at most a tenth of all.
    pub held_out: usize,
    /// Evaluations without a new best after which training ends; 0 for never. Default: 0.
    pub patience: u32,
    /// The last state is written, be it worse than the best one or than the start; otherwise the best
    /// one is, and a run that ends worse than it started is refused. Default: false.
    pub keep_last: bool,
    /// Standard deviations above the mean at which a loss is a spike. Default: 8.
    pub spike: f64,
    /// Rollbacks before the run is given up. Default: 4.
    pub rollbacks: u32,
    /// Minutes between checkpoints. Default: 10.
    pub checkpoint_minutes: f64,
    /// {-2, -1, 0, 1} instead of the balanced grid, for comparison: no codec holds the result, so
    /// nothing is exported. Default: false.
    pub twos_complement: bool,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            steps: 500,
            block_epochs: 0,
            ctx: 512,
            batch: 2,
            accumulate: 1,
            rate: 0.004,
            scale_rate: 0.0005,
            warmup: 0.05,
            floor: 0.02,
            betas: (0.9, 0.95),
            weight_decay: 0.0,
            clip: 1.0,
            scales: Treatment::Ema,
            scale_decay: 0.99,
            average_decay: 0.98,
            scale_per_tensor: false,
            from_solution: true,
            divergence: 1.0,
            cross_entropy: 0.0,
            hidden: 1.0,
            recompute: false,
            evaluate_every: 50,
            held_out: 8,
            patience: 0,
            keep_last: false,
            spike: 8.0,
            rollbacks: 4,
            checkpoint_minutes: 10.0,
            twos_complement: false,
        }
    }
}

impl TrainOptions {
    /// Defaults for adapters.
    #[must_use]
    pub fn of_adapters() -> Self {
        Self { steps: 250, rate: 0.002, hidden: 0.0, ..Self::default() }
    }

    /// Whether blocks are trained and nothing end to end.
    pub(super) fn only_blocks(&self) -> bool {
        self.block_epochs > 0 && self.steps == 0
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// The key and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let positive = [
            ("rate", f64::from(self.rate)),
            ("clip", f64::from(self.clip)),
            ("spike", self.spike),
            ("batch", self.batch as f64),
            ("accumulate", self.accumulate as f64),
            ("checkpoint_minutes", self.checkpoint_minutes),
        ];
        let shares = [
            ("warmup", self.warmup),
            ("floor", self.floor),
            ("scale_decay", self.scale_decay),
            ("average_decay", self.average_decay),
            ("betas", self.betas.0),
            ("betas", self.betas.1),
        ];
        let not_negative = [
            ("scale_rate", self.scale_rate),
            ("weight_decay", self.weight_decay),
            ("divergence", self.divergence),
            ("cross_entropy", self.cross_entropy),
            ("hidden", self.hidden),
        ];
        if let Some((key, x)) = positive.iter().find(|(_, x)| !(x.is_finite() && *x > 0.0)) {
            return Err(format!("{key} has to be above 0, not {x}"));
        }
        // The floor may be 1 for a rate that stays.
        let share = |key: &str, x: &f32| (0.0..1.0).contains(x) || (key == "floor" && *x == 1.0);
        if let Some((key, x)) = shares.iter().find(|(key, x)| !share(key, x)) {
            return Err(format!("{key} has to be at least 0 and below 1, not {x}"));
        }
        if let Some((key, x)) = not_negative.iter().find(|(_, x)| !(x.is_finite() && *x >= 0.0)) {
            return Err(format!("{key} has to be at least 0, not {x}"));
        }
        if self.keep_last && self.patience > 0 {
            return Err("patience keeps the best state, keep_last the last: choose one".to_owned());
        }
        if self.ctx < 3 {
            return Err(format!("ctx {} is too short", self.ctx));
        }
        if self.steps == 0 && self.block_epochs == 0 {
            return Err("neither steps nor block_epochs: nothing to train".to_owned());
        }
        if self.steps > 0 && self.divergence + self.cross_entropy + self.hidden == 0.0 {
            return Err(
                "divergence, cross_entropy and hidden are all 0: nothing to train for".into()
            );
        }
        Ok(())
    }

    /// The weights of the loss.
    pub(super) fn loss(&self) -> LossWeights {
        LossWeights {
            divergence: self.divergence,
            cross_entropy: self.cross_entropy,
            hidden: self.hidden,
        }
    }

    /// The levels that weights are rounded to.
    pub(super) fn levels(&self) -> Levels {
        if self.twos_complement { Levels::TwosComplement } else { Levels::Balanced }
    }

    /// Rates at their full.
    pub(super) fn rates(&self) -> Rates {
        Rates {
            weight: self.rate,
            scale: self.scale_rate,
            scale_decay: self.scale_decay,
            average_decay: self.average_decay,
        }
    }

    /// The end-to-end run on `windows` windows.
    pub(super) fn run(&self, windows: usize, seed: u64) -> RunSettings {
        RunSettings {
            schedule: self.schedule(self.steps),
            rates: self.rates(),
            windows,
            batch: self.batch,
            accumulate: self.accumulate,
            betas: self.betas,
            decay: self.weight_decay,
            clip: self.clip,
            spike_deviations: self.spike,
            most_rollbacks: self.rollbacks,
            evaluate_every: self.evaluate_every,
            patience: self.patience,
            keep_last: self.keep_last,
            save_every: Duration::from_secs_f64(60.0 * self.checkpoint_minutes.min(1e6)),
            seed,
        }
    }

    /// Rates over `steps` steps.
    pub(super) fn schedule(&self, steps: u64) -> Schedule {
        Schedule { steps, warmup: (steps as f32 * self.warmup) as u64, floor: self.floor }
    }
}

mod treatment_name {
    use compress_model_qat::train::Treatment;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(t: &Treatment, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(t.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Treatment, D::Error> {
        let name = String::deserialize(d)?;
        Treatment::named(&name).ok_or_else(|| {
            let known = Treatment::ALL.map(Treatment::name).join(", ");
            D::Error::custom(format!("no treatment {name:?} of scales; there are {known}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_make_sense_and_survive_toml() {
        let options = TrainOptions::default();
        assert_eq!(options.check(), Ok(()));
        let text = toml::to_string(&options).unwrap();
        assert_eq!(toml::from_str::<TrainOptions>(&text).unwrap(), options);
        assert_eq!(toml::from_str::<TrainOptions>("").unwrap(), options);
    }

    #[test]
    fn mistakes_are_named() {
        let message = |text: &str| match toml::from_str::<TrainOptions>(text) {
            Err(e) => e.to_string(),
            Ok(options) => options.check().unwrap_err(),
        };
        assert!(message("stpes = 3").contains("stpes"));
        assert!(message("scales = 'lqs'").contains("no treatment \"lqs\""));
        assert!(message("rate = -1.0").contains("rate"));
        assert!(message("rate = nan").contains("rate"));
        assert!(message("scale_decay = 1.0").contains("scale_decay"));
        assert!(message("divergence = 0.0\nhidden = 0").contains("nothing to train for"));
        assert!(message("steps = 0").contains("nothing to train"));
        assert!(message("batch = 0").contains("batch"));
        assert!(message("keep_last = true\npatience = 2").contains("choose one"));
    }
}
