// Texels decoded from the blocks in integer arithmetic: the red channel of every 2D LDR block
// (KDF 1.3 chapter 23), and with HDR of luminance blocks of endpoint modes 2 and 3 (hdr.wgsl). Nothing
// is kept between texels, so that any kernel can fetch any texel.
//
// A value is 16 bits and, above them, what they mean: unorm (0), LOGARITHMIC or HALF.

@group(0) @binding(3) var<storage, read> blocks: array<vec4<u32>>;

// 5 bits of exponent and 11 of a piecewise linear mantissa.
const LOGARITHMIC: u32 = 0x10000u;
// The bits of an f16.
const HALF: u32 = 0x20000u;
const NO_QUANT: u32 = 0xffu;
const MAX_ENDPOINT_VALUES: u32 = 18u;

// Bits position.. of a block; at most 16, zero past its end.
fn field(bits: vec4<u32>, position: u32, width: u32) -> u32 {
    let word = position >> 5u;
    let shift = position & 31u;
    if word > 3u {
        return 0u;
    }
    var value = bits[word] >> shift;
    if shift + width > 32u && word < 3u {
        value |= bits[word + 1u] << (32u - shift);
    }
    return value & ((1u << width) - 1u);
}

// A run of integers of one range (section 23.12); bits from `end` on read as zero.
struct Sequence {
    bits: vec4<u32>,
    start: u32,
    end: u32,
    quant: u32,
}

// 32 bits from `position` on, zero from `end` on.
fn window(s: Sequence, position: u32) -> u32 {
    if position >= s.end {
        return 0u;
    }
    let word = position >> 5u;
    let shift = position & 31u;
    var value = s.bits[word] >> shift;
    if shift > 0u && word < 3u {
        value |= s.bits[word + 1u] << (32u - shift);
    }
    let length = s.end - position;
    return select(value, value & ((1u << (length & 31u)) - 1u), length < 32u);
}

// Bits of a 64-bit window; at most 8.
fn part(low: u32, high: u32, position: u32, width: u32) -> u32 {
    let p = position & 31u;
    let across = (low >> p) | select(0u, high << (32u - p), p > 0u);
    return select(across, high >> p, position >= 32u) & ((1u << width) - 1u);
}

// Groups of five trits share 8 bits and groups of three quints 7, which lie between the plain bits
// of the values. A range without either has groups of one and shares none.
fn stored_integer(s: Sequence, index: u32) -> u32 {
    let range = QUANTS + 4u * s.quant;
    let plain = tables[range] & 15u;
    let group = (tables[range] >> 4u) & 15u;
    let digit_width = (tables[range] >> 8u) & 15u;
    let shared_bits = tables[range] >> 12u;
    // Nibble k: how many shared bits follow value k, and how many come before it.
    let splits = tables[range + 1u];
    let prefixes = tables[range + 2u];

    let base = s.start + index / group * (group * plain + shared_bits);
    let low = window(s, base);
    let high = window(s, base + 32u);
    var block = 0u;
    for (var k = 0u; k < 5u; k++) {
        let prefix = (prefixes >> (4u * k)) & 15u;
        let place = (k + 1u) * plain + prefix;
        block |= part(low, high, place, (splits >> (4u * k)) & 15u) << prefix;
    }
    let own = index % group;
    let digits = tables[tables[range + 3u] + block] >> (own * digit_width);
    let digit = digits & ((1u << digit_width) - 1u);
    let place = own * plain + ((prefixes >> (4u * own)) & 15u);
    return part(low, high, place, plain) | (digit << plain);
}

fn table_byte(first_word: u32, index: u32) -> u32 {
    return (tables[first_word + (index >> 2u)] >> (8u * (index & 3u))) & 0xffu;
}

// Endpoint value 0..=255.
fn colour_value(s: Sequence, index: u32) -> i32 {
    return i32(table_byte(COLOURS + s.quant * 64u, stored_integer(s, index)));
}

// Weight 0..=64 of a grid point.
fn weight_value(s: Sequence, index: u32) -> u32 {
    return table_byte(WEIGHTS + s.quant * 8u, stored_integer(s, index));
}

