// The end of a product: sums of the threads, the row's factor, the adapter.

// A·x [batch, rank] and B [rows, rank].
@group(1) @binding(2) var<storage, read> reduced: array<f32>;
@group(1) @binding(3) var<storage, read> expand: array<f32>;
// [batch, rows]
@group(1) @binding(4) var<storage, read_write> y: array<f32>;

// Which rows and vectors a workgroup makes.
struct Place {
    band: u32,
    first_vector: u32,
}

fn place_of(group: vec3<u32>) -> Place {
    let index = group.y * task.groups + group.x;
    return Place(index % task.bands, index / task.bands * TILE);
}

// Writes one element of y a thread, from `partial`, which all threads have filled.
fn finish(place: Place, local: u32) {
    if local >= ROWS * TILE {
        return;
    }
    let row = place.band * ROWS + local / TILE;
    let n = place.first_vector + local % TILE;
    if row >= task.rows || n >= task.batch {
        return;
    }
    var value = row_factor(row) * total(local);
    for (var k = 0u; k < task.rank; k++) {
        value += expand[row * task.rank + k] * reduced[n * task.rank + k];
    }
    y[n * task.rows + row] = value;
}
