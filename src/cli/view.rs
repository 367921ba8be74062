//! `compress-model view`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::table::table;
use super::{Common, Failure, human_bytes, print_json, print_text};
use crate::checkpoint::Checkpoint;
use crate::pipeline::CompressedFolder;
use crate::view::{Contents, page, write_page};

#[derive(Debug, Args)]
pub(super) struct ViewArgs {
    /// Folder that compress wrote
    compressed: PathBuf,
    /// Show this tensor; may be given several times [default: the first of each kind of layer]
    #[arg(long = "tensor", value_name = "NAME")]
    tensors: Vec<String>,
    /// The original checkpoint, to show the errors
    #[arg(long, value_name = "MODEL")]
    original: Option<PathBuf>,
    /// File to write [default: the folder's name with .html, beside it]
    #[arg(short, long, value_name = "FILE.html")]
    output: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    overwrite: bool,
}

#[derive(Serialize)]
struct Report {
    output: PathBuf,
    bytes: usize,
    #[serde(flatten)]
    contents: Contents,
}

pub(super) fn run(args: &ViewArgs, common: &Common) -> Result<(), Failure> {
    let folder = CompressedFolder::open(&args.compressed)?;
    let original = args.original.as_deref().map(Checkpoint::open).transpose()?;
    let output = args.output.clone().unwrap_or_else(|| beside(&args.compressed));
    let page = page(&folder, original.as_ref(), &args.tensors)?;
    for name in &page.contents.left_out {
        tracing::warn!("{name:?} is left out: the page would be too large");
    }
    write_page(&output, &page.html, &args.compressed, args.overwrite)?;
    let report = Report { output, bytes: page.html.len(), contents: page.contents };
    if common.json { print_json(&report) } else { print_text(&render(&report)) }
}

/// `folder.html` beside `folder`.
fn beside(folder: &Path) -> PathBuf {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".html");
    folder.with_file_name(name)
}

fn render(report: &Report) -> String {
    let contents = &report.contents;
    let rows: Vec<Vec<String>> = contents
        .tensors
        .iter()
        .map(|tensor| {
            let window = &tensor.window;
            let shown = if window.whole {
                "all".to_owned()
            } else {
                format!("{} x {}", window.rows, window.cols)
            };
            let size = human_bytes(tensor.data_bytes as u64);
            vec![
                tensor.name.clone(),
                format!("{:?}", tensor.shape),
                tensor.codec.to_owned(),
                tensor.footprint.clone(),
                shown,
                size,
            ]
        })
        .collect();
    let mut text =
        table(&["tensor", "shape", "codec", "footprint", "shown", "data"], &[1, 5], &rows);
    text += &format!(
        "\n{}: {} of {} texture-coded tensors, {}\n",
        report.output.display(),
        contents.tensors.len(),
        contents.texture_tensors,
        human_bytes(report.bytes as u64)
    );
    text
}