fn constant_red(block: vec4<u32>) -> u32 {
    let low_s = field(block, 12u, 13u);
    let high_s = field(block, 25u, 13u);
    let low_t = field(block, 38u, 13u);
    let high_t = field(block, 51u, 13u);
    let absent = (low_s & high_s & low_t & high_t) == 0x1fffu;
    let half = field(block, 9u, 1u) == 1u;
    let malformed = field(block, 10u, 2u) != 3u || !(absent || (low_s < high_s && low_t < high_t));
    if malformed || (half && !HDR) {
        return ERROR_RED;
    }
    return (block.z & 0xffffu) | select(0u, HALF, half);
}

fn hash52(seed: u32) -> u32 {
    var p = seed;
    p ^= p >> 15u;
    p -= p << 17u;
    p += p << 7u;
    p += p << 4u;
    p ^= p >> 5u;
    p += p << 16u;
    p ^= p >> 7u;
    p ^= p >> 3u;
    p ^= p << 6u;
    p ^= p >> 17u;
    return p;
}

// Partition of a texel (section 23.21); ties go to the lower index.
fn partition_of(seed: u32, partitions: u32, x: u32, y: u32) -> u32 {
    if partitions == 1u {
        return 0u;
    }
    let hash = hash52(seed + (partitions - 1u) * 1024u);
    let by_count = select(5u, 6u, partitions == 3u);
    let by_seed = select(5u, 4u, (seed & 2u) != 0u);
    let odd = (seed & 1u) != 0u;
    let shift_x = select(by_count, by_seed, odd);
    let shift_y = select(by_seed, by_count, odd);
    let doubled = u32(shape.footprint_width * shape.footprint_height < 31u);
    var best = 0u;
    var best_height = 0u;
    for (var p = 0u; p < partitions; p++) {
        let nibble_x = (hash >> (8u * p)) & 15u;
        let nibble_y = (hash >> (8u * p + 4u)) & 15u;
        let slope_x = ((nibble_x * nibble_x) >> shift_x) << doubled;
        let slope_y = ((nibble_y * nibble_y) >> shift_y) << doubled;
        let height = (slope_x * x + slope_y * y + (hash >> (14u - 4u * p))) & 63u;
        if height > best_height {
            best = p;
            best_height = height;
        }
    }
    return best;
}

// Base of 8 bits and signed offset of 6 (`bit_transfer_signed`).
fn base_offset(base: i32, offset: i32) -> vec2<i32> {
    let signed_offset = (offset >> 1u) & 0x3f;
    return vec2<i32>(
        (base >> 1u) | (offset & 0x80),
        select(signed_offset, signed_offset - 0x40, signed_offset >= 0x20),
    );
}

// Red of both endpoints, 0..=255, from the values from `first` on (section 23.15).
fn red_endpoints(s: Sequence, format: u32, first: u32) -> vec2<i32> {
    let r = vec2<i32>(colour_value(s, first), colour_value(s, first + 1u));
    var g = vec2<i32>();
    var b = vec2<i32>();
    if format >= 6u {
        // At least four values.
        g = vec2<i32>(colour_value(s, first + 2u), colour_value(s, first + 3u));
    }
    if format >= 8u {
        b = vec2<i32>(colour_value(s, first + 4u), colour_value(s, first + 5u));
    }
    switch format {
        case 0u, 4u: {
            return r;
        }
        case 1u: {
            let low = (r.x >> 2u) | (r.y & 0xc0);
            return vec2<i32>(low, min(low + (r.y & 0x3f), 255));
        }
        case 5u: {
            let l = base_offset(r.x, r.y);
            return vec2<i32>(l.x, clamp(l.x + l.y, 0, 255));
        }
        case 6u, 10u: {
            return vec2<i32>((r.x * g.y) >> 8u, r.x);
        }
        case 8u, 12u: {
            let sums = r + g + b;
            if sums.y >= sums.x {
                return r;
            }
            // Blue contraction swaps the endpoints.
            return ((r + b) >> vec2<u32>(1u)).yx;
        }
        case 9u, 13u: {
            let red = base_offset(r.x, r.y);
            let green = base_offset(g.x, g.y);
            let blue = base_offset(b.x, b.y);
            let ends = vec2<i32>(red.x, red.x + red.y);
            if red.y + green.y + blue.y >= 0 {
                return clamp(ends, vec2<i32>(0), vec2<i32>(255));
            }
            let contracted = (ends + vec2<i32>(blue.x, blue.x + blue.y)) >> vec2<u32>(1u);
            return clamp(contracted.yx, vec2<i32>(0), vec2<i32>(255));
        }
        default: {
            // HDR endpoints in an LDR image.
            return vec2<i32>(255, 255);
        }
    }
}

