//! The flags that choose a recipe, shared by every command that compresses.

use std::path::PathBuf;

use clap::Args;

#[cfg(feature = "model")]
use crate::error::Error;
use crate::error::Result;
use crate::recipe::{Overrides, Preset, Recipe};

#[derive(Debug, Args)]
pub(super) struct RecipeArgs {
    /// A recipe that ships with the program
    #[arg(long, value_enum, required_unless_present = "recipe", conflicts_with = "recipe")]
    preset: Option<Preset>,
    /// A recipe of your own, TOML
    #[arg(long, visible_alias = "config", value_name = "FILE")]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    pub(super) edits: RecipeEdits,
}

/// What is put in front of a recipe, and how its output is laid out.
#[derive(Debug, Args)]
pub(super) struct RecipeEdits {
    /// Code the tensors whose name matches REGEX with CODEC, before any rule of the recipe;
    /// parameters follow a colon: 'v_proj=grid2:group=64' (repeatable)
    #[arg(long, value_name = "REGEX=CODEC")]
    tensor_type: Vec<String>,
    /// Keep the tensors whose name matches REGEX as they are (repeatable)
    #[arg(long, value_name = "REGEX")]
    ignore: Vec<String>,
    /// Largest size of a weights file
    #[arg(long, value_name = "SIZE", value_parser = super::parse_bytes, default_value = super::DEFAULT_SHARD_SIZE)]
    pub(super) max_shard_size: u64,
}

impl RecipeArgs {
    /// The recipe asked for, with the overrides in front; of a preset, the variant for
    /// `calibrated` runs.
    pub(super) fn recipe(&self, calibrated: bool) -> Result<Recipe> {
        let recipe = match (&self.recipe, self.preset) {
            (Some(path), _) => Recipe::read(path)?,
            (None, Some(preset)) if calibrated => preset.calibrated_recipe(),
            (None, Some(preset)) => preset.recipe(),
            (None, None) => unreachable!("invariant: clap requires one of them"),
        };
        self.edits.put_before(recipe)
    }
}

impl RecipeEdits {
    /// Refuses rules where no recipe takes them.
    #[cfg(feature = "model")]
    pub(super) fn refuse_rules(&self, why: &str) -> Result<()> {
        let given = [("--tensor-type", &self.tensor_type), ("--ignore", &self.ignore)];
        match given.iter().find(|(_, rules)| !rules.is_empty()) {
            None => Ok(()),
            Some((flag, _)) => Err(Error::Usage(format!("{flag} has no meaning {why}"))),
        }
    }

    /// `recipe` with the overrides in front.
    pub(super) fn put_before(&self, recipe: Recipe) -> Result<Recipe> {
        recipe.with_overrides(&Overrides {
            tensor_types: self.tensor_type.clone(),
            ignores: self.ignore.clone(),
        })
    }
}
