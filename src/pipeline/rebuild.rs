//! Compressing some tensors again, to see that the same bytes come out.

use std::collections::HashMap;

use blake3::Hasher;

use super::adapters::AdapterStage;
use super::coding::{Coder, Job, Output, jobs};
use super::compressed::CompressedFolder;
use super::manifest::Status;
use super::plan::Plan;
use super::progress::Progress;
use super::waves;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::recipe::Recipe;

/// Codes up to `count` coded tensors of `original` again, drawn by `draw`, by the recipe and the seed
/// of `folder`. Gives their names, and one line for each whose bytes differ from the manifest's
/// hashes.
///
/// # Errors
/// [`Error::Usage`] for a folder whose codes a solver found: they depend on more than the weights;
/// what reading the original gives.
pub fn rebuild(
    folder: &CompressedFolder,
    original: &Checkpoint,
    count: usize,
    draw: u64,
    progress: &dyn Progress,
) -> Result<(Vec<String>, Vec<String>)> {
    let path = folder.stored.folder();
    if let Some(solved) = &folder.manifest.solved {
        return Err(Error::Usage(format!(
            "{}: its codes are {solved}: compress again with the same text to compare",
            path.display()
        )));
    }
    let recipe = Recipe::read(&path.join("recipe.toml"))?;
    recipe.refuse_transform("verify --rebuild")?;
    let plan = Plan::new(original, recipe, u64::MAX, rayon::current_num_threads())?;
    let names = drawn(folder, count, draw);
    let numbers: Vec<usize> = (0..plan.tensors.len())
        .filter(|&i| names.contains(&original.tensors()[plan.tensors[i].source].name.as_str()))
        .collect();
    let source = |number: usize| &original.tensors()[plan.tensors[number].source];
    progress.begin("rebuilding", numbers.iter().map(|&number| source(number).byte_len).sum());

    let coder = Coder::new(original, &plan, None);
    let mut adapters = AdapterStage::without_files(original, &plan, folder.manifest.seed);
    let mut found: HashMap<usize, (Vec<Hasher>, Option<String>)> = HashMap::new();
    waves::run(
        numbers.iter().flat_map(|&number| jobs(original, &plan, number)),
        |wave| adapters.prepare(wave.iter().map(Job::tensor)),
        |job, adapters| coder.work(job, adapters),
        |job, output: Output| {
            let parts = output.parts.len();
            let fresh = || (vec![Hasher::new(); parts], None);
            let (hashers, adapter) = found.entry(job.tensor()).or_insert_with(fresh);
            for (hasher, bytes) in hashers.iter_mut().zip(&output.parts) {
                hasher.update(bytes);
            }
            *adapter = output.adapter.map(|written| written.hash.clone());
            Ok(())
        },
    )?;

    let mut failures = Vec::new();
    for (number, (hashers, adapter)) in found {
        let name = &source(number).name;
        let entry = folder.manifest.tensors.iter().find(|entry| entry.name == *name);
        let Some(Status::Coded { parts, adapter: stated, .. }) = entry.map(|entry| &entry.status)
        else {
            continue;
        };
        let same = hashers
            .iter()
            .map(|h| h.finalize().to_hex().to_string())
            .eq(parts.iter().map(|part| part.blake3.clone()))
            && adapter.as_ref() == stated.as_ref().map(|stated| &stated.blake3);
        if !same {
            failures.push(format!("{name}: compressed again, other bytes came out"));
        }
    }
    failures.sort_unstable();
    Ok((names.into_iter().map(str::to_owned).collect(), failures))
}

/// Names of up to `count` coded tensors: the first in an order that `draw` shuffles.
fn drawn(folder: &CompressedFolder, count: usize, draw: u64) -> Vec<&str> {
    let place = |name: &&str| {
        let mut hasher = Hasher::new();
        hasher.update(&draw.to_le_bytes()).update(name.as_bytes());
        *hasher.finalize().as_bytes()
    };
    let coded = folder.manifest.tensors.iter();
    let coded = coded.filter(|entry| matches!(entry.status, Status::Coded { .. }));
    let mut names: Vec<&str> = coded.map(|entry| entry.name.as_str()).collect();
    names.sort_by_cached_key(place);
    names.truncate(count);
    names.sort_unstable();
    names
}
