// Weights s·q from 2-bit codes, q = code - 1.5: a workgroup makes ROWS rows, its threads take words
// of 16 codes in turn.

struct Grid {
    words_per_row: u32,
    groups_per_row: u32,
    // Weights that share a scale.
    group: u32,
    padding: u32,
}

@group(0) @binding(0) var<uniform> grid: Grid;
// Code of column 16w + i in bits 2i and 2i + 1 of word w of a row.
@group(0) @binding(1) var<storage, read> codes: array<u32>;
// [rows, groups_per_row]
@group(0) @binding(2) var<storage, read> scales: array<f32>;

const WORD_CODES: u32 = 16u;

fn row_factor(row: u32) -> f32 {
    return 1.0;
}

fn level(word: u32, i: u32) -> f32 {
    return f32((word >> (2u * i)) & 3u) - 1.5;
}

fn scale(row: u32, col: u32) -> f32 {
    return scales[row * grid.groups_per_row + min(col / grid.group, grid.groups_per_row - 1u)];
}

@compute @workgroup_size(GROUP_SIZE)
fn multiply(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let place = place_of(group);
    let whole_words = grid.group % WORD_CODES == 0u;
    var sums: array<f32, ROWS * TILE>;
    for (var w = local; w < grid.words_per_row; w += GROUP_SIZE) {
        let first_col = w * WORD_CODES;
        var inputs: array<f32, WORD_CODES * TILE>;
        for (var i = 0u; i < WORD_CODES * TILE; i++) {
            inputs[i] = input(place.first_vector + i % TILE, first_col + i / TILE);
        }
        for (var r = 0u; r < ROWS; r++) {
            let row = min(place.band * ROWS + r, task.rows - 1u);
            let word = codes[row * grid.words_per_row + w];
            let shared_scale = scale(row, first_col);
            for (var i = 0u; i < WORD_CODES; i++) {
                var weight = shared_scale;
                if !whole_words {
                    weight = scale(row, first_col + i);
                }
                weight *= level(word, i);
                for (var n = 0u; n < TILE; n++) {
                    sums[r * TILE + n] += weight * inputs[i * TILE + n];
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
