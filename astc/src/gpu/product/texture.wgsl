// Weights from texels: a workgroup makes the rows of one row of blocks, its threads take the blocks
// in turn, and each block is opened once for all its texels and all vectors of the tile. ROWS is
// the footprint's height, BLOCK_COLS its width.

fn row_factor(row: u32) -> f32 {
    if HDR {
        return 1.0;
    }
    return side[row];
}

@compute @workgroup_size(GROUP_SIZE)
fn multiply(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let place = place_of(group);
    var sums: array<f32, ROWS * TILE>;
    for (var block_col = local; block_col < shape.blocks_across; block_col += GROUP_SIZE) {
        var inputs: array<f32, BLOCK_COLS * TILE>;
        for (var i = 0u; i < BLOCK_COLS * TILE; i++) {
            inputs[i] = input(place.first_vector + i % TILE, block_col * BLOCK_COLS + i / TILE);
        }
        var block = open_block(place.band, block_col);
        let offset = block_offset(place.band, block_col);
        for (var r = 0u; r < ROWS; r++) {
            for (var c = 0u; c < BLOCK_COLS; c++) {
                let t = signed_block_texel(&block, c, r) + offset;
                for (var n = 0u; n < TILE; n++) {
                    sums[r * TILE + n] += t * inputs[c * TILE + n];
                }
            }
        }
    }
    for (var i = 0u; i < ROWS * TILE; i++) {
        partial[i * GROUP_SIZE + local] = sums[i];
    }
    workgroupBarrier();
    finish(place, local);
}
