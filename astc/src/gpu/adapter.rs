//! The GPUs of this machine, and how one of them is chosen.

use std::fmt;

use super::GpuError;
use super::device::{Gpu, wait};

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

    /// The adapter to use: the one with index `wanted` or whose [`AdapterInfo::label`] contains
    /// `wanted` in any case.
    ///
    /// Where several match or nothing is asked for, real GPUs come before software renderers,
    /// then those that report ASTC, then the first in the list.
    ///
    /// # Errors
    /// [`GpuError::NoAdapter`], [`GpuError::UnknownAdapter`].
    pub fn find(wanted: Option<&str>) -> Result<Self, GpuError> {
        let all = Self::all();
        if all.is_empty() {
            return Err(GpuError::NoAdapter);
        }
        let seen = || all.iter().map(|a| format!("{}: {}", a.info.index, a.info.label())).collect();
        let unknown =
            |wanted: &str| GpuError::UnknownAdapter { wanted: wanted.to_owned(), seen: seen() };
        let matches = |info: &AdapterInfo| match wanted.map(str::parse::<usize>) {
            None => true,
            Some(Ok(index)) => info.index == index,
            Some(Err(_)) => {
                let wanted = wanted.unwrap_or_default().to_lowercase();
                info.label().to_lowercase().contains(&wanted)
            }
        };
        let rank = |info: &AdapterInfo| {
            (!info.compute_shaders, info.kind == AdapterKind::Cpu, !info.astc, info.index)
        };
        let chosen = all
            .iter()
            .map(|adapter| &adapter.info)
            .filter(|info| matches(info))
            .min_by_key(|info| rank(info))
            .map(|info| info.index);
        let Some(chosen) = chosen else { return Err(unknown(wanted.unwrap_or_default())) };
        Ok(all.into_iter().nth(chosen).expect("invariant: indices count the list"))
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
