//! Products with compressed weights: y = (W + B·A)·x, W decoded in the kernel's registers and never
//! written to memory.
//!
//! W comes from the texels of an uploaded matrix, sampled or computed as its decoder does, or from
//! 2-bit codes in a buffer. A kernel's workgroup makes a few rows of y for up to [`TILES`]' largest
//! number of vectors: its threads share out the columns, add in f32, and the sums of the threads
//! are added in a fixed order, so that the same adapter gives the same bits again. Row scales
//! multiply once a row. A·x is computed first, by a kernel of its own.

mod linear;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use half::f16;

use super::decoder::{GpuDecoder, storage_binding, uniform_binding};
use super::device::Gpu;
use super::{GpuError, GpuMatrix};
use crate::Footprint;
use linear::Weights;
pub use linear::{GpuLinear, Grid2, LowRank};

const INPUT: &str = include_str!("input.wgsl");
const OUTPUT: &str = include_str!("output.wgsl");
const TEXTURE: &str = include_str!("texture.wgsl");
const GRID2: &str = include_str!("grid2.wgsl");
const ADAPTER: &str = include_str!("adapter.wgsl");

/// Rows of y that a workgroup makes from 2-bit codes.
const GRID2_ROWS: usize = 4;
/// Vectors that a workgroup multiplies at once; a batch takes the first that holds it, or several
/// of the last.
const TILES: [usize; 3] = [1, 2, 4];

/// Vectors to multiply, row-major [batch, cols].
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// f32.
    F32(&'a [f32]),
    /// f16, half the upload; sums are f32 as well.
    F16(&'a [f16]),
}

impl Input<'_> {
    fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
        }
    }

    fn upload(self, gpu: &Gpu) -> Result<wgpu::Buffer, GpuError> {
        match self {
            Self::F32(values) => gpu.storage("input", bytemuck::cast_slice(values)),
            Self::F16(values) if values.len().is_multiple_of(2) => {
                gpu.storage("input", bytemuck::cast_slice(values))
            }
            Self::F16(values) => {
                let padded = [values, &[f16::ZERO]].concat();
                gpu.storage("input", bytemuck::cast_slice(&padded))
            }
        }
    }
}

/// A shader that was compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kernel {
    kind: Kind,
    f16: bool,
    tile: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Texture(Footprint),
    Grid2,
    Adapter,
}

/// Multiplies on one GPU; texels come along one decoder's path.
#[derive(Debug)]
pub struct GpuProducts<'d, 'g> {
    decoder: &'d GpuDecoder<'g>,
    grid2_layout: wgpu::BindGroupLayout,
    product_layout: wgpu::BindGroupLayout,
    adapter_layout: wgpu::BindGroupLayout,
    pipelines: Mutex<HashMap<Kernel, wgpu::ComputePipeline>>,
}

impl<'d, 'g> GpuProducts<'d, 'g> {
    /// Products on `decoder`'s GPU; its shaders are compiled on first use.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`], [`GpuError::Driver`].
    pub fn new(decoder: &'d GpuDecoder<'g>) -> Result<Self, GpuError> {
        let (read, write) = (storage_binding(true), storage_binding(false));
        let product = [uniform_binding(), read, read, read, write];
        Ok(Self {
            decoder,
            grid2_layout: decoder
                .gpu()
                .bind_group_layout("grid2", &[uniform_binding(), read, read])?,
            product_layout: decoder.gpu().bind_group_layout("product", &product)?,
            adapter_layout: decoder
                .gpu()
                .bind_group_layout("adapter", &[uniform_binding(), read, read, write])?,
            pipelines: Mutex::default(),
        })
    }

    /// A layer whose weights are the texels of `matrix`, which this decoder uploaded, times its
    /// row scales.
    ///
    /// # Errors
    /// [`GpuError::Operand`] for an adapter of another shape; as [`GpuDecoder::upload`].
    pub fn texture(
        &self,
        matrix: GpuMatrix,
        low_rank: Option<LowRank<'_>>,
    ) -> Result<GpuLinear, GpuError> {
        GpuLinear::texture(self.decoder.gpu(), matrix, low_rank)
    }

    /// A layer whose weights are 2-bit codes.
    ///
    /// # Errors
    /// [`GpuError::Operand`] for slices of other lengths; as [`GpuDecoder::upload`].
    pub fn grid2(
        &self,
        weights: &Grid2<'_>,
        low_rank: Option<LowRank<'_>>,
    ) -> Result<GpuLinear, GpuError> {
        GpuLinear::grid2(self.decoder.gpu(), &self.grid2_layout, weights, low_rank)
    }

