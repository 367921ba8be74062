//! The GPU flags of the subcommands.

use clap::Args;
use compress_model_astc::TextureCodec;
use compress_model_astc::gpu::{Gpu, GpuAdapter, PathChoice};

use crate::error::Error;
use crate::pipeline::GpuReference;

/// Which GPU, and how it decodes.
#[derive(Debug, Args)]
pub(super) struct GpuArgs {
    /// Also decode every texture on a GPU; every texel must be that of the CPU
    #[arg(long)]
    gpu: bool,
    /// The GPU: its number in gpu-info or a part of its backend and name [default: the first
    /// real GPU, and of those one that samples what the folder holds]
    #[arg(long, value_name = "NAME", requires = "gpu")]
    gpu_adapter: Option<String>,
    /// How it decodes: sampled by its texture unit, computed by a shader, or auto: sampled if the
    /// texture unit passes the self-test
    #[arg(long, value_name = "PATH", requires = "gpu", default_value = "auto")]
    gpu_path: PathChoice,
    /// What texels are compared with: the CPU's in the precision that the GPU was found to have,
    /// or in the one that the folder was written for
    #[arg(
        long,
        value_name = "PRECISION",
        requires = "gpu",
        value_enum,
        default_value = "detected"
    )]
    pub(super) gpu_reference: GpuReference,
}

impl GpuArgs {
    /// The GPU that is asked for, opened, and the path; `None` without `--gpu`. Between GPUs of a
    /// kind the `codecs` decide.
    pub(super) fn open(&self, codecs: &[TextureCodec]) -> Result<Option<(Gpu, PathChoice)>, Error> {
        if !self.gpu {
            return Ok(None);
        }
        let gpu = GpuAdapter::find(self.gpu_adapter.as_deref(), codecs)?.open()?;
        Ok(Some((gpu, self.gpu_path)))
    }
}
