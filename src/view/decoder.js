// ASTC blocks as a weight encoder writes them: LDR luminance (endpoint mode 0), and in the HDR
// profile HDR luminance (modes 2 and 3, hdr.js), in all 2D footprints. Khronos Data Format
// Specification 1.3, chapter 23; sections are named below.
//
// A block is four 32-bit words, the lowest bits first. LDR texels come out as the 16-bit values of
// the interpolation, from which `unorm8` and `unormToHalf` take what a texture unit returns; HDR
// texels as the bits of fp16.

const LEVELS = [2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256];
const FIRST_ENDPOINT_RANGE = 4;
const BLOCK_BYTES = 16;
const BLOCK_BITS = 128;
const MAX_WEIGHTS = 64;
const MAX_ENDPOINT_VALUES = 18;
const SEED_BITS = 10;
// Red of the LDR error colour, magenta.
const ERROR_TEXEL = 0xFFFF;

// The ranges of section 23.12: plain bits, and a trit or quint above them.
const RANGES = LEVELS.map((levels) => {
  const bits = 31 - Math.clz32(levels & -levels);
  const digit = levels >> bits;
  return { levels, bits, trits: digit === 3, quints: digit === 5 };
});

function sequenceBits(range, count) {
  const plain = count * range.bits;
  if (range.trits) return plain + Math.ceil((8 * count) / 5);
  if (range.quints) return plain + Math.ceil((7 * count) / 3);
  return plain;
}

function readBits(words, position, width) {
  const index = position >> 5;
  const shift = position & 31;
  let value = index < 4 ? words[index] >>> shift : 0;
  if (shift + width > 32 && index < 3) value |= words[index + 1] << (32 - shift);
  return value & ((1 << width) - 1);
}

function reverseWord(word) {
  let w = word;
  w = ((w >>> 1) & 0x55555555) | ((w & 0x55555555) << 1);
  w = ((w >>> 2) & 0x33333333) | ((w & 0x33333333) << 2);
  w = ((w >>> 4) & 0x0F0F0F0F) | ((w & 0x0F0F0F0F) << 4);
  w = ((w >>> 8) & 0x00FF00FF) | ((w & 0x00FF00FF) << 8);
  return (w >>> 16) | (w << 16);
}

// Section 23.12: the five trits of an 8-bit block, the three quints of a 7-bit one.
function unpackTrits(block) {
  const bit = (value, position) => (value >> position) & 1;
  let c;
  let t3;
  let t4;
  if (((block >> 2) & 7) === 7) {
    c = ((block >> 5) << 2) | (block & 3);
    t3 = 2;
    t4 = 2;
  } else {
    c = block & 31;
    const spill = ((block >> 5) & 3) === 3;
    t4 = spill ? 2 : bit(block, 7);
    t3 = spill ? bit(block, 7) : (block >> 5) & 3;
  }
  if ((c & 3) === 3) return [(bit(c, 3) << 1) | (bit(c, 2) & ~bit(c, 3)), bit(c, 4), 2, t3, t4];
  if (((c >> 2) & 3) === 3) return [c & 3, 2, 2, t3, t4];
  return [(bit(c, 1) << 1) | (bit(c, 0) & ~bit(c, 1)), (c >> 2) & 3, bit(c, 4), t3, t4];
}

function unpackQuints(block) {
  const low = block & 1;
  const middle = ((block >> 1) & 3) === 3;
  const high = (block >> 5) & 3;
  if (middle && high === 0) {
    return [4, 4, (low << 2) | (((block >> 4) & ~low & 1) << 1) | ((block >> 3) & ~low & 1)];
  }
  const q2 = middle ? 4 : high;
  const c = middle ? (((block >> 3) & 3) << 3) | ((high ^ 3) << 1) | low : block & 31;
  return (c & 7) === 5 ? [c >> 3, 4, q2] : [c & 7, c >> 3, q2];
}

const TRITS = { table: Array.from({ length: 256 }, (_, i) => unpackTrits(i)), split: [2, 2, 1, 2, 1] };
const QUINTS = { table: Array.from({ length: 128 }, (_, i) => unpackQuints(i)), split: [3, 2, 2] };

// Reads `count` integers from bit `start` on. A last, partial group stores only the bits up to
// its last value; the missing ones read as zero.
function readSequence(words, start, range, count) {
  const values = new Uint8Array(count);
  const end = start + sequenceBits(range, count);
  let position = start;
  const take = (width) => {
    const present = Math.min(width, end - position);
    const value = present > 0 ? readBits(words, position, present) : 0;
    position += width;
    return value;
  };
  const digits = range.trits ? TRITS : range.quints ? QUINTS : null;
  if (!digits) {
    for (let i = 0; i < count; i++) values[i] = take(range.bits);
    return values;
  }
  for (let first = 0; first < count; first += digits.split.length) {
    const group = Math.min(digits.split.length, count - first);
    let block = 0;
    let filled = 0;
    for (let i = 0; i < group; i++) {
      values[first + i] = take(range.bits);
      block |= take(digits.split[i]) << filled;
      filled += digits.split[i];
    }
    for (let i = 0; i < group; i++) values[first + i] |= digits.table[block][i] << range.bits;
  }
  return values;
}

