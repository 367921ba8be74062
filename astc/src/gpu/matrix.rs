//! A matrix on the GPU: its blocks as a texture or a buffer, its scales or offsets, its shape.

use half::f16;

use super::decoder::GpuDecoder;
use super::device::Gpu;
use super::{DecodePath, GpuError};
use crate::{BlockGrid, Error, TextureCodec, TextureLayout, bc4};

/// An uploaded matrix. It belongs to the decoder that uploaded it.
#[derive(Debug)]
pub struct GpuMatrix {
    grid: BlockGrid,
    /// Bind group 0 of every kernel; `None` without weights.
    pub(super) bindings: Option<wgpu::BindGroup>,
}

impl GpuMatrix {
    /// Shape and footprint.
    pub const fn grid(&self) -> &BlockGrid {
        &self.grid
    }

    pub(super) fn upload(
        decoder: &GpuDecoder<'_>,
        grid: BlockGrid,
        blocks: &[u8],
        side: &[f16],
    ) -> Result<Self, GpuError> {
        let codec = decoder.path().mode().codec();
        if codec == TextureCodec::Bc4 && grid.footprint != bc4::footprint() {
            return Err(GpuError::Footprint(grid.footprint));
        }
        let byte_len = grid.block_count() * codec.block_bytes();
        check_length("blocks", blocks.len(), byte_len, &grid)?;
        let what = if codec == TextureCodec::AstcHdr { "offsets" } else { "scales" };
        check_length(what, side.len(), codec.side_count(&grid), &grid)?;
        if grid.block_count() == 0 {
            return Ok(Self { grid, bindings: None });
        }
        let gpu = decoder.gpu;
        for (what, size) in [("rows", grid.rows), ("columns", grid.cols)] {
            gpu.check_limit(what, size as u64, u64::from(i32::MAX as u32))?;
        }
        let side: Vec<f32> = side.iter().map(|value| value.to_f32()).collect();
        let side = gpu.storage(what, bytemuck::cast_slice(&side))?;
        let tables = decoder.tables(grid.footprint)?;
        let (source, layout) = Source::upload(decoder, &grid, blocks)?;
        let shape = gpu.uniform("matrix shape", &shape_words(&grid, layout.as_ref()))?;
        let view;
        let source = match &source {
            Source::Texture(texture) => {
                view = texture.create_view(&wgpu::TextureViewDescriptor {
                    dimension: Some(wgpu::TextureViewDimension::D2Array),
                    ..Default::default()
                });
                wgpu::BindingResource::TextureView(&view)
            }
            Source::Buffer(buffer) => buffer.as_entire_binding(),
        };
        let resources = [
            shape.as_entire_binding(),
            side.as_entire_binding(),
            tables.as_entire_binding(),
            source,
        ];
        let bindings = gpu.bind_group("matrix", &decoder.matrix_layout, resources)?;
        Ok(Self { grid, bindings: Some(bindings) })
    }
}

enum Source {
    Texture(wgpu::Texture),
    Buffer(wgpu::Buffer),
}

impl Source {
    fn upload(
        decoder: &GpuDecoder<'_>,
        grid: &BlockGrid,
        blocks: &[u8],
    ) -> Result<(Self, Option<TextureLayout>), GpuError> {
        let gpu = decoder.gpu;
        match decoder.path() {
            DecodePath::Computed(_) => Ok((Self::Buffer(gpu.storage("blocks", blocks)?), None)),
            DecodePath::Sampled(_) => {
                let layout = array_layout(gpu, grid)
                    .ok_or_else(|| gpu.refused("its textures hold no block"))?;
                let texture = upload_texture(decoder, &layout, blocks)?;
                Ok((Self::Texture(texture), Some(layout)))
            }
        }
    }
}

fn check_length(
    what: &'static str,
    found: usize,
    expected: usize,
    grid: &BlockGrid,
) -> Result<(), GpuError> {
    if found == expected {
        return Ok(());
    }
    let BlockGrid { rows, cols, footprint } = *grid;
    Err(Error::Length { what, found, expected, rows, cols, footprint }.into())
}

