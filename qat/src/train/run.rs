//! The steps of a training run.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use super::{Rates, Schedule, SpikeGuard, Step, Verdict, WindowOrder};

/// How a run goes.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSettings {
    /// Rates over the steps; its `steps` are those of the run.
    pub schedule: Schedule,
    /// Rates at their full.
    pub rates: Rates,
    /// Windows to train on.
    pub windows: usize,
    /// Windows whose gradients are computed together.
    pub batch: usize,
    /// Batches whose gradients are added up for a step.
    pub accumulate: usize,
    /// Decays of the optimiser's moments.
    pub betas: (f32, f32),
    /// Decoupled weight decay.
    pub decay: f32,
    /// Largest L2 norm of all gradients together; larger ones are scaled down.
    pub clip: f32,
    /// Standard deviations that a loss may be above the mean.
    pub spike_deviations: f64,
    /// Rollbacks before the run is given up.
    pub most_rollbacks: u32,
    /// Steps between evaluations; 0 for none but at the ends.
    pub evaluate_every: u64,
    /// Evaluations without a new best after which the run ends; 0 for no early stop.
    pub patience: u32,
    /// The last weights are the result of a run that takes all steps, not the best.
    pub keep_last: bool,
    /// Time between checkpoints.
    pub save_every: Duration,
    /// Seed of the order of windows.
    pub seed: u64,
}

impl RunSettings {
    /// `share` of the full rates, and step `number` with gradients that are sums of
    /// [`Self::accumulate`] batches' and whose mean has the L2 norm `norm`.
    #[must_use]
    pub fn step(&self, number: u64, norm: f64, share: f32) -> (Rates, Step) {
        let Rates { weight, scale, .. } = self.rates;
        let rates = Rates { weight: weight * share, scale: scale * share, ..self.rates };
        let clip = (f64::from(self.clip) / norm).min(1.0) as f32;
        let step = Step {
            number,
            factor: clip / self.accumulate as f32,
            beta1: self.betas.0,
            beta2: self.betas.1,
            epsilon: EPSILON,
            decay: self.decay,
        };
        (rates, step)
    }
}

/// Losses, means over tokens.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Losses {
    /// What is minimised.
    pub total: f64,
    /// KLD from the original model's distributions to the trained model's, in nats.
    pub divergence: f64,
    /// Cross entropy with the text, in nats.
    pub cross_entropy: f64,
    /// Squared difference of the last hidden states over the square of the original's.
    pub hidden: f64,
    /// Tokens that the means are over.
    pub tokens: u64,
}

impl Losses {
    /// Takes in the means of other tokens.
    pub fn absorb(&mut self, other: &Self) {
        let tokens = self.tokens + other.tokens;
        let share = other.tokens as f64 / tokens.max(1) as f64;
        for (mean, other) in [
            (&mut self.total, other.total),
            (&mut self.divergence, other.divergence),
            (&mut self.cross_entropy, other.cross_entropy),
            (&mut self.hidden, other.hidden),
        ] {
            *mean += share * (other - *mean);
        }
        self.tokens = tokens;
    }
}

/// Where a run is: with the state of the trainee, enough to go on as if nothing had happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// Steps taken.
    pub step: u64,
    /// What rates are multiplied by after rollbacks.
    pub rate_factor: f32,
    /// Rollbacks so far.
    pub rollbacks: u32,
    /// What the guard against spikes knows.
    pub guard: SpikeGuard,
    /// The loss at the start, as all evaluations give it.
    pub start: Option<f64>,
    /// The lowest one.
    pub best: Option<f64>,
    /// Steps before it.
    pub best_step: Option<u64>,
    /// Evaluations since then.
    pub since_best: u32,
    /// The last one, if there was one since the run was started or resumed.
    pub last: Option<f64>,
}

/// Losses that are nearer to each other are those of a run that hardly moved.
const WORSE: f64 = 1.01;

