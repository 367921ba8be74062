//! `compress-model gpu-info`: the adapters, and along which path each decodes which codec.

use clap::Args;
use compress_model_astc::gpu::{
    AdapterInfo, DecodePath, Gpu, GpuAdapter, GpuDecoder, GpuError, SelfTest, Verdict,
};
use compress_model_astc::{TexelMode, TextureCodec};
use serde::Serialize;

use super::table::table;
use super::{Common, Failure, print_json, print_text};

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
    /// What the self-tests found, a codec each; empty if the adapter is refused.
    codecs: Vec<CodecPaths>,
    /// Why the adapter as a whole cannot be used.
    refused: Option<String>,
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

/// How an adapter decodes the textures of one codec.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct CodecPaths {
    /// "astc", "astc-hdr" or "bc4".
    codec: &'static str,
    #[serde(skip)]
    title: &'static str,
    /// What `--gpu-path auto` comes to: "sampled", "computed" or "refused".
    verdict: &'static str,
    /// Why it comes to that.
    why: String,
    /// The path of `--gpu-path auto` for weights made for each of the codec's precisions.
    paths: Vec<String>,
    /// Precision of sampled texels, where they can be trusted: "unorm8", "fp16", "exact" or
    /// "llvmpipe".
    decode_mode: Option<&'static str>,
    /// As `decode_mode`, for LDR blocks in the HDR format of ASTC.
    decode_mode_hdr_format: Option<&'static str>,
    /// Why the texture unit is refused.
    sampled_refused: Option<String>,
    /// Whether the compute shader decodes correctly in every precision.
    computed: bool,
    /// What is wrong with the compute shader, by precision.
    computed_refused: Vec<String>,
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
        match adapter.open().and_then(|gpu| examine_codecs(&gpu)) {
            Ok(codecs) => found.codecs = codecs,
            Err(e) => found.refused = Some(e.to_string()),
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
            codecs: Vec::new(),
            refused: None,
        }
    }
}

/// Runs the self-tests of both paths for every codec.
fn examine_codecs(gpu: &Gpu) -> Result<Vec<CodecPaths>, GpuError> {
    let found = gpu.self_test()?;
    let computed_fault = |mode: TexelMode| {
        let decoder = GpuDecoder::new(gpu, DecodePath::Computed(mode));
        decoder.and_then(|decoder| decoder.computed_fault()).unwrap_or_else(|e| Some(e.to_string()))
    };
    Ok(TextureCodec::ALL.map(|codec| CodecPaths::of(codec, found, computed_fault)).into())
}

impl CodecPaths {
    /// Judges a codec by its own tests alone: a fault in another codec's shader is none of it.
    fn of(
        codec: TextureCodec,
        found: &SelfTest,
        computed_fault: impl Fn(TexelMode) -> Option<String>,
    ) -> Self {
        let mut paths = Vec::new();
        let mut computed_refused = Vec::new();
        for &mode in codec.modes() {
            let fault = computed_fault(mode);
            let sampled = found.sampled_mode(mode).map(DecodePath::Sampled);
            let computed = fault.is_none().then_some(DecodePath::Computed(mode));
            paths.push(sampled.or(computed));
            computed_refused.extend(fault.map(|fault| format!("{}: {fault}", mode.name())));
        }
        let sampled_refused = found.refusal(codec).map(str::to_owned);
        let sampled = sampled_refused.as_deref().unwrap_or_default();
        let (verdict, why) = match paths[0] {
            Some(DecodePath::Sampled(mode)) => {
                let decodes = "its texture unit passed the self-test, as";
                ("sampled", format!("{decodes} {}", mode.name()))
            }
            Some(DecodePath::Computed(_)) => ("computed", sampled.to_owned()),
            None => ("refused", format!("{sampled}; {}", computed_refused.join("; "))),
        };
        let ldr = codec == TextureCodec::Astc;
        let in_hdr = found.ldr_in_hdr.as_ref().filter(|_| ldr);
        Self {
            codec: codec.name(),
            title: codec.title(),
            verdict,
            why,
            paths: paths.into_iter().flatten().map(|path| path.to_string()).collect(),
            decode_mode: found.of(codec).mode().map(TexelMode::name),
            decode_mode_hdr_format: in_hdr.and_then(Verdict::mode).map(TexelMode::name),
            sampled_refused,
            computed: computed_refused.is_empty(),
            computed_refused,
        }
    }

    /// The path in short, "computed, unorm8".
    fn path(&self) -> &str {
        if self.verdict == "refused" { "refused" } else { &self.paths[0] }
    }
}

