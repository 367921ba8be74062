//! Changes of a checkpoint's weights that leave the model's function as it is, so that the weights
//! are easier to code: rotations of the residual stream and of the values of heads, scales that
//! norms and neighbours undo, and permutations. Nothing of them runs at inference.
//!
//! [`Transformed::create`] writes the transformed checkpoint, a plain Hugging Face folder of the
//! same architecture, and everything after it works on that one. Tensors that change are F32, the
//! others keep their bytes. The same checkpoint, options and seed give the same weights.

mod columns;
mod edits;
mod factor;
mod heads;
mod layers;
mod paley;
mod residual;
mod rotation;
mod scaling;
mod sort;
#[cfg(test)]
mod tests;
mod write;

use std::path::Path;

use self::edits::Edits;
pub(crate) use self::factor::{MatrixFactors, moved_moments};
use crate::calibrate::{SiteStatistics, Statistics};
use crate::checkpoint::{Checkpoint, Staging, Surroundings};
use crate::error::{Error, Result};
use crate::model::{Architecture, LinearPlan, WeightPlan};
use crate::pipeline::{Progress, Transformation, source_fingerprint};
use crate::recipe::{Sort, Transform};

/// What the layers of the original model see, where a transform depends on it.
trait Inputs {
    /// The root mean square of each of the features that `layer` reads once they have gone through
    /// `edits`; `None` where it is not known.
    fn root_mean_squares(&self, edits: &Edits<'_>, layer: &LinearPlan) -> Result<Option<Vec<f64>>>;
}

impl Inputs for Statistics {
    fn root_mean_squares(&self, edits: &Edits<'_>, layer: &LinearPlan) -> Result<Option<Vec<f64>>> {
        let matrix = edits.matrix_of(layer);
        let of_layer = |site: &&SiteStatistics| {
            let own = site.weights.contains(&layer.weight);
            own && site.matrix.is_none_or(|of_site| of_site == matrix)
        };
        let Some(site) = self.sites().iter().find(of_layer) else { return Ok(None) };
        let width = layer.shape.1;
        if site.width != width {
            return Ok(None);
        }
        let mean = moved_moments(edits.input_factors(layer), self.mean(site)?, width);
        Ok(Some((0..width).map(|i| f64::from(mean[i * width + i]).max(0.0).sqrt()).collect()))
    }
}

/// The model that a transform works on.
struct Context<'a> {
    architecture: &'a Architecture,
    plan: &'a WeightPlan,
    folder: &'a Path,
    seed: u64,
}

impl Context<'_> {
    /// A seed of its own for what `label` names.
    fn seed(&self, label: &str) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"transform ");
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(label.as_bytes());
        let mut bytes = [0; 8];
        hasher.finalize_xof().fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fault(&self, message: impl Into<String>) -> Error {
        Error::Model { folder: self.folder.to_path_buf(), message: message.into() }
    }

    fn origin(&self) -> String {
        self.folder.display().to_string()
    }

    /// Name of a head that the model does not have yet.
    fn new_head(&self) -> &'static str {
        if self.plan.embedding.starts_with("language_model.") {
            "language_model.lm_head.weight"
        } else {
            "lm_head.weight"
        }
    }

    /// Whether a head that was tied to the embedding table still has its weights.
    fn still_tied(&self, edits: &Edits<'_>) -> bool {
        let Self { plan, .. } = self;
        edits.added().next().is_none() && edits.same(&plan.head, &plan.embedding)
    }

    /// What norm `name` multiplies by.
    fn gains(&self, edits: &Edits<'_>, name: &str) -> Result<Vec<f64>> {
        let offset = f64::from(u8::from(self.architecture.norm_adds_one));
        Ok(edits.vector(name)?.iter().map(|&gain| f64::from(gain) + offset).collect())
    }

    fn set_gains(&self, edits: &mut Edits<'_>, name: &str, gains: &[f64], reason: &'static str) {
        let offset = f64::from(u8::from(self.architecture.norm_adds_one));
        let stored = gains.iter().map(|gain| (gain - offset) as f32).collect();
        edits.set(name, stored, reason);
    }
}

/// A transformed checkpoint. Its folder goes when the value is dropped.
#[derive(Debug)]
pub struct Transformed {
    checkpoint: Checkpoint,
    record: Transformation,
    /// What the rows of each matrix went through.
    factors: MatrixFactors,
    fingerprint: String,
    _staging: Staging,
}