// Repeats the bits of a value from the top of a `width`-bit integer downwards.
function replicate(value, bits, width) {
  let repeated = 0;
  let filled = 0;
  for (; filled < width; filled += bits) repeated = (repeated << bits) | value;
  return repeated >> (filled - width);
}

// Section 23.13: stored endpoint to 0..255.
function unquantiseEndpoint(range, value) {
  const { bits, trits, quints } = range;
  if (!trits && !quints) return replicate(value, bits, 8);
  const x = (value & ((1 << bits) - 1)) >> 1;
  const patterns = trits
    ? [0, 0, (x << 8) | (x << 4) | (x << 2) | (x << 1), (x << 7) | (x << 2) | x, (x << 6) | x,
      (x << 5) | (x >> 2), (x << 4) | (x >> 4)]
    : [0, 0, (x << 8) | (x << 3) | (x << 2), (x << 7) | (x << 1) | (x >> 1), (x << 6) | (x >> 1),
      (x << 5) | (x >> 3)];
  const factor = (trits ? [0, 204, 93, 44, 22, 11, 5] : [0, 113, 54, 26, 13, 6])[bits];
  const inverted = value & 1 ? 0x1FF : 0;
  const t = ((value >> bits) * factor + patterns[bits]) ^ inverted;
  return (inverted & 0x80) | (t >> 2);
}

// Section 23.17: stored weight to 0..64.
function unquantiseWeight(range, value) {
  const { bits, trits, quints } = range;
  let t;
  if (!trits && !quints) {
    t = replicate(value, bits, 6);
  } else if (bits === 0) {
    t = (trits ? [0, 32, 63] : [0, 16, 32, 47, 63])[value];
  } else {
    const x = (value & ((1 << bits) - 1)) >> 1;
    const patterns = trits ? [0, 0, (x << 6) | (x << 2) | x, (x << 5) | x] : [0, 0, (x << 6) | (x << 1)];
    const factor = (trits ? [0, 50, 23, 11] : [0, 28, 13])[bits];
    const inverted = value & 1 ? 0x7F : 0;
    const folded = ((value >> bits) * factor + patterns[bits]) ^ inverted;
    t = (inverted & 0x20) | (folded >> 2);
  }
  return t > 32 ? t + 1 : t;
}

const valueTable = (range, unquantise) =>
  Uint8Array.from({ length: range.levels }, (_, value) => unquantise(range, value));
const ENDPOINT_VALUES = RANGES.map((r, i) =>
  i < FIRST_ENDPOINT_RANGE ? null : valueTable(r, unquantiseEndpoint));
const WEIGHT_VALUES = RANGES.map((r) => (r.levels > 32 ? null : valueTable(r, unquantiseWeight)));

// Section 23.11: weight grid, range and plane count; null for reserved modes.
function decodeMode(words) {
  const field = (position, width) => readBits(words, position, width);
  const a = field(5, 2);
  const b = field(7, 2);
  let precise = field(9, 1);
  let dualPlane = field(10, 1) === 1;
  let high;
  let grid;
  if (field(0, 2) !== 0) {
    high = field(0, 2);
    grid = [[b + 4, a + 2], [b + 8, a + 2], [a + 2, b + 8],
      b & 2 ? [(b & 1) + 2, a + 2] : [a + 2, b + 6]][field(2, 2)];
  } else {
    high = field(2, 2);
    if (b === 3 && a > 1) return null;
    grid = [[12, a + 2], [a + 2, 12], [a + 6, field(9, 2) + 6], a === 0 ? [6, 10] : [10, 6]][b];
    if (b === 2) {
      precise = 0;
      dualPlane = false;
    }
  }
  const index = ((high << 1) | field(4, 1)) - 2 + (precise ? 6 : 0);
  if (((high << 1) | field(4, 1)) < 2) return null;
  const count = grid[0] * grid[1] * (dualPlane ? 2 : 1);
  const bits = sequenceBits(RANGES[index], count);
  if (count > MAX_WEIGHTS || bits < 24 || bits > 96) return null;
  return { gridWidth: grid[0], gridHeight: grid[1], range: index, dualPlane, count, bits };
}

