// Puts the parts together: what is chosen, and what is shown for it.

const facts = JSON.parse(document.getElementById("facts-data").textContent);
const HINT = "Drag to pan, scroll to zoom, click to pin a block.";
const at = (id) => document.getElementById(id);
const state = { tensor: null, layers: [], layer: "weights", decoder: [], group: null, block: 0 };

const viewer = new Viewer(at("matrix"), {
  onPoint: showPoint,
  onPin: (block) => showBlock(block ?? state.block),
  onZoom: (scale) => (at("zoom").textContent = `${scale < 0.1 ? (100 * scale).toFixed(1) : Math.round(100 * scale)} %`),
});

// The layers of a tensor: what is drawn, on which scale, and what the histogram adds.
function layersOf(tensor) {
  const limit = spread(tensor.original ?? tensor.weights);
  tensor.limit = limit;
  const layer = (key, name, values, scale, reference = null) => ({ key, name, values, limit: scale, reference });
  const layers = [layer("weights", tensor.product ? "Weights" : "Texture", tensor.weights, limit, tensor.original)];
  if (tensor.product) layers.push(layer("texture", "Texture", tensor.texture, limit));
  layers.push(layer("original", "Original", tensor.original, limit));
  layers.push(layer("error", "Error", tensor.error, tensor.error && spread(tensor.error)));
  return layers;
}

function currentLayer() {
  return state.layers.find((layer) => layer.key === state.layer) ?? state.layers[0];
}

async function choose(index) {
  const tensor = loadTensor(`tensor-${index}`);
  groupConfigurations(tensor);
  Object.assign(state, { tensor, group: null, block: 0, layers: layersOf(tensor) });
  viewer.options.group = null;
  showDecoder("JavaScript", "checking WebGPU", "", []);
  showAll();
  await checkGpu(tensor);
}

// Decodes the texture on the GPU, compares, and shows the GPU's texels where they are right.
async function checkGpu(tensor) {
  let report;
  try {
    const { texels, name } = await decodeOnGpu(tensor);
    report = judgeGpu(tensor, texels, name);
  } catch (error) {
    const [reason] = error.message.split(/\n|\. /);
    report = ["JavaScript", `Decoded in JavaScript: ${reason}`, "warn", [["WebGPU", reason]]];
  }
  if (tensor !== state.tensor) return;
  showDecoder(...report);
  state.layers = layersOf(tensor);
  showAll();
}

function judgeGpu(tensor, texels, name) {
  const { mode, compared, differing, first } = compareWithGpu(tensor, texels);
  const rows = [
    ["GPU", name],
    ["GPU precision", mode],
    ["Compared", count(compared, "texel")],
    ["Differing", differing.toLocaleString("en")],
  ];
  if (differing > 0) {
    const where = first.map(([row, col]) => `row ${row} column ${col}`).join(", ");
    return ["JavaScript", `WebGPU differs in ${count(differing, "texel")}; JavaScript shown`, "bad", [...rows, ["First", where]]];
  }
  if (mode !== tensor.data.decode && compared > 0) {
    rows.push(["Folder made for", tensor.data.decode]);
    return ["JavaScript", `WebGPU is right, as ${mode}; shown as ${tensor.data.decode} by JavaScript`, "warn", rows];
  }
  setTexture(tensor, texels.map((t) => tensor.codec.snap(t, mode)));
  return ["WebGPU", `Decoded by WebGPU, equal to JavaScript`, "good", rows];
}

function showDecoder(path, text, tone, rows) {
  at("path").textContent = text;
  at("path").className = `chip ${tone}`;
  state.decoder = [["Decoded by", path], ...rows];
}

function showAll() {
  const layer = currentLayer();
  at("layers").replaceChildren(...state.layers.map((l) => {
    const button = make("button", { type: "button", role: "radio", "aria-checked": String(l === layer) }, l.name);
    button.addEventListener("click", () => {
      state.layer = l.key;
      showAll();
    });
    return button;
  }));
  fillFacts(at("facts"), state.tensor, state.decoder);
  showTable();
  showLayer(layer);
  showBlock(state.block);
}

