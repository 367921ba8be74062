// What every kernel sees of a matrix in bind group 0. Binding 3, `texel` and `signed_texel` come
// from sample.wgsl, decode.wgsl or bc4.wgsl.

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
@group(0) @binding(1) var<storage, read> row_scales: array<f32>;
// The signed values 2v/STEPS - 1 of v = 0..=STEPS as the bits of f32, then what decode.wgsl needs.
@group(0) @binding(2) var<storage, read> tables: array<u32>;

// The decoded weight, bit for bit that of the CPU reference.
fn weight(row: u32, col: u32) -> f32 {
    let scale = row_scales[row];
    // 0 times a negative texel would be -0.
    return select(scale * signed_texel(row, col), 0.0, scale == 0.0);
}
