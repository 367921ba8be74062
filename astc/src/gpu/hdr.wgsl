// HDR luminance endpoints, and the values of HDR texels.

fn is_hdr(format: u32) -> bool {
    return format == 2u || format == 3u || format == 7u || format == 11u || format >= 14u;
}

// As `partition_ends`: endpoint modes 2 (large range) and 3 (small range) of section 23.15; an error
// for those of colours, which no weight encoder writes.
fn hdr_ends(s: Sequence, format: u32, first: u32) -> vec3<i32> {
    if format > 3u {
        return vec3<i32>(i32(ERROR_RED & 0xffffu), i32(ERROR_RED & 0xffffu), i32(ERROR_RED & HALF));
    }
    let v = vec2<i32>(colour_value(s, first), colour_value(s, first + 1u));
    var ends = v << vec2<u32>(4u);
    if format == 2u {
        if v.y < v.x {
            ends = ends.yx + vec2<i32>(8, -8);
        }
    } else {
        let wide = (v.x & 0x80) != 0;
        let fraction_bits = select(4u, 5u, wide);
        let shift = select(1u, 2u, wide);
        let fraction = v.y & ((1i << fraction_bits) - 1i);
        let low = ((v.y - fraction) << 4u) | ((v.x & 0x7f) << shift);
        ends = vec2<i32>(low, min(low + (fraction << shift), 0xfff));
    }
    return vec3<i32>(ends << vec2<u32>(4u), i32(LOGARITHMIC));
}

// An f16 from its bits.
fn half_value(bits: u32) -> f32 {
    let sign = (bits & 0x8000u) << 16u;
    let magnitude = bits & 0x7fffu;
    if magnitude < 0x400u {
        // Subnormal: a whole number of 2^-24.
        return bitcast<f32>(bitcast<u32>(f32(magnitude) * 0x1p-24) | sign);
    }
    let exponent = select(0x38000000u, 0x70000000u, magnitude >= 0x7c00u);
    return bitcast<f32>(((magnitude << 13u) + exponent) | sign);
}

// The texel of a value; section 23.19 for logarithmic ones, which saturate below infinity.
fn hdr_value(value: u32) -> f32 {
    if (value & HALF) != 0u {
        return half_value(value & 0xffffu);
    }
    if (value & LOGARITHMIC) == 0u {
        return through_fp16(value);
    }
    let mantissa = value & 0x7ffu;
    var linear = 3u * mantissa;
    if mantissa >= 1536u {
        linear = 5u * mantissa - 2048u;
    } else if mantissa >= 512u {
        linear = 4u * mantissa - 512u;
    }
    let exponent = (value >> 11u) & 31u;
    return half_value(min((exponent << 10u) + (linear >> 3u), 0x7bffu));
}
