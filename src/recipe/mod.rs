//! Recipes: which tensor gets which codec.
//!
//! A recipe is a TOML file of ordered rules; the first rule that matches a tensor decides. A rule
//! names a `codec` (or `keep`) and that codec's parameters, and matches by `match`, a regular
//! expression searched in the tensor's name, by `role`, or by both:
//!
//! ```toml
//! name = "mine"
//!
//! [[rule]]
//! match = 'layers\.0\.'
//! codec = "keep"
//! why = "the first layer is sensitive"
//!
//! [[rule]]
//! role = "linear"
//! codec = "grid2"
//! group = 64
//! ```
//!
//! A table `[transform]` ([`Transform`]) names changes of the weights that come before the rules.
//!
//! A rule that decides for no tensor is an error unless it says `optional = true`: it is nearly
//! always a misspelt name. A tensor that no rule matches is kept, and the manifest says so.

mod preset;
mod rule;
mod transform;

use std::path::Path;
#[cfg(feature = "model")]
use std::sync::Arc;

use serde::Serialize;

use crate::checkpoint::role::Role;
#[cfg(feature = "model")]
use crate::codec::Codec;
use crate::error::{Error, IoContext, Result};

pub use preset::Preset;
pub(crate) use rule::compile;
pub use rule::{Action, Rule};
pub use transform::{Pair, RotationKind, Scaling, Sort, Transform};

/// Largest recipe file read.
const MAX_RECIPE_LEN: u64 = 1 << 20;

/// An ordered list of rules.
#[derive(Debug, Clone, Serialize)]
pub struct Recipe {
    /// Name for reports.
    pub name: String,
    /// What the checkpoint goes through first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transform: Option<Transform>,
    /// The rules; the first match decides.
    #[serde(rename = "rule")]
    pub rules: Vec<Rule>,
    /// Settings of training, the table `[train]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<toml::Table>,
    /// Where the recipe came from, for error messages.
    #[serde(skip)]
    origin: String,
}

/// What the command line adds in front of a recipe.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `REGEX=CODEC` of `--tensor-type`, in order.
    pub tensor_types: Vec<String>,
    /// `REGEX` of `--ignore`: kept as they are.
    pub ignores: Vec<String>,
}

