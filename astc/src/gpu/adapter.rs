//! The GPUs of this machine, and how one of them is chosen.

use std::fmt;

use super::GpuError;
use super::device::{Gpu, wait};
use crate::TextureCodec;

/// What kind of processor an adapter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the CPU's memory.
    Integrated,
    /// A GPU lent by a hypervisor.
    Virtual,
    /// The driver does not say.
    Unknown,
    /// A software renderer.
    Cpu,
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Unknown => "unknown",
            Self::Cpu => "cpu",
        })
    }
}

/// What an adapter says of itself. Whether it is true is the self-test's question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterInfo {
    /// Place in [`GpuAdapter::all`].
    pub index: usize,
    /// The driver's name for it.
    pub name: String,
    /// `vulkan`, `gl`, `metal` or `dx12`.
    pub backend: String,
    /// The driver.
    pub driver: String,
    /// The driver's version.
    pub driver_info: String,
    /// What kind of processor it is.
    pub kind: AdapterKind,
    /// Whether it reports ASTC LDR textures.
    pub astc: bool,
    /// Whether it reports ASTC HDR textures.
    pub astc_hdr: bool,
    /// Whether it reports BC textures, BC4 among them.
    pub bc: bool,
    /// Whether shaders may compute in f16.
    pub shader_f16: bool,
    /// Whether shaders may use subgroups.
    pub subgroups: bool,
    /// Whether it runs compute shaders, without which it cannot decode.
    pub compute_shaders: bool,
    /// Texels of a texture, across or down.
    pub max_texture_dimension: u32,
    /// Layers of an array texture.
    pub max_texture_layers: u32,
    /// Bytes of one buffer.
    pub max_buffer_bytes: u64,
    /// Bytes of one buffer that a shader sees.
    pub max_storage_bytes: u64,
}

impl AdapterInfo {
    /// Backend and name, which together tell adapters apart.
    pub fn label(&self) -> String {
        format!("{}: {}", self.backend, self.name)
    }

    /// Whether it reports textures of `codec`.
    pub const fn reports(&self, codec: TextureCodec) -> bool {
        match codec {
            TextureCodec::Astc => self.astc,
            TextureCodec::AstcHdr => self.astc_hdr,
            TextureCodec::Bc4 => self.bc,
        }
    }

    /// Whether `wanted` means this adapter: its index, or a part of its [`label`](Self::label) in
    /// any case.
    fn is_called(&self, wanted: &str) -> bool {
        match wanted.parse::<usize>() {
            Ok(index) => self.index == index,
            Err(_) => self.label().to_lowercase().contains(&wanted.to_lowercase()),
        }
    }
}

/// Place of the adapter to use for `codecs`: of those that are called `wanted`, or of all, real GPUs
/// come before software renderers, then those that report textures of more of the codecs, then the
/// first in the list.
fn preferred(
    infos: &[&AdapterInfo],
    wanted: Option<&str>,
    codecs: &[TextureCodec],
) -> Option<usize> {
    let rank = |info: &AdapterInfo| {
        let unreported = codecs.iter().filter(|&&codec| !info.reports(codec)).count();
        (!info.compute_shaders, info.kind == AdapterKind::Cpu, unreported)
    };
    let called = |info: &AdapterInfo| wanted.is_none_or(|wanted| info.is_called(wanted));
    let candidates = infos.iter().enumerate().filter(|(_, info)| called(info));
    candidates.min_by_key(|(place, info)| (rank(info), *place)).map(|(place, _)| place)
}

/// One GPU through one driver; a GPU with two drivers is listed twice.
#[derive(Debug)]
pub struct GpuAdapter {
    info: AdapterInfo,
    adapter: wgpu::Adapter,
}

impl GpuAdapter {
    /// Every adapter of every driver that this machine has; empty where there is none.
    pub fn all() -> Vec<Self> {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        // Debug builds would ask for validation layers that few machines have.
        descriptor.flags = wgpu::InstanceFlags::empty();
        let instance = wgpu::Instance::new(descriptor);
        let adapters = wait(instance.enumerate_adapters(wgpu::Backends::all()));
        let described = |(index, adapter)| Self { info: describe(index, &adapter), adapter };
        adapters.into_iter().enumerate().map(described).collect()
    }

    /// The adapter to use for textures of `codecs`: the one with index `wanted` or whose
    /// [`AdapterInfo::label`] contains `wanted` in any case.
    ///
    /// Where several match or nothing is asked for, real GPUs come before software renderers,
    /// then those that report textures of more of the codecs, then the first in the list.
    ///
    /// # Errors
    /// [`GpuError::NoAdapter`], [`GpuError::UnknownAdapter`].
    pub fn find(wanted: Option<&str>, codecs: &[TextureCodec]) -> Result<Self, GpuError> {
        let all = Self::all();
        if all.is_empty() {
            return Err(GpuError::NoAdapter);
        }
        let infos: Vec<_> = all.iter().map(|adapter| &adapter.info).collect();
        let Some(chosen) = preferred(&infos, wanted, codecs) else {
            let seen = infos.iter().map(|info| format!("{}: {}", info.index, info.label()));
            let wanted = wanted.unwrap_or_default().to_owned();
            return Err(GpuError::UnknownAdapter { wanted, seen: seen.collect() });
        };
        Ok(all.into_iter().nth(chosen).expect("invariant: places count the list"))
    }

