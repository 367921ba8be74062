// Writes rows of the matrix to a buffer, row-major.

struct Band {
    first_row: u32,
    // Values to write.
    count: u32,
    // Workgroups across.
    groups: u32,
    padding: u32,
}

@group(1) @binding(0) var<storage, read_write> output: array<u32>;
@group(1) @binding(1) var<uniform> band: Band;

const GROUP_SIZE: u32 = 64u;

fn index_of(group: vec3<u32>, local: u32) -> u32 {
    return (group.y * band.groups + group.x) * GROUP_SIZE + local;
}

@compute @workgroup_size(GROUP_SIZE)
fn write_texels(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = index_of(group, local);
    if i < band.count {
        output[i] = bitcast<u32>(texel(band.first_row + i / shape.cols, i % shape.cols));
    }
}

@compute @workgroup_size(GROUP_SIZE)
fn write_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = index_of(group, local);
    if i < band.count {
        output[i] = bitcast<u32>(weight(band.first_row + i / shape.cols, i % shape.cols));
    }
}

// The f16 nearest to a value, ties to even, as its bits: pack2x16float may round otherwise.
fn f16_bits(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    let sign_bit = (bits >> 16u) & 0x8000u;
    let magnitude = bits & 0x7fffffffu;
    if magnitude > 0x7f800000u {
        return sign_bit | 0x7e00u;
    }
    // 65520 and above round to infinity.
    if magnitude >= 0x477ff000u {
        return sign_bit | 0x7c00u;
    }
    if magnitude >= 0x38800000u {
        let rounded = magnitude + 0xfffu + ((magnitude >> 13u) & 1u);
        return sign_bit | ((rounded - 0x38000000u) >> 13u);
    }
    // Subnormal: a whole number of 2^-24.
    let shift = 126u - (magnitude >> 23u);
    if shift > 24u {
        return sign_bit;
    }
    let mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    let whole = mantissa >> shift;
    let rest = mantissa & ((1u << shift) - 1u);
    let half = 1u << (shift - 1u);
    let up = u32(rest > half || (rest == half && (whole & 1u) == 1u));
    return sign_bit | (whole + up);
}

fn packed_weight(i: u32) -> u32 {
    if i >= band.count {
        return 0u;
    }
    return f16_bits(weight(band.first_row + i / shape.cols, i % shape.cols));
}

// Two values a word, the first in the low half.
@compute @workgroup_size(GROUP_SIZE)
fn write_f16(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = 2u * index_of(group, local);
    if i < band.count {
        output[i / 2u] = packed_weight(i) | (packed_weight(i + 1u) << 16u);
    }
}
