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
use crate::checkpoint::{Checkpoint, Dependency, Partial, Surroundings, write_json};
use crate::error::{Error, IoContext, Result};
use crate::model::{Model, ModelOptions, Passage, Site, SiteLayers};
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
        surroundings: Surroundings::of(checkpoint)?,
        texts: text.files.clone(),
        ctx: text.ctx,
        windows: text.windows().len(),
        sites: Vec::new(),
    };
    let partial = Partial::open(output, &dependencies(&fresh), resume)?;
    let run = || -> Result<(usize, Vec<SiteStatistics>)> {
        let journal = Journal::open(partial.folder(), fresh)?;
        let resumed_blocks = journal.blocks;
        let mut pass = Pass { model: &model, text, folder: partial.folder(), journal };
        pass.run(progress)?;
        Ok((resumed_blocks, pass.finish()?))
    };
    let (resumed_blocks, sites) = match run() {
        Ok(done) => done,
        Err(e) => {
            partial.end(&e);
            return Err(e);
        }
    };
    partial.become_output(output)?;
    let seconds = start.elapsed().as_secs_f64();
    let (output, tokens) = (output.to_path_buf(), text.tokens());
    Ok(CalibrateReport { output, tokens, resumed_blocks, sites, seconds })
}

/// What statistics depend on.
fn dependencies(of: &Description) -> Vec<Dependency> {
    let texts: Vec<&str> = of.texts.iter().map(|(_, hash)| hash.as_str()).collect();
    let windows = format!("{} windows of {} of {}", of.windows, of.ctx, texts.join(", "));
    let mut dependencies = vec![("the checkpoint", of.source_fingerprint.clone())];
    dependencies.extend(of.surroundings.dependencies());
    dependencies.extend([
        ("the text or its windows", windows),
        ("the program", build::IDENTITY.to_owned()),
        ("the processor's arithmetic", build::arithmetic().to_owned()),
    ]);
    dependencies
}

impl Journal {
    /// How far the work in `folder` got; nowhere yet for statistics of what `fresh` describes.
    fn open(folder: &Path, fresh: Description) -> Result<Self> {
        let path = folder.join(JOURNAL);
        if !path.exists() {
            return Ok(Self { blocks: 0, description: fresh });
        }
        let bytes = fs::read(&path).at("read", &path)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::checkpoint(&path, format!("not readable: {e}")))
    }
}

struct Pass<'a> {
    model: &'a Model,
    text: &'a CalibrationText,
    folder: &'a Path,
    journal: Journal,
}

impl Pass<'_> {
    /// Takes the text through all blocks that it has not passed yet.
    fn run(&mut self, progress: &dyn Progress) -> Result<()> {
        progress.begin("calibrating", self.model.block_count() as u64);
        progress.advance(self.journal.blocks as u64);
        if self.journal.blocks == 0 {
            embed(self.model, self.text, &self.hidden(0)?)?;
        }
        while self.journal.blocks < self.model.block_count() {
            if progress.stopped() {
                return Err(Error::Stopped { folder: self.folder.to_path_buf() });
            }
            self.block()?;
            progress.advance(1);
        }
        self.head()
    }

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
            let SiteLayers { site, weights, matrix, .. } = layers;
            Some(Found {
                weights,
                matrix,
                gram: grams.get(&site)?,
                all_experts: rare.contains(&site),
            })
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
        let gram = &collect_head(self.model, &self.hidden(self.journal.blocks)?)?;
        let weights = vec![name.to_owned()];
        self.store("head.safetensors", &[Found { weights, matrix: None, gram, all_experts: false }])
    }

    fn store(&mut self, file: &str, found: &[Found<'_>]) -> Result<()> {
        let path = self.folder.join(file);
        let with_means = found.iter().map(|Found { weights, matrix, gram, all_experts }| {
            let (width, mean) = (gram.width(), gram.mean());
            let site = SiteStatistics {
                weights: weights.clone(),
                matrix: *matrix,
                file: file.to_owned(),
                width,
                tokens: gram.tokens(),
                dead: (0..width).filter(|i| mean[i * width + i] == 0.0).count(),
                all_experts: *all_experts,
            };
            (site, mean)
        });
        let sites: Vec<(SiteStatistics, Vec<f32>)> = with_means.collect();
        let views = sites.iter().map(|(site, mean)| {
            let view = TensorView::new(Dtype::F32, vec![site.width; 2], bytemuck::cast_slice(mean));
            (site.array_name(), view.expect("invariant: a square matrix"))
        });
        safetensors::serialize_to_file(views, None, &path)
            .map_err(|e| Error::checkpoint(&path, format!("cannot be written: {e}")))?;
        self.journal.description.sites.extend(sites.into_iter().map(|(site, _)| site));
        Ok(())
    }

    /// Describes what is stored, and removes what is not part of it.
    fn finish(self) -> Result<Vec<SiteStatistics>> {
        write_json(&self.folder.join(DESCRIPTION_FILE), &self.journal.description)?;
        for leftover in ["hidden-0", "hidden-1", JOURNAL] {
            let path = self.folder.join(leftover);
            if path.exists() {
                fs::remove_file(&path).at("remove", &path)?;
            }
        }
        Ok(self.journal.description.sites)
    }
}

/// What the layers at a site see.
struct Found<'a> {
    weights: Vec<String>,
    matrix: Option<usize>,
    gram: &'a Gram,
    all_experts: bool,
}
