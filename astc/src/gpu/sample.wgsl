// Texels from the adapter's texture unit.

@group(0) @binding(3) var weight_texture: texture_2d_array<f32>;

// How far from a whole code a unorm8 texel may be before it counts as no code at all.
const CODE_TOLERANCE: f32 = 0.00048828125;

// The texel t in 0..1 as the texture unit returns it.
fn texel(row: u32, col: u32) -> f32 {
    let layer = row / shape.layer_height * shape.tiles_across + col / shape.layer_width;
    let place = vec2<u32>(col % shape.layer_width, row % shape.layer_height);
    return textureLoad(weight_texture, place, layer, 0).r;
}

// 2t - 1 without the rounding of the unit's division by 255. A texel that is no code keeps its
// own value, so that a comparison finds it.
fn signed_value(t: f32) -> f32 {
    let code = round(t * 255.0);
    if FP16 || !(abs(t * 255.0 - code) <= CODE_TOLERANCE && code >= 0.0 && code <= 255.0) {
        return 2.0 * t - 1.0;
    }
    return bitcast<f32>(tables[u32(code)]);
}

fn signed_texel(row: u32, col: u32) -> f32 {
    return signed_value(texel(row, col));
}

// A block whose texels are wanted one after the other; it lies in one layer.
struct Block {
    layer: u32,
    corner: vec2<u32>,
}

fn open_block(block_row: u32, block_col: u32) -> Block {
    let row = block_row * shape.footprint_height;
    let col = block_col * shape.footprint_width;
    let layer = row / shape.layer_height * shape.tiles_across + col / shape.layer_width;
    return Block(layer, vec2<u32>(col % shape.layer_width, row % shape.layer_height));
}

// 2t - 1 of texel (x, y) of the block.
fn signed_block_texel(block: ptr<function, Block>, x: u32, y: u32) -> f32 {
    let place = (*block).corner + vec2<u32>(x, y);
    return signed_value(textureLoad(weight_texture, place, (*block).layer, 0).r);
}