// Section 23.14: endpoint mode of each partition, and where the bits stored below the weights end.
function decodeFormats(words, partitions, weightsStart) {
  if (partitions === 1) return { formats: [readBits(words, 13, 4)], top: weightsStart };
  const low = readBits(words, 13 + SEED_BITS, 6);
  if ((low & 3) === 0) return { formats: Array(partitions).fill(low >> 2), top: weightsStart };
  const highWidth = 3 * partitions - 4;
  const top = weightsStart - highWidth;
  const encoded = (low | (readBits(words, top, highWidth) << 6)) >> 2;
  const formats = Array.from({ length: partitions }, (_, i) => {
    const group = (low & 3) - 1 + ((encoded >> i) & 1);
    return (group << 2) | ((encoded >> (partitions + 2 * i)) & 3);
  });
  return { formats, top };
}

// Section 23.23. The rectangle never changes the result but must be well formed or absent.
function parseConstant(words, hdr) {
  const corners = [12, 25, 38, 51].map((position) => readBits(words, position, 13));
  const [lowS, highS, lowT, highT] = corners;
  const absent = corners.every((corner) => corner === 0x1FFF);
  if (readBits(words, 10, 2) !== 3 || (!absent && (lowS >= highS || lowT >= highT))) {
    return { kind: "error", reason: "malformed void extent" };
  }
  const half = readBits(words, 9, 1) === 1;
  if (half && !hdr) return { kind: "error", reason: "HDR void extent" };
  return { kind: "constant", value: readBits(words, 64, 16), half };
}

function loadWords(bytes, offset) {
  const words = new Uint32Array(4);
  for (let i = 0; i < BLOCK_BYTES; i++) words[i >> 2] |= bytes[offset + i] << (8 * (i & 3));
  return words;
}

// The fields of the block at `offset`. `kind` is "weights", "constant", "error" (illegal, with
// `reason`) or "unsupported" (legal, but with other endpoints than luminance of the profile).
function parseBlock(bytes, offset, width, height, hdr = false) {
  const error = (reason) => ({ kind: "error", reason, hdr });
  const words = loadWords(bytes, offset);
  if (readBits(words, 0, 9) === 0x1FC) return { ...parseConstant(words, hdr), hdr };
  const mode = decodeMode(words);
  if (!mode) return error("reserved block mode");
  if (mode.gridWidth > width || mode.gridHeight > height) return error("weight grid too large");
  const partitions = readBits(words, 11, 2) + 1;
  if (mode.dualPlane && partitions === 4) return error("dual plane with four partitions");
  const { formats, top: formatsEnd } = decodeFormats(words, partitions, BLOCK_BITS - mode.bits);
  const end = formatsEnd - (mode.dualPlane ? 2 : 0);
  const start = partitions === 1 ? 17 : 29;
  const count = formats.reduce((sum, format) => sum + 2 * ((format >> 2) + 1), 0);
  if (count > MAX_ENDPOINT_VALUES) return error("more than 18 endpoint values");
  const room = Math.max(0, end - start);
  const endpointRange = RANGES.findLastIndex((range) => sequenceBits(range, count) <= room);
  if (endpointRange < FIRST_ENDPOINT_RANGE) return error("endpoint values do not fit");
  if (formats.some((format) => (hdr ? format !== 2 && format !== 3 : format !== 0))) {
    return { kind: "unsupported", reason: `endpoint mode ${formats.join(", ")}`, hdr };
  }
  const stored = readSequence(words, start, RANGES[endpointRange], count);
  return {
    kind: "weights",
    hdr,
    formats,
    ...mode,
    partitions,
    seed: partitions === 1 ? null : readBits(words, 13, SEED_BITS),
    levels: LEVELS[mode.range],
    endpointLevels: LEVELS[endpointRange],
    endpointStart: start,
    endpointBits: sequenceBits(RANGES[endpointRange], count),
    endpoints: stored.map((value) => ENDPOINT_VALUES[endpointRange][value]),
    // Red follows the second plane where that plane drives channel 0.
    plane: mode.dualPlane && readBits(words, end, 2) === 0 ? 1 : 0,
    words,
  };
}

// Section 23.21: partition of every texel in raster order.
const partitionMaps = new Map();
function partitionMap(seed, partitions, width, height) {
  const key = ((partitions * 1024 + seed) * 16 + width) * 16 + height;
  if (!partitionMaps.has(key)) {
    partitionMaps.set(key, hashPartitions(seed, partitions, width, height));
  }
  return partitionMaps.get(key);
}

