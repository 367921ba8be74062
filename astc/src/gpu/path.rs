//! Which of the two ways of decoding is taken.

use std::fmt;
use std::str::FromStr;

use super::GpuError;
use crate::TexelMode;

/// How texels come out of the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecodePath {
    /// The texture unit decodes, with the precision that the self-test found.
    Sampled(TexelMode),
    /// A compute shader decodes, with the precision asked for.
    Computed(TexelMode),
}

impl DecodePath {
    /// The codec and the precision of the texels.
    pub const fn mode(self) -> TexelMode {
        match self {
            Self::Sampled(mode) | Self::Computed(mode) => mode,
        }
    }
}

impl fmt::Display for DecodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, mode) = match self {
            Self::Sampled(mode) => ("sampled", mode),
            Self::Computed(mode) => ("computed", mode),
        };
        write!(f, "{path}, {}", mode.name())
    }
}

/// What the user wants of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PathChoice {
    /// The texture unit where it passes the self-test, else the compute shader.
    #[default]
    Auto,
    /// The texture unit or an error.
    Sampled,
    /// The compute shader.
    Computed,
}

impl FromStr for PathChoice {
    type Err = GpuError;

    fn from_str(text: &str) -> Result<Self, GpuError> {
        match text {
            "auto" => Ok(Self::Auto),
            "sampled" => Ok(Self::Sampled),
            "computed" => Ok(Self::Computed),
            _ => Err(GpuError::UnknownPath(text.to_owned())),
        }
    }
}
