// What the page knows about a tensor: its arrays, its blocks, and figures over them.

function fromBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

function halfToFloat(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

const HALVES = Float32Array.from({ length: 65536 }, (_, bits) => halfToFloat(bits));

function halves(text) {
  const bytes = fromBase64(text);
  const floats = new Float32Array(bytes.length / 2);
  for (let i = 0; i < floats.length; i++) floats[i] = HALVES[bytes[2 * i] | (bytes[2 * i + 1] << 8)];
  return floats;
}

// Parses and decodes the tensor of data element `id`.
function loadTensor(id) {
  const data = JSON.parse(document.getElementById(id).textContent);
  const [blockWidth, blockHeight] = data.footprint;
  const tensor = {
    data,
    codec: CODECS[data.codec],
    blockWidth,
    blockHeight,
    across: data.blocks_across,
    down: data.blocks_down,
    rows: data.window.rows,
    cols: data.window.cols,
    blocks: fromBase64(data.blocks),
    // A scale a row, or an offset a block.
    side: halves(data.side),
    original: data.original === null ? null : halves(data.original),
  };
  tensor.parsed = Array.from({ length: tensor.across * tensor.down }, (_, block) =>
    tensor.codec.parse(tensor.blocks, block * tensor.codec.blockBytes, blockWidth, blockHeight));
  tensor.texels = decodeBlocks(tensor, data.decode);
  setTexture(tensor, Float32Array.from(tensor.texels, (texel) => tensor.codec.value(texel, data.decode)));
  return tensor;
}

// The texels of all blocks in the precision `decode`, row-padded to whole blocks.
function decodeBlocks({ codec, parsed, across, down, blockWidth, blockHeight }, decode) {
  const all = new Uint16Array(across * blockWidth * down * blockHeight);
  parsed.forEach((fields, block) => {
    const texels = codec.texels(fields, blockWidth, blockHeight, decode);
    const left = (block % across) * blockWidth;
    const top = Math.floor(block / across) * blockHeight;
    for (let y = 0; y < blockHeight; y++) {
      const row = texels.subarray(y * blockWidth, (y + 1) * blockWidth);
      all.set(row, (top + y) * across * blockWidth + left);
    }
  });
  return all;
}

// The weights of texels t, row-padded to whole blocks: w = scale (2t - 1), or t + offset.
function textureWeights({ codec, rows, cols, across, blockWidth, blockHeight, side }, texels) {
  const offsets = codec === HDR;
  const weights = new Float32Array(rows * cols);
  for (let row = 0; row < rows; row++) {
    const firstBlock = Math.floor(row / blockHeight) * across;
    for (let col = 0; col < cols; col++) {
      const index = offsets ? firstBlock + Math.floor(col / blockWidth) : row;
      weights[row * cols + col] = codec.weight(texels[row * across * blockWidth + col], side[index]);
    }
  }
  return weights;
}

// Takes texels t as the texture, the adapter's product on top, and the error against the original.
function setTexture(tensor, texels) {
  const { original } = tensor;
  const texture = textureWeights(tensor, texels);
  tensor.texture = texture;
  tensor.product ??= tensor.data.adapter ? adapterProduct(tensor) : null;
  tensor.weights = tensor.product ? texture.map((w, i) => w + tensor.product[i]) : texture;
  tensor.error = original && tensor.weights.map((w, i) => w - original[i]);
}

// B·A of the window.
function adapterProduct({ data, rows, cols }) {
  const { rank } = data.adapter;
  const a = halves(data.adapter.a);
  const b = halves(data.adapter.b);
  const product = new Float32Array(rows * cols);
  for (let row = 0; row < rows; row++) {
    const out = product.subarray(row * cols, (row + 1) * cols);
    for (let k = 0; k < rank; k++) {
      const factor = b[row * rank + k];
      const from = a.subarray(k * cols, (k + 1) * cols);
      for (let col = 0; col < cols; col++) out[col] += factor * from[col];
    }
  }
  return product;
}

// The rows and columns of the matrix that a block covers.
function blockArea(tensor, block) {
  const left = (block % tensor.across) * tensor.blockWidth;
  const top = Math.floor(block / tensor.across) * tensor.blockHeight;
  const right = Math.min(tensor.cols, left + tensor.blockWidth);
  const bottom = Math.min(tensor.rows, top + tensor.blockHeight);
  return { left, top, right, bottom };
}

// Sums over the weights of blocks: Σw² of the original and Σ(ŵ - w)².
function errorSums(tensor, block, sums) {
  const { left, top, right, bottom } = blockArea(tensor, block);
  for (let row = top; row < bottom; row++) {
    for (let i = row * tensor.cols + left; i < row * tensor.cols + right; i++) {
      sums.signal += tensor.original[i] ** 2;
      sums.noise += tensor.error[i] ** 2;
    }
  }
  return sums;
}

function decibels({ signal, noise }) {
  return noise > 0 ? 10 * Math.log10(signal / noise) : Infinity;
}

// Groups the blocks by configuration, the most frequent first, and gives each block the index of
// its group.
function groupConfigurations(tensor) {
  const groups = new Map();
  tensor.parsed.forEach((block, index) => {
    const key = configurationKey(block);
    if (!groups.has(key)) groups.set(key, { key, example: block, blocks: [] });
    groups.get(key).blocks.push(index);
  });
  const sorted = [...groups.values()].sort((a, b) =>
    b.blocks.length - a.blocks.length || (a.key < b.key ? -1 : 1));
  tensor.groupOf = new Uint32Array(tensor.parsed.length);
  sorted.forEach((group, i) => {
    const sums = { signal: 0, noise: 0 };
    for (const block of group.blocks) {
      tensor.groupOf[block] = i;
      if (tensor.original) errorSums(tensor, block, sums);
    }
    group.sqnr = tensor.original ? decibels(sums) : null;
  });
  tensor.groups = sorted;
}

function configurationKey(block) {
  if (block.kind === "levels") return `levels ${block.steps}`;
  if (block.kind !== "weights") return [block.kind, block.reason].join(" ");
  const { partitions, formats, gridWidth, gridHeight, levels, endpointLevels, dualPlane } = block;
  return [partitions, formats, gridWidth, gridHeight, levels, endpointLevels, dualPlane].join(" ");
}

// Largest magnitude but for one weight in a thousand, from a sample.
function spread(weights) {
  const step = Math.max(1, Math.floor(weights.length / 100000));
  const sample = [];
  for (let i = 0; i < weights.length; i += step) sample.push(Math.abs(weights[i]));
  sample.sort((a, b) => a - b);
  return sample[Math.floor(0.999 * (sample.length - 1))] || sample.at(-1) || 1;
}

// Counts in `bins` equal bins over ±limit, and how many lie outside.
function countBins(weights, limit, bins) {
  const counts = new Uint32Array(bins);
  let outside = 0;
  for (const w of weights) {
    const bin = Math.floor(((w / limit + 1) / 2) * bins);
    if (bin >= 0 && bin < bins) counts[bin]++;
    else outside++;
  }
  return { counts, outside };
}
