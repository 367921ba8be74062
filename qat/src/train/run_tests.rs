use super::*;
use crate::train::AdamW;

/// One parameter that should come to the mean of the windows' targets.
struct Line {
    x: [f32; 1],
    adam: AdamW,
    gradient: f32,
    targets: Vec<f32>,
    /// (x, optimiser, position)
    saved: Option<([f32; 1], AdamW, Position)>,
    best: Option<[f32; 1]>,
    /// Windows in the order in which they came.
    seen: Vec<usize>,
    /// Losses at these calls are not what they are.
    faults: Vec<(usize, f64)>,
    full_disk: bool,
    evaluations: Vec<f64>,
    holds_out: bool,
}

impl Line {
    fn new() -> Self {
        Self {
            x: [5.0],
            adam: AdamW::new(1),
            gradient: 0.0,
            targets: vec![1.0, 2.0, 3.0],
            saved: None,
            best: None,
            seen: Vec::new(),
            faults: Vec::new(),
            full_disk: false,
            evaluations: Vec::new(),
            holds_out: true,
        }
    }
}

impl Trainee for Line {
    type Error = &'static str;

    fn accumulate(&mut self, windows: &[usize]) -> Result<Losses, Self::Error> {
        let mut total = 0.0;
        for &window in windows {
            let distance = self.x[0] - self.targets[window];
            self.gradient += 2.0 * distance / windows.len() as f32;
            total += f64::from(distance * distance) / windows.len() as f64;
        }
        self.seen.extend_from_slice(windows);
        if let Some((_, fault)) = self.faults.iter().find(|(call, _)| *call == self.seen.len()) {
            total = *fault;
        }
        Ok(Losses { total, tokens: windows.len() as u64, ..Losses::default() })
    }

    fn squared_norm(&mut self) -> f64 {
        f64::from(self.gradient * self.gradient)
    }

    fn step(&mut self, rates: &Rates, step: &Step) {
        self.adam.update(&mut self.x, &[self.gradient], rates.weight, step);
        self.gradient = 0.0;
    }

    fn clear(&mut self) {
        self.gradient = 0.0;
    }

    fn evaluate(&mut self) -> Result<Losses, Self::Error> {
        let natural = f64::from((self.x[0] - 2.0).abs());
        let total = if self.evaluations.is_empty() { natural } else { self.evaluations.remove(0) };
        Ok(Losses { total, tokens: 1, ..Losses::default() })
    }

    fn holds_out(&self) -> bool {
        self.holds_out
    }

    fn save(&mut self, position: &Position) -> Result<(), Self::Error> {
        if self.full_disk {
            return Err("disk full");
        }
        self.saved = Some((self.x, self.adam.clone(), position.clone()));
        Ok(())
    }

    fn restore(&mut self) -> Result<Option<Position>, Self::Error> {
        let start = ([5.0], AdamW::new(1));
        let (state, position) = match &self.saved {
            Some((x, adam, position)) => ((*x, adam.clone()), Some(position.clone())),
            None => (start, None),
        };
        (self.x, self.adam) = state;
        Ok(position)
    }

    fn save_best(&mut self) -> Result<(), Self::Error> {
        self.best = Some(self.x);
        Ok(())
    }

    fn restore_best(&mut self) -> Result<(), Self::Error> {
        self.x = self.best.expect("saved before");
        Ok(())
    }
}

#[derive(Default)]
struct Notes {
    losses: Vec<f64>,
    evaluations: usize,
    rollbacks: Vec<(u64, f32)>,
    failures: usize,
    stop_at: Option<usize>,
}

impl Watcher<&'static str> for Notes {
    fn stepped(&mut self, _: &Position, losses: &Losses, _: f64, _: f32) {
        self.losses.push(losses.total);
    }

    fn evaluated(&mut self, _: &Position, _: &Losses) {
        self.evaluations += 1;
    }

    fn rolled_back(&mut self, position: &Position, _: f64) {
        self.rollbacks.push((position.step, position.rate_factor));
    }

    fn not_saved(&mut self, _: &'static str) {
        self.failures += 1;
    }

    fn wants_stop(&self) -> bool {
        self.stop_at == Some(self.losses.len())
    }
}

fn settings(steps: u64) -> RunSettings {
    RunSettings {
        schedule: Schedule { steps, warmup: 5, floor: 0.01 },
        rates: Rates { weight: 0.2, scale: 0.0, scale_decay: 0.9, average_decay: 0.9 },
        windows: 3,
        batch: 1,
        accumulate: 3,
        betas: (0.9, 0.95),
        decay: 0.0,
        clip: 1.0,
        spike_deviations: 6.0,
        most_rollbacks: 2,
        evaluate_every: 10,
        patience: 0,
        keep_last: false,
        save_every: Duration::from_secs(3600),
        seed: 5,
    }
}

fn run(line: &mut Line, settings: &RunSettings, notes: &mut Notes) -> (Ended, Position) {
    train(line, settings, Position::start(settings), notes).unwrap()
}

