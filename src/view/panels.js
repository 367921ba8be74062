// The panels beside the image. All text goes in as text nodes: names come from checkpoints.

const SVG = "http://www.w3.org/2000/svg";
const BINS = 101;

// An element with attributes and children; strings become text.
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "rect", "path", "line", "text", "title"].includes(tag);
  const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") Object.assign(element.style, value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// A name with its invisible characters spelt out: some reverse the text around them.
function visible(name) {
  return name.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
const percent = (part, whole) => `${((100 * part) / whole).toFixed(1)} %`;
// Null, or infinity, without error; "-inf", or minus infinity, for an error where all weights are zero.
const showDecibels = (db) => {
  if (Number.isFinite(db)) return `${db.toFixed(2)} dB`;
  return db === "-inf" || db === -Infinity ? "-inf dB" : "exact";
};

function fillFacts(list, tensor, decoder) {
  const { data } = tensor;
  const rows = [
    ["Shape", data.shape.join(" × ")],
    ["Shown", data.window.whole ? "all" : `rows 0–${tensor.rows - 1}, columns 0–${tensor.cols - 1}`],
    ["Role", data.role],
    ["Source type", data.dtype],
    null,
    ["Codec", tensor.codec.title],
    ["Footprint", data.footprint.join(" × ")],
    ["Bits per weight", data.bits_per_weight.toFixed(3)],
    ["Adapter", data.adapter ? `rank ${data.adapter.rank}` : "none"],
    ["SQNR (manifest)", showDecibels(data.sqnr_db)],
  ];
  if (data.shape.length === 3) rows.splice(1, 0, ["Matrix", `first of ${data.shape[0]}`]);
  if (tensor.original) {
    const sums = { signal: 0, noise: 0 };
    tensor.parsed.forEach((_, block) => errorSums(tensor, block, sums));
    rows.push([data.window.whole ? "SQNR (measured)" : "SQNR (shown part)", showDecibels(decibels(sums))]);
  }
  for (const [key, value] of data.params) {
    if (key !== "footprint") rows.push([key.replaceAll("_", " ").replace(/^./, (c) => c.toUpperCase()), value]);
  }
  rows.push(null, ...decoder);
  const items = rows.map((row) => (row
    ? [make("dt", {}, row[0]), make("dd", {}, row[1])] : [make("hr")]));
  list.replaceChildren(make("dd", { class: "wide" }, visible(data.name)), ...items.flat());
}

// What the panel says of a configuration.
function describe(block) {
  if (block.kind === "levels") return describeLevels(block);
  if (block.kind === "constant") return "Constant";
  if (block.kind === "error") return `Illegal: ${block.reason}`;
  if (block.kind === "unsupported") return `Not luminance (${block.reason})`;
  const planes = block.dualPlane ? ", two planes" : "";
  const range = block.hdr ? `, ${describeRange(block)} range` : "";
  return `${count(block.partitions, "partition")}, ${block.levels} levels${range}${planes}`;
}

function describeLevels({ steps }) {
  return steps === 7 ? "8 levels from end to end" : "6 levels from end to end, 0 and 1";
}

// The endpoint modes of HDR luminance: "large", "small" or "large and small".
function describeRange({ formats }) {
  const names = [...new Set(formats)].sort().map((format) => (format === 2 ? "large" : "small"));
  return names.join(" and ");
}

function fillBlock(host, tensor, index, layer) {
  const block = tensor.parsed[index];
  const rows = [];
  if (block.kind === "weights") {
    rows.push(
      ["Partitions", String(block.partitions)],
      ["Seed", block.seed === null ? "–" : String(block.seed)],
      ["Weight grid", `${block.gridWidth} × ${block.gridHeight}`],
      ["Weight levels", String(block.levels)],
      ["Endpoint levels", String(block.endpointLevels)],
    );
    if (block.hdr) rows.push(["Range", describeRange(block)]);
  } else if (block.kind === "levels") {
    rows.push(["Ends", `${block.e0}, ${block.e1}`], ["Steps", String(block.steps)],
      ["Codes 6 and 7", block.steps === 7 ? "levels" : "0 and 1"]);
  } else {
    rows.push(["Kind", describe(block)]);
  }
  if (tensor.codec === HDR) rows.push(["Offset", tensor.side[index].toPrecision(4).replace("-", "−")]);
  if (tensor.original) {
    rows.push(["SQNR", showDecibels(decibels(errorSums(tensor, index, { signal: 0, noise: 0 })))]);
  }
  const list = make("dl", { class: "facts" });
  rows.forEach(([key, value]) => list.append(make("dt", {}, key), make("dd", {}, value)));
  const parts = [make("div", { class: "block-top" }, drawBlock(tensor, index, layer), list)];
  if (block.kind === "weights") parts.push(endpointRows(tensor, index), ...bitLayout(astcFields(block)));
  if (block.kind === "levels") parts.push(levelRow(tensor, block), ...bitLayout(BC4_FIELDS));
  const { blockBytes } = tensor.codec;
  const bytes = [...tensor.blocks.subarray(index * blockBytes, (index + 1) * blockBytes)];
  const hex = bytes.map((b) => b.toString(16).padStart(2, "0")).join("");
  parts.push(make("p", { class: "hex" }, hex.match(/.{8}/g).join(" ")));
  host.replaceChildren(...parts);
}

// The block enlarged, with the borders of its partitions.
function drawBlock(tensor, index, { values, limit }) {
  const { blockWidth, blockHeight } = tensor;
  const scale = Math.floor(264 / Math.max(blockWidth, blockHeight));
  const canvas = make("canvas", {
    width: blockWidth * scale, height: blockHeight * scale, role: "img", "aria-label": "The block's texels",
  });
  const context = canvas.getContext("2d");
  const table = divergingTable();
  const { left, top, right, bottom } = blockArea(tensor, index);
  for (let row = top; row < bottom; row++) {
    for (let col = left; col < right; col++) {
      context.fillStyle = cssOf(table[shade(values[row * tensor.cols + col], limit)]);
      context.fillRect((col - left) * scale, (row - top) * scale, scale, scale);
    }
  }
  const parsed = tensor.parsed[index];
  if (parsed.kind === "weights" && parsed.partitions > 1) {
    context.strokeStyle = theme() === "dark" ? "#ffffff" : "#11151b";
    context.lineWidth = 4;
    strokePartitions(context, tensor, parsed, scale, [right - left, bottom - top]);
  }
  if (parsed.kind === "levels") {
    const shades = (x, y) => values[(top + y) * tensor.cols + left + x] / limit;
    drawCodes(context, parsed.codes, scale, [right - left, bottom - top], shades);
  }
  return canvas;
}

// The codes of a BC4 block on its texels; `shades` says how far from zero a texel's colour is.
function drawCodes(context, codes, scale, [width, height], shades) {
  context.font = `${Math.round(scale / 2.6)}px ${getComputedStyle(document.body).fontFamily}`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      // Strong colours are dark in light, and light in dark.
      const onDark = Math.abs(shades(x, y)) > 0.5 === (theme() === "light");
      context.fillStyle = onDark ? "#ffffff" : "#11151b";
      context.fillText(String(codes[4 * y + x]), (x + 0.5) * scale, (y + 0.5) * scale);
    }
  }
}

