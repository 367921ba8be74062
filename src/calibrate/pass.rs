//! `calibrate`: one pass of a text through the original model.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::Tensor;
use compress_model_feedback::Gram;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};

use super::activations::{ActivationFile, Activations};
use super::moments::{collect_head, with_fallback, with_values};
use super::statistics::{DESCRIPTION_FILE, Description, SiteStatistics, VERSION};
use super::stream::embed;
use super::text::CalibrationText;
use crate::build;
use crate::checkpoint::{Checkpoint, Partial, Staging, write_json};
use crate::error::{Error, IoContext, Result};
use crate::model::{Model, ModelOptions, Passage, Site};
use crate::pipeline::manifest::TOOL;
use crate::pipeline::{Progress, source_fingerprint};

/// What `calibrate` reports.
#[derive(Debug, Clone, Serialize)]
pub struct CalibrateReport {
    /// The folder of statistics.
    pub output: PathBuf,
    /// Tokens read.
    pub tokens: usize,
    /// Blocks that an earlier run had finished.
    pub resumed_blocks: usize,
    /// Every site.
    pub sites: Vec<SiteStatistics>,
    /// Seconds it took.
    pub seconds: f64,
}

/// How far a run got.
#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    blocks: usize,
    description: Description,
}

const JOURNAL: &str = "progress.json";

/// Runs `text` through the model of `checkpoint` and writes what its linear layers see to the new
/// folder `output`. Work in progress lies beside it, in `.NAME.partial`; with `resume` it goes on
/// where an earlier run stopped.
///
/// # Errors
/// [`Error::Usage`] for work in progress of other settings, or where there is some and `resume` is
/// not asked for; [`Error::Stopped`] between two blocks when `progress` asks for it; as running the
/// model; I/O.
pub fn calibrate(
    checkpoint: &Checkpoint,
    text: &CalibrationText,
    output: &Path,
    resume: bool,
    progress: &dyn Progress,
) -> Result<CalibrateReport> {
    let start = Instant::now();
    let model = Model::open(checkpoint.origin(), ModelOptions::default())?;
    let fresh = Description {
        format_version: VERSION.to_owned(),
        tool: TOOL.to_owned(),
        source_fingerprint: source_fingerprint(checkpoint)?.to_hex().to_string(),
        texts: text.files.clone(),
        ctx: text.ctx,
        windows: text.windows().len(),
        sites: Vec::new(),
    };
    let texts: Vec<&str> = text.files.iter().map(|(_, hash)| hash.as_str()).collect();
    let depends = [
        ("the checkpoint", fresh.source_fingerprint.clone()),
        ("the text", texts.join(" ")),
        ("the windows", format!("{} of {}", fresh.windows, fresh.ctx)),
        ("the program", build::IDENTITY.to_owned()),
    ];
    let work = Partial::open(output, &depends, resume)?;
    let folder = work.folder().to_path_buf();
    let staging = Staging::lasting(folder.join("statistics"), output)?;
    let journal = resumed(&folder, fresh)?;
    let resumed_blocks = journal.blocks;
    let mut pass = Pass { model: &model, text, folder: &folder, staged: staging.folder(), journal };
    progress.begin("calibrating", model.block_count() as u64);
    progress.advance(resumed_blocks as u64);
    if resumed_blocks == 0 {
        embed(&model, text, &pass.hidden(0)?)?;
    }
    while pass.journal.blocks < model.block_count() {
        if progress.stopped() {
            return Err(Error::Stopped { folder });
        }
        pass.block()?;
        progress.advance(1);
    }
    pass.head()?;
    let description = pass.journal.description;
    write_json(&staging.folder().join(DESCRIPTION_FILE), &description)?;
    staging.commit()?;
    work.remove()?;
    let seconds = start.elapsed().as_secs_f64();
    let (output, tokens) = (output.to_path_buf(), text.tokens());
    Ok(CalibrateReport { output, tokens, resumed_blocks, sites: description.sites, seconds })
}

/// Reads how far an earlier run got whose work is in `folder`.
fn resumed(folder: &Path, fresh: Description) -> Result<Journal> {
    let path = folder.join(JOURNAL);
    if !path.exists() {
        return Ok(Journal { blocks: 0, description: fresh });
    }
    let bytes = fs::read(&path).at("read", &path)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::checkpoint(&path, format!("not readable: {e}; start with --restart")))
}