impl Position {
    /// Before the first step.
    #[must_use]
    pub fn start(settings: &RunSettings) -> Self {
        Self {
            step: 0,
            rate_factor: 1.0,
            rollbacks: 0,
            guard: SpikeGuard::new(settings.spike_deviations),
            start: None,
            best: None,
            best_step: None,
            since_best: 0,
            last: None,
        }
    }

    /// The losses at the start and at the end of a run that came to nothing: the end is worse than the
    /// start by more than a hundredth, and nothing in between was better.
    #[must_use]
    pub fn worse(&self) -> Option<(f64, f64)> {
        let (start, last) = self.start.zip(self.last)?;
        let improved = self.best.is_some_and(|best| best < start);
        // A loss that is not a number is worse than any.
        let worse = last.partial_cmp(&(WORSE * start)).is_none_or(Ordering::is_gt);
        (!improved && worse).then_some((start, last))
    }
}

/// Something that can be trained.
pub trait Trainee {
    /// What can go wrong with it.
    type Error;

    /// Adds the gradients of the mean loss of `windows` to those that are there.
    ///
    /// # Errors
    /// What the model gives. A loss that is not finite is no error.
    fn accumulate(&mut self, windows: &[usize]) -> Result<Losses, Self::Error>;

    /// Sums of squares of all gradients together.
    fn squared_norm(&mut self) -> f64;

    /// Takes a step with the gradients times `step.factor`, and clears them.
    fn step(&mut self, rates: &Rates, step: &Step);

    /// Clears the gradients.
    fn clear(&mut self);

    /// Losses on windows that are not trained on, or else on some that are, as what is exported gives
    /// them.
    ///
    /// # Errors
    /// What the model gives.
    fn evaluate(&mut self) -> Result<Losses, Self::Error>;

    /// Whether there are windows that are not trained on.
    fn holds_out(&self) -> bool;

    /// Stores everything so that [`Self::restore`] finds it, even if the process dies.
    ///
    /// # Errors
    /// Where it cannot be stored. The last good state is then still there.
    fn save(&mut self, position: &Position) -> Result<(), Self::Error>;

    /// Goes back to what was stored last, or to the start, and gives the position there.
    ///
    /// # Errors
    /// Where what was stored cannot be read.
    fn restore(&mut self) -> Result<Option<Position>, Self::Error>;

    /// Stores the weights as the best so far.
    ///
    /// # Errors
    /// As [`Self::save`].
    fn save_best(&mut self) -> Result<(), Self::Error>;

    /// Goes back to the weights that were best.
    ///
    /// # Errors
    /// As [`Self::restore`].
    fn restore_best(&mut self) -> Result<(), Self::Error>;
}

/// Sees a run as it goes.
pub trait Watcher<E> {
    /// A step was taken.
    fn stepped(&mut self, position: &Position, losses: &Losses, norm: f64, rate: f32);

    /// Held-out windows were evaluated.
    fn evaluated(&mut self, position: &Position, losses: &Losses);

    /// The run went back to `position` because of `loss`.
    fn rolled_back(&mut self, position: &Position, loss: f64);

    /// A checkpoint could not be written; the run goes on.
    fn not_saved(&mut self, error: E);

    /// Whether the run should store itself and end.
    fn wants_stop(&self) -> bool;
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All steps were taken.
    Finished,
    /// Held-out losses no longer fell.
    Early,
    /// It was asked to stop, and can go on from what it stored.
    Stopped,
    /// Losses jumped again and again at ever lower rates.
    Diverged,
}

