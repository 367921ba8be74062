// What the HDR profile of ASTC adds: logarithmic luminance endpoints and fp16 texels.

// The ends of luminance modes 2 (large range) and 3 (small range), section 23.15, on the 16-bit
// logarithmic scale.
function hdrEnds(format, first, second) {
  if (format === 2) {
    const ends = second >= first ? [first << 4, second << 4] : [(second << 4) + 8, (first << 4) - 8];
    return ends.map((end) => end << 4);
  }
  const [shift, mask] = first & 0x80 ? [2, 0x1F] : [1, 0x0F];
  const low = ((second & ~mask & 0xFF) << 4) | ((first & 0x7F) << shift);
  return [low << 4, Math.min(low + ((second & mask) << shift), 0xFFF) << 4];
}

// 5 bits of exponent and 11 of a piecewise linear mantissa (section 23.19) to the bits of fp16,
// which saturate below infinity.
function logarithmicToHalf(value) {
  const mantissa = value & 0x7FF;
  let linear = 3 * mantissa;
  if (mantissa >= 1536) linear = 5 * mantissa - 2048;
  else if (mantissa >= 512) linear = 4 * mantissa - 512;
  return Math.min(((value >> 11) << 10) + (linear >> 3), 0x7BFF);
}

// value / 65536 rounded towards zero as the bits of fp16, 1 for 65535.
function unormToHalfBits(value) {
  if (value === 0xFFFF) return 0x3C00;
  if (value < 4) return value << 8;
  const zeros = Math.clz32(value) - 16;
  return ((14 - zeros) << 10) | (((value << zeros << 1) & 0xFFFF) >> 6);
}
