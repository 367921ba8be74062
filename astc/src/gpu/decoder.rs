//! Decoding matrices on a GPU, and the ground that other kernels stand on.

use std::ops::Range;
use std::sync::OnceLock;

use half::f16;

use super::device::Gpu;
use super::format::Format;
use super::matrix::GpuMatrix;
use super::tables::{Tables, signed_steps};
use super::{DecodePath, GpuError};
use crate::bc4::DecodeMode::Llvmpipe;
use crate::{BlockGrid, Error, Footprint, TexelMode, TextureCodec};

const WEIGHTS: &str = include_str!("weights.wgsl");
const SAMPLE: &str = include_str!("sample.wgsl");
const DECODE: &str = include_str!("decode.wgsl");
const HDR: &str = include_str!("hdr.wgsl");
const BC4: &str = include_str!("bc4.wgsl");
const OUTPUT: &str = include_str!("output.wgsl");

/// Values that a workgroup of output.wgsl writes, or pairs of f16.
const GROUP_SIZE: u64 = 64;
/// Bytes that are read back at once.
const BAND_BYTES: u64 = 32 << 20;

/// Decodes matrices of one codec and any footprint along one path.
#[derive(Debug)]
pub struct GpuDecoder<'g> {
    pub(super) gpu: &'g Gpu,
    path: DecodePath,
    pub(super) format: Format,
    pub(super) matrix_layout: wgpu::BindGroupLayout,
    output_layout: wgpu::BindGroupLayout,
    tables: [OnceLock<wgpu::Buffer>; Footprint::ALL.len()],
    outputs: [OnceLock<wgpu::ComputePipeline>; 3],
}

/// What output.wgsl writes.
#[derive(Debug, Clone, Copy)]
enum Output {
    Texels,
    F32,
    F16,
}

impl Output {
    fn entry_point(self) -> &'static str {
        match self {
            Self::Texels => "write_texels",
            Self::F32 => "write_f32",
            Self::F16 => "write_f16",
        }
    }
}

impl<'g> GpuDecoder<'g> {
    /// A decoder along `path`; [`choose`](Self::choose) finds one.
    ///
    /// # Errors
    /// [`GpuError::Refused`] if the adapter does not sample with that precision.
    pub fn new(gpu: &'g Gpu, path: DecodePath) -> Result<Self, GpuError> {
        let codec = path.mode().codec();
        let format = match path {
            DecodePath::Computed(_) => Format::of(codec)[0],
            DecodePath::Sampled(mode) => gpu.self_test()?.format(mode).ok_or_else(|| {
                gpu.refused(format!("it does not sample {} as {}", codec.title(), mode.name()))
            })?,
        };
        Self::with_format(gpu, path, format)
    }

    /// As [`new`](Self::new), with the texture format that sampling takes.
    pub(super) fn with_format(
        gpu: &'g Gpu,
        path: DecodePath,
        format: Format,
    ) -> Result<Self, GpuError> {
        let source = match path {
            DecodePath::Computed(_) => storage_binding(true),
            DecodePath::Sampled(_) => wgpu::BindingType::Texture {
                sample_type: wgpu::TextureSampleType::Float { filterable: false },
                view_dimension: wgpu::TextureViewDimension::D2Array,
                multisampled: false,
            },
        };
        let matrix = [uniform_binding(), storage_binding(true), storage_binding(true), source];
        let output = [storage_binding(false), uniform_binding()];
        Ok(Self {
            gpu,
            path,
            format,
            matrix_layout: gpu.bind_group_layout("matrix", &matrix)?,
            output_layout: gpu.bind_group_layout("output", &output)?,
            tables: [const { OnceLock::new() }; Footprint::ALL.len()],
            outputs: [const { OnceLock::new() }; 3],
        })
    }

    /// The path.
    pub const fn path(&self) -> DecodePath {
        self.path
    }

