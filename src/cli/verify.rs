//! `compress-model verify`.

use std::path::PathBuf;

use clap::Args;

use super::progress::Display;
use super::table::table;
use super::{Common, Failure, human_db, print_json, print_text};
use crate::checkpoint::Checkpoint;
use crate::error::Error;
#[cfg(feature = "model")]
use crate::error::IoContext;
#[cfg(feature = "model")]
use crate::pipeline::another_checkpoint;
use crate::pipeline::{CompressedFolder, VerifyReport, rebuild, verify};
#[cfg(feature = "gpu")]
use crate::pipeline::{texture_codecs, verify_gpu};
#[cfg(feature = "model")]
use crate::transform::Transformed;

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Folder that compress wrote
    compressed: PathBuf,
    /// The original checkpoint, to compare every weight with
    #[arg(long, value_name = "MODEL")]
    against: Option<PathBuf>,
    /// Fail if a coded tensor's SQNR is lower than this many dB
    #[arg(long, value_name = "DB")]
    min_sqnr: Option<f64>,
    /// Compress N coded tensors again, drawn by --seed, and compare the bytes
    #[arg(long, value_name = "N", requires = "against")]
    rebuild: Option<usize>,
    #[cfg(feature = "gpu")]
    #[command(flatten)]
    gpu: super::gpu::GpuArgs,
}

pub(super) fn run(args: &VerifyArgs, common: &Common) -> Result<(), Failure> {
    let folder = CompressedFolder::open(&args.compressed)?;
    let original = args.against.as_deref().map(Checkpoint::open).transpose()?;
    // A GPU that is refused should not be known only after a long check on the CPU.
    #[cfg(feature = "gpu")]
    let gpu = args.gpu.open(&texture_codecs(&folder))?;
    let display = Display::new(common);
    #[cfg(feature = "model")]
    let again = again(&folder, original.as_ref(), &display)?;
    #[cfg(feature = "model")]
    let compared = again.as_ref().map(|(made, _)| made.checkpoint()).or(original.as_ref());
    #[cfg(not(feature = "model"))]
    let compared = original.as_ref();
    #[cfg(not(feature = "model"))]
    untransformed(&folder, compared)?;
    #[cfg(feature = "gpu")]
    let on_gpu = gpu
        .map(|(gpu, choice)| verify_gpu(&folder, &gpu, choice, args.gpu.gpu_reference, &display))
        .transpose()?;
    let mut report = verify(&folder, compared, args.min_sqnr, &display)?;
    report.against.clone_from(&args.against);
    #[cfg(feature = "model")]
    if let Some((made, _)) = &again {
        report.add_first(another_checkpoint(&folder.manifest, &made.record().source_fingerprint));
    }
    if let (Some(count), Some(original)) = (args.rebuild, &original) {
        let (names, failures) = rebuild(&folder, original, count, common.seed, &display)?;
        report.add_rebuilt(names, failures);
    }
    #[cfg(feature = "gpu")]
    on_gpu.into_iter().for_each(|found| report.add_gpu(found));
    drop(display);
    if common.json {
        print_json(&report)?;
    } else {
        print_text(&render(&report))?;
    }
    if report.ok {
        return Ok(());
    }
    Err(Error::Verification { failures: report.failures }.into())
}

/// `original` taken through the transform of `folder`, in a temporary folder that comes with it;
/// none where there was no transform.
#[cfg(feature = "model")]
fn again(
    folder: &CompressedFolder,
    original: Option<&Checkpoint>,
    display: &Display,
) -> Result<Option<(Transformed, tempfile::TempDir)>, Error> {
    let manifest = &folder.manifest;
    let (Some(original), Some(options)) = (original, &manifest.transform) else { return Ok(None) };
    if options.needs_calibration() {
        return Err(not_comparable(folder, "scaled by what a calibration text showed"));
    }
    let folder = tempfile::tempdir().at("create a folder in", std::env::temp_dir())?;
    let output = folder.path().join("original");
    let made = Transformed::create(original, options, None, manifest.seed, &output, display)?;
    Ok(Some((made, folder)))
}

/// Refuses what takes a model to be understood.
#[cfg(not(feature = "model"))]
fn untransformed(folder: &CompressedFolder, original: Option<&Checkpoint>) -> Result<(), Error> {
    if original.is_none() || folder.manifest.transform.is_none() {
        return Ok(());
    }
    Err(not_comparable(folder, "which a build without the feature model cannot make again"))
}

fn not_comparable(folder: &CompressedFolder, why: &str) -> Error {
    let folder = folder.stored.folder().display();
    Error::Usage(format!(
        "{folder}: holds weights of a transformed model, {why}; compare the two models with \
         eval --against"
    ))
}

fn render(report: &VerifyReport) -> String {
    let coded: Vec<_> =
        report.tensors.iter().filter(|t| t.codec != "kept" && t.codec != "tied").collect();
    let rows: Vec<Vec<String>> = coded
        .iter()
        .map(|t| {
            let found = if t.compared { human_db(t.sqnr_db) } else { "-".to_owned() };
            vec![t.name.clone(), t.codec.clone(), human_db(t.manifest_sqnr_db), found]
        })
        .collect();
    let mut text = table(&["tensor", "codec", "manifest", "measured"], &[2, 3], &rows);
    #[cfg(feature = "gpu")]
    if let Some(gpu) = &report.gpu {
        text += &format!(
            "\n{} ({}): {} texels of {} tensors compared with the CPU, {} differ",
            gpu.adapter,
            gpu.paths.join("; "),
            gpu.texels,
            gpu.tensors,
            gpu.differing
        );
    }
    if !report.rebuilt.is_empty() {
        text += &format!("\n{} tensors compressed again", report.rebuilt.len());
    }
    text += &format!(
        "\n{}: {} tensors, {} coded: {}\n",
        report.folder.display(),
        report.tensors.len(),
        coded.len(),
        if report.ok { "ok".to_owned() } else { format!("{} failures", report.failures.len()) }
    );
    text
}
