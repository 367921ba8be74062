// The matrix as an image: a canvas with zoom, pan, block grid and overlays.

const MAX_SCALE = 96;
const GRID_FROM = 5;
const NUMBERS_FROM = 46;

// `tensor` and `layer` are set by `show`; `onPoint(point)` hears of the texel under the pointer
// (null outside) and `onPin(block)` of clicks.
class Viewer {
  constructor(canvas, { onPoint, onPin, onZoom }) {
    Object.assign(this, { canvas, onPoint, onPin, onZoom });
    this.scale = 1;
    this.origin = [0, 0];
    this.options = { grid: true, configurations: false, group: null };
    this.pinned = null;
    this.hovered = null;
    this.pointers = new Map();
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.listen();
  }

  // Shows `values` (one a weight) of a tensor on a scale of ±limit.
  show(tensor, values, limit) {
    const fresh = tensor !== this.tensor;
    Object.assign(this, { tensor, values, limit });
    if (fresh) {
      this.pinned = null;
      this.hovered = null;
    }
    this.repaint();
    if (fresh) this.fit();
  }

  // Draws the images again, as after a change of colours.
  repaint() {
    this.table = divergingTable();
    this.image = paint(this.tensor.cols, this.tensor.rows, (i) =>
      this.table[shade(this.values[i], this.limit)]);
    this.paintGroups();
    this.draw();
  }

  set(options) {
    Object.assign(this.options, options);
    if ("group" in options) this.paintGroups();
    this.draw();
  }

  pin(block) {
    this.pinned = block;
    this.draw();
  }

  // One pixel a block: its configuration, or, with one configuration singled out, a veil over the
  // others.
  paintGroups() {
    const { tensor, options } = this;
    const word = (hex, alpha) => {
      const [r, g, b] = rgb(hex);
      return ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
    };
    const colours = tensor.groups.map((_, i) => word(configurationColour(i), 190));
    const veil = word(theme() === "dark" ? "#0a0c0f" : "#eceef2", 215);
    const pixel = (i) => (tensor.groupOf[i] === options.group ? 0 : veil);
    this.groupImage = paint(tensor.across, tensor.down, (i) => colours[tensor.groupOf[i]]);
    this.veilImage = options.group === null ? null : paint(tensor.across, tensor.down, pixel);
  }

  resize() {
    const { canvas } = this;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const first = !this.size;
    this.size = [width, height];
    if (this.tensor) (first || this.fitted ? this.fit() : this.draw());
  }

  fit() {
    if (!this.size) return;
    const { rows, cols } = this.tensor;
    const margin = 16;
    const [width, height] = this.size;
    this.scale = this.clampScale(Math.min((width - 2 * margin) / cols, (height - 2 * margin) / rows));
    this.origin = [(width - cols * this.scale) / 2, (height - rows * this.scale) / 2];
    this.fitted = true;
    this.draw();
  }

  clampScale(scale) {
    const least = Math.min(1, 24 / Math.max(this.tensor.rows, this.tensor.cols));
    return Math.max(least, Math.min(MAX_SCALE, scale));
  }

  // Zooms by `factor` and keeps the texel under `at` where it is.
  zoom(factor, at = this.size.map((s) => s / 2)) {
    const scale = this.clampScale(this.scale * factor);
    this.origin = this.origin.map((o, i) => at[i] - ((at[i] - o) * scale) / this.scale);
    this.scale = scale;
    this.pan(0, 0);
  }

  // Moves the image, but leaves a part of it in sight.
  pan(dx, dy) {
    const extent = [this.tensor.cols * this.scale, this.tensor.rows * this.scale];
    this.origin = [this.origin[0] + dx, this.origin[1] + dy].map((o, i) => {
      const keep = Math.min(80, extent[i]);
      return Math.max(keep - extent[i], Math.min(this.size[i] - keep, o));
    });
    this.fitted = false;
    this.draw();
  }

  // The texel at a place of the canvas, null outside the matrix.
  texelAt([x, y]) {
    const col = Math.floor((x - this.origin[0]) / this.scale);
    const row = Math.floor((y - this.origin[1]) / this.scale);
    if (col < 0 || row < 0 || col >= this.tensor.cols || row >= this.tensor.rows) return null;
    const { blockWidth, blockHeight, across } = this.tensor;
    return { row, col, block: Math.floor(row / blockHeight) * across + Math.floor(col / blockWidth) };
  }

