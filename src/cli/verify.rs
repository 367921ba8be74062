//! `compress-model verify`.

use std::path::PathBuf;

use clap::Args;

use super::progress::Display;
use super::table::table;
use super::{Common, Failure, human_db, print_json, print_text};
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::pipeline::{CompressedFolder, VerifyReport, verify};
#[cfg(feature = "gpu")]
use crate::pipeline::{texture_codecs, verify_gpu};

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
    #[cfg(feature = "gpu")]
    let on_gpu = gpu
        .map(|(gpu, choice)| verify_gpu(&folder, &gpu, choice, args.gpu.gpu_reference, &display))
        .transpose()?;
    #[cfg_attr(not(feature = "gpu"), expect(unused_mut))]
    let mut report = verify(&folder, original.as_ref(), args.min_sqnr, &display)?;
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

fn render(report: &VerifyReport) -> String {
    let measured = report.against.is_some();
    let coded: Vec<_> =
        report.tensors.iter().filter(|t| t.codec != "kept" && t.codec != "tied").collect();
    let rows: Vec<Vec<String>> = coded
        .iter()
        .map(|t| {
            let found = if measured { human_db(t.sqnr_db) } else { "-".to_owned() };
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
    text += &format!(
        "\n{}: {} tensors, {} coded: {}\n",
        report.folder.display(),
        report.tensors.len(),
        coded.len(),
        if report.ok { "ok".to_owned() } else { format!("{} failures", report.failures.len()) }
    );
    text
}