    /// What the adapter says of itself.
    pub const fn info(&self) -> &AdapterInfo {
        &self.info
    }

    /// Opens the adapter with all its limits.
    ///
    /// # Errors
    /// [`GpuError::Refused`] without compute shaders, [`GpuError::Driver`] if the driver fails.
    pub fn open(&self) -> Result<Gpu, GpuError> {
        Gpu::open(&self.adapter, self.info.clone())
    }
}

fn describe(index: usize, adapter: &wgpu::Adapter) -> AdapterInfo {
    let (info, features, limits) = (adapter.get_info(), adapter.features(), adapter.limits());
    let flags = adapter.get_downlevel_capabilities().flags;
    AdapterInfo {
        index,
        name: info.name,
        backend: info.backend.to_str().to_owned(),
        driver: info.driver,
        driver_info: info.driver_info,
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
            wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
            wgpu::DeviceType::Cpu => AdapterKind::Cpu,
            wgpu::DeviceType::Other => AdapterKind::Unknown,
        },
        astc: features.contains(wgpu::Features::TEXTURE_COMPRESSION_ASTC),
        astc_hdr: features.contains(wgpu::Features::TEXTURE_COMPRESSION_ASTC_HDR),
        bc: features.contains(wgpu::Features::TEXTURE_COMPRESSION_BC),
        shader_f16: features.contains(wgpu::Features::SHADER_F16),
        subgroups: features.contains(wgpu::Features::SUBGROUP),
        compute_shaders: flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS),
        max_texture_dimension: limits.max_texture_dimension_2d,
        max_texture_layers: limits.max_texture_array_layers,
        max_buffer_bytes: limits.max_buffer_size,
        max_storage_bytes: limits.max_storage_buffer_binding_size,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(
        index: usize,
        name: &str,
        kind: AdapterKind,
        codecs: &[TextureCodec],
    ) -> AdapterInfo {
        AdapterInfo {
            index,
            name: name.to_owned(),
            backend: "vulkan".to_owned(),
            driver: String::new(),
            driver_info: String::new(),
            kind,
            astc: codecs.contains(&TextureCodec::Astc),
            astc_hdr: codecs.contains(&TextureCodec::AstcHdr),
            bc: codecs.contains(&TextureCodec::Bc4),
            shader_f16: false,
            subgroups: false,
            compute_shaders: true,
            max_texture_dimension: 16384,
            max_texture_layers: 2048,
            max_buffer_bytes: 1 << 31,
            max_storage_bytes: 1 << 31,
        }
    }

    #[test]
    fn the_codecs_decide_between_adapters_of_one_kind() {
        use TextureCodec::{Astc, AstcHdr, Bc4};
        let integrated = |index, codecs: &[_]| adapter(index, "a", AdapterKind::Integrated, codecs);
        let all = [integrated(0, &[]), integrated(1, &[Astc]), integrated(2, &[Bc4])];
        let infos: Vec<_> = all.iter().collect();
        let place = |codecs: &[_]| preferred(&infos, None, codecs).unwrap();
        assert_eq!([place(&[]), place(&[Astc]), place(&[Bc4]), place(&[AstcHdr])], [0, 1, 2, 0]);
        // Both report one of two: the first.
        assert_eq!(place(&[Bc4, Astc]), 1);
        let both = integrated(3, &[Astc, Bc4]);
        let infos: Vec<_> = all.iter().chain([&both]).collect();
        assert_eq!(preferred(&infos, None, &[Astc, Bc4]), Some(3));
    }

    #[test]
    fn a_real_gpu_comes_before_a_software_renderer_and_a_name_before_both() {
        use TextureCodec::Bc4;
        let software = adapter(0, "llvmpipe", AdapterKind::Cpu, &TextureCodec::ALL);
        let real = adapter(1, "Arc", AdapterKind::Discrete, &[]);
        let mut useless = adapter(2, "Old", AdapterKind::Discrete, &TextureCodec::ALL);
        useless.compute_shaders = false;
        let infos = [&software, &real, &useless];
        assert_eq!(preferred(&infos, None, &[Bc4]), Some(1));
        assert_eq!(preferred(&infos, Some("LLVM"), &[Bc4]), Some(0));
        assert_eq!(preferred(&infos, Some("vulkan: old"), &[Bc4]), Some(2));
        assert_eq!(preferred(&infos, Some("0"), &[Bc4]), Some(0));
        assert_eq!(preferred(&infos, Some("3"), &[Bc4]), None);
    }
}
