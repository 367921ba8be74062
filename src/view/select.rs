//! Which tensors go onto a page.

use std::collections::HashSet;
use std::path::Path;

use compress_model_astc::{BlockGrid, Footprint, TexelMode};

use super::window::Window;
use crate::checkpoint::role::Role;
use crate::error::{Error, Result};
use crate::pipeline::CompressedFolder;
use crate::pipeline::manifest::{Entry, Status};

/// Near names that an error suggests.
const SUGGESTIONS: usize = 3;

/// A texture-coded tensor that a page can show.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    /// Its number in the manifest.
    pub(super) index: usize,
    pub(super) entry: &'a Entry,
    pub(super) footprint: Footprint,
    /// The codec, and the precision that the tensor was made for.
    pub(super) mode: TexelMode,
    /// (matrices, rows, columns)
    pub(super) shape: (usize, usize, usize),
    pub(super) rank: usize,
    pub(super) window: Window,
}

impl Candidate<'_> {
    /// The window as blocks.
    pub(super) fn grid(&self) -> BlockGrid {
        BlockGrid::new(self.window.rows, self.window.cols, self.footprint)
    }

    /// Bytes that it puts onto a page: blocks, and scales or offsets, factors and originals as fp16.
    pub(super) fn data_bytes(&self, with_original: bool) -> usize {
        let Window { rows, cols, .. } = self.window;
        let (grid, codec) = (self.grid(), self.mode.codec());
        let halves = codec.side_count(&grid)
            + self.rank * (rows + cols)
            + if with_original { self.window.weights() } else { 0 };
        grid.block_count() * codec.block_bytes() + 2 * halves
    }
}

/// The tensors of `folder` that are textures, in the order of the manifest.
pub(super) fn texture_tensors<'a>(folder: &'a CompressedFolder) -> Vec<Candidate<'a>> {
    let candidate = |(index, entry): (usize, &'a Entry)| {
        let Status::Coded { adapter, .. } = &entry.status else { return None };
        let (pool, shape) = folder.coded(index);
        let (footprint, mode) = pool.codec().texture()?;
        let rank = adapter.as_ref().map_or(0, |adapter| adapter.rank);
        let window = Window::of(shape.1, shape.2, footprint);
        Some(Candidate { index, entry, footprint, mode, shape, rank, window })
    };
    folder.manifest.tensors.iter().enumerate().filter_map(candidate).collect()
}

/// The candidates called `names`, in that order and each once; without names, the first candidate
/// of each kind of layer.
pub(super) fn choose<'a, 'b>(
    folder: &Path,
    candidates: &'a [Candidate<'b>],
    names: &[String],
) -> Result<Vec<&'a Candidate<'b>>> {
    if candidates.is_empty() {
        let message = "holds no texture-coded tensors; `compress --preset server` writes some";
        return Err(Error::checkpoint(folder, message));
    }
    if names.is_empty() {
        let mut kinds = HashSet::new();
        return Ok(candidates.iter().filter(|c| kinds.insert(kind(c.entry))).collect());
    }
    let mut seen = HashSet::new();
    names
        .iter()
        .filter(|name| seen.insert(*name))
        .map(|name| {
            candidates
                .iter()
                .find(|c| c.entry.name == *name)
                .ok_or_else(|| Error::Usage(unknown(folder, candidates, name)))
        })
        .collect()
}

/// Shares out `limit` bytes in the order of `items`: those that fit, and those that do not.
pub(super) fn within<T>(
    limit: usize,
    items: Vec<T>,
    bytes: impl Fn(&T) -> usize,
) -> (Vec<T>, Vec<T>) {
    let mut left = limit;
    items.into_iter().partition(|item| match left.checked_sub(bytes(item)) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    })
}

/// What a tensor is in every layer: its role and the name of its module, `q_proj`.
fn kind(entry: &Entry) -> (Role, &str) {
    let name = entry.name.strip_suffix(".weight").unwrap_or(&entry.name);
    (entry.role, name.rsplit('.').next().unwrap_or(name))
}

fn unknown(folder: &Path, candidates: &[Candidate<'_>], name: &str) -> String {
    let names = candidates.iter().map(|c| c.entry.name.as_str());
    let near: Vec<String> = nearest(name, names).iter().map(|n| format!("{n:?}")).collect();
    format!(
        "--tensor {name:?}: no texture-coded tensor of that name in {}; near it are {}",
        folder.display(),
        near.join(", ")
    )
}

/// The names nearest to `wanted`: those that contain it first, then by edit distance.
fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut ranked: Vec<_> =
        names.map(|name| (!name.contains(wanted), edit_distance(wanted, name), name)).collect();
    // Stable: equal names stay in the order of the manifest.
    ranked.sort_by_key(|&(apart, distance, _)| (apart, distance));
    ranked.into_iter().take(SUGGESTIONS).map(|(_, _, name)| name).collect()
}

/// Levenshtein distance in bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let replace = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_leaves_room_for_what_follows() {
        let (fit, left_out) = within(10, vec![4, 7, 6, 1], |&bytes| bytes);
        assert_eq!((fit, left_out), (vec![4, 6], vec![7, 1]));
    }

    #[test]
    fn near_names() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        let names = ["l.0.q_proj", "l.0.k_proj", "l.1.q_proj", "l.0.up"];
        assert_eq!(
            nearest("q_proj", names.into_iter()),
            ["l.0.q_proj", "l.1.q_proj", "l.0.k_proj"]
        );
        assert_eq!(nearest("l.0.j_proj", names.into_iter())[..2], ["l.0.q_proj", "l.0.k_proj"]);
    }
}
