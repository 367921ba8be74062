//! Sums of table rows in registers: one lane an endpoint pair.

use crate::simd::{Aligned, Simd};

/// Pairs a vector of the table.
pub(super) const LANES: usize = 16;
/// Two vectors.
pub(super) type Line = Aligned<[[u16; LANES]; 2]>;

/// Runs a kernel generic over the wide and narrow vectors of a chunk and the chunks of a row; a
/// chunk's sums are meant to stay in registers. Direct calls: through a pointer they would not be
/// compiled for the instruction set.
macro_rules! by_shape {
    ($vectors:expr, $kernel:ident($($arg:expr),*)) => {
        match ($vectors, S::ROOMY) {
            (3, _) => $kernel::<S, 1, 1, 1>($($arg),*),
            (4, _) => $kernel::<S, 2, 0, 1>($($arg),*),
            (8, true) => $kernel::<S, 4, 0, 1>($($arg),*),
            (8, false) => $kernel::<S, 2, 0, 2>($($arg),*),
            (_, true) => $kernel::<S, 6, 0, 1>($($arg),*),
            (_, false) => $kernel::<S, 2, 0, 3>($($arg),*),
        }
    };
}

pub(super) use by_shape;

/// Lanes of a chunk: `W` wide vectors, then `N` narrow ones.
#[derive(Clone, Copy)]
pub(super) struct Chunk<S: Simd, const W: usize, const N: usize> {
    wide: [S::Wide; W],
    narrow: [S::Words; N],
}

impl<S: Simd, const W: usize, const N: usize> Chunk<S, W, N> {
    /// Lines of the table.
    pub(super) const LINES: usize = W + N;

    #[inline(always)]
    pub(super) fn splat(s: S, value: u16) -> Self {
        Self { wide: [s.splat_wide(value); W], narrow: [s.splat_word(value); N] }
    }

    #[inline(always)]
    pub(super) fn load(s: S, lines: &[Line]) -> Self {
        let (wide, narrow) = lines.split_at(W);
        Self {
            wide: std::array::from_fn(
                #[inline(always)]
                |vector| s.wide(&wide[vector].0),
            ),
            narrow: std::array::from_fn(
                #[inline(always)]
                |vector| s.words(&narrow[vector].0[0]),
            ),
        }
    }

    #[inline(always)]
    pub(super) fn store(self, s: S, lines: &mut [Line]) {
        let (wide, narrow) = lines.split_at_mut(W);
        for vector in 0..W {
            s.store_wide(self.wide[vector], &mut wide[vector].0);
        }
        for vector in 0..N {
            s.store_words(self.narrow[vector], &mut narrow[vector].0[0]);
        }
    }

    #[inline(always)]
    pub(super) fn add(&mut self, s: S, other: Self) {
        for vector in 0..W {
            self.wide[vector] = s.add_wide(self.wide[vector], other.wide[vector]);
        }
        for vector in 0..N {
            self.narrow[vector] = s.add_words(self.narrow[vector], other.narrow[vector]);
        }
    }

    #[inline(always)]
    pub(super) fn subtract(&mut self, s: S, other: Self) {
        for vector in 0..W {
            self.wide[vector] = s.sub_wide(self.wide[vector], other.wide[vector]);
        }
        for vector in 0..N {
            self.narrow[vector] = s.sub_words(self.narrow[vector], other.narrow[vector]);
        }
    }

    /// Each lane times `factor` over 32768.
    #[inline(always)]
    pub(super) fn scale(&mut self, s: S, factor: u16) {
        for vector in 0..W {
            self.wide[vector] = s.scale_wide(self.wide[vector], s.splat_wide(factor));
        }
        for vector in 0..N {
            self.narrow[vector] = s.scale_words(self.narrow[vector], s.splat_word(factor));
        }
    }

    /// Lane minima of this chunk's vectors and `least`.
    #[inline(always)]
    pub(super) fn fold(self, s: S, mut least: S::Words) -> S::Words {
        if let Some((&first, others)) = self.wide.split_first() {
            let mut wide = first;
            for &other in others {
                wide = s.min_wide(wide, other);
            }
            least = s.min_words(least, s.fold(wide));
        }
        for narrow in self.narrow {
            least = s.min_words(least, narrow);
        }
        least
    }

    /// The first lane that equals `value`.
    #[inline(always)]
    pub(super) fn first_equal(self, s: S, value: u16) -> Option<usize> {
        for (vector, &wide) in self.wide.iter().enumerate() {
            if let Some(lane) = s.first_equal_wide(wide, value) {
                return Some(2 * LANES * vector + lane);
            }
        }
        for (vector, &narrow) in self.narrow.iter().enumerate() {
            if let Some(lane) = s.first_equal(narrow, value) {
                return Some(LANES * (2 * W + vector) + lane);
            }
        }
        None
    }
}
