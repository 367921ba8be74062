// What every kernel of a product y = (W + B·A)·x sees of the product. ROWS, TILE and INPUT_F16 stand
// before this text: rows of y and columns of x and y that a workgroup makes, and the type of x.

struct Task {
    rows: u32,
    cols: u32,
    batch: u32,
    rank: u32,
    // Workgroups across, and those that share a tile of the batch.
    groups: u32,
    bands: u32,
    padding: vec2<u32>,
}

@group(1) @binding(0) var<uniform> task: Task;
// [batch, cols], f32 or two f16 a word.
@group(1) @binding(1) var<storage, read> x: array<u32>;

const GROUP_SIZE: u32 = 64u;

// Element col of vector n; zero past the end of either.
fn input(n: u32, col: u32) -> f32 {
    if n >= task.batch || col >= task.cols {
        return 0.0;
    }
    let i = n * task.cols + col;
    if INPUT_F16 {
        return unpack2x16float(x[i >> 1u])[i & 1u];
    }
    return bitcast<f32>(x[i]);
}

// One sum a thread, row and vector.
var<workgroup> partial: array<f32, GROUP_SIZE * ROWS * TILE>;

// The threads' sums number i, added in a fixed order.
fn total(i: u32) -> f32 {
    var sums = vec4<f32>();
    for (var k = 0u; k < GROUP_SIZE; k += 4u) {
        let first = i * GROUP_SIZE + k;
        sums += vec4<f32>(partial[first], partial[first + 1u], partial[first + 2u], partial[first + 3u]);
    }
    return (sums.x + sums.y) + (sums.z + sums.w);
}
