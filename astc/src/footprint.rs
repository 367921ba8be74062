//! Block footprints: how many texels 128 bits cover.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// One of the 14 two-dimensional ASTC block footprints, "6x6" in its text form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Footprint {
    width: u8,
    height: u8,
}

impl Footprint {
    /// Every 2D footprint, in the order of the specification (8.00 to 0.89 bits per texel).
    pub const ALL: [Self; 14] = [
        Self::of(4, 4),
        Self::of(5, 4),
        Self::of(5, 5),
        Self::of(6, 5),
        Self::of(6, 6),
        Self::of(8, 5),
        Self::of(8, 6),
        Self::of(8, 8),
        Self::of(10, 5),
        Self::of(10, 6),
        Self::of(10, 8),
        Self::of(10, 10),
        Self::of(12, 10),
        Self::of(12, 12),
    ];

    /// Texels of the largest footprint, 12x12.
    pub const MAX_TEXELS: usize = 144;

    const fn of(width: u8, height: u8) -> Self {
        Self { width, height }
    }

    /// The footprint of `width` by `height` texels, `None` unless the specification lists it.
    pub fn new(width: usize, height: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.width() == width && f.height() == height)
    }

    /// Texels across (weights along a row of the matrix).
    pub const fn width(self) -> usize {
        self.width as usize
    }

    /// Texels down (rows of the matrix).
    pub const fn height(self) -> usize {
        self.height as usize
    }

    /// Texels a block.
    pub const fn texels(self) -> usize {
        self.width() * self.height()
    }

    /// Position in [`ALL`](Self::ALL).
    pub(crate) fn index(self) -> usize {
        Self::ALL.iter().position(|&f| f == self).expect("invariant: ALL lists every footprint")
    }

    /// Bits a weight when no block is padded: 128 over the texels, without row scales.
    pub fn bits_per_weight(self) -> f64 {
        128.0 / self.texels() as f64
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl FromStr for Footprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|f| f.to_string() == text)
            .ok_or_else(|| Error::UnknownFootprint(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_rejects_others() {
        for footprint in Footprint::ALL {
            assert_eq!(footprint.to_string().parse::<Footprint>().unwrap(), footprint);
        }
        for text in ["", "6", "6X6", "06x6", "7x7", "4x5", "6x6x6", "3x3x3"] {
            assert!(
                matches!(text.parse::<Footprint>(), Err(Error::UnknownFootprint(t)) if t == text)
            );
        }
        assert_eq!(Footprint::new(6, 6).unwrap().bits_per_weight(), 128.0 / 36.0);
    }
}
