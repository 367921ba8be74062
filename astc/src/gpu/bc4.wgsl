// Texels decoded from BC4 blocks (KDF 1.3 section 19.1), as whole numbers of 1/STEPS.

@group(0) @binding(3) var<storage, read> blocks: array<vec2<u32>>;

// Numbers of 1/STEPS in 1/255.
const WHOLE: i32 = i32(STEPS / 255u);

// Bits 16.. of a block hold 3 bits a texel in raster order.
fn code_of(block: vec2<u32>, texel: u32) -> u32 {
    let position = 16u + 3u * texel;
    let low = (block.x >> (position & 31u)) | (block.y << (32u - (position & 31u)));
    return select(block.y >> (position & 31u), low, position < 32u) & 7u;
}

// Level k of `steps` from one end to the other.
fn between(ends: vec2<i32>, steps: i32, k: i32) -> i32 {
    if LLVMPIPE {
        let share = (255 * 64 / steps * k) >> 6u;
        return ends.x + (((ends.y - ends.x) * share) >> 8u);
    }
    // WHOLE is 1, which cuts the quotient, or a multiple of both 5 and 7.
    return (ends.x * (steps - k) + ends.y * k) * WHOLE / steps;
}

fn level_of(block: vec2<u32>, texel: u32) -> u32 {
    let ends = vec2<i32>(i32(block.x & 0xffu), i32((block.x >> 8u) & 0xffu));
    let code = i32(code_of(block, texel));
    let seven = ends.x > ends.y;
    if code < 2 {
        return u32(ends[code] * WHOLE);
    }
    if !seven && code >= 6 {
        return u32(code - 6) * STEPS;
    }
    return u32(between(ends, select(5, 7, seven), code - 1));
}

fn block_bits(block_row: u32, block_col: u32) -> vec2<u32> {
    return blocks[block_row * shape.blocks_across + block_col];
}

fn level(row: u32, col: u32) -> u32 {
    return level_of(block_bits(row / 4u, col / 4u), row % 4u * 4u + col % 4u);
}

// The texel t in 0..1; the division may be off by the last bit.
fn texel(row: u32, col: u32) -> f32 {
    return f32(level(row, col)) / f32(STEPS);
}

// 2t - 1, exactly.
fn signed_texel(row: u32, col: u32) -> f32 {
    return bitcast<f32>(tables[level(row, col)]);
}

// A block whose texels are wanted one after the other.
struct Block {
    bits: vec2<u32>,
}

fn open_block(block_row: u32, block_col: u32) -> Block {
    return Block(block_bits(block_row, block_col));
}

// 2t - 1 of texel (x, y) of the block.
fn signed_block_texel(block: ptr<function, Block>, x: u32, y: u32) -> f32 {
    return bitcast<f32>(tables[level_of((*block).bits, 4u * y + x)]);
}