/// `Shape` of weights.wgsl.
fn shape_words(grid: &BlockGrid, layout: Option<&TextureLayout>) -> [u32; 8] {
    let (width, height, across) =
        layout.map_or((1, 1, 1), |l| (l.layer_width(), l.layer_height(), l.tiles_across()));
    let (footprint, blocks_across) = (grid.footprint, grid.blocks_across());
    [
        grid.rows,
        grid.cols,
        width,
        height,
        across,
        footprint.width(),
        footprint.height(),
        blocks_across,
    ]
    .map(|value| value as u32)
}

/// The layers of an array texture.
///
/// wgpu's GL backend guesses from the size alone what a texture is, and takes one layer for no
/// array: there a matrix is cut in two.
fn array_layout(gpu: &Gpu, grid: &BlockGrid) -> Option<TextureLayout> {
    let layout = TextureLayout::new(*grid, gpu.info().max_texture_dimension)?;
    if !is_gl(gpu) || layout.layers() > 1 {
        return Some(layout);
    }
    let longer = layout.layer_width().max(layout.layer_height());
    // A single block cannot be cut.
    Some(TextureLayout::new(*grid, longer as u32 - 1).unwrap_or(layout))
}

/// Layers to allocate for those of `layout`: the GL backend takes one for no array, and six
/// square ones for a cube.
fn array_layers(gpu: &Gpu, layout: &TextureLayout) -> usize {
    let layers = layout.layers();
    let square = layout.layer_width() == layout.layer_height();
    if is_gl(gpu) && (layers == 1 || (square && layers.is_multiple_of(6))) {
        return layers + 1;
    }
    layers
}

fn is_gl(gpu: &Gpu) -> bool {
    gpu.info().backend == wgpu::Backend::Gl.to_str()
}

fn upload_texture(
    decoder: &GpuDecoder<'_>,
    layout: &TextureLayout,
    blocks: &[u8],
) -> Result<wgpu::Texture, GpuError> {
    let (gpu, block_bytes) = (decoder.gpu, decoder.path().mode().codec().block_bytes());
    let layers = array_layers(gpu, layout);
    let limit = gpu.info().max_texture_layers;
    gpu.check_limit("layers of a texture", layers as u64, limit.into())?;
    let footprint = layout.grid().footprint;
    // Tiles are measured in blocks of 16 bytes.
    let bytes = |measured: usize| measured / BlockGrid::BLOCK_BYTES * block_bytes;
    if is_gl(gpu) {
        // wgpu does not ask GL whether an allocation failed. What is too much for a buffer is too
        // much for a texture.
        let [across, down] = layout.layer_blocks();
        let needed = across * down * layers * block_bytes;
        gpu.check_limit("bytes of a texture", needed as u64, gpu.info().max_buffer_bytes)?;
    }
    let descriptor = wgpu::TextureDescriptor {
        label: Some("weights"),
        size: wgpu::Extent3d {
            width: layout.layer_width() as u32,
            height: layout.layer_height() as u32,
            depth_or_array_layers: layers as u32,
        },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: decoder.format.texture_format(footprint),
        usage: wgpu::TextureUsages::TEXTURE_BINDING | wgpu::TextureUsages::COPY_DST,
        view_formats: &[],
    };
    let texture = gpu.watched("allocate a texture", || gpu.device.create_texture(&descriptor))?;
    gpu.watched("upload a texture", || {
        for tile in layout.tiles() {
            let range = tile.byte_range();
            gpu.queue.write_texture(
                wgpu::TexelCopyTextureInfo {
                    texture: &texture,
                    mip_level: 0,
                    origin: wgpu::Origin3d { x: 0, y: 0, z: tile.layer as u32 },
                    aspect: wgpu::TextureAspect::All,
                },
                &blocks[bytes(range.start)..bytes(range.end)],
                wgpu::TexelCopyBufferLayout {
                    offset: 0,
                    bytes_per_row: Some(bytes(tile.bytes_per_row) as u32),
                    rows_per_image: None,
                },
                wgpu::Extent3d {
                    width: (tile.blocks_across * footprint.width()) as u32,
                    height: (tile.blocks_down * footprint.height()) as u32,
                    depth_or_array_layers: 1,
                },
            );
        }
    })?;
    Ok(texture)
}
