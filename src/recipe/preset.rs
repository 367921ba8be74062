//! The recipes that ship in the binary.

use clap::ValueEnum;

use super::Recipe;

/// A recipe by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// 2-bit balanced grid for linear layers, 4-bit groups for embeddings.
    OnDevice,
    /// ASTC textures and LoRA adapters for linear layers, 4-bit groups for embeddings.
    Server,
    /// BC4 textures, which every desktop GPU decodes, in place of ASTC.
    ServerDesktop,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 3] = [Self::OnDevice, Self::Server, Self::ServerDesktop];

    /// Name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OnDevice => "on-device",
            Self::Server => "server",
            Self::ServerDesktop => "server-desktop",
        }
    }

    /// The preset's recipe file.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::OnDevice => include_str!("presets/on-device.toml"),
            Self::Server => include_str!("presets/server.toml"),
            Self::ServerDesktop => include_str!("presets/server-desktop.toml"),
        }
    }

    /// The recipe file of the preset for a calibrated run, where the same bits are better spent in
    /// another way.
    #[must_use]
    pub fn calibrated_text(self) -> &'static str {
        match self {
            Self::OnDevice => include_str!("presets/on-device-calibrated.toml"),
            Self::Server => include_str!("presets/server-calibrated.toml"),
            Self::ServerDesktop => self.text(),
        }
    }

    /// The preset's recipe for a calibrated run.
    ///
    /// # Panics
    /// Never: tests parse every preset.
    #[must_use]
    pub fn calibrated_recipe(self) -> Recipe {
        Recipe::parse(self.calibrated_text(), self.name()).expect("invariant: presets are tested")
    }

    /// The preset's recipe.
    ///
    /// # Panics
    /// Never: tests parse every preset.
    #[must_use]
    pub fn recipe(self) -> Recipe {
        Recipe::parse(self.text(), self.name()).expect("invariant: presets are tested")
    }
}
