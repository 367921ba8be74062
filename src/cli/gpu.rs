//! The GPU flags of the subcommands, and `compress-model gpu-info`.

use clap::Args;
use compress_model_astc::gpu::{
    AdapterInfo, DecodePath, Gpu, GpuAdapter, GpuDecoder, GpuError, PathChoice, Verdict,
};
use compress_model_astc::{TexelMode, TextureCodec};
use serde::Serialize;

use super::table::table;
use super::{Common, Failure, print_json, print_text};
use crate::error::Error;
use crate::pipeline::GpuReference;

/// Which GPU, and how it decodes.
#[derive(Debug, Args)]
pub(super) struct GpuArgs {
    /// Also decode every texture on a GPU; every texel must be that of the CPU
    #[arg(long)]
    gpu: bool,
    /// The GPU: its number in gpu-info or a part of its backend and name [default: the first
    /// real GPU]
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
    /// The GPU that is asked for, opened, and the path; `None` without `--gpu`.
    pub(super) fn open(&self) -> Result<Option<(Gpu, PathChoice)>, Error> {
        if !self.gpu {
            return Ok(None);
        }
        let gpu = GpuAdapter::find(self.gpu_adapter.as_deref())?.open()?;
        Ok(Some((gpu, self.gpu_path)))
    }
}

#[derive(Debug, Args)]
pub(super) struct GpuInfoArgs {}

/// One adapter as `gpu-info --json` prints it.
#[derive(Debug, Serialize)]
struct Adapter {
    index: usize,
    name: String,
    backend: String,
    driver: String,
    driver_info: String,
    kind: String,
    limits: Limits,
    features: Features,
    /// Precision of sampled texels, where they can be trusted: "unorm8" or "fp16".
    decode_mode: Option<&'static str>,
    /// As `decode_mode`, for textures of the HDR format.
    decode_mode_hdr: Option<&'static str>,
    /// Precision of sampled BC4 texels: "exact", "unorm8" or "llvmpipe".
    decode_mode_bc4: Option<&'static str>,
    /// Whether the compute shader decodes correctly.
    computed: bool,
    /// What `--gpu-path auto` comes to: "sampled", "computed" or "refused".
    verdict: &'static str,
    /// The path of `--gpu-path auto` for weights made for unorm8 and for fp16 readers.
    paths: Vec<String>,
    /// Why the texture unit, the compute shader or the whole adapter is refused.
    refused: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Limits {
    max_texture_dimension: u32,
    max_texture_layers: u32,
    max_buffer_bytes: u64,
    max_storage_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Features {
    astc: bool,
    astc_hdr: bool,
    bc: bool,
    compute_shaders: bool,
    shader_f16: bool,
    subgroups: bool,
}

pub(super) fn run(_args: &GpuInfoArgs, common: &Common) -> Result<(), Failure> {
    let adapters: Vec<Adapter> = GpuAdapter::all().iter().map(Adapter::examine).collect();
    if common.json {
        return print_json(&adapters);
    }
    print_text(&render(&adapters))
}

impl Adapter {
    fn examine(adapter: &GpuAdapter) -> Self {
        let mut found = Self::describe(adapter.info());
        if let Err(e) = adapter.open().and_then(|gpu| found.test(&gpu)) {
            found.refused.push(e.to_string());
        }
        found
    }

    fn describe(info: &AdapterInfo) -> Self {
        Self {
            index: info.index,
            name: info.name.clone(),
            backend: info.backend.clone(),
            driver: info.driver.clone(),
            driver_info: info.driver_info.clone(),
            kind: info.kind.to_string(),
            limits: Limits {
                max_texture_dimension: info.max_texture_dimension,
                max_texture_layers: info.max_texture_layers,
                max_buffer_bytes: info.max_buffer_bytes,
                max_storage_bytes: info.max_storage_bytes,
            },
            features: Features {
                astc: info.astc,
                astc_hdr: info.astc_hdr,
                bc: info.bc,
                compute_shaders: info.compute_shaders,
                shader_f16: info.shader_f16,
                subgroups: info.subgroups,
            },
            decode_mode: None,
            decode_mode_hdr: None,
            decode_mode_bc4: None,
            computed: false,
            verdict: "refused",
            paths: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Runs the self-tests of both paths.
    fn test(&mut self, gpu: &Gpu) -> Result<(), GpuError> {
        let found = gpu.self_test()?;
        let mut precision = |what: &str, verdict: &Verdict| match verdict {
            Verdict::Refused(reason) => {
                self.refused.push(format!("{what}: {reason}"));
                None
            }
            verdict => verdict.mode().map(TexelMode::name),
        };
        self.decode_mode = precision("sampled ASTC", &found.ldr);
        self.decode_mode_hdr =
            found.hdr.as_ref().and_then(|hdr| precision("sampled, HDR format", hdr));
        self.decode_mode_bc4 = precision("sampled BC4", &found.bc4);
        self.computed = true;
        for &mode in TextureCodec::Bc4.modes() {
            if let Some(fault) =
                GpuDecoder::new(gpu, DecodePath::Computed(mode))?.computed_fault()?
            {
                self.refused.push(format!("computed BC4, {}: {fault}", mode.name()));
                self.computed = false;
            }
        }
        for &mode in TextureCodec::Astc.modes() {
            let computed = DecodePath::Computed(mode);
            if let Some(fault) = GpuDecoder::new(gpu, computed)?.computed_fault()? {
                self.refused.push(format!("{computed}: {fault}"));
                self.computed = false;
            }
            let sampled = found.sampled_mode(mode).map(DecodePath::Sampled);
            let path = sampled.or(self.computed.then_some(computed));
            self.paths.extend(path.map(|path| path.to_string()));
            self.verdict = match path {
                Some(DecodePath::Sampled(_)) => "sampled",
                Some(DecodePath::Computed(_)) => "computed",
                None => "refused",
            };
        }
        Ok(())
    }
}

fn render(adapters: &[Adapter]) -> String {
    if adapters.is_empty() {
        return format!("{}\n", GpuError::NoAdapter);
    }
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let rows: Vec<Vec<String>> = adapters
        .iter()
        .map(|a| {
            vec![
                a.index.to_string(),
                a.backend.clone(),
                a.name.clone(),
                a.kind.clone(),
                a.limits.max_texture_dimension.to_string(),
                yes(a.features.astc),
                a.decode_mode.unwrap_or("refused").to_owned(),
                yes(a.features.bc),
                a.decode_mode_bc4.unwrap_or("refused").to_owned(),
                if a.computed { "ok" } else { "refused" }.to_owned(),
            ]
        })
        .collect();
    let head = [
        "#", "backend", "adapter", "kind", "texture", "ASTC", "sampled", "BC4", "sampled",
        "computed",
    ];
    let mut text = table(&head, &[0, 4], &rows);
    for adapter in adapters {
        for reason in &adapter.refused {
            text += &format!("{}: {}: {reason}\n", adapter.index, adapter.backend);
        }
    }
    text
}