// A grey ramp with a mark at each place 0..1.
function drawRamp(places) {
  const [low, zero, high] = [0, 128, 255].map((i) => cssOf(divergingTable()[i]));
  const ramp = make("div", { class: "ramp", style: { background: `linear-gradient(90deg, ${low}, ${zero}, ${high})` } });
  for (const place of places) {
    ramp.append(make("i", { style: { left: `${100 * Math.max(0, Math.min(1, place))}%` } }));
  }
  return ramp;
}

function endpointRow(label, low, places, high) {
  return make("div", { class: "endpoint" },
    make("span", {}, label), make("span", {}, low), drawRamp(places), make("span", {}, high));
}

// One line a partition: its stored endpoints, and the values between them on a grey ramp. The ramp is
// the row's scale in LDR, and the layer's scale in HDR, whose endpoints are logarithmic.
function endpointRows(tensor, index) {
  const block = tensor.parsed[index];
  const map = partitionMap(block.seed ?? 0, block.partitions, tensor.blockWidth, tensor.blockHeight);
  const rows = Array.from({ length: block.partitions }, (_, partition) => {
    const [low, high] = block.endpoints.subarray(2 * partition, 2 * partition + 2);
    const texels = map.reduce((sum, p) => sum + (p === partition), 0);
    const label = block.partitions > 1 ? `${partition}: ${count(texels, "texel")}` : "Endpoints";
    const ends = partitionEnds(block, partition);
    const places = Array.from(WEIGHT_VALUES[block.range], (weight) => {
      const texel = between(block, ends, weight);
      return block.hdr ? ((HALVES[texel] + tensor.side[index]) / tensor.limit + 1) / 2 : texel / 0xFFFF;
    });
    return endpointRow(label, String(low), places, String(high));
  });
  return make("div", { class: "endpoints" }, ...rows);
}

// The ends of a BC4 block and its levels on a grey ramp.
function levelRow(tensor, block) {
  const levels = Array.from(bc4Levels(block, tensor.data.decode), (level) => level / BC4_STEPS);
  return make("div", { class: "endpoints" },
    endpointRow("Ends and levels", String(block.e0), levels, String(block.e1)));
}

const BC4_FIELDS = [["First end", 8], ["Second end", 8], ["Codes", 48]];

// The fields of an ASTC block, and their bits.
function astcFields(block) {
  const spare = BLOCK_BITS - block.endpointStart - block.endpointBits - block.bits;
  return [
    ["Block mode", 11], ["Partitions", 2], ["Seed", block.partitions === 1 ? 0 : SEED_BITS],
    ["Endpoint mode", block.partitions === 1 ? 4 : 6], ["Endpoints", block.endpointBits],
    ["Unused", spare], ["Weights", block.bits],
  ];
}