    /// Multiplies the `batch` vectors of `x` [batch, cols] by the layer's weights, into `y`
    /// [batch, rows].
    ///
    /// # Errors
    /// [`GpuError::Operand`] if the lengths do not belong to the layer; as
    /// [`GpuDecoder::upload`].
    pub fn multiply(
        &self,
        linear: &GpuLinear,
        x: Input<'_>,
        batch: usize,
        y: &mut [f32],
    ) -> Result<(), GpuError> {
        check_operand("input", x.len(), batch * linear.cols)?;
        check_operand("output", y.len(), batch * linear.rows)?;
        if y.is_empty() {
            return Ok(());
        }
        if linear.cols == 0 {
            y.fill(0.0);
            return Ok(());
        }
        let gpu = self.decoder.gpu();
        let largest = (batch * linear.rows.max(linear.cols)) as u64;
        gpu.check_limit("vectors", largest, u32::MAX.into())?;
        let f16 = matches!(x, Input::F16(_));
        let tile = TILES.into_iter().find(|&tile| tile >= batch).unwrap_or(TILES[TILES.len() - 1]);
        let job = Job { f16, tile, batch, x: x.upload(gpu)? };
        let reduced = self.reduce(linear, &job)?;
        let (kind, weights, band_rows) = match &linear.weights {
            Weights::Texture(matrix) => {
                let footprint = matrix.grid().footprint;
                let bound = matrix.bindings.as_ref().expect("invariant: it has weights");
                (Kind::Texture(footprint), bound, footprint.height())
            }
            Weights::Grid2(bound) => (Kind::Grid2, bound, GRID2_ROWS),
        };
        let task = job.task(gpu, linear, linear.rows.div_ceil(band_rows))?;
        let output = gpu.output(4 * y.len() as u64)?;
        let expand = linear.low_rank.as_ref().map_or(&linear.no_adapter, |(_, b)| b);
        let resources = [
            task.buffer.as_entire_binding(),
            job.x.as_entire_binding(),
            reduced.as_entire_binding(),
            expand.as_entire_binding(),
            output.as_entire_binding(),
        ];
        let bindings = gpu.bind_group("product", &self.product_layout, resources)?;
        let pipeline = self.pipeline(job.kernel(kind))?;
        gpu.dispatch(&pipeline, &[Some(weights), Some(&bindings)], task.groups)?;
        gpu.read(&output, bytemuck::cast_slice_mut(y))
    }

    /// A·x of the layer's adapter, [batch, rank]; something to bind without one.
    fn reduce(&self, linear: &GpuLinear, job: &Job) -> Result<wgpu::Buffer, GpuError> {
        let gpu = self.decoder.gpu();
        let reduced = gpu.output(4 * (job.batch * linear.rank()).max(1) as u64)?;
        let Some((a, _)) = &linear.low_rank else { return Ok(reduced) };
        let task = job.task(gpu, linear, linear.rank())?;
        let resources = [
            task.buffer.as_entire_binding(),
            job.x.as_entire_binding(),
            a.as_entire_binding(),
            reduced.as_entire_binding(),
        ];
        let bindings = gpu.bind_group("adapter", &self.adapter_layout, resources)?;
        let pipeline = self.pipeline(job.kernel(Kind::Adapter))?;
        gpu.dispatch(&pipeline, &[None, Some(&bindings)], task.groups)?;
        Ok(reduced)
    }

    fn pipeline(&self, kernel: Kernel) -> Result<wgpu::ComputePipeline, GpuError> {
        let mut made = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = made.get(&kernel) {
            return Ok(pipeline.clone());
        }
        let (decoder, gpu) = (self.decoder, self.decoder.gpu());
        let pipeline = match kernel.kind {
            Kind::Texture(footprint) => {
                let width = format!("const BLOCK_COLS: u32 = {}u;\n", footprint.width());
                let source = width + &kernel.source(footprint.height(), &[OUTPUT, TEXTURE]);
                decoder.pipeline(&source, "multiply", &self.product_layout)?
            }
            Kind::Grid2 => gpu.compute_pipeline(
                &kernel.source(GRID2_ROWS, &[OUTPUT, GRID2]),
                "multiply",
                &[Some(&self.grid2_layout), Some(&self.product_layout)],
            )?,
            Kind::Adapter => gpu.compute_pipeline(
                &kernel.source(1, &[ADAPTER]),
                "multiply",
                &[None, Some(&self.adapter_layout)],
            )?,
        };
        made.insert(kernel, pipeline.clone());
        Ok(pipeline)
    }
}

impl Kernel {
    fn source(self, rows: usize, parts: &[&str]) -> String {
        let Self { f16, tile, .. } = self;
        let constants = format!(
            "const ROWS: u32 = {rows}u;\nconst TILE: u32 = {tile}u;\nconst INPUT_F16: bool = {f16};\n"
        );
        constants + INPUT + &parts.concat()
    }
}

/// One call of [`GpuProducts::multiply`].
struct Job {
    f16: bool,
    tile: usize,
    batch: usize,
    x: wgpu::Buffer,
}

/// `Task` of input.wgsl, and the workgroups that do it.
struct Task {
    buffer: wgpu::Buffer,
    groups: [u32; 2],
}

impl Job {
    fn kernel(&self, kind: Kind) -> Kernel {
        Kernel { kind, f16: self.f16, tile: self.tile }
    }

    /// The task of `bands` workgroups a tile of the batch.
    fn task(&self, gpu: &Gpu, linear: &GpuLinear, bands: usize) -> Result<Task, GpuError> {
        let groups = gpu.spread((bands * self.batch.div_ceil(self.tile)) as u64);
        let words =
            [linear.rows, linear.cols, self.batch, linear.rank(), groups[0] as usize, bands, 0, 0];
        let buffer = gpu.uniform("product", &words.map(|word| word as u32))?;
        Ok(Task { buffer, groups })
    }
}

/// [`GpuError::Operand`] if a slice has the wrong length.
fn check_operand(what: &'static str, found: usize, expected: usize) -> Result<(), GpuError> {
    if found == expected { Ok(()) } else { Err(GpuError::Operand { what, found, expected }) }
}
