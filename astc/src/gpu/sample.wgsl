// Texels from the adapter's texture unit.

@group(0) @binding(3) var weight_texture: texture_2d_array<f32>;

// The texel t as the texture unit returns it.
fn texel(row: u32, col: u32) -> f32 {
    let layer = row / shape.layer_height * shape.tiles_across + col / shape.layer_width;
    let place = vec2<u32>(col % shape.layer_width, row % shape.layer_height);
    return textureLoad(weight_texture, place, layer, 0).r;
}

// 2t - 1, or t with HDR, without the rounding of the unit's division by STEPS. A texel that is no whole number of
// steps keeps its own value, so that a comparison finds it.
fn signed_value(t: f32) -> f32 {
    if HDR {
        return t;
    }
    let steps = f32(STEPS);
    let step = round(t * steps);
    if FP16 || !(abs(t * steps - step) <= STEP_TOLERANCE && step >= 0.0 && step <= steps) {
        return 2.0 * t - 1.0;
    }
    return bitcast<f32>(tables[u32(step)]);
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
