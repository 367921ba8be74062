//! The HTML text: the page's own files and the data, put together.

use serde::Serialize;

use super::Contents;
use super::data::TensorData;
use crate::pipeline::CompressedFolder;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");

/// The program, in the order in which its parts use each other.
const PROGRAM: [&str; 10] = [
    include_str!("decoder.js"),
    include_str!("hdr.js"),
    include_str!("bc4.js"),
    include_str!("codecs.js"),
    include_str!("gpu.js"),
    include_str!("model.js"),
    include_str!("colour.js"),
    include_str!("viewer.js"),
    include_str!("panels.js"),
    include_str!("page.js"),
];

/// What the page says about itself.
#[derive(Debug, Serialize)]
pub(super) struct Facts<'a> {
    tool: String,
    folder: String,
    recipe: &'a str,
    has_original: bool,
    #[serde(flatten)]
    contents: &'a Contents,
}

impl<'a> Facts<'a> {
    pub(super) fn new(
        folder: &'a CompressedFolder,
        has_original: bool,
        contents: &'a Contents,
    ) -> Self {
        let path = folder.stored.folder();
        let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        Self {
            tool: folder.manifest.tool.clone(),
            folder: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            recipe: &folder.manifest.recipe,
            has_original,
            contents,
        }
    }
}

/// Fills the page's markers, `{{style}}`, `{{data}}` and `{{program}}`, in one pass: nothing that is
/// put in is looked at again.
pub(super) fn assemble(facts: &Facts<'_>, tensors: &[TensorData]) -> String {
    let mut html = String::new();
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("{{") {
        let (marker, after) = after.split_once("}}").expect("invariant: markers are closed");
        html.push_str(before);
        match marker {
            "style" => html.push_str(STYLE),
            "program" => PROGRAM.iter().for_each(|part| html.push_str(part)),
            "data" => {
                push_json(&mut html, "facts-data", facts);
                for (i, tensor) in tensors.iter().enumerate() {
                    push_json(&mut html, &format!("tensor-{i}"), tensor);
                }
            }
            other => unreachable!("invariant: the page has no marker {other}"),
        }
        rest = after;
    }
    html + rest
}

/// Appends a data element. JSON needs `<` in strings only, where it may be written as an escape; so
/// no text can end the element or open a comment.
fn push_json(html: &mut String, id: &str, value: &impl Serialize) {
    let json = serde_json::to_string(value).expect("invariant: keys are strings");
    html.push_str(&format!("<script type=\"application/json\" id=\"{id}\">"));
    html.push_str(&json.replace('<', "\\u003c"));
    html.push_str("</script>\n");
}