fn render(adapters: &[Adapter]) -> String {
    if adapters.is_empty() {
        return format!("{}\n", GpuError::NoAdapter);
    }
    let head = ["#", "backend", "adapter", "kind", "texture", "codec", "path", "why"];
    let mut rows = Vec::new();
    for adapter in adapters {
        let own = [
            adapter.index.to_string(),
            adapter.backend.clone(),
            adapter.name.clone(),
            adapter.kind.clone(),
            adapter.limits.max_texture_dimension.to_string(),
        ];
        let codecs = adapter.codecs.iter().map(|c| [c.title, c.path(), &c.why]);
        let whole = adapter.refused.iter().map(|reason| ["all", "refused", reason]);
        for (number, codec) in codecs.chain(whole).enumerate() {
            // The adapter stands in the first of its rows.
            let own = own.iter().map(|cell| if number == 0 { cell.as_str() } else { "" });
            rows.push(own.chain(codec).map(str::to_owned).collect());
        }
    }
    let mut text = table(&head, &[0, 4], &rows);
    for adapter in adapters {
        for codec in &adapter.codecs {
            for fault in &codec.computed_refused {
                text += &format!("{}: computed {}, {fault}\n", adapter.index, codec.title);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use compress_model_astc::DecodeMode;

    use super::*;

    fn found() -> SelfTest {
        SelfTest {
            ldr: Verdict::Decodes(DecodeMode::Unorm8.into()),
            ldr_in_hdr: None,
            hdr: Verdict::Refused("it reports no ASTC HDR textures".to_owned()),
            bc4: Verdict::Refused("it samples zeros".to_owned()),
        }
    }

    fn codecs(found: &SelfTest, faulty: &[TextureCodec]) -> [CodecPaths; 3] {
        let fault = |mode: TexelMode| {
            faulty.contains(&mode.codec()).then(|| "3 weights are wrong".to_owned())
        };
        TextureCodec::ALL.map(|codec| CodecPaths::of(codec, found, fault))
    }

    #[test]
    fn each_codec_has_its_own_path_and_reason() {
        let [ldr, hdr, bc4] = codecs(&found(), &[]);
        assert_eq!((ldr.verdict, ldr.path(), ldr.computed), ("sampled", "sampled, unorm8", true));
        assert_eq!(ldr.paths, ["sampled, unorm8", "sampled, unorm8"]);
        assert_eq!(ldr.why, "its texture unit passed the self-test, as unorm8");
        assert_eq!((hdr.verdict, hdr.path()), ("computed", "computed, fp16"));
        assert_eq!(hdr.why, "it reports no ASTC HDR textures");
        assert_eq!((bc4.verdict, bc4.why.as_str()), ("computed", "it samples zeros"));
        assert_eq!(bc4.paths.len(), 3);
    }

    #[test]
    fn a_faulty_shader_of_one_codec_is_no_fault_of_another() {
        let unsampled = SelfTest { ldr: Verdict::Refused("no ASTC".to_owned()), ..found() };
        let [ldr, hdr, bc4] = codecs(&unsampled, &[TextureCodec::Bc4]);
        assert_eq!((ldr.verdict, ldr.computed, hdr.computed), ("computed", true, true));
        assert_eq!((bc4.verdict, bc4.computed, bc4.path()), ("refused", false, "refused"));
        assert!(bc4.paths.is_empty());
        assert_eq!(bc4.computed_refused[0], "exact: 3 weights are wrong");
        assert!(bc4.why.starts_with("it samples zeros; exact: 3 weights are wrong"), "{}", bc4.why);

        let [ldr, hdr, bc4] = codecs(&found(), &[TextureCodec::Astc, TextureCodec::AstcHdr]);
        // The texture unit needs no shader that decodes.
        assert_eq!((ldr.verdict, ldr.computed), ("sampled", false));
        assert_eq!((hdr.verdict, bc4.verdict, bc4.computed), ("refused", "computed", true));
    }

    #[test]
    fn the_table_has_a_row_for_each_codec_and_names_every_fault() {
        let info = AdapterInfo {
            index: 1,
            name: "Some GPU".to_owned(),
            backend: "vulkan".to_owned(),
            driver: String::new(),
            driver_info: String::new(),
            kind: compress_model_astc::gpu::AdapterKind::Discrete,
            astc: true,
            astc_hdr: false,
            bc: true,
            shader_f16: false,
            subgroups: false,
            compute_shaders: true,
            max_texture_dimension: 16384,
            max_texture_layers: 2048,
            max_buffer_bytes: 1 << 31,
            max_storage_bytes: 1 << 31,
        };
        let mut tested = Adapter::describe(&info);
        tested.codecs = codecs(&found(), &[TextureCodec::Bc4]).into();
        let mut broken = Adapter::describe(&AdapterInfo { index: 2, ..info });
        broken.refused = Some("it runs no compute shaders".to_owned());
        let text = render(&[tested, broken]);
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(
            lines[1][..8],
            ["1", "vulkan", "Some", "GPU", "discrete", "16384", "ASTC", "sampled,"]
        );
        assert_eq!(lines[2][..4], ["ASTC", "HDR", "computed,", "fp16"]);
        assert_eq!(lines[3][..2], ["BC4", "refused"]);
        assert_eq!(lines[4][6..9], ["all", "refused", "it"]);
        assert!(text.ends_with("1: computed BC4, llvmpipe: 3 weights are wrong\n"), "{text}");
    }
}
