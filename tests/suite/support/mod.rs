//! What the end-to-end tests share: the real fixture, its variants, and the command.

// Without the default features fewer tests use it.
#![allow(dead_code, unreachable_pub)]

pub mod gguf;
#[path = "../../../fixtures/variants.rs"]
pub mod variants;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

pub use variants::{Model, Tensor};

/// The trained fixture: a Llama model of 1-2 M parameters in F32.
pub fn tiny_llama() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny-llama")
}

/// The path of a file of `fixtures/`.
pub fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name).display().to_string()
}

/// A folder that several tests start from, made once by this build of the program: `make` writes it to
/// the path that it is given. Whoever comes first makes it, and the others wait.
pub fn prepared(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let program = fs::metadata(env!("CARGO_BIN_EXE_compress-model")).unwrap();
    let built = program.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prepared");
    let of_build = all.join(built.as_nanos().to_string());
    fs::create_dir_all(&of_build).unwrap();
    let lock = fs::File::create(of_build.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    let folder = of_build.join(name);
    if !folder.exists() {
        for old in fs::read_dir(&all).unwrap().map(|entry| entry.unwrap().path()) {
            if old != of_build {
                fs::remove_dir_all(old).unwrap_or_default();
            }
        }
        let unfinished = of_build.join(format!("{name}.unfinished"));
        fs::remove_dir_all(&unfinished).unwrap_or_default();
        make(&unfinished);
        fs::rename(&unfinished, &folder).unwrap();
    }
    folder
}

/// Copies a folder of files.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The command with an empty environment.
pub fn compress_model() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_compress-model"));
    command.env_clear();
    command
}

/// What one run of the command gave.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// The run must have failed with `code` and said each of `words` on stderr.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.starts_with("compress-model: error: "), "{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {}", self.stderr);
        }
        self
    }
}

/// Runs the command.
pub fn run<I: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = I>) -> Run {
    Run::of(compress_model().args(args).output().unwrap())
}

/// A folder for one test, with a model in it.
pub struct Workspace {
    folder: TempDir,
}

impl Workspace {
    pub fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A copy of the fixture under `model`, sharded if asked.
    pub fn with_tiny_llama(shards: usize) -> Self {
        let workspace = Self::new();
        Model::read(&tiny_llama()).write(&workspace.path("model"), shards, &tiny_llama());
        workspace
    }

    /// A made-up model under `model`: `tensors` beside a minimal configuration.
    pub fn with_tensors(tensors: &[(&str, Tensor)]) -> Self {
        let workspace = Self::new();
        let tensors = tensors.iter().map(|(name, t)| ((*name).to_owned(), t.clone())).collect();
        let model = Model { tensors, config: serde_json::json!({ "model_type": "llama" }) };
        model.write(&workspace.path("model"), 1, Path::new("/nonexistent"));
        workspace
    }

    /// `compress-model SUBCOMMAND model ARGS` in this folder.
    pub fn run(&self, subcommand: &str, folder: &str, args: &[&str]) -> Run {
        let output = compress_model()
            .current_dir(self.folder.path())
            .arg(subcommand)
            .arg(folder)
            .args(args)
            .output()
            .unwrap();
        Run::of(output)
    }

    /// Names in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Every file under `name` with its contents, sorted.
    pub fn files(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(self.path(name))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                (name, fs::read(entry.path()).unwrap_or_default())
            })
            .collect();
        files.sort();
        files
    }
}

/// Deterministic stand-in weights with the spread of a real layer.
pub fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    // A sum of uniforms is close enough to normal for a test matrix.
    (0..count).map(|_| ((0..6).map(|_| uniform()).sum::<f32>() - 3.0) * 0.03).collect()
}
