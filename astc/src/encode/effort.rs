//! Which configurations a preset tries, and how hard.

use super::config::Config;
use super::pairs::PairTable;
use super::preset::Preset;
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
}

/// (partitions, weight levels, patterns tried by Fast, Default and Best).
type Plan = (usize, u32, [usize; 3]);

const SIX_BY_SIX: [Plan; 5] = [
    (2, 5, [6, 32, 160]),
    (1, 6, [1, 1, 1]),
    (4, 4, [0, 8, 64]),
    (3, 4, [0, 6, 64]),
    (2, 4, [0, 0, 16]),
];

/// The smallest share of an even split that a partition may have: lopsided patterns win less often
/// the more lopsided they are, and all of them cost time to rank.
pub(super) fn least_share(preset: Preset) -> f64 {
    match preset {
        Preset::Fast => 2.0 / 3.0,
        Preset::Default => 1.0 / 3.0,
        Preset::Best => 0.0,
    }
}

/// Patterns that the trial of row scales searches.
const TRIAL_TRIES: usize = 4;

/// The stages of a preset.
pub(super) fn stages(footprint: Footprint, mode: DecodeMode, preset: Preset) -> Vec<Stage> {
    plans(footprint)
        .iter()
        .filter_map(|&(partitions, levels, tries)| {
            stage(footprint, mode, partitions, levels, tries[preset as usize])
        })
        .collect()
}

/// The stages that row scales are tried with: those of the fast preset, with fewer patterns.
pub(super) fn trial_stages(footprint: Footprint, mode: DecodeMode) -> Vec<Stage> {
    plans(footprint)
        .iter()
        .filter_map(|&(partitions, levels, [tries, ..])| {
            stage(footprint, mode, partitions, levels, tries.min(TRIAL_TRIES))
        })
        .collect()
}

fn plans(footprint: Footprint) -> Vec<Plan> {
    match (footprint.width(), footprint.height()) {
        (6, 6) => SIX_BY_SIX.to_vec(),
        _ => general_plans(footprint),
    }
}

/// For every partition count the finest weights whose endpoints still have some choice.
fn general_plans(footprint: Footprint) -> Vec<Plan> {
    const TRIES: [[usize; 3]; 4] = [[1, 1, 1], [6, 32, 128], [2, 8, 64], [0, 8, 64]];
    (1..=4)
        .filter_map(|partitions| {
            let config = Config::all(footprint)
                .into_iter()
                .filter(|config| config.partitions == partitions && config.endpoints.len() >= 10)
                .max_by_key(|config| config.steps.len())?;
            Some((partitions, config.steps.len() as u32, TRIES[partitions - 1]))
        })
        .collect()
}

fn stage(
    footprint: Footprint,
    mode: DecodeMode,
    partitions: usize,
    levels: u32,
    tries: usize,
) -> Option<Stage> {
    if tries == 0 {
        return None;
    }
    let config = Config::new(footprint, partitions, levels)?;
    let texels = footprint.texels();
    let table = PairTable::exact(&config, mode, texels);
    let exact = table.is_some();
    let table = table.unwrap_or_else(|| PairTable::stretched(&config, texels));
    Some(Stage { config, table, exact, tries })
}
