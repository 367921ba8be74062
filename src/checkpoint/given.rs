//! Paths that a person gave.

use std::path::{Component, Path};

use crate::error::{Error, Result};

/// Refuses a path at which nothing is, with what may have been meant.
///
/// # Errors
/// [`Error::Missing`].
pub fn check_given(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let hint = match path.symlink_metadata() {
        Ok(_) => "; it is a symbolic link to something that is not there".to_owned(),
        Err(_) if is_hub_name(path) => format!(
            "; a model of the Hub has to be on this disk: hf download {} --local-dir FOLDER",
            path.display()
        ),
        Err(_) => String::new(),
    };
    Err(Error::Missing { path: path.to_path_buf(), hint })
}

/// Whether a path reads like `organisation/model` and not like a place on this disk.
fn is_hub_name(path: &Path) -> bool {
    let parts: Vec<Component> = path.components().collect();
    let plain = parts.iter().all(|part| matches!(part, Component::Normal(_)));
    let is_folder = path.parent().is_some_and(Path::exists);
    let is_file = path.extension().is_some_and(|extension| {
        ["bin", "gguf", "json", "pt", "pth", "safetensors", "toml", "txt"]
            .iter()
            .any(|known| extension == *known)
    });
    plain && parts.len() == 2 && !is_folder && !is_file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_hub_are_told_from_paths() {
        assert!(is_hub_name(Path::new("Qwen/Qwen2.5-0.5B")));
        for path in ["model", "./a/b", "/a/b", "../a/b", "a/b/c", "src/nope", "a/b.gguf"] {
            assert!(!is_hub_name(Path::new(path)), "{path}");
        }
    }
}