impl Transformed {
    /// Transforms `original` by `options`. The folder is a temporary one beside `output`;
    /// `statistics`, of the original, are for options that
    /// [need them](Transform::needs_calibration).
    ///
    /// # Errors
    /// [`Error::Model`] for an architecture that is not supported or on which a transform is not
    /// legal, [`Error::Recipe`] for options that a model cannot follow or that need statistics;
    /// [`Error::DiskFull`]; [`Error::StoppedEarly`]; I/O.
    pub fn create(
        original: &Checkpoint,
        options: &Transform,
        statistics: Option<&Statistics>,
        seed: u64,
        output: &Path,
        progress: &dyn Progress,
    ) -> Result<Self> {
        if options.needs_calibration() && statistics.is_none() {
            let message = "transform.scaling.activations needs --calibration".to_owned();
            return Err(Error::Recipe { origin: original.folder().display().to_string(), message });
        }
        if let Some(statistics) = statistics {
            statistics.check_source(original)?;
        }
        let (architecture, plan) = understand(original)?;
        let context =
            Context { architecture: &architecture, plan: &plan, folder: original.folder(), seed };
        let mut edits = Edits::new(original, false);
        apply(&mut edits, &context, options, statistics)?;
        let staging = write::stage(output)?;
        write::write(&edits, &context, &staging, progress)?;
        let mut this = Self::open(original, options, &edits, staging)?;
        let fingerprint = |of| Ok::<_, Error>(source_fingerprint(of)?.to_hex().to_string());
        this.record.source_fingerprint = fingerprint(original)?;
        this.fingerprint = fingerprint(&this.checkpoint)?;
        Ok(this)
    }

    /// What [`Self::create`] would give, with weights that are all zero: names, types and shapes,
    /// for a plan. Files are sparse.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn outline(original: &Checkpoint, options: &Transform, output: &Path) -> Result<Self> {
        let (architecture, plan) = understand(original)?;
        let context = Context {
            architecture: &architecture,
            plan: &plan,
            folder: original.folder(),
            seed: 0,
        };
        let mut edits = Edits::new(original, true);
        apply(&mut edits, &context, options, None)?;
        let staging = write::stage(output)?;
        write::outline(&edits, &context, &staging)?;
        Self::open(original, options, &edits, staging)
    }

    fn open(
        original: &Checkpoint,
        options: &Transform,
        edits: &Edits<'_>,
        staging: Staging,
    ) -> Result<Self> {
        let checkpoint = Checkpoint::open(staging.folder())?;
        let record = Transformation {
            options: options.clone(),
            source_bytes: original.tensors().iter().map(|t| t.byte_len).sum(),
            source_fingerprint: String::new(),
            changes: edits.iter().map(|(name, edit)| (name.clone(), edit.describe())).collect(),
        };
        let factors = edits.matrix_factors();
        let fingerprint = String::new();
        Ok(Self { checkpoint, record, factors, fingerprint, _staging: staging })
    }

    /// The transformed checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// What was done, for a plan and a manifest.
    #[must_use]
    pub fn record(&self) -> &Transformation {
        &self.record
    }

    /// `statistics` of the original as those of the transformed model.
    ///
    /// # Errors
    /// I/O.
    pub fn statistics(&self, statistics: Statistics) -> Result<Statistics> {
        let surroundings = Surroundings::of(&self.checkpoint)?;
        Ok(statistics.moved(self.fingerprint.clone(), surroundings, &self.factors))
    }
}

fn understand(original: &Checkpoint) -> Result<(Architecture, WeightPlan)> {
    let folder = original.folder();
    let fault = |message: String| Error::Model { folder: folder.to_path_buf(), message };
    let config = original.config().ok_or_else(|| fault("has no config.json".to_owned()))?;
    let architecture = Architecture::parse(config.json())
        .map_err(|message| fault(format!("config.json: {message}")))?;
    let tensors = original.tensors().iter();
    let shapes = tensors.map(|t| (t.name.clone(), t.shape.clone())).collect();
    let plan = WeightPlan::new(&architecture, &shapes)
        .map_err(|(tensor, message)| Error::tensor(folder, tensor, message))?;
    for tensor in original.tensors() {
        if !crate::checkpoint::dtype::is_codable(tensor.dtype) {
            let message = format!("{:?} is no dtype of weights", tensor.dtype);
            return Err(Error::tensor(original.file_of(tensor), &tensor.name, message));
        }
    }
    Ok((architecture, plan))
}

fn apply(
    edits: &mut Edits<'_>,
    context: &Context<'_>,
    options: &Transform,
    statistics: Option<&Statistics>,
) -> Result<()> {
    if let Some(kind) = options.rotation {
        residual::rotate(edits, context, kind, options.untie_head)?;
    }
    if let Some(kind) = options.head_rotation {
        heads::rotate(edits, context, kind);
    }
    if let Some(scaling) = &options.scaling {
        let inputs = statistics.map(|statistics| statistics as &dyn Inputs);
        scaling::scale(edits, context, scaling, inputs)?;
    }
    if options.sort.contains(&Sort::Channels) {
        sort::channels(edits, context)?;
    }
    if options.sort.contains(&Sort::Values) {
        sort::values(edits, context)?;
    }
    Ok(())
}
