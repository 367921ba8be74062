//! A layer's weights on the GPU, ready to be multiplied with.

use half::f16;

use super::super::device::Gpu;
use super::super::{GpuError, GpuMatrix};
use super::check_operand;

/// Codes in a word.
const WORD_CODES: usize = 16;

/// The adapter of a layer: B·A is added to its weights. `lora_alpha / r` is 1.
#[derive(Debug, Clone, Copy)]
pub struct LowRank<'a> {
    /// Rank, at least 1.
    pub rank: usize,
    /// A, row-major [rank, cols].
    pub a: &'a [f32],
    /// B, row-major [rows, rank].
    pub b: &'a [f32],
}

/// Weights of the balanced 2-bit grid, s·q with q = code - 1.5.
#[derive(Debug, Clone, Copy)]
pub struct Grid2<'a> {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Weights of a row that share a scale; the last group of a row may be shorter.
    pub group: usize,
    /// [rows, ceil(cols / 4)]: the code of column 4k in bits 0-1 of byte k of a row.
    pub codes: &'a [u8],
    /// [rows, ceil(cols / group)].
    pub scales: &'a [f16],
}

/// A layer on the GPU; the [`GpuProducts`](super::GpuProducts) that made it multiplies with it.
#[derive(Debug)]
pub struct GpuLinear {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) weights: Weights,
    rank: usize,
    /// A and B.
    pub(super) low_rank: Option<(wgpu::Buffer, wgpu::Buffer)>,
    /// What is bound in place of B.
    pub(super) no_adapter: wgpu::Buffer,
}

/// Where the weights are: bind group 0 of the kernel.
#[derive(Debug)]
pub(super) enum Weights {
    Texture(GpuMatrix),
    Grid2(wgpu::BindGroup),
}

impl GpuLinear {
    /// Rows and columns of the weights.
    pub const fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// Rank of the adapter, 0 without.
    pub const fn rank(&self) -> usize {
        self.rank
    }

    pub(super) fn texture(
        gpu: &Gpu,
        matrix: GpuMatrix,
        low_rank: Option<LowRank<'_>>,
    ) -> Result<Self, GpuError> {
        let (rows, cols) = (matrix.grid().rows, matrix.grid().cols);
        Self::new(gpu, (rows, cols), Weights::Texture(matrix), low_rank)
    }

    pub(super) fn grid2(
        gpu: &Gpu,
        layout: &wgpu::BindGroupLayout,
        weights: &Grid2<'_>,
        low_rank: Option<LowRank<'_>>,
    ) -> Result<Self, GpuError> {
        let &Grid2 { rows, cols, group, codes, scales } = weights;
        let (code_bytes, groups) = (cols.div_ceil(4), cols.div_ceil(group.max(1)));
        check_operand("codes", codes.len(), rows * code_bytes)?;
        check_operand("scales", scales.len(), rows * groups)?;
        let words_per_row = cols.div_ceil(WORD_CODES);
        // Rows start at words on the GPU.
        let mut words = vec![0_u8; 4 * rows * words_per_row];
        if code_bytes > 0 {
            for (words, codes) in
                words.chunks_exact_mut(4 * words_per_row).zip(codes.chunks_exact(code_bytes))
            {
                words[..code_bytes].copy_from_slice(codes);
            }
        }
        let scales: Vec<f32> = scales.iter().map(|scale| scale.to_f32()).collect();
        let shape = [words_per_row, groups, group.max(1), 0].map(|word| word as u32);
        let shape = gpu.uniform("grid2", &shape)?;
        let codes = gpu.storage("codes", &words)?;
        let scales = gpu.storage("scales", bytemuck::cast_slice(&scales))?;
        let resources =
            [shape.as_entire_binding(), codes.as_entire_binding(), scales.as_entire_binding()];
        let bindings = gpu.bind_group("grid2", layout, resources)?;
        Self::new(gpu, (rows, cols), Weights::Grid2(bindings), low_rank)
    }

    fn new(
        gpu: &Gpu,
        (rows, cols): (usize, usize),
        weights: Weights,
        low_rank: Option<LowRank<'_>>,
    ) -> Result<Self, GpuError> {
        let mut linear = Self {
            rows,
            cols,
            weights,
            rank: 0,
            low_rank: None,
            no_adapter: gpu.storage("no adapter", &[])?,
        };
        if let Some(LowRank { rank, a, b }) = low_rank.filter(|low_rank| low_rank.rank > 0) {
            check_operand("A", a.len(), rank * cols)?;
            check_operand("B", b.len(), rows * rank)?;
            linear.rank = rank;
            linear.low_rank = Some((
                gpu.storage("A", bytemuck::cast_slice(a))?,
                gpu.storage("B", bytemuck::cast_slice(b))?,
            ));
        }
        Ok(linear)
    }
}
