// A·x of an adapter: a workgroup makes one row of it for TILE vectors. ROWS is 1.

// A [rank, cols]
@group(1) @binding(2) var<storage, read> reduce: array<f32>;
// [batch, rank]
@group(1) @binding(3) var<storage, read_write> reduced: array<f32>;

@compute @workgroup_size(GROUP_SIZE)
fn multiply(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group.y * task.groups + group.x;
    let k = index % task.rank;
    let first_vector = index / task.rank * TILE;
    var sums: array<f32, TILE>;
    for (var col = local; col < task.cols; col += GROUP_SIZE) {
        let a = reduce[k * task.cols + col];
        for (var n = 0u; n < TILE; n++) {
            sums[n] += a * input(first_vector + n, col);
        }
    }
    for (var n = 0u; n < TILE; n++) {
        partial[n * GROUP_SIZE + local] = sums[n];
    }
    workgroupBarrier();
    let n = first_vector + local;
    if local < TILE && n < task.batch {
        reduced[n * task.rank + k] = total(local);
    }
}
