//! `recover`: the adapters of a compressed model trained on what the original says.
//!
//! Codes stay as they are. At these rates only a loss over the whole model makes up for what they
//! lost (RILQ, arXiv 2412.01129): the factors move together, layers making up for each other.

use compress_model_lora::{Adapter, DenseMatrix, SvdOptions, truncated_svd};
use half::slice::HalfFloatSliceExt;

use super::layer::{Parameters, Place};
use super::report::TrainReport;
use super::run::{Calibration, Run, TrainRequest, Watch, entry_of, open_dense, places};
use super::subject::Subject;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::pipeline::manifest::Status;
use crate::pipeline::{CompressedFolder, Fate};
use crate::recipe::Recipe;

/// The recipe of the compressed folder `start`. With a `rank`, every coded linear layer without an
/// adapter gets one of that rank.
///
/// # Errors
/// [`Error::Recipe`] if the folder's recipe does not parse; [`Error::Usage`] if there is nothing to
/// train; as opening the model.
pub fn with_ranks(start: &CompressedFolder, rank: Option<usize>) -> Result<Recipe> {
    let folder = start.stored.folder();
    let mut recipe = Recipe::read(&folder.join("recipe.toml"))?;
    let model = open_dense(folder)?;
    let mut trained = 0;
    for place in places(&model) {
        let entry = entry_of(start, &place.name);
        let Status::Coded { adapter, .. } = &start.manifest.tensors[entry].status else { continue };
        if let (None, Some(rank)) = (adapter, rank) {
            recipe.put_first(&place.name, &start.coded(entry).0.codec_arc(), rank);
        }
        trained += usize::from(adapter.is_some() || rank.is_some());
    }
    if trained == 0 {
        let message = "has no adapters; give them with --rank";
        return Err(Error::Usage(format!("{}: {message}", folder.display())));
    }
    Ok(recipe)
}

/// Trains the adapters of the compressed folder `start` and writes the output folder. The plan has
/// the recipe of `start`; see [`with_ranks`].
///
/// # Errors
/// [`Error::Stopped`] if `watch.stop` was set: the run can be resumed. [`Error::Usage`] for an
/// original that the folder was not made from. As [`super::qat()`].
pub fn recover(
    request: &TrainRequest<'_>,
    start: &CompressedFolder,
    watch: Watch<'_>,
) -> Result<TrainReport> {
    let run = Run::open(*request, watch, Subject::Adapters, Some(start), Calibration::default())?;
    run.complete(|run| {
        let model = open_dense(start.stored.folder())?;
        let load = |place: &Place| adapter_layer(request, start, &model, place);
        run.write(start, &model, &load)
    })
}

/// The adapter at `place`, if the plan has one: that of the folder, or the top singular directions of
/// what the codes lost where it has none.
fn adapter_layer(
    request: &TrainRequest<'_>,
    start: &CompressedFolder,
    model: &Model,
    place: &Place,
) -> Result<Option<Parameters>> {
    let TrainRequest { checkpoint, plan, seed, .. } = *request;
    let Some(tensor) = checkpoint.tensor(&place.name) else { return Ok(None) };
    let planned = plan.tensors.iter().find(|t| checkpoint.tensors()[t.source].name == place.name);
    let rank = match planned.map(|planned| &planned.fate) {
        Some(Fate::Coded { rank, .. }) if *rank > 0 => *rank,
        _ => return Ok(None),
    };
    let adapter = match start.adapter(entry_of(start, &place.name))? {
        Some(adapter) => adapter,
        None => {
            let mut missing = checkpoint.read_all(tensor)?;
            let decoded = model.stored_weight(&place.name)?;
            missing.iter_mut().zip(decoded).for_each(|(w, decoded)| *w -= decoded);
            let options = SvdOptions { seed, ..SvdOptions::new(rank) };
            let svd = truncated_svd(&DenseMatrix::new(&missing, place.shape.1), &options)?;
            Adapter::from_svd(&svd)?
        }
    };
    let (a, b) = (adapter.a.to_f32_vec(), adapter.b.to_f32_vec());
    Ok(Some(Parameters::of_adapter(adapter.rank(), a, b)))
}