function hashPartitions(seed, partitions, width, height) {
  const map = new Uint8Array(width * height);
  if (partitions === 1) return map;
  let p = seed + (partitions - 1) * 1024;
  p ^= p >>> 15;
  p = (p - (p << 17)) >>> 0;
  p = (p + (p << 7)) >>> 0;
  p = (p + (p << 4)) >>> 0;
  p ^= p >>> 5;
  p = (p + (p << 16)) >>> 0;
  p ^= p >>> 7;
  p ^= p >>> 3;
  p ^= p << 6;
  p ^= p >>> 17;
  const byCount = partitions === 3 ? 6 : 5;
  const bySeed = seed & 2 ? 4 : 5;
  const [shiftX, shiftY] = seed & 1 ? [bySeed, byCount] : [byCount, bySeed];
  const scale = width * height < 31 ? 2 : 1;
  const planes = Array.from({ length: partitions }, (_, i) => {
    const x = (p >>> (8 * i)) & 15;
    const y = (p >>> (8 * i + 4)) & 15;
    return [((x * x) >> shiftX) * scale, ((y * y) >> shiftY) * scale, (p >>> (14 - 4 * i)) & 63];
  });
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let best = 0;
      planes.forEach(([slopeX, slopeY, phase], partition) => {
        const sum = (slopeX * x + slopeY * y + phase) & 63;
        if (sum > best) {
          best = sum;
          map[y * width + x] = partition;
        }
      });
    }
  }
  return map;
}

// Section 23.18: for every texel the first of four grid points, and their shares of 16.
const infills = new Map();
function infill(gridWidth, gridHeight, width, height) {
  const key = ((gridWidth * 16 + gridHeight) * 16 + width) * 16 + height;
  if (!infills.has(key)) {
    const place = (position, size, points) =>
      (Math.floor((1024 + (size >> 1)) / (size - 1)) * position * (points - 1) + 32) >> 6;
    const first = new Uint8Array(width * height);
    const shares = new Uint8Array(width * height * 4);
    for (let texel = 0; texel < first.length; texel++) {
      const across = place(texel % width, width, gridWidth);
      const down = place(Math.floor(texel / width), height, gridHeight);
      const fx = across & 15;
      const fy = down & 15;
      const both = (fx * fy + 8) >> 4;
      first[texel] = (across >> 4) + (down >> 4) * gridWidth;
      shares.set([16 + both - fx - fy, fx - both, fy - both, both], 4 * texel);
    }
    infills.set(key, { first, shares });
  }
  return infills.get(key);
}

// The weight 0..64 of every texel of a parsed "weights" block.
function texelWeights(block, width, height) {
  const reversed = Uint32Array.from({ length: 4 }, (_, i) => reverseWord(block.words[3 - i]));
  const stored = readSequence(reversed, 0, RANGES[block.range], block.count);
  const planes = block.dualPlane ? 2 : 1;
  // Grid points past the edge have a share of 0.
  const grid = new Uint8Array(MAX_WEIGHTS + 16);
  for (let i = block.plane; i < stored.length; i += planes) {
    grid[(i - block.plane) / planes] = WEIGHT_VALUES[block.range][stored[i]];
  }
  const { first, shares } = infill(block.gridWidth, block.gridHeight, width, height);
  return first.map((point, texel) => {
    const below = point + block.gridWidth;
    const s = 4 * texel;
    const sum = grid[point] * shares[s] + grid[point + 1] * shares[s + 1]
      + grid[below] * shares[s + 2] + grid[below + 1] * shares[s + 3];
    return (sum + 8) >> 4;
  });
}

// Both endpoints of a partition on the 16-bit scale of the interpolation.
function partitionEnds(block, partition) {
  const [first, second] = block.endpoints.subarray(2 * partition, 2 * partition + 2);
  return block.hdr ? hdrEnds(block.formats[partition], first, second) : [first * 257, second * 257];
}

// The red value between two ends (section 23.19).
function between(block, [low, high], weight) {
  const value = (low * (64 - weight) + high * weight + 32) >> 6;
  return block.hdr ? logarithmicToHalf(value) : value;
}

// The red values of a parsed block in raster order.
function decodeTexels(block, width, height) {
  const texels = new Uint16Array(width * height);
  if (block.kind === "constant") {
    return texels.fill(block.hdr && !block.half ? unormToHalfBits(block.value) : block.value);
  }
  // Of the HDR profile the error is NaN, which has the same bits.
  if (block.kind !== "weights") return texels.fill(ERROR_TEXEL);
  const weights = texelWeights(block, width, height);
  const partition = partitionMap(block.seed ?? 0, block.partitions, width, height);
  const ends = Array.from({ length: block.partitions }, (_, i) => partitionEnds(block, i));
  for (let i = 0; i < texels.length; i++) texels[i] = between(block, ends[partition[i]], weights[i]);
  return texels;
}

// What a texture unit that returns 8 bits gives for a 16-bit value.
function unorm8(value) {
  return value >> 8;
}

// What a texture unit that returns fp16 gives: value / 65536 rounded towards zero, 1 for 65535.
function unormToHalf(value) {
  if (value === 0xFFFF) return 1;
  if (value < 4) return value / 65536;
  const dropped = Math.max(0, 5 - (Math.clz32(value) - 16));
  return ((value >> dropped) << dropped) / 65536;
}
