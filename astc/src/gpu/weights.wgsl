// What every kernel sees of a matrix in bind group 0. Binding 3, `texel` and `signed_texel`, which
// is 2t - 1 or with HDR t itself, come from sample.wgsl, decode.wgsl or bc4.wgsl.

struct Shape {
    rows: u32,
    cols: u32,
    // Texels of a layer across and down; tiles of the matrix across.
    layer_width: u32,
    layer_height: u32,
    tiles_across: u32,
    footprint_width: u32,
    footprint_height: u32,
    blocks_across: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
// A scale a row; with HDR an offset a block.
@group(0) @binding(1) var<storage, read> side: array<f32>;
// The signed values 2v/STEPS - 1 of v = 0..=STEPS as the bits of f32, then what decode.wgsl needs.
@group(0) @binding(2) var<storage, read> tables: array<u32>;

// What is added to every texel of a block.
fn block_offset(block_row: u32, block_col: u32) -> f32 {
    if HDR {
        return side[block_row * shape.blocks_across + block_col];
    }
    return 0.0;
}

// The decoded weight, bit for bit that of the CPU reference.
fn weight(row: u32, col: u32) -> f32 {
    if HDR {
        let block_row = row / shape.footprint_height;
        return block_offset(block_row, col / shape.footprint_width) + signed_texel(row, col);
    }
    let scale = side[row];
    // 0 times a negative texel would be -0.
    return select(scale * signed_texel(row, col), 0.0, scale == 0.0);
}
