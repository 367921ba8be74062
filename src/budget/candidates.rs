//! The ways in which a weight can be coded, with their sizes and the errors that they leave.

use std::sync::Arc;

use serde_json::{Map, Value, json};

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
    for codec in relatives(&**codec) {
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

/// Codecs of the kind of `codec`, larger and smaller, its other parameters kept. A codec without
/// relatives stands alone.
fn relatives(codec: &dyn Codec) -> Vec<std::result::Result<Arc<dyn Codec>, String>> {
    let with = |name: &str, key: &str, value: Value, mut params: Params| {
        params.insert(key.to_owned(), value);
        params.retain(|_, value| !value.is_null());
        codec::build(name, params)
    };
    let params = codec.params();
    let int4 = || INT4_GROUPS.iter().map(|&g| with("int4", "group", json!(g), Map::new()));
    match codec.name() {
        "astc" => FOOTPRINTS
            .iter()
            .map(|footprint| with("astc", "footprint", json!(footprint), params.clone()))
            .collect(),
        "grid2" => GRID_GROUPS
            .iter()
            .map(|group| with("grid2", "group", json!(group), params.clone()))
            .chain(int4())
            .collect(),
        "int4" => int4().collect(),
        name => vec![codec::build(name, params)],
    }
}
