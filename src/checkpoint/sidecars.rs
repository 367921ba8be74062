//! The files beside the weights that a model folder needs: tokenizer, templates, licences.

use std::fs;
use std::path::Path;

use super::index::check_contained;
use crate::error::{IoContext, Result};

/// Files copied unchanged, by exact name.
const NAMES: [&str; 19] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "image_processor_config.json",
    "merges.txt",
    "modules.json",
    "preprocessor_config.json",
    "processor_config.json",
    "sentence_bert_config.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tekken.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];

/// Folder of chat templates other than the default one.
pub(crate) const CHAT_TEMPLATES: &str = "additional_chat_templates";

/// Files copied unchanged, by the start of their name.
const PREFIXES: [&str; 3] = ["LICENSE", "LICENCE", "NOTICE"];

/// Lists, sorted, the files of `folder` that belong in every copy of the model: tokenizer, chat
/// templates, generation and processor configuration, model code, licence.
///
/// # Errors
/// [`crate::Error::Io`] if the folder cannot be listed, [`crate::Error::Checkpoint`] if one of
/// these files is a symbolic link out of the folder.
pub fn find_sidecars(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).at("list", folder)? {
        let name = entry.at("list", folder)?.file_name();
        // A name that is not UTF-8 is none of the known ones.
        let Some(name) = name.to_str() else { continue };
        let wanted = NAMES.contains(&name)
            || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || Path::new(name).extension().is_some_and(|extension| extension == "py");
        if wanted && !folder.join(name).is_dir() {
            check_contained(folder, &folder.join(name))?;
            found.push(name.to_owned());
        }
    }
    let templates = folder.join(CHAT_TEMPLATES);
    if templates.is_dir() {
        for entry in fs::read_dir(&templates).at("list", &templates)? {
            let name = entry.at("list", &templates)?.file_name();
            let Some(name) = name.to_str().filter(|name| name.ends_with(".jinja")) else {
                continue;
            };
            check_contained(folder, &templates.join(name))?;
            found.push(format!("{CHAT_TEMPLATES}/{name}"));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Checks that the files of [`find_sidecars`] can be read, which should be known before the work whose
/// result they are copied to.
///
/// # Errors
/// As [`find_sidecars`], and [`crate::Error::Io`] for one that cannot be opened.
pub fn check_sidecars(folder: &Path) -> Result<()> {
    for name in find_sidecars(folder)? {
        let path = folder.join(name);
        fs::File::open(&path).at("open", &path)?;
    }
    Ok(())
}

/// Copies the files of [`find_sidecars`] and returns their names.
///
/// # Errors
/// As [`find_sidecars`], and [`crate::Error::Io`] if a copy fails.
pub fn copy_sidecars(from: &Path, to: &Path) -> Result<Vec<String>> {
    let names = find_sidecars(from)?;
    if names.iter().any(|name| name.starts_with(CHAT_TEMPLATES)) {
        let folder = to.join(CHAT_TEMPLATES);
        fs::create_dir_all(&folder).at("create", &folder)?;
    }
    for name in &names {
        fs::copy(from.join(name), to.join(name)).at("copy", from.join(name))?;
    }
    Ok(names)
}