#[test]
fn the_mean_is_found_and_every_window_comes_once_an_epoch() {
    let (mut line, mut notes) = (Line::new(), Notes::default());
    let (ended, position) = run(&mut line, &settings(100), &mut notes);
    assert_eq!((ended, position.step), (Ended::Finished, 100));
    assert!((line.x[0] - 2.0).abs() < 0.02, "{:?}", line.x);
    assert_eq!((notes.losses.len(), notes.evaluations), (100, 11));
    for epoch in line.seen.chunks(3) {
        assert_eq!(epoch.iter().sum::<usize>(), 3, "{epoch:?}");
    }
}

#[test]
fn a_stopped_run_goes_on_as_if_it_had_not_stopped() {
    let (mut whole, mut all) = (Line::new(), Notes::default());
    run(&mut whole, &settings(60), &mut all);
    let (mut line, mut first) = (Line::new(), Notes { stop_at: Some(23), ..Notes::default() });
    let (ended, _) = run(&mut line, &settings(60), &mut first);
    assert_eq!(ended, Ended::Stopped);
    let position = line.restore().unwrap().unwrap();
    let mut second = Notes::default();
    train(&mut line, &settings(60), position, &mut second).unwrap();
    assert_eq!([first.losses, second.losses].concat(), all.losses);
    assert_eq!(line.x, whole.x);
}

#[test]
fn a_spike_takes_the_run_back_at_half_the_rate_and_many_end_it() {
    let mut line = Line { faults: vec![(120, f64::NAN), (210, 1e9)], ..Line::new() };
    let mut notes = Notes::default();
    let (ended, _) = run(&mut line, &settings(50), &mut notes);
    assert_eq!(ended, Ended::Finished);
    assert_eq!(notes.rollbacks, [(0, 0.5), (0, 0.25)]);
    let mut line = Line { faults: (1..9).map(|i| (30 * i, f64::NAN)).collect(), ..Line::new() };
    let (ended, _) = run(&mut line, &settings(50), &mut Notes::default());
    assert_eq!(ended, Ended::Diverged);
}

#[test]
fn checkpoints_that_fail_do_not_end_the_run() {
    let mut line = Line { full_disk: true, ..Line::new() };
    let mut notes = Notes::default();
    let settings = RunSettings { save_every: Duration::ZERO, ..settings(20) };
    let (ended, _) = run(&mut line, &settings, &mut notes);
    assert_eq!((ended, notes.failures), (Ended::Finished, 19));
}

#[test]
fn early_stop_gives_the_best_weights_back() {
    let evaluations = vec![3.0, 2.0, 2.5, 2.6, 2.7, 0.0];
    let mut line = Line { evaluations, ..Line::new() };
    let settings = RunSettings { patience: 3, ..settings(100) };
    let (ended, position) = run(&mut line, &settings, &mut Notes::default());
    assert_eq!((ended, position.step, position.best), (Ended::Early, 40, Some(2.0)));
    assert_eq!(Some(line.x), line.best);
}

/// Losses as they are written, of a run of 50 steps with an evaluation every ten.
fn evaluated(losses: [f64; 6], settings: &RunSettings) -> (Line, Position) {
    let mut line = Line { evaluations: losses.to_vec(), ..Line::new() };
    let (ended, position) = run(&mut line, settings, &mut Notes::default());
    assert_eq!(ended, Ended::Finished);
    (line, position)
}

#[test]
fn the_best_weights_are_the_result_unless_the_last_are_wanted() {
    let losses = [3.0, 2.0, 1.0, 1.5, 1.2, 2.0];
    let (line, position) = evaluated(losses, &settings(50));
    assert_eq!((Some(line.x), position.since_best, position.worse()), (line.best, 3, None));
    assert_eq!(position.best_step, Some(20));
    let last = RunSettings { keep_last: true, ..settings(50) };
    let (kept, position) = evaluated(losses, &last);
    assert_ne!(kept.x, line.x);
    assert_eq!((kept.best, position.best, position.last), (None, Some(1.0), Some(2.0)));
}

#[test]
fn an_end_worse_than_the_start_is_told() {
    let worse = |losses| evaluated(losses, &settings(50)).1.worse();
    assert_eq!(worse([3.0, 4.0, 5.0, 4.0, 3.5, 3.1]), Some((3.0, 3.1)));
    assert_eq!(worse([3.0; 6]), None, "nothing moved");
    assert_eq!(worse([3.0, 3.1, 3.2, 3.1, 3.1, 3.02]), None, "hardly anything moved");
    assert_eq!(worse([3.0, 4.0, 2.9, 4.0, 9.0, 9.0]), None, "the best is better");
    let (start, last) = worse([3.0, 4.0, 5.0, 4.0, 3.5, f64::NAN]).unwrap();
    assert!(start == 3.0 && last.is_nan());
}

#[test]
fn where_nothing_is_held_out_the_best_is_found_on_windows_of_training() {
    let evaluations = vec![3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    let mut line = Line { evaluations, holds_out: false, ..Line::new() };
    let mut notes = Notes::default();
    let settings = RunSettings { patience: 1, ..settings(50) };
    let (ended, position) = run(&mut line, &settings, &mut notes);
    assert_eq!((ended, notes.evaluations), (Ended::Finished, 0), "no early stop, no report");
    assert_eq!((line.x, position.worse()), ([5.0], Some((3.0, 8.0))));
}