// Colour endpoint mode of partition p: `modes` are the low six mode bits and those below the
// weights.
fn endpoint_format(modes: u32, partitions: u32, p: u32) -> u32 {
    if partitions == 1u {
        return modes;
    }
    let base_class = modes & 3u;
    let encoded = modes >> 2u;
    if base_class == 0u {
        return encoded & 15u;
    }
    let class_bits = base_class - 1u + ((encoded >> p) & 1u);
    return (class_bits << 2u) | ((encoded >> (partitions + 2u * p)) & 3u);
}

// Place of a texel on a grid of `points` points, in 16ths of the grid's spacing.
fn sixteenths(position: u32, size: u32, points: u32) -> u32 {
    let step = (1024u + size / 2u) / (size - 1u);
    return (step * position * (points - 1u) + 32u) >> 6u;
}

// Weight 0..=64 of a texel (section 23.18); of `planes` planes of weights, number `plane`.
fn texel_weight(s: Sequence, grid: vec2<u32>, planes: u32, plane: u32, x: u32, y: u32) -> u32 {
    let across = sixteenths(x, shape.footprint_width, grid.x);
    let down = sixteenths(y, shape.footprint_height, grid.y);
    let first = (across >> 4u) + (down >> 4u) * grid.x;
    let fx = across & 15u;
    let fy = down & 15u;
    let both = (fx * fy + 8u) >> 4u;
    let shares = vec4<u32>(16u + both - fx - fy, fx - both, fy - both, both);
    let points = first + vec4<u32>(0u, 1u, grid.x, grid.x + 1u);
    var sum = 8u;
    for (var i = 0u; i < 4u; i++) {
        // A point past the edge has no share, and is not stored.
        if shares[i] != 0u {
            sum += shares[i] * weight_value(s, points[i] * planes + plane);
        }
    }
    return sum >> 4u;
}

// What the texels of a block share.
struct Header {
    // Every texel is `red`: a constant colour or an error.
    constant: bool,
    red: u32,
    partitions: u32,
    // Seed of the partition pattern.
    seed: u32,
    modes: u32,
    endpoints: Sequence,
    weights: Sequence,
    grid: vec2<u32>,
    planes: u32,
    // Plane of red.
    plane: u32,
}

fn header_of(block: vec4<u32>) -> Header {
    var header: Header;
    header.constant = true;
    header.red = ERROR_RED;
    if (block.x & 0x1ffu) == 0x1fcu {
        header.red = constant_red(block);
        return header;
    }
    // Legal, two planes, range (4 bits), grid width and height (4 each), weight bits (7).
    let mode = tables[MODES + (block.x & 0x7ffu)];
    let partitions = ((block.x >> 11u) & 3u) + 1u;
    let dual = (mode & 2u) != 0u;
    if mode == 0u || (dual && partitions == 4u) {
        return header;
    }
    let weight_bits = mode >> 14u;
    var top = 128u - weight_bits;

    var modes = field(block, 13u, 4u);
    var start = 17u;
    if partitions > 1u {
        start = 29u;
        modes = field(block, 23u, 6u);
        if (modes & 3u) != 0u {
            let width = 3u * partitions - 4u;
            top -= width;
            modes |= field(block, top, width) << 6u;
        }
    }
    if dual {
        top -= 2u;
        header.plane = u32(field(block, top, 2u) == 0u);
    }

    var count = 0u;
    for (var p = 0u; p < partitions; p++) {
        count += endpoint_values(modes, partitions, p);
    }
    if count > MAX_ENDPOINT_VALUES {
        return header;
    }
    let room = select(0u, top - start, top > start);
    let quant = tables[ENDPOINT_QUANTS + count / 2u * 128u + room];
    if quant == NO_QUANT {
        return header;
    }
    header.constant = false;
    header.partitions = partitions;
    header.seed = field(block, 13u, 10u);
    header.modes = modes;
    // Bits past the last value are no part of the sequence.
    let end = start + tables[SEQUENCE_BITS + quant * 16u + count / 2u];
    header.endpoints = Sequence(block, start, end, quant);
    header.weights = Sequence(reverseBits(block).wzyx, 0u, weight_bits, (mode >> 2u) & 15u);
    header.grid = vec2<u32>((mode >> 6u) & 15u, (mode >> 10u) & 15u);
    header.planes = select(1u, 2u, dual);
    return header;
}

