//! Accuracy gates: bounds that a pipeline sets, and the verdict.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::metrics::TextScores;
use super::tasks::TaskScores;
use crate::error::{Error, IoContext, Result};

/// Bounds on what an evaluation may find; none is set at first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Gates {
    /// Largest mean KLD(original‖model) in nats.
    pub max_kld: Option<f64>,
    /// Largest ratio of the perplexities, model over original.
    pub max_ppl_ratio: Option<f64>,
    /// Least share of positions with the same most probable token, 0..1.
    pub min_top1: Option<f64>,
    /// Least accuracy by letter, 0..1.
    pub min_accuracy: Option<f64>,
}

/// What became of one bound.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Name of the bound, as its flag.
    pub gate: &'static str,
    /// What was measured.
    pub measured: f64,
    /// The bound.
    pub bound: f64,
    /// Distance from the bound; negative if it is broken.
    pub margin: f64,
    /// Whether it holds.
    pub passed: bool,
}

impl Gates {
    /// Reads a TOML file with the keys `max-kld`, `max-ppl-ratio`, `min-top1`, `min-accuracy`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Usage`] for an unknown key or a bound that
    /// makes no sense.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).at("read", path)?;
        toml::from_str(&text)
            .map_err(|e| Error::Usage(format!("{}: {}", path.display(), e.message())))
    }

    /// The bounds of `self`, and those of `other` where `self` sets none.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            max_kld: self.max_kld.or(other.max_kld),
            max_ppl_ratio: self.max_ppl_ratio.or(other.max_ppl_ratio),
            min_top1: self.min_top1.or(other.min_top1),
            min_accuracy: self.min_accuracy.or(other.min_accuracy),
        }
    }

    /// Each bound must make sense, and what it bounds must be measured: `compares` says whether
    /// a text is scored beside an original, `answers` whether there are questions.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the first bound that fails this.
    pub fn check(&self, compares: bool, answers: bool) -> Result<()> {
        for (name, bound) in self.set() {
            let share = name.starts_with("min");
            if !bound.is_finite() || bound < 0.0 || (share && bound > 1.0) {
                let range = if share { "between 0 and 1" } else { "of 0 or more" };
                return Err(Error::Usage(format!("--{name} {bound}: not a number {range}")));
            }
            let (measured, needs) = match name {
                "min-accuracy" => (answers, "--tasks"),
                _ => (compares, "--text and --against"),
            };
            if !measured {
                return Err(Error::Usage(format!(
                    "--{name} bounds what is not measured: give {needs} too"
                )));
            }
        }
        Ok(())
    }

    /// Holds the bounds against what was found.
    pub(super) fn judge(
        &self,
        text: Option<&TextScores>,
        tasks: Option<&TaskScores>,
    ) -> Vec<Verdict> {
        let comparison = text.and_then(|text| text.comparison.as_ref());
        let judge = |(gate, bound): (&'static str, f64)| {
            let measured = match gate {
                "max-kld" => comparison.map(|c| c.kld.mean),
                "max-ppl-ratio" => comparison.map(|c| c.perplexity_ratio.mean),
                "min-top1" => comparison.map(|c| c.top1.mean),
                _ => tasks.map(|t| t.letter.accuracy.value),
            }
            // A bound on nothing cannot hold.
            .unwrap_or(f64::NAN);
            let margin = if gate.starts_with("max") { bound - measured } else { measured - bound };
            Verdict { gate, measured, bound, margin, passed: margin >= 0.0 }
        };
        self.set().map(judge).collect()
    }

    fn set(&self) -> impl Iterator<Item = (&'static str, f64)> {
        [
            ("max-kld", self.max_kld),
            ("max-ppl-ratio", self.max_ppl_ratio),
            ("min-top1", self.min_top1),
            ("min-accuracy", self.min_accuracy),
        ]
        .into_iter()
        .filter_map(|(name, bound)| Some((name, bound?)))
    }
}

/// A line for each bound that does not hold, as [`Error::Gate`] takes them.
#[must_use]
pub fn broken_gates(verdicts: &[Verdict]) -> Vec<String> {
    let line = |v: &Verdict| {
        format!("{} {}: measured {:.6}, margin {:.6}", v.gate, v.bound, v.measured, v.margin)
    };
    verdicts.iter().filter(|verdict| !verdict.passed).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Result<Gates> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.toml");
        std::fs::write(&path, text).unwrap();
        Gates::read(&path)
    }

    #[test]
    fn files_and_flags() {
        let file = set("max-kld = 0.1\nmin-top1 = 0.9\n").unwrap();
        let flags = Gates { max_kld: Some(0.2), ..Gates::default() };
        let both = flags.or(file);
        assert_eq!((both.max_kld, both.min_top1, both.min_accuracy), (Some(0.2), Some(0.9), None));
        for (text, word) in [("max-kdl = 1", "max-kdl"), ("max-kld = 'x'", "invalid type")] {
            let error = set(text).unwrap_err();
            assert!(matches!(&error, Error::Usage(message) if message.contains(word)), "{error}");
        }
    }

    #[test]
    fn bounds_that_cannot_be_judged() {
        let one = |name: &str, bound: f64| {
            let bound = |of: &str| (of == name).then_some(bound);
            Gates {
                max_kld: bound("kld"),
                max_ppl_ratio: bound("ratio"),
                min_top1: bound("top1"),
                min_accuracy: bound("accuracy"),
            }
        };
        for (gates, compares, answers) in [
            (one("kld", 0.1), false, true),
            (one("ratio", 1.1), false, true),
            (one("top1", 0.9), false, true),
            (one("accuracy", 0.5), true, false),
            (one("top1", 90.0), true, true),
            (one("kld", -1.0), true, true),
            (one("kld", f64::NAN), true, true),
        ] {
            assert!(matches!(gates.check(compares, answers), Err(Error::Usage(_))), "{gates:?}");
        }
        assert!(one("kld", 0.0).check(true, false).is_ok());
    }

    #[test]
    fn a_value_that_is_no_number_breaks_its_gate() {
        let gates = Gates { max_kld: Some(1.0), ..Gates::default() };
        let [verdict] = &gates.judge(None, None)[..] else { panic!("one gate") };
        assert!(!verdict.passed && verdict.measured.is_nan());
        assert_eq!(broken_gates(std::slice::from_ref(verdict)).len(), 1);
    }
}
