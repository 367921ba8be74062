// BC4 blocks (RGTC1): two 8-bit ends and a 3-bit code a texel. Khronos Data Format Specification 1.3,
// section 19.1. All 64 bits of every block mean something: none is illegal.

// Texels are whole numbers of 1/(255·35), since 35 is a multiple of both step counts.
const BC4_STEPS = 255 * 35;

// The ends and codes of the block at `offset`; with e0 > e1 there are seven steps between them, else
// five, and codes 6 and 7 are 0 and 1.
function parseBc4(bytes, offset) {
  const [e0, e1] = bytes.subarray(offset, offset + 2);
  const codes = Uint8Array.from({ length: 16 }, (_, texel) => {
    const position = 16 + 3 * texel;
    const at = offset + (position >> 3);
    // The last code ends with the block.
    const next = at + 1 < offset + 8 ? bytes[at + 1] : 0;
    return ((bytes[at] | (next << 8)) >> (position & 7)) & 7;
  });
  return { kind: "levels", e0, e1, steps: e0 > e1 ? 7 : 5, codes };
}

// The eight levels of a block, by code, in 1/BC4_STEPS: "exact" quotients, cut to 1/255 ("unorm8"), or
// as Mesa's llvmpipe interpolates.
function bc4Levels({ e0, e1, steps }, decode) {
  const between = (k) => {
    const sum = e0 * (steps - k) + e1 * k;
    if (decode === "exact") return (sum * 35) / steps;
    if (decode === "unorm8") return Math.floor(sum / steps) * 35;
    const share = (Math.floor((255 * 64) / steps) * k) >> 6;
    return (e0 + (((e1 - e0) * share) >> 8)) * 35;
  };
  return Uint16Array.from({ length: 8 }, (_, code) => {
    if (code < 2) return (code === 0 ? e0 : e1) * 35;
    if (steps === 5 && code >= 6) return (code - 6) * BC4_STEPS;
    return between(code - 1);
  });
}

// The texels of a parsed block in raster order, in 1/BC4_STEPS.
function decodeBc4(block, decode) {
  const levels = bc4Levels(block, decode);
  return Uint16Array.from(block.codes, (code) => levels[code]);
}
