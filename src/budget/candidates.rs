//! The ways in which a weight can be coded, with their sizes and the errors that they leave.

use std::sync::Arc;

use serde_json::{Value, json};

use super::sensitivity::Sensitivity;
use crate::checkpoint::Checkpoint;
use crate::codec::{self, Codec, Params};
use crate::error::{Error, Result};
use crate::pipeline::{Fate, Plan};
use crate::solve::{SolveOptions, adapter_shares, output_error};

/// Footprints tried for textures, coarsest first: 2 to 6.4 bits a weight.
const FOOTPRINTS: [&str; 7] = ["8x8", "8x6", "8x5", "6x6", "6x5", "5x5", "5x4"];

/// Groups tried for the 2-bit grid; none for one scale a row.
const GRID_GROUPS: [Option<usize>; 4] = [None, Some(128), Some(64), Some(32)];

/// Groups tried at 4 bits.
const INT4_GROUPS: [usize; 3] = [128, 64, 32];

/// Ranks tried where the recipe gives a weight an adapter.
const RANKS: [usize; 4] = [0, 4, 8, 16];

/// One way to code a weight.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) codec: Arc<dyn Codec>,
    pub(super) rank: usize,
    /// Everything counted.
    pub(super) bytes: u64,
    /// Output error that the solver leaves, in the norm of the inputs.
    pub(super) error: f64,
}

impl Candidate {
    /// Such as `astc 6x5 + rank 8`.
    pub(super) fn describe(&self) -> String {
        let params = self.codec.params();
        let size = ["footprint", "group"].iter().find_map(|key| match params.get(*key) {
            Some(Value::String(text)) => Some(format!(" {text}")),
            Some(Value::Number(number)) => Some(format!(" group {number}")),
            _ => None,
        });
        let size = size.unwrap_or_default();
        let rank = if self.rank > 0 { format!(" + rank {}", self.rank) } else { String::new() };
        format!("{}{size}{rank}", self.codec.name())
    }
}

/// The candidates of one weight, measured.
///
/// # Errors
/// As coding.
pub(super) fn measure(
    checkpoint: &Checkpoint,
    plan: &Plan,
    sensitivity: &Sensitivity,
    options: &SolveOptions,
) -> Result<Vec<Candidate>> {
    let planned = &plan.tensors[sensitivity.number];
    let Fate::Coded { codec, rank } = &planned.fate else { return Ok(Vec::new()) };
    let tensor = &checkpoint.tensors()[planned.source];
    let fault = |e: &dyn std::fmt::Display| {
        Error::tensor(checkpoint.file_of(tensor), &tensor.name, e.to_string())
    };
    let (rows, cols) = (sensitivity.rows, sensitivity.cols);
    let weights = checkpoint.read_all(tensor)?;
    let seen = sensitivity.seen.factored().map_err(|e| fault(&e))?;
    let ranks: Vec<usize> = if *rank == 0 {
        vec![0]
    } else {
        RANKS.into_iter().filter(|rank| *rank <= rows.min(cols)).collect()
    };
    let mut shares = None;
    let mut candidates = Vec::new();
    let rule = plan.recipe.rule(&tensor.name, tensor.role);
    for codec in relatives(&**codec, rule.map_or(&[], |rule| &rule.budget)) {
        let codec = codec.map_err(|e| fault(&e))?;
        let (error, decoded) = output_error(&weights, &codec, &seen.hessian, &seen.factor, options)
            .map_err(|e| fault(&e))?;
        // The errors of all codecs are alike: one decomposition does for all.
        let shares = match &mut shares {
            Some(shares) => &*shares,
            none => none.insert(
                adapter_shares(&weights, &decoded, &seen.hessian, &seen.factor, &ranks)
                    .map_err(|e| fault(&e))?,
            ),
        };
        for (&rank, share) in ranks.iter().zip(shares) {
            let adapter = (2 * rank * (rows + cols)) as u64;
            let bytes = codec.coded_bytes(rows, cols) + adapter;
            let error = error * (1.0 - share);
            candidates.push(Candidate { codec: Arc::clone(&codec), rank, bytes, error });
        }
    }
    Ok(candidates)
}

/// Codecs of each of `kinds`, larger and smaller. Those of the kind of `codec` keep its other
/// parameters, the others have their defaults. Without kinds they are `codec`'s own and, for the
/// 2-bit grid, those of 4-bit groups.
fn relatives(
    codec: &dyn Codec,
    kinds: &[&str],
) -> Vec<std::result::Result<Arc<dyn Codec>, String>> {
    match (kinds, codec.name()) {
        ([], "grid2") => family(codec, "grid2").chain(family(codec, "int4")).collect(),
        ([], name) => family(codec, name).collect(),
        (kinds, _) => kinds.iter().flat_map(|kind| family(codec, kind)).collect(),
    }
}

/// The codecs of one kind; one without sizes to choose from stands alone.
fn family(
    codec: &dyn Codec,
    kind: &str,
) -> std::vec::IntoIter<std::result::Result<Arc<dyn Codec>, String>> {
    let with = |name: &str, key: &str, value: Value, mut params: Params| {
        params.insert(key.to_owned(), value);
        params.retain(|_, value| !value.is_null());
        codec::build(name, params)
    };
    let params = if codec.name() == kind { codec.params() } else { Params::new() };
    let each = |key: &'static str, values: Vec<Value>| -> Vec<_> {
        values.into_iter().map(|value| with(kind, key, value, params.clone())).collect()
    };
    let found = match kind {
        "astc" => each("footprint", FOOTPRINTS.map(|footprint| json!(footprint)).into()),
        "grid2" => each("group", GRID_GROUPS.map(|group| json!(group)).into()),
        "int4" => each("group", INT4_GROUPS.map(|group| json!(group)).into()),
        name => vec![codec::build(name, params)],
    };
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_mix_where_the_recipe_asks_for_it() {
        let build =
            |name, params: Value| codec::build(name, params.as_object().unwrap().clone()).unwrap();
        let kinds = |codec: &dyn Codec, kinds: &[&str]| -> Vec<String> {
            let describe = |codec: Arc<dyn Codec>| {
                Candidate { codec, rank: 0, bytes: 0, error: 0.0 }.describe()
            };
            relatives(codec, kinds).into_iter().map(|codec| describe(codec.unwrap())).collect()
        };
        let astc = build("astc", json!({ "footprint": "6x6", "effort": "fast" }));
        assert_eq!(kinds(&*astc, &[]).len(), FOOTPRINTS.len());
        let mixed = kinds(&*astc, &["int4", "astc", "bc4"]);
        assert_eq!(mixed[..3], ["int4 group 128", "int4 group 64", "int4 group 32"]);
        assert_eq!((mixed[3].as_str(), mixed.len()), ("astc 8x8", 3 + FOOTPRINTS.len() + 1));
        let own = relatives(&*astc, &["astc"]).remove(0).unwrap();
        assert_eq!(own.params()["effort"], "fast");
        let grid = build("grid2", json!({}));
        assert_eq!(kinds(&*grid, &["grid2"]).len(), GRID_GROUPS.len());
        assert_eq!(kinds(&*grid, &[]).len(), GRID_GROUPS.len() + INT4_GROUPS.len());
    }
}