// The bits of a block as a bar of fields.
function bitLayout(fields) {
  const bits = fields.reduce((sum, [, width]) => sum + width, 0);
  const colours = FIELDS[theme()];
  const bar = make("div", { class: "bits", role: "img", "aria-label": `Layout of the ${bits} bits` });
  const names = make("div", { class: "bit-names" });
  fields.forEach(([name, width], i) => {
    if (width === 0) return;
    const style = { background: colours[i] };
    bar.append(make("span", { style: { ...style, flex: `${width} 0 0` } }));
    names.append(make("span", {}, make("span", { class: "swatch", style }), name, make("b", {}, `${width} bits`)));
  });
  return [bar, names];
}

function fillTable(table, tensor, chosen, onChoose) {
  const astc = tensor.codec !== BC4;
  const heads = ["Configuration", ...(astc ? ["Grid", "Endpoints"] : []), "Blocks", "Share", ...(tensor.original ? ["SQNR"] : [])];
  const most = tensor.groups[0].blocks.length;
  const rows = tensor.groups.map((group, i) => {
    const { example, blocks } = group;
    const coded = example.kind === "weights";
    const colour = configurationColour(i);
    const name = make("button", { type: "button", "aria-pressed": String(i === chosen) },
      make("span", { class: "swatch", style: { background: colour } }), describe(example));
    const bar = make("span", { class: "share" },
      make("i", { style: { background: colour, width: `${(40 * blocks.length) / most}px` } }),
      percent(blocks.length, tensor.parsed.length));
    const grid = [coded ? `${example.gridWidth} × ${example.gridHeight}` : "–", coded ? String(example.endpointLevels) : "–"];
    const cells = [name, ...(astc ? grid : []), blocks.length.toLocaleString("en"), bar];
    if (tensor.original) cells.push(showDecibels(group.sqnr));
    const row = make("tr", i === chosen ? { class: "chosen" } : {}, ...cells.map((cell) => make("td", {}, cell)));
    row.addEventListener("click", () => onChoose(i === chosen ? null : i));
    return row;
  });
  table.replaceChildren(
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...rows),
  );
}

// Bars of the layer's values; the outline of the original's over them where there is one.
function fillHistogram(host, tensor, layer, logarithmic) {
  const limit = 1.15 * layer.limit;
  const { counts, outside } = countBins(layer.values, limit, BINS);
  const reference = layer.reference && countBins(layer.reference, limit, BINS).counts;
  const height = (n) => (logarithmic ? Math.log10(1 + n) : n);
  const top = Math.max(...[counts, reference ?? []].flatMap((c) => [...c].map(height)), 1);
  const plot = make("svg", { viewBox: `0 0 ${BINS} 100`, preserveAspectRatio: "none", role: "img",
    "aria-label": `Histogram of ${layer.name}` });
  const edge = (bin) => (2 * bin / BINS - 1) * limit;
  plot.append(make("line", { x1: BINS / 2, x2: BINS / 2, y1: 0, y2: 100, "vector-effect": "non-scaling-stroke" }));
  plot.append(make("line", { x1: 0, x2: BINS, y1: 100, y2: 100, "vector-effect": "non-scaling-stroke" }));
  counts.forEach((n, bin) => {
    const bar = (100 * height(n)) / top;
    const digits = Math.max(0, 3 - Math.floor(Math.log10(limit)));
    const tip = `${signed(edge(bin), digits)} to ${signed(edge(bin + 1), digits)}: ${count(n, "weight")}`;
    const rect = make("rect", { class: "bar", x: bin + 0.06, width: 0.88, y: 100 - bar, height: bar }, make("title", {}, tip));
    plot.append(rect);
  });
  if (reference) {
    let path = "M0 100";
    reference.forEach((n, bin) => {
      const y = 100 - (100 * height(n)) / top;
      path += `L${bin} ${y.toFixed(2)}L${bin + 1} ${y.toFixed(2)}`;
    });
    plot.append(make("path", { d: `${path}L${BINS} 100` }));
  }
  host.replaceChildren(plot, ...histogramCaption(layer, limit, outside, reference));
}

function histogramCaption(layer, limit, outside, reference) {
  const digits = Math.max(0, 2 - Math.floor(Math.log10(limit)));
  const colour = getComputedStyle(document.documentElement).getPropertyValue("--accent");
  const axis = make("div", { class: "axis" },
    ...[-limit, 0, limit].map((x) => make("span", {}, x === 0 ? "0" : signed(x, digits))));
  const caption = make("div", { class: "caption" },
    make("span", {}, make("span", { class: "swatch", style: { background: colour, opacity: "0.55" } }), layer.name));
  if (reference) caption.append(make("span", {}, make("span", { class: "swatch line" }), "Original"));
  caption.append(make("span", {}, `${count(outside, "weight")} outside`));
  return [axis, caption];
}
