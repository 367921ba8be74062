//! How far a run has come, on stderr: a bar on a terminal, a line a minute elsewhere.

use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::Common;

/// Between two lines of a run that no terminal shows.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Where the lines of [`LINE_EVERY`] come from, in the filter of messages.
pub(super) const TARGET: &str = "compress_model::minute";

/// The bar of what a run does now.
#[derive(Debug)]
pub(super) struct Bar {
    now: Arc<Mutex<Phase>>,
    visible: bool,
    /// Writes the lines; ends when the sender goes.
    lines: Option<(Sender<()>, JoinHandle<()>)>,
}

#[derive(Debug)]
struct Phase {
    name: &'static str,
    bar: ProgressBar,
    since: Instant,
}

impl Phase {
    /// `compressing: 34 %, 2 min`.
    fn line(&self) -> Option<String> {
        let length = self.bar.length().filter(|&length| length > 0)?;
        let share = self.bar.position().min(length) * 100 / length;
        Some(format!("{}: {share} %, {} min", self.name, self.since.elapsed().as_secs() / 60))
    }
}

fn lock(now: &Mutex<Phase>) -> MutexGuard<'_, Phase> {
    now.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bar {
    /// No bar yet; with `--quiet` never one.
    pub(super) fn new(common: &Common) -> Self {
        let visible = !common.quiet && std::io::stderr().is_terminal();
        let phase = Phase { name: "", bar: ProgressBar::hidden(), since: Instant::now() };
        let now = Arc::new(Mutex::new(phase));
        let lines = (!common.quiet && !visible).then(|| lines(Arc::clone(&now), LINE_EVERY));
        Self { now, visible, lines }
    }

    /// Ends the bar and begins one of `length`, in the style of `template`, where `{msg}` stands for
    /// figures and `{prefix}` for the name of the `phase`; `{per_sec}` is a rounded rate.
    pub(super) fn begin(&self, phase: &'static str, length: u64, template: &str) -> ProgressBar {
        self.end();
        let target =
            if self.visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(length), target).with_prefix(phase);
        if let Ok(style) = ProgressStyle::with_template(template) {
            let style = style.with_key("per_sec", |state: &ProgressState, text: &mut dyn Write| {
                let _ = write!(text, "{:.0}/s", state.per_sec());
            });
            bar.set_style(style.progress_chars("=> "));
        }
        *lock(&self.now) = Phase { name: phase, bar: bar.clone(), since: Instant::now() };
        bar
    }

    /// The bar.
    pub(super) fn get(&self) -> ProgressBar {
        lock(&self.now).bar.clone()
    }

    fn end(&self) {
        let phase = lock(&self.now);
        phase.bar.finish_and_clear();
        if !phase.name.is_empty() {
            tracing::debug!("{} took {:.1} s", phase.name, phase.since.elapsed().as_secs_f64());
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.end();
        if let Some((sender, thread)) = self.lines.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}

/// Says where `now` is, each time that `every` is over.
fn lines(now: Arc<Mutex<Phase>>, every: Duration) -> (Sender<()>, JoinHandle<()>) {
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || {
        while receiver.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
            let line = lock(&now).line();
            if let Some(line) = line {
                tracing::info!(target: TARGET, "{line}");
            }
        }
    });
    (sender, thread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_a_phase_is() {
        let bar = ProgressBar::hidden();
        let mut phase = Phase { name: "coding", bar, since: Instant::now() };
        assert_eq!(phase.line(), None, "nothing has begun");
        phase.bar = ProgressBar::with_draw_target(Some(8), ProgressDrawTarget::hidden());
        phase.bar.inc(3);
        assert_eq!(phase.line().as_deref(), Some("coding: 37 %, 0 min"));
    }
}
