//! Which configurations a preset tries, and how hard.

use super::config::Config;
use super::pairs::PairTable;
use super::preset::Preset;
use super::search::Finish;
use crate::{DecodeMode, Footprint};

/// One configuration with its search table.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) config: Config,
    pub(super) table: PairTable,
    /// Whether the table lists every endpoint pair; else pairs are relative to a subset's range
    /// and the fit refines them.
    pub(super) exact: bool,
    /// Partition patterns searched, one of each class of the ranking.
    pub(super) tries: usize,
    /// Blocks whose largest and smallest bytes are further apart do without the stage.
    pub(super) most_span: u8,
}

/// Partitions, weight levels, and the patterns that Fast, Default and Best try.
type Plan = (usize, u32, [usize; 3]);

/// The configurations that win blocks of i.i.d. Gaussian weights when all that the bit budget
/// allows compete, those with exhaustive tables first; and some with finer endpoints for tails as
/// wide as those of Laplace or Student weights.
const PLANS: [((usize, usize), &[Plan]); 10] = [
    (
        (4, 4),
        &[
            (3, 32, [4, 16, 64]),
            (4, 24, [0, 16, 64]),
            (4, 20, [0, 8, 48]),
            (3, 24, [0, 8, 32]),
            (4, 16, [0, 4, 32]),
            (2, 32, [2, 4, 16]),
            (2, 24, [0, 2, 16]),
            (1, 32, [1, 1, 1]),
        ],
    ),
    (
        (5, 4),
        &[
            (2, 20, [6, 24, 96]),
            (3, 12, [0, 8, 64]),
            (3, 16, [0, 8, 64]),
            (4, 10, [0, 8, 64]),
            (2, 16, [0, 2, 16]),
            (1, 24, [1, 1, 1]),
        ],
    ),
    (
        (5, 5),
        &[
            (2, 10, [6, 24, 128]),
            (3, 8, [0, 12, 64]),
            (4, 8, [0, 8, 64]),
            (2, 8, [0, 2, 16]),
            (1, 12, [1, 1, 1]),
        ],
    ),
    (
        (6, 5),
        &[
            (4, 5, [6, 16, 64]),
            (3, 6, [0, 16, 64]),
            (4, 6, [0, 8, 64]),
            (2, 6, [2, 6, 24]),
            (1, 8, [1, 1, 1]),
        ],
    ),
    (
        (6, 6),
        &[
            (2, 5, [5, 20, 160]),
            (4, 4, [0, 5, 64]),
            (3, 4, [0, 3, 64]),
            (1, 6, [1, 1, 1]),
            (2, 4, [4, 4, 16]),
        ],
    ),
    ((8, 5), &[(3, 4, [5, 24, 128]), (4, 3, [0, 8, 64]), (2, 4, [1, 6, 32]), (1, 5, [1, 1, 1])]),
    ((8, 6), &[(3, 3, [5, 32, 160]), (4, 3, [0, 12, 64]), (2, 3, [0, 1, 8]), (1, 4, [1, 1, 1])]),
    ((8, 8), &[(4, 2, [6, 32, 192]), (3, 2, [0, 2, 16]), (2, 2, [0, 0, 4]), (1, 2, [0, 0, 1])]),
    ((10, 5), &[(3, 3, [5, 32, 160]), (2, 3, [0, 4, 32]), (1, 3, [1, 1, 1])]),
    ((10, 6), &[(4, 2, [0, 4, 32]), (3, 2, [0, 0, 4]), (1, 3, [1, 1, 1])]),
];

/// Configurations whose finer endpoints are for narrow blocks only: rows with wide tails have many.
const NARROW: [((usize, usize), usize, u32); 1] = [((6, 6), 2, 4)];

/// Most bytes between the ends of a narrow block: four gaps of the coarsest endpoints at 6x6.
const NARROW_SPAN: u8 = 96;

/// The smallest share of an even split that a partition may have: lopsided patterns win less often
/// the more lopsided they are, and all of them cost time to rank.
pub(super) fn least_share(preset: Preset) -> f64 {
    match preset {
        Preset::Fast => 0.7,
        Preset::Default => 1.0 / 3.0,
        Preset::Best => 0.0,
    }
}

/// How many blocks of a band its row scales are tried on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    /// One block of so many, but at least eight.
    pub(super) every: usize,
    pub(super) most: usize,
    /// Quick, except where errors are near the rounding of the search tables.
    pub(super) finish: Finish,
}

/// Footprints of at most so many texels have errors of a few squared texel steps.
const FINE_TEXELS: usize = 30;

impl Trial {
    pub(super) fn new(footprint: Footprint, preset: Preset) -> Self {
        let finish = if footprint.texels() <= FINE_TEXELS { Finish::Exact } else { Finish::Quick };
        match preset {
            Preset::Fast => Self { every: 32, most: 32, finish },
            Preset::Default => Self { every: 8, most: 96, finish },
            Preset::Best => Self { every: 2, most: 256, finish },
        }
    }
}

/// Patterns that the trial of row scales searches.
const TRIAL_TRIES: usize = 4;

/// The stages of a preset.
pub(super) fn stages(footprint: Footprint, mode: DecodeMode, preset: Preset) -> Vec<Stage> {
    plans(footprint)
        .iter()
        .filter_map(|&(partitions, levels, tries)| {
            stage(footprint, mode, partitions, levels, tries[preset as usize], preset)
        })
        .collect()
}

/// The stages that row scales are tried with: those of the fast preset, with fewer patterns.
pub(super) fn trial_stages(footprint: Footprint, mode: DecodeMode) -> Vec<Stage> {
    plans(footprint)
        .iter()
        .filter_map(|&(partitions, levels, [tries, ..])| {
            stage(footprint, mode, partitions, levels, tries.min(TRIAL_TRIES), Preset::Fast)
        })
        .collect()
}

/// Endpoint values between the ends of the pairs that the fast preset tries, where endpoints are
/// coarse: hardly a subset of its patterns is narrower.
const FAST_GAP: usize = 3;

fn least_gap(preset: Preset) -> usize {
    if preset == Preset::Fast { FAST_GAP } else { 1 }
}

/// None for a footprint of more than 64 texels.
fn plans(footprint: Footprint) -> &'static [Plan] {
    let size = (footprint.width(), footprint.height());
    PLANS.iter().find(|(of, _)| *of == size).map_or(&[], |(_, plans)| plans)
}

fn stage(
    footprint: Footprint,
    mode: DecodeMode,
    partitions: usize,
    levels: u32,
    tries: usize,
    preset: Preset,
) -> Option<Stage> {
    if tries == 0 {
        return None;
    }
    let config = Config::new(footprint, partitions, levels)?;
    let texels = footprint.texels();
    let table = PairTable::exact(&config, mode, texels, least_gap(preset));
    let exact = table.is_some();
    let table = table.unwrap_or_else(|| PairTable::stretched(&config, texels));
    let narrow = NARROW.contains(&((footprint.width(), footprint.height()), partitions, levels));
    let most_span = if narrow && preset != Preset::Best { NARROW_SPAN } else { 255 };
    Some(Stage { config, table, exact, tries, most_span })
}