struct Pass<'a> {
    model: &'a Model,
    text: &'a CalibrationText,
    /// Work in progress.
    folder: &'a Path,
    /// What becomes the output.
    staged: &'a Path,
    journal: Journal,
}

impl Pass<'_> {
    /// Hidden states before block `block`. Two files take turns, so that those of the last finished
    /// block are always whole.
    fn hidden(&self, block: usize) -> Result<Activations> {
        let path = self.folder.join(format!("hidden-{}", block % 2));
        let width = self.model.architecture().hidden_size;
        let file = ActivationFile::open_or_create(
            &path,
            self.text.tokens(),
            width,
            self.text.batch_tokens(),
        )?;
        Ok(Activations::File(file.keep()))
    }

    /// Runs the text through the next block and stores what its layers see.
    fn block(&mut self) -> Result<()> {
        let index = self.journal.blocks;
        let (from, to) = (self.hidden(index)?, self.hidden(index + 1)?);
        let held = self.model.hold_block(index)?;
        let sites = self.model.site_layers(index);
        let has = |site: Site| sites.iter().any(|layers| layers.site == site);
        let grams: RefCell<BTreeMap<Site, Gram>> = RefCell::default();
        let add = |site: Site, width: usize, values: &[f32]| {
            grams.borrow_mut().entry(site).or_insert_with(|| Gram::new(width)).add(values);
        };
        let observer =
            |site: Site, x: &Tensor| with_values(x, |values| add(site, x.dims()[1], values));
        for batch in 0..from.batches() {
            let mut passage = Passage { residual: from.read(batch)?, input: Vec::new() };
            let tokens = passage.residual.len() / self.model.architecture().hidden_size;
            for site in Site::DENSE {
                self.model.reach(&held, site, self.text.ctx, &mut passage)?;
                if has(site) {
                    add(site, passage.input.len() / tokens, &passage.input);
                }
            }
            self.model.leave(&held, self.text.ctx, &mut passage, Some(&observer))?;
            to.write(batch, &passage.residual)?;
        }
        if let Activations::File(file) = &to {
            file.sync()?;
        }
        let experts: Vec<Site> =
            sites.iter().map(|layers| layers.site).filter(|site| site.is_expert()).collect();
        let (grams, rare) = with_fallback(grams.into_inner(), &experts);
        let found = sites.into_iter().filter_map(|layers| {
            let all_experts = rare.contains(&layers.site);
            Some((layers.weights, grams.get(&layers.site)?, all_experts))
        });
        let found: Vec<_> = found.collect();
        self.store(&format!("block-{index:05}.safetensors"), &found)?;
        self.journal.blocks += 1;
        let path = self.folder.join(JOURNAL);
        let new = path.with_extension("new");
        write_json(&new, &self.journal)?;
        fs::rename(&new, &path).at("write", &path)
    }

    /// What the head sees, if it is not the embedding table too.
    fn head(&mut self) -> Result<()> {
        let Some(name) = self.model.own_head() else { return Ok(()) };
        let gram = collect_head(self.model, &self.hidden(self.journal.blocks)?)?;
        self.store("head.safetensors", &[(vec![name.to_owned()], &gram, false)])
    }

    fn store(&mut self, file: &str, sites: &[(Vec<String>, &Gram, bool)]) -> Result<()> {
        let path = self.staged.join(file);
        let means: Vec<(String, usize, Vec<f32>)> = sites
            .iter()
            .map(|(weights, gram, _)| (weights[0].clone(), gram.width(), gram.mean()))
            .collect();
        let views = means.iter().map(|(name, width, mean)| {
            let view = TensorView::new(Dtype::F32, vec![*width; 2], bytemuck::cast_slice(mean));
            (name.as_str(), view.expect("invariant: a square matrix"))
        });
        safetensors::serialize_to_file(views, None, &path)
            .map_err(|e| Error::checkpoint(&path, format!("cannot be written: {e}")))?;
        for ((weights, gram, all_experts), (_, width, mean)) in sites.iter().zip(&means) {
            self.journal.description.sites.push(SiteStatistics {
                weights: weights.clone(),
                file: file.to_owned(),
                width: *width,
                tokens: gram.tokens(),
                dead: (0..*width).filter(|i| mean[i * width + i] == 0.0).count(),
                all_experts: *all_experts,
            });
        }
        Ok(())
    }
}
