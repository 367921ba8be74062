// What the page does with the blocks of each codec, by the name that the data has.
//
// parse: the fields of a block. texels: its values as 16-bit integers, in the precision `decode`.
// value: such an integer as the texel t. show: the texel in the words of the codec. weight: from texel
// and the row's scale or the block's offset. feature and format: what WebGPU calls the texture. modes:
// in which precisions a GPU may sample it, and how far a texel may then be from the quotient. snap: a
// sampled texel without the rounding of the unit's division.

const LDR = {
  title: "ASTC",
  blockBytes: 16,
  parse: (bytes, offset, width, height) => parseBlock(bytes, offset, width, height),
  texels: (block, width, height) => decodeTexels(block, width, height),
  value: (texel, decode) => (decode === "fp16" ? unormToHalf(texel) : unorm8(texel) / 255),
  show: (texel) => String(unorm8(texel)),
  weight: (t, scale) => scale * Math.fround(2 * t - 1),
  feature: "texture-compression-astc",
  format: (width, height) => `astc-${width}x${height}-unorm`,
  modes: { unorm8: 1e-6, fp16: 0 },
  snap: (t, mode) => (mode === "fp16" ? t : Math.round(255 * t) / 255),
};

const HDR = {
  title: "ASTC HDR",
  blockBytes: 16,
  parse: (bytes, offset, width, height) => parseBlock(bytes, offset, width, height, true),
  texels: (block, width, height) => decodeTexels(block, width, height),
  value: (bits) => HALVES[bits],
  show: (bits) => String(HALVES[bits]),
  weight: (t, offset) => t + offset,
  // WebGPU has no HDR formats of ASTC.
  feature: null,
  modes: {},
};

const BC4 = {
  title: "BC4",
  blockBytes: 8,
  parse: (bytes, offset) => parseBc4(bytes, offset),
  texels: (block, width, height, decode) => decodeBc4(block, decode),
  value: (texel) => texel / BC4_STEPS,
  show: (texel) => `${Number((texel / 35).toFixed(2))}`,
  weight: LDR.weight,
  feature: "texture-compression-bc",
  format: () => "bc4-r-unorm",
  modes: { exact: 0.25 / BC4_STEPS, unorm8: 1e-6, llvmpipe: 1e-6 },
  snap: (t) => Math.round(BC4_STEPS * t) / BC4_STEPS,
};

const CODECS = { astc: LDR, "astc-hdr": HDR, bc4: BC4 };