// Number of endpoint values of partition p.
fn endpoint_values(modes: u32, partitions: u32, p: u32) -> u32 {
    return 2u * ((endpoint_format(modes, partitions, p) >> 2u) + 1u);
}

// Red of both endpoints of partition p on the 16-bit scale, and what the values between them mean.
fn partition_ends(header: ptr<function, Header>, p: u32) -> vec3<i32> {
    let modes = (*header).modes;
    let partitions = (*header).partitions;
    var first = 0u;
    for (var before = 0u; before < p; before++) {
        first += endpoint_values(modes, partitions, before);
    }
    let format = endpoint_format(modes, partitions, p);
    if HDR && is_hdr(format) {
        return hdr_ends((*header).endpoints, format, first);
    }
    return vec3<i32>(red_endpoints((*header).endpoints, format, first) * 257, 0);
}

// Red of texel (x, y) between the endpoints of its partition.
fn between(header: ptr<function, Header>, ends: vec3<i32>, x: u32, y: u32) -> u32 {
    let h = header;
    let w = i32(texel_weight((*h).weights, (*h).grid, (*h).planes, (*h).plane, x, y));
    return u32((ends.x * (64 - w) + ends.y * w + 32) >> 6u) | u32(ends.z);
}

fn block_bits(block_row: u32, block_col: u32) -> vec4<u32> {
    return blocks[block_row * shape.blocks_across + block_col];
}

// Red of one texel of the matrix on the 16-bit scale.
fn red(row: u32, col: u32) -> u32 {
    let block_row = row / shape.footprint_height;
    let block_col = col / shape.footprint_width;
    let x = col - block_col * shape.footprint_width;
    let y = row - block_row * shape.footprint_height;
    var header = header_of(block_bits(block_row, block_col));
    if header.constant {
        return header.red;
    }
    let p = partition_of(header.seed, header.partitions, x, y);
    return between(&header, partition_ends(&header, p), x, y);
}

// value / 65536 rounded towards zero to fp16, but 1 for 65535.
fn through_fp16(value: u32) -> f32 {
    // f32 has 13 fraction bits more than fp16.
    let truncated = bitcast<f32>(bitcast<u32>(f32(value)) & 0xffffe000u);
    return select(truncated / 65536.0, 1.0, value == 0xffffu);
}

// The texel t; the division by 255 may be off by the last bit.
fn texel(row: u32, col: u32) -> f32 {
    let value = red(row, col);
    if HDR {
        return hdr_value(value);
    }
    if FP16 {
        return through_fp16(value);
    }
    return f32(value >> 8u) / 255.0;
}

// 2t - 1, or t with HDR, exactly.
fn signed_red(value: u32) -> f32 {
    if HDR {
        return hdr_value(value);
    }
    if FP16 {
        return 2.0 * through_fp16(value) - 1.0;
    }
    return bitcast<f32>(tables[value >> 8u]);
}

fn signed_texel(row: u32, col: u32) -> f32 {
    return signed_red(red(row, col));
}

// A block whose texels are wanted one after the other.
struct Block {
    header: Header,
    ends: array<vec3<i32>, 4>,
}

fn open_block(block_row: u32, block_col: u32) -> Block {
    var block: Block;
    var header = header_of(block_bits(block_row, block_col));
    for (var p = 0u; p < header.partitions; p++) {
        block.ends[p] = partition_ends(&header, p);
    }
    block.header = header;
    return block;
}

// `signed_red` of texel (x, y) of the block.
fn signed_block_texel(block: ptr<function, Block>, x: u32, y: u32) -> f32 {
    var header = (*block).header;
    if header.constant {
        return signed_red(header.red);
    }
    let p = partition_of(header.seed, header.partitions, x, y);
    return signed_red(between(&header, (*block).ends[p], x, y));
}