/// Runs `trainee` from `position` on, and leaves it with the best weights, unless the last are to be
/// kept.
///
/// # Errors
/// What the trainee gives, but for checkpoints that cannot be written: those the watcher is told of.
pub fn train<T: Trainee>(
    trainee: &mut T,
    settings: &RunSettings,
    mut position: Position,
    watcher: &mut dyn Watcher<T::Error>,
) -> Result<(Ended, Position), T::Error> {
    let mut saved = Instant::now();
    if position.step == 0 {
        evaluate(trainee, settings, &mut position, watcher)?;
    }
    while position.step < settings.schedule.steps {
        if watcher.wants_stop() {
            trainee.save(&position)?;
            return Ok((Ended::Stopped, position));
        }
        let (losses, norm) = gradients(trainee, settings, &position)?;
        let judged = if norm.is_finite() { losses.total } else { f64::NAN };
        if position.guard.judge(judged) == Verdict::Spike {
            trainee.clear();
            let (rate_factor, rollbacks) = (position.rate_factor / 2.0, position.rollbacks + 1);
            if rollbacks > settings.most_rollbacks {
                return Ok((Ended::Diverged, position));
            }
            let Position { start, best, best_step, since_best, .. } = position;
            position = trainee.restore()?.unwrap_or_else(|| Position::start(settings));
            (position.rate_factor, position.rollbacks) = (rate_factor, rollbacks);
            // The best weights are stored apart, and are still the best.
            (position.start, position.best, position.best_step) = (start, best, best_step);
            position.since_best = since_best;
            watcher.rolled_back(&position, losses.total);
            continue;
        }
        position.step += 1;
        let share = settings.schedule.share(position.step) * position.rate_factor;
        let (rates, step) = settings.step(position.step, norm, share);
        trainee.step(&rates, &step);
        watcher.stepped(&position, &losses, norm, share);
        let last = position.step == settings.schedule.steps;
        let due =
            settings.evaluate_every > 0 && position.step.is_multiple_of(settings.evaluate_every);
        if (last || due) && evaluate(trainee, settings, &mut position, watcher)? {
            trainee.restore_best()?;
            return Ok((Ended::Early, position));
        }
        if !last && saved.elapsed() >= settings.save_every {
            if let Err(e) = trainee.save(&position) {
                watcher.not_saved(e);
            }
            saved = Instant::now();
        }
    }
    if !settings.keep_last && position.best.is_some() && position.since_best > 0 {
        trainee.restore_best()?;
    }
    Ok((Ended::Finished, position))
}

/// Added to the root of the second moments: far below any gradient that matters.
const EPSILON: f32 = 1e-12;

/// Mean losses and L2 norm of the mean gradient of the next step's windows.
fn gradients<T: Trainee>(
    trainee: &mut T,
    settings: &RunSettings,
    position: &Position,
) -> Result<(Losses, f64), T::Error> {
    // After a rollback other windows come, in case it was they.
    let seed = settings.seed.wrapping_add(u64::from(position.rollbacks) << 32);
    let order = WindowOrder { count: settings.windows, seed };
    let windows = settings.batch * settings.accumulate;
    let windows = order.take(position.step * windows as u64, windows);
    let mut losses = Losses::default();
    for batch in windows.chunks(settings.batch) {
        losses.absorb(&trainee.accumulate(batch)?);
    }
    Ok((losses, trainee.squared_norm().sqrt() / settings.accumulate as f64))
}

/// Evaluates, and says whether the run should end.
fn evaluate<T: Trainee>(
    trainee: &mut T,
    settings: &RunSettings,
    position: &mut Position,
    watcher: &mut dyn Watcher<T::Error>,
) -> Result<bool, T::Error> {
    let losses = trainee.evaluate()?;
    if losses.tokens == 0 {
        return Ok(false);
    }
    let better = losses.total.is_finite() && position.best.is_none_or(|best| losses.total < best);
    position.since_best = if better { 0 } else { position.since_best + 1 };
    if better {
        (position.best, position.best_step) = (Some(losses.total), Some(position.step));
    }
    position.start.get_or_insert(losses.total);
    position.last = Some(losses.total);
    if better
        && !settings.keep_last
        && let Err(e) = trainee.save_best()
    {
        watcher.not_saved(e);
    }
    if !trainee.holds_out() {
        return Ok(false);
    }
    watcher.evaluated(position, &losses);
    Ok(settings.patience > 0 && position.since_best >= settings.patience)
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