impl Recipe {
    /// Parses recipe text; `origin` names it in errors.
    ///
    /// # Errors
    /// [`Error::Recipe`] for bad TOML, unknown keys, bad expressions, codecs or parameters.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let refuse = |message: String| Error::Recipe { origin: origin.to_owned(), message };
        let mut table: toml::Table = text.parse().map_err(|e| refuse(format!("{e}")))?;
        let name = match table.remove("name") {
            None => origin.to_owned(),
            Some(toml::Value::String(name)) => name,
            Some(_) => return Err(refuse("name must be a string".into())),
        };
        let train = match table.remove("train") {
            None => None,
            Some(toml::Value::Table(train)) => Some(train),
            Some(_) => return Err(refuse("train must be a table".into())),
        };
        let transform = match table.remove("transform") {
            None => None,
            Some(toml::Value::Table(table)) => Some(
                Transform::parse(table).map_err(|e| refuse(format!("transform: {}", e.trim())))?,
            ),
            Some(_) => return Err(refuse("transform must be a table".into())),
        };
        let Some(toml::Value::Array(rules)) = table.remove("rule") else {
            return Err(refuse("has no [[rule]]".into()));
        };
        if let Some(key) = table.keys().next() {
            return Err(refuse(format!(
                "unknown key {key:?}; known are name, [transform], [train] and [[rule]]"
            )));
        }
        let rules = rules
            .into_iter()
            .enumerate()
            .map(|(i, value)| match value {
                toml::Value::Table(table) => {
                    Rule::parse(table).map_err(|e| refuse(format!("rule {}: {e}", i + 1)))
                }
                _ => Err(refuse(format!("rule {}: not a table", i + 1))),
            })
            .collect::<Result<_>>()?;
        let recipe = Self { name, transform, train, rules, origin: origin.to_owned() };
        #[cfg(feature = "model")]
        recipe.train_options(&crate::train::TrainOptions::default())?;
        Ok(recipe)
    }

    /// Reads a recipe file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, else as [`Recipe::parse`].
    pub fn read(path: &Path) -> Result<Self> {
        let len = std::fs::metadata(path).at("read", path)?.len();
        if len > MAX_RECIPE_LEN {
            let message = format!("{len} bytes is too large for a recipe");
            return Err(Error::Recipe { origin: path.display().to_string(), message });
        }
        let text = std::fs::read_to_string(path).at("read", path)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Puts the command line's rules in front: ignores first, then tensor types.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming the flag that does not parse.
    pub fn with_overrides(mut self, overrides: &Overrides) -> Result<Self> {
        let mut rules = Vec::new();
        for pattern in &overrides.ignores {
            let rule = Rule::ignore(pattern)
                .map_err(|message| Error::Recipe { origin: "--ignore".into(), message })?;
            rules.push(rule);
        }
        for text in &overrides.tensor_types {
            let rule = Rule::tensor_type(text)
                .map_err(|message| Error::Recipe { origin: "--tensor-type".into(), message })?;
            rules.push(rule);
        }
        rules.append(&mut self.rules);
        self.rules = rules;
        Ok(self)
    }

    /// Puts a rule for the tensor `name` alone in front of all others. Rules that then decide for
    /// nothing are no mistake.
    #[cfg(feature = "model")]
    pub fn put_first(&mut self, name: &str, codec: &Arc<dyn Codec>, rank: usize) {
        self.rules.iter_mut().for_each(|rule| rule.optional = true);
        self.rules.insert(0, Rule::exact(name, codec, rank));
    }

    /// Refuses a recipe with `[transform]`, for a `command` that works on the model as it is.
    ///
    /// # Errors
    /// [`Error::Recipe`].
    pub fn refuse_transform(&self, command: &str) -> Result<()> {
        if self.transform.is_none() {
            return Ok(());
        }
        let message = format!("has [transform], which {command} does not take yet");
        Err(Error::Recipe { origin: self.origin.clone(), message })
    }

    /// The settings of training: those of `[train]`, and `defaults` for what it does not name.
    ///
    /// # Errors
    /// [`Error::Recipe`] for an unknown key or a value that makes no sense.
    #[cfg(feature = "model")]
    pub fn train_options(
        &self,
        defaults: &crate::train::TrainOptions,
    ) -> Result<crate::train::TrainOptions> {
        let refuse = |message: String| Error::Recipe {
            origin: self.origin.clone(),
            message: format!("[train]: {message}"),
        };
        let mut table =
            toml::Table::try_from(defaults).expect("invariant: settings are plain data");
        table.extend(self.train.clone().unwrap_or_default());
        let options: crate::train::TrainOptions =
            table.try_into().map_err(|e: toml::de::Error| refuse(e.message().to_owned()))?;
        options.check().map_err(refuse)?;
        Ok(options)
    }

    /// The rule that decides for tensor `name` of role `role`.
    #[must_use]
    pub fn rule(&self, name: &str, role: Role) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.matches(name, role))
    }

    /// The rule that decides for each of `tensors` (name and role), in their order.
    ///
    /// # Errors
    /// [`Error::Recipe`] if a rule that is not optional decides for none of them.
    pub fn decide<'a>(
        &self,
        tensors: impl Iterator<Item = (&'a str, Role)>,
    ) -> Result<Vec<Option<&Rule>>> {
        let mut used = vec![false; self.rules.len()];
        let decisions = tensors
            .map(|(name, role)| {
                let i = self.rules.iter().position(|rule| rule.matches(name, role))?;
                used[i] = true;
                Some(&self.rules[i])
            })
            .collect();
        match self.rules.iter().zip(used).position(|(rule, used)| !used && !rule.optional) {
            None => Ok(decisions),
            Some(i) => Err(match &self.rules[i].flag {
                Some(flag) => Error::Usage(format!(
                    "{flag}: decides for no tensor: none has such a name, or flags before it decide \
                     for all that have; inspect lists the names"
                )),
                None => Error::Recipe {
                    origin: self.origin.clone(),
                    message: format!(
                        "rule {} ({}) decides for no tensor; correct it, remove it, or set \
                         optional = true",
                        // Rules of flags stand in front.
                        i + 1 - self.rules.iter().filter(|rule| rule.flag.is_some()).count(),
                        self.rules[i].describe_match()
                    ),
                },
            }),
        }
    }

    /// The recipe as TOML, overrides included.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("invariant: a recipe is plain data")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        Recipe::parse(text, "test").expect_err("must be refused").to_string()
    }

    #[test]
    fn first_match_wins_and_overrides_come_first() {
        let recipe = Recipe::parse(
            "[[rule]]\nmatch = 'q_proj'\ncodec = 'grid2'\ngroup = 64\n[[rule]]\nrole = 'linear'\ncodec = 'keep'",
            "test",
        )
        .unwrap()
        .with_overrides(&Overrides {
            tensor_types: vec![r"layers\.1\..*q_proj=int4".into()],
            ignores: vec![r"layers\.2\.".into()],
        })
        .unwrap();
        let names = ["layers.0.q_proj", "layers.1.q_proj", "layers.2.q_proj", "layers.2.x", "y"];
        let decisions = recipe.decide(names.iter().map(|&n| (n, Role::Linear))).unwrap();
        let codecs: Vec<&str> = decisions.iter().map(|d| d.unwrap().action.codec_name()).collect();
        assert_eq!(codecs, ["grid2", "int4", "keep", "keep", "keep"]);
    }

    #[test]
    fn a_rule_without_effect_is_an_error() {
        let text = "[[rule]]\nmatch = 'q_prj'\ncodec = 'grid2'";
        let recipe = Recipe::parse(text, "test").unwrap();
        let error = recipe.decide([("q_proj", Role::Linear)].into_iter()).unwrap_err();
        assert!(error.to_string().contains("rule 1 (match = \"q_prj\")"), "{error}");
        assert_eq!(error.exit_code(), 2);
        let recipe = Recipe::parse(&format!("{text}\noptional = true"), "test").unwrap();
        assert!(recipe.decide([("q_proj", Role::Linear)].into_iter()).unwrap()[0].is_none());
    }

    #[test]
    fn mistakes_are_named() {
        assert!(message("nmae = 'x'\n[[rule]]\nrole='linear'\ncodec='keep'").contains("nmae"));
        assert!(message("").contains("no [[rule]]"));
        assert!(message("[[rule]]\ncodec = 'grid2'").contains("rule 1"));
        assert!(message("[[rule]]\nmatch = '('\ncodec = 'grid2'").contains("rule 1"));
        assert!(message("[[rule]]\nrole = 'liner'\ncodec = 'grid2'").contains("liner"));
        assert!(message("[[rule]]\nrole = 'linear'\ncodec = 'gird2'").contains("gird2"));
        assert!(message("[[rule]]\nrole = 'linear'\ncodec = 'grid2'\ngruop = 4").contains("gruop"));
        assert!(message("[[rule]]\nrole = 'linear'\ncodec = 'grid2'\ngroup = 0").contains("group"));
        assert!(message("[[rule]]\nrole = 'linear'\ncodec = 'keep'\ngroup = 4").contains("group"));
        assert!(message("[[rule]]\nrole = 'linear'\ncodec = 'grid2'\nrank = -1").contains("rank"));
        assert!(message("[[rule]]\nrole = 'linear'\ncodec = 'grid2'\nwhy = 'x'").contains("why"));
        let budget = |list: &str| {
            message(&format!("[[rule]]\nrole = 'linear'\ncodec = 'grid2'\nbudget = {list}"))
        };
        assert!(budget("['gird2']").contains("gird2"));
        assert!(budget("'grid2'").contains("budget"));
    }

    #[test]
    fn transforms_are_read_and_written() {
        let rule = "[[rule]]\nrole = 'linear'\ncodec = 'grid2'";
        let text = "[transform]\nrotation = 'hadamard'\nsort = ['channels']\n\
                    [transform.scaling]\nweights = 0.5\n";
        let recipe = Recipe::parse(&format!("{text}{rule}"), "test").unwrap();
        let transform = recipe.transform.as_ref().unwrap();
        assert_eq!(transform.rotation, Some(RotationKind::Hadamard));
        assert_eq!(transform.scaling.as_ref().unwrap().pairs.len(), 3);
        assert!(!transform.needs_calibration());
        let again = Recipe::parse(&recipe.to_toml(), "test").unwrap();
        assert_eq!(again.transform, recipe.transform);
        let refused = |table: &str| message(&format!("[transform]\n{table}\n{rule}"));
        assert!(refused("rotatoin = 'hadamard'").contains("rotatoin"));
        assert!(refused("rotation = 'hadamrd'").contains("hadamrd"));
        assert!(refused("").contains("names no transform"));
        assert!(refused("untie_head = true").contains("untie_head"));
        assert!(refused("scaling = { weights = 2 }").contains("scaling.weights"));
        assert!(refused("scaling = { pairs = ['norms'] }").contains("does nothing"));
        assert!(refused("scaling = { weights = 1, pears = [] }").contains("pears"));
    }

    #[test]
    fn presets_survive_the_round_trip_through_toml() {
        for preset in Preset::ALL {
            let recipe = preset.recipe();
            let again = Recipe::parse(&recipe.to_toml(), preset.name()).unwrap();
            assert_eq!(recipe.to_toml(), again.to_toml());
            assert_eq!(recipe.name, preset.name());
            assert!(preset.calibrated_recipe().name.starts_with(preset.name()));
        }
    }
}