  listen() {
    const { canvas, pointers } = this;
    const at = (event) => [event.offsetX, event.offsetY];
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode === 1 ? 0.05 : 0.0016)), at(event));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, at(event));
      this.travel = pointers.size > 1 ? Infinity : 0;
    });
    canvas.addEventListener("pointermove", (event) => this.move(event.pointerId, at(event)));
    const release = (event) => {
      if (pointers.delete(event.pointerId) && event.type === "pointerup" && this.travel < 5) {
        this.click(at(event));
      }
      canvas.classList.toggle("dragging", false);
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", () => this.hover(null));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  move(pointer, at) {
    const from = this.pointers.get(pointer);
    if (!from) return this.hover(this.texelAt(at));
    const delta = [at[0] - from[0], at[1] - from[1]];
    if (this.pointers.size === 2) {
      const [other] = [...this.pointers].filter(([id]) => id !== pointer).map(([, place]) => place);
      const apart = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]) || 1;
      this.zoom(apart(at) / apart(from), other);
    } else {
      this.travel += Math.hypot(...delta);
      if (this.travel >= 5) {
        this.canvas.classList.toggle("dragging", true);
        this.pan(...delta);
      }
    }
    this.pointers.set(pointer, at);
  }

  click(at) {
    const texel = this.texelAt(at);
    this.pin(texel && texel.block !== this.pinned ? texel.block : null);
    this.onPin(this.pinned);
  }

  hover(texel) {
    const changed = texel?.block !== this.hovered;
    this.hovered = texel?.block ?? null;
    this.onPoint(texel);
    if (changed) this.draw();
  }

  key(event) {
    const actions = {
      ArrowLeft: () => this.pan(60, 0),
      ArrowRight: () => this.pan(-60, 0),
      ArrowUp: () => this.pan(0, 60),
      ArrowDown: () => this.pan(0, -60),
      "+": () => this.zoom(1.5),
      "=": () => this.zoom(1.5),
      "-": () => this.zoom(1 / 1.5),
      0: () => this.fit(),
      Enter: () => this.click(this.size.map((s) => s / 2)),
      Escape: () => {
        this.pin(null);
        this.onPin(null);
      },
    };
    if (!actions[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    actions[event.key]();
  }

  // Draws once before the next frame, however often it is asked to.
  draw() {
    this.drawing ??= requestAnimationFrame(() => {
      this.drawing = null;
      if (this.tensor && this.size) this.drawNow();
    });
  }

  drawNow() {
    const { canvas, scale, tensor, options } = this;
    const context = canvas.getContext("2d");
    const ratio = canvas.width / this.size[0];
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.setTransform(ratio, 0, 0, ratio, ...this.origin.map((o) => o * ratio));
    const [width, height] = [tensor.cols * scale, tensor.rows * scale];
    context.imageSmoothingEnabled = scale * ratio < 1;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.image, 0, 0, width, height);
    this.drawGroups(context, width, height);
    if (scale >= NUMBERS_FROM) this.drawNumbers(context);
    if (options.grid && tensor.blockWidth * scale >= GRID_FROM) this.drawGrid(context, width, height);
    if (this.hovered !== null) this.outline(context, this.hovered, 1.5);
    if (this.pinned !== null) this.outline(context, this.pinned, 3);
    this.onZoom(scale);
  }

  drawGroups(context, width, height) {
    const { tensor, scale, options } = this;
    const overlay = options.configurations ? this.groupImage : null;
    context.save();
    context.beginPath();
    context.rect(0, 0, width, height);
    context.clip();
    context.imageSmoothingEnabled = false;
    for (const image of [overlay, this.veilImage].filter(Boolean)) {
      const across = tensor.across * tensor.blockWidth * scale;
      context.drawImage(image, 0, 0, across, tensor.down * tensor.blockHeight * scale);
    }
    context.restore();
  }

  // The rows and columns in sight.
  visible() {
    const { tensor, scale } = this;
    const range = (i, limit) => [
      Math.max(0, Math.floor(-this.origin[i] / scale)),
      Math.min(limit, Math.ceil((this.size[i] - this.origin[i]) / scale)),
    ];
    return { cols: range(0, tensor.cols), rows: range(1, tensor.rows) };
  }

  drawGrid(context, width, height) {
    const { tensor, scale } = this;
    const { cols, rows } = this.visible();
    const strength = Math.min(1, (tensor.blockWidth * scale - GRID_FROM) / 24);
    const ink = theme() === "dark" ? "255 255 255" : "20 26 34";
    context.strokeStyle = `rgb(${ink} / ${0.1 + 0.25 * strength})`;
    context.lineWidth = 1;
    context.beginPath();
    const align = (v, i) => Math.round(v + this.origin[i]) - this.origin[i] + 0.5;
    const first = (from, step) => Math.floor(from / step) * step;
    for (let col = first(cols[0], tensor.blockWidth); col <= cols[1]; col += tensor.blockWidth) {
      context.moveTo(align(col * scale, 0), Math.max(0, -this.origin[1]));
      context.lineTo(align(col * scale, 0), Math.min(height, this.size[1] - this.origin[1]));
    }
    for (let row = first(rows[0], tensor.blockHeight); row <= rows[1]; row += tensor.blockHeight) {
      context.moveTo(Math.max(0, -this.origin[0]), align(row * scale, 1));
      context.lineTo(Math.min(width, this.size[0] - this.origin[0]), align(row * scale, 1));
    }
    context.stroke();
  }

  drawNumbers(context) {
    const { tensor, scale, values, limit } = this;
    const { cols, rows } = this.visible();
    const digits = Math.max(0, 3 - Math.floor(Math.log10(limit)));
    const light = theme() === "light";
    context.font = `${Math.min(13, scale / 4.6)}px ${getComputedStyle(this.canvas).fontFamily}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (let row = rows[0]; row < rows[1]; row++) {
      for (let col = cols[0]; col < cols[1]; col++) {
        const value = values[row * tensor.cols + col];
        const strong = Math.abs(value) > 0.5 * limit;
        context.fillStyle = strong === light ? "#fff" : "#11151b";
        if (!strong && !light) context.fillStyle = "#d5dbe4";
        context.fillText(signed(value, digits), (col + 0.5) * scale, (row + 0.5) * scale);
      }
    }
  }

  // The frame of a block, and the borders between its partitions where there is room.
  outline(context, block, lineWidth) {
    const { tensor, scale } = this;
    const { left, top, right, bottom } = blockArea(tensor, block);
    context.strokeStyle = theme() === "dark" ? "#ffffff" : "#11151b";
    context.lineWidth = lineWidth;
    context.strokeRect(left * scale, top * scale, (right - left) * scale, (bottom - top) * scale);
    const parsed = tensor.parsed[block];
    if (parsed.kind !== "weights" || parsed.partitions < 2 || scale < 4) return;
    context.save();
    context.translate(left * scale, top * scale);
    context.lineWidth = Math.min(2, lineWidth);
    strokePartitions(context, tensor, parsed, scale, [right - left, bottom - top]);
    context.restore();
  }
}

// Strokes the borders between the partitions of a block with its corner at the origin.
function strokePartitions(context, { blockWidth, blockHeight }, parsed, scale, [width, height]) {
  const map = partitionMap(parsed.seed, parsed.partitions, blockWidth, blockHeight);
  context.beginPath();
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const here = map[y * blockWidth + x];
      if (x + 1 < width && map[y * blockWidth + x + 1] !== here) {
        context.moveTo((x + 1) * scale, y * scale);
        context.lineTo((x + 1) * scale, (y + 1) * scale);
      }
      if (y + 1 < height && map[(y + 1) * blockWidth + x] !== here) {
        context.moveTo(x * scale, (y + 1) * scale);
        context.lineTo((x + 1) * scale, (y + 1) * scale);
      }
    }
  }
  context.stroke();
}

// A canvas of RGBA words.
function paint(width, height, word) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const words = new Uint32Array(image.data.buffer);
  for (let i = 0; i < words.length; i++) words[i] = word(i);
  context.putImageData(image, 0, 0);
  return canvas;
}

function signed(value, digits) {
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}