function showLayer(layer) {
  const missing = !layer.values;
  at("missing").hidden = !missing;
  if (missing) {
    at("missing").replaceChildren(
      make("strong", {}, "This page holds no original weights."),
      make("span", {}, "Give the checkpoint to embed them: ", make("code", {}, "compress-model view OUT --original MODEL")),
    );
  }
  const shown = missing ? state.layers[0] : layer;
  viewer.show(state.tensor, shown.values, shown.limit);
  const words = divergingTable();
  at("legend").getContext("2d").drawImage(paint(256, 1, (i) => words[i]), 0, 0);
  const digits = Math.max(0, 2 - Math.floor(Math.log10(shown.limit)));
  at("legend-low").textContent = signed(-shown.limit, digits);
  at("legend-high").textContent = signed(shown.limit, digits);
  fillHistogram(at("histogram"), state.tensor, shown, at("log").checked);
}

function showTable() {
  fillTable(at("table"), state.tensor, state.group, (group) => {
    state.group = group;
    viewer.set({ group });
    showTable();
  });
}

function showPoint(point) {
  if (point === null) {
    at("readout").replaceChildren(HINT);
  } else {
    const { tensor } = state;
    const i = point.row * tensor.cols + point.col;
    const texel = tensor.texels[point.row * tensor.across * tensor.blockWidth + point.col];
    const digits = Math.max(0, 4 - Math.floor(Math.log10(state.layers[0].limit)));
    const values = [["weight", tensor.weights], ["texture", tensor.product && tensor.texture],
      ["original", tensor.original], ["error", tensor.error]];
    const parts = [`row ${point.row}, column ${point.col}`];
    for (const [name, array] of values.filter(([, array]) => array)) {
      parts.push(`  ·  ${name} `, make("b", {}, signed(array[i], digits)));
    }
    parts.push("  ·  texel ", make("b", {}, tensor.codec.show(texel)));
    at("readout").replaceChildren(...parts);
  }
  if (viewer.pinned === null && point && point.block !== state.block) showBlock(point.block);
}

// Shows a block, which stays until the next one is pointed at.
function showBlock(index) {
  const layer = currentLayer();
  state.block = index;
  at("block-state").textContent = blockTitle(index);
  fillBlock(at("block"), state.tensor, index, layer.values ? layer : state.layers[0]);
}

function blockTitle(index) {
  const { across } = state.tensor;
  const place = `row ${Math.floor(index / across)}, column ${index % across}`;
  return viewer.pinned === null ? place : `${place}, pinned`;
}

function showFolder() {
  at("folder").textContent = [facts.folder, `recipe ${facts.recipe}`, facts.tool].map(visible).join(" · ");
  const here = `${facts.tensors.length} of ${count(facts.texture_tensors, "texture-coded tensor")} are in this page`;
  const others = facts.tensors.length < facts.texture_tensors ? "; choose others with --tensor NAME" : "";
  const left = facts.left_out.length ? ` Left out, because the page would be too large: ${facts.left_out.map(visible).join(", ")}.` : "";
  at("notice").textContent = left.trim();
  at("footer").textContent = `${here}${others}. The page is complete in itself and loads nothing.`;
  at("tensor").replaceChildren(...facts.tensors.map((tensor, i) =>
    make("option", { value: String(i) }, `${visible(tensor.name)}${tensor.window.whole ? "" : " (part)"}`)));
}

at("tensor").addEventListener("change", (event) => choose(Number(event.target.value)));
at("grid").addEventListener("change", (event) => viewer.set({ grid: event.target.checked }));
at("configurations").addEventListener("change", (event) => viewer.set({ configurations: event.target.checked }));
at("log").addEventListener("change", () => showLayer(currentLayer()));
at("zoom-in").addEventListener("click", () => viewer.zoom(1.5));
at("zoom-out").addEventListener("click", () => viewer.zoom(1 / 1.5));
at("fit").addEventListener("click", () => viewer.fit());
darkQuery.addEventListener("change", () => showAll());
showFolder();
at("readout").textContent = HINT;
choose(0);
