//! Which grids and partition counts each footprint tries, and how hard.

use crate::Footprint;
use crate::encode::Preset;

/// One way of spending the bits of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Width and height of the weight grid.
    pub(super) grid: (u8, u8),
    /// Weight levels.
    pub(super) levels: u32,
    pub(super) partitions: usize,
    /// By preset: one of so many partition patterns is ranked, 0 for none.
    pub(super) every: [usize; 3],
    /// By preset: patterns fitted for each block.
    pub(super) tries: [usize; 3],
}

const fn plan(
    grid: (u8, u8),
    levels: u32,
    partitions: usize,
    every: [usize; 3],
    tries: [usize; 3],
) -> Plan {
    Plan { grid, levels, partitions, every, tries }
}

/// The configurations that win blocks of i.i.d. Gaussian weights when all that the bit budget
/// allows compete, each in the order in which it adds most to those before it; and one partition
/// with exact endpoints, for blocks in which a few weights are far larger than the others.
const PLANS: [((usize, usize), &[Plan]); 4] = [
    (
        (10, 8),
        &[
            plan((8, 8), 2, 4, [3, 1, 1], [4, 8, 16]),
            plan((9, 6), 3, 2, [0, 2, 1], [0, 4, 16]),
            plan((6, 8), 3, 3, [0, 0, 2], [0, 0, 12]),
            plan((10, 5), 3, 3, [0, 0, 2], [0, 0, 12]),
            plan((10, 6), 3, 1, [1, 1, 1], [1, 1, 1]),
        ],
    ),
    (
        (10, 10),
        &[
            plan((6, 10), 2, 4, [3, 1, 1], [4, 8, 16]),
            plan((10, 5), 3, 3, [0, 2, 1], [0, 4, 16]),
            plan((8, 8), 2, 4, [0, 0, 2], [0, 0, 12]),
            plan((9, 6), 3, 2, [0, 0, 2], [0, 0, 12]),
            plan((10, 6), 3, 1, [1, 1, 1], [1, 1, 1]),
        ],
    ),
    (
        (12, 10),
        &[
            plan((8, 8), 2, 4, [3, 2, 1], [4, 6, 16]),
            plan((9, 7), 2, 4, [0, 3, 1], [0, 4, 16]),
            plan((6, 9), 3, 2, [0, 3, 2], [0, 4, 12]),
            plan((12, 5), 2, 4, [0, 0, 2], [0, 0, 12]),
            plan((12, 5), 3, 1, [1, 1, 1], [1, 1, 1]),
        ],
    ),
    (
        (12, 12),
        &[
            plan((8, 8), 2, 4, [3, 2, 1], [4, 6, 16]),
            plan((9, 7), 2, 4, [0, 3, 1], [0, 4, 16]),
            plan((12, 5), 2, 4, [0, 3, 2], [0, 4, 12]),
            plan((7, 9), 2, 4, [0, 0, 2], [0, 0, 12]),
            plan((12, 5), 3, 1, [1, 1, 1], [1, 1, 1]),
        ],
    ),
];

/// None for a footprint of at most 64 texels.
pub(super) fn plans(footprint: Footprint) -> &'static [Plan] {
    let size = (footprint.width(), footprint.height());
    PLANS.iter().find(|(of, _)| *of == size).map_or(&[], |(_, plans)| plans)
}

/// Rounds of weights and endpoints in turn.
pub(super) fn rounds(preset: Preset) -> usize {
    [2, 3, 3][preset as usize]
}
