//! The one error type of the library, and the exit code each error ends the command with.

use std::io;
use std::path::{Path, PathBuf};

#[cfg(feature = "gpu")]
use compress_model_astc::gpu::GpuError;

use crate::checkpoint::header::HeaderProblem;

/// Result with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A safetensors file whose header cannot be trusted.
    #[error("{}: {problem}", file.display())]
    Header {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        problem: HeaderProblem,
    },
    /// The folder as a whole is not a usable checkpoint.
    #[error("{}: {message}", folder.display())]
    Checkpoint {
        /// The checkpoint folder or the file in it.
        folder: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// One tensor cannot be used as asked.
    #[error("{}: tensor {tensor:?}: {message}", file.display())]
    Tensor {
        /// The file that holds the tensor.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What is wrong.
        message: String,
    },
    /// A recipe, preset or rule that cannot be applied.
    #[error("recipe {origin}: {message}")]
    Recipe {
        /// The recipe file, preset or flag.
        origin: String,
        /// What is wrong.
        message: String,
    },
    /// Adapter files that cannot be written or read.
    #[error(transparent)]
    Adapter(#[from] compress_model_lora::Error),
    /// A GPU that is not there, cannot be trusted or failed.
    #[cfg(feature = "gpu")]
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// A text, task or gate file that cannot be used.
    #[error("{}: {message}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line where there is one.
        message: String,
    },
    /// A model that cannot be run, or whose numbers broke down.
    #[error("{}: {message}", folder.display())]
    Model {
        /// The model's folder.
        folder: PathBuf,
        /// What is wrong, with the layer where there is one.
        message: String,
    },
    /// An accuracy gate that a compressed model did not pass; each entry is one bound.
    #[error("accuracy gate failed:\n{}", failures.join("\n"))]
    Gate {
        /// One line a bound, with the value and the bound.
        failures: Vec<String>,
    },
    /// A request that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// Nothing is at a path that was given.
    #[error("{}: no such file or folder{hint}", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
        /// What may have been meant, after a semicolon; empty without an idea.
        hint: String,
    },
    /// The output is there already.
    #[error("{}: already exists; pass --overwrite to replace it", path.display())]
    OutputExists {
        /// The output folder.
        path: PathBuf,
    },
    /// The output would not fit on its disk.
    #[error(
        "{}: the output needs {needed} bytes but the disk has only {available} free",
        path.display()
    )]
    DiskFull {
        /// The folder that would hold the output.
        path: PathBuf,
        /// Bytes the plan asks for.
        needed: u64,
        /// Bytes the file system reports as free.
        available: u64,
    },
    /// The run would take more memory than it may.
    #[error(
        "{}: tensor {tensor:?}: takes {needed} bytes of memory on one thread, more than the limit \
         of {limit}",
        file.display()
    )]
    Memory {
        /// The file that holds the tensor.
        file: PathBuf,
        /// The tensor that takes most.
        tensor: String,
        /// Bytes that the run takes at least.
        needed: u64,
        /// The limit.
        limit: u64,
    },
    /// A run was asked to stop, and stored what it needs to go on.
    #[error("stopped; run again with --resume to go on from {}", folder.display())]
    Stopped {
        /// Where it stored itself.
        folder: PathBuf,
    },
    /// A run was asked to stop before it had stored anything; what an earlier one stored stays.
    #[error("stopped before this run stored anything")]
    StoppedEarly,
    /// A check of a compressed folder failed; each entry is one finding.
    #[error("verification failed:\n{}", failures.join("\n"))]
    Verification {
        /// One line a finding, with file and tensor.
        failures: Vec<String>,
    },
}

impl Error {
    /// The command's exit code for this error: 1 unexpected, 2 usage, 3 invalid or unsupported
    /// input, 4 I/O, 5 memory, 6 verification or accuracy gate failed, 75 stopped safely.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Recipe { .. } => 2,
            Self::Header { .. }
            | Self::Checkpoint { .. }
            | Self::Tensor { .. }
            | Self::Input { .. }
            | Self::Model { .. } => 3,
            Self::Adapter(compress_model_lora::Error::Io { .. }) => 4,
            Self::Adapter(_) => 3,
            Self::Io { .. }
            | Self::Missing { .. }
            | Self::OutputExists { .. }
            | Self::DiskFull { .. } => 4,
            Self::Verification { .. } | Self::Gate { .. } => 6,
            Self::Memory { .. } => 5,
            Self::Stopped { .. } | Self::StoppedEarly => 75,
            #[cfg(feature = "gpu")]
            Self::Gpu(error) => match error {
                GpuError::UnknownAdapter { .. } | GpuError::UnknownPath(_) => 2,
                GpuError::NoAdapter
                | GpuError::Refused { .. }
                | GpuError::OverLimit { .. }
                | GpuError::Shape(_)
                | GpuError::Footprint(_)
                | GpuError::Operand { .. } => 3,
                GpuError::DeviceLost { .. } => 4,
                GpuError::OutOfMemory { .. } => 5,
                _ => 1,
            },
        }
    }

    /// Whether the same run may well succeed another time: the system refused or was asked to end
    /// it.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::DiskFull { .. })
            || matches!(self, Self::Stopped { .. } | Self::StoppedEarly)
            || matches!(self, Self::Adapter(compress_model_lora::Error::Io { .. }))
    }

    pub(crate) fn checkpoint(folder: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Checkpoint { folder: folder.as_ref().to_path_buf(), message: message.into() }
    }

    pub(crate) fn input(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Input { path: path.as_ref().to_path_buf(), message: message.into() }
    }

    pub(crate) fn tensor(
        file: impl AsRef<Path>,
        tensor: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self::Tensor {
            file: file.as_ref().to_path_buf(),
            tensor: tensor.into(),
            message: message.into(),
        }
    }
}

/// Attaches path and action to an I/O error.
pub(crate) trait IoContext<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| Error::Io { path: path.as_ref().to_path_buf(), action, source })
    }
}