    /// The GPU.
    pub const fn gpu(&self) -> &'g Gpu {
        self.gpu
    }

    /// Uploads a matrix: `blocks` of the path's codec in raster order, and in `side` one scale a row,
    /// or one offset a block ([`TextureCodec::side_count`]).
    ///
    /// Sampled, a matrix past the adapter's texture limits is cut into the layers of a
    /// [`TextureLayout`](crate::TextureLayout).
    ///
    /// # Errors
    /// [`Error::Length`] as [`GpuError::Shape`], [`GpuError::Footprint`], [`GpuError::OverLimit`],
    /// [`GpuError::OutOfMemory`], [`GpuError::DeviceLost`], [`GpuError::Driver`].
    pub fn upload(
        &self,
        grid: BlockGrid,
        blocks: &[u8],
        side: &[f16],
    ) -> Result<GpuMatrix, GpuError> {
        GpuMatrix::upload(self, grid, blocks, side)
    }

    /// Decodes `rows` of `matrix` into `out`, row-major: bit for bit what
    /// [`TexelMode::decode_rows`] gives in the path's mode.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub fn decode(
        &self,
        matrix: &GpuMatrix,
        rows: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), GpuError> {
        self.write(Output::F32, matrix, rows, bytemuck::cast_slice_mut(out), 4)
    }

    /// As [`decode`](Self::decode), each weight rounded to the nearest f16, ties to even.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub fn decode_f16(
        &self,
        matrix: &GpuMatrix,
        rows: Range<usize>,
        out: &mut [f16],
    ) -> Result<(), GpuError> {
        self.write(Output::F16, matrix, rows, bytemuck::cast_slice_mut(out), 2)
    }

    /// The texels t of `rows` as the adapter returns them, scales and offsets left out.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub fn texels(
        &self,
        matrix: &GpuMatrix,
        rows: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), GpuError> {
        self.write(Output::Texels, matrix, rows, bytemuck::cast_slice_mut(out), 4)
    }

    fn write(
        &self,
        output: Output,
        matrix: &GpuMatrix,
        rows: Range<usize>,
        out: &mut [u8],
        value_bytes: usize,
    ) -> Result<(), GpuError> {
        let BlockGrid { cols, footprint, .. } = *matrix.grid();
        let (found, expected) = (out.len() / value_bytes, rows.len() * cols);
        if found != expected || rows.end > matrix.grid().rows {
            let (what, rows) = ("decoded weights", rows.len());
            return Err(Error::Length { what, found, expected, rows, cols, footprint }.into());
        }
        let (Some(bindings), false) = (&matrix.bindings, out.is_empty()) else { return Ok(()) };
        let pipeline = self.output_pipeline(output)?;
        let row_bytes = cols * value_bytes;
        let most = BAND_BYTES.min(self.gpu.max_bytes()) as usize;
        let band_rows = (most / row_bytes).max(1);
        for (band, out) in out.chunks_mut(band_rows * row_bytes).enumerate() {
            let first = rows.start + band * band_rows;
            self.write_band(pipeline, bindings, first, out, value_bytes)?;
        }
        Ok(())
    }

    fn write_band(
        &self,
        pipeline: &wgpu::ComputePipeline,
        matrix: &wgpu::BindGroup,
        first_row: usize,
        out: &mut [u8],
        value_bytes: usize,
    ) -> Result<(), GpuError> {
        let (gpu, count) = (self.gpu, out.len() / value_bytes);
        let words = out.len().div_ceil(4) as u64;
        gpu.check_limit("a row", count as u64, u32::MAX.into())?;
        let groups = gpu.spread(words.div_ceil(GROUP_SIZE));
        let buffer = gpu.output(4 * words)?;
        let band = gpu.uniform("band", &[first_row as u32, count as u32, groups[0], 0])?;
        let resources = [buffer.as_entire_binding(), band.as_entire_binding()];
        let bindings = gpu.bind_group("output", &self.output_layout, resources)?;
        gpu.dispatch(pipeline, &[Some(matrix), Some(&bindings)], groups)?;
        if out.len().is_multiple_of(4) {
            return gpu.read(&buffer, out);
        }
        let mut padded = vec![0; 4 * words as usize];
        gpu.read(&buffer, &mut padded)?;
        out.copy_from_slice(&padded[..out.len()]);
        Ok(())
    }

    fn output_pipeline(&self, output: Output) -> Result<&wgpu::ComputePipeline, GpuError> {
        let place = &self.outputs[output as usize];
        if let Some(made) = place.get() {
            return Ok(made);
        }
        let made = self.pipeline(OUTPUT, output.entry_point(), &self.output_layout)?;
        Ok(place.get_or_init(|| made))
    }

    /// A pipeline of `kernel`, WGSL that sees a matrix in bind group 0 through `shape`,
    /// `side`, `texel`, `signed_texel`, `open_block`, `signed_block_texel` and `weight`
    /// (weights.wgsl) and has bind group 1 to
    /// itself.
    pub(super) fn pipeline(
        &self,
        kernel: &str,
        entry_point: &str,
        own_layout: &wgpu::BindGroupLayout,
    ) -> Result<wgpu::ComputePipeline, GpuError> {
        let layouts = [Some(&self.matrix_layout), Some(own_layout)];
        self.gpu.compute_pipeline(&self.source(kernel), entry_point, &layouts)
    }

    fn source(&self, kernel: &str) -> String {
        let mode = self.path.mode();
        let steps = mode.steps();
        let mut source = format!("const FP16: bool = {};\n", steps.is_none());
        source += &format!("const STEPS: u32 = {}u;\n", steps.unwrap_or(1));
        source += &format!("const STEP_TOLERANCE: f32 = {:?};\n", step_tolerance(mode));
        source += &format!("const HDR: bool = {};\n", mode == TexelMode::AstcHdr);
        source += WEIGHTS;
        match (self.path, mode.codec()) {
            (DecodePath::Sampled(_), _) => source += SAMPLE,
            (DecodePath::Computed(_), TextureCodec::Astc | TextureCodec::AstcHdr) => {
                source += &Tables::new(Footprint::ALL[0]).constants;
                source += &format!("const ERROR_RED: u32 = {}u;\n", error_red(mode));
                source += DECODE;
                source += HDR;
            }
            (DecodePath::Computed(_), TextureCodec::Bc4) => {
                let llvmpipe = mode == TexelMode::Bc4(Llvmpipe);
                source += &format!("const LLVMPIPE: bool = {llvmpipe};\n{BC4}");
            }
        }
        source + "\n" + kernel
    }

    /// The tables of a footprint, uploaded on first use.
    pub(super) fn tables(&self, footprint: Footprint) -> Result<&wgpu::Buffer, GpuError> {
        let place = &self.tables[footprint.index()];
        if let Some(made) = place.get() {
            return Ok(made);
        }
        let words = match self.path.mode() {
            TexelMode::Astc(_) | TexelMode::AstcHdr => Tables::new(footprint).words,
            mode => signed_steps(mode.steps().unwrap_or_default()).collect(),
        };
        let made = self.gpu.storage("tables", bytemuck::cast_slice(&words))?;
        Ok(place.get_or_init(|| made))
    }
}

/// Red of the error colour as a value of decode.wgsl: 1 of LDR magenta, or NaN.
fn error_red(mode: TexelMode) -> u32 {
    if mode == TexelMode::AstcHdr { 0x2_FFFF } else { 0xFFFF }
}

/// How far from a whole number of [`TexelMode::steps`] a sampled texel may be; the unit's division
/// is not exact. Steps of BC4's exact quotients are so small that a unit of 16 bits is just
/// within.
pub(super) fn step_tolerance(mode: TexelMode) -> f32 {
    match mode.steps() {
        Some(255) => 1.0 / 2048.0,
        _ => 0.25,
    }
}

/// A buffer that a shader reads, or writes too.
pub(super) const fn storage_binding(read_only: bool) -> wgpu::BindingType {
    wgpu::BindingType::Buffer {
        ty: wgpu::BufferBindingType::Storage { read_only },
        has_dynamic_offset: false,
        min_binding_size: None,
    }
}

/// A buffer of constants.
pub(super) const fn uniform_binding() -> wgpu::BindingType {
    wgpu::BindingType::Buffer {
        ty: wgpu::BufferBindingType::Uniform,
        has_dynamic_offset: false,
        min_binding_size: None,
    }
}
