// Holds the JavaScript decoders of the page that `compress-model view` writes against the Rust reference
// decoders. tests/suite/view_decoder.rs calls it:
//
// node view_decoder.mjs blocks SOURCES CASES: blocks and their texels. A case: codec (0 ASTC, 1 ASTC HDR,
// 2 BC4), width, height, flags; the block; then texels as little-endian f32, for ASTC as unorm8 and as
// fp16, for HDR once, for BC4 as exact, unorm8 and llvmpipe. Flag 1: the block is legal. Flag 2: it has
// luminance endpoints only, so that "unsupported" is no answer.
//
// node view_decoder.mjs weights SOURCES PAGE.html: what the page makes of its tensors; writes a line of
// JSON a tensor, with the weights of its texture as f32 in base64.
//
// SOURCES is the folder of the page's program.

import { readFileSync } from "node:fs";
import { join } from "node:path";

const [, , task, sources, input] = process.argv;
const FILES = ["decoder.js", "hdr.js", "bc4.js", "codecs.js", "model.js"];
const program = FILES.map((file) => readFileSync(join(sources, file), "utf8")).join("");

function load(document) {
  return new Function("document", `"use strict";${program}\nreturn { CODECS, loadTensor };`)(document);
}

const NAMES = ["astc", "astc-hdr", "bc4"];
const MODES = { astc: ["unorm8", "fp16"], "astc-hdr": ["fp16"], bc4: ["exact", "unorm8", "llvmpipe"] };

function checkBlocks(bytes) {
  const { CODECS } = load(null);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const seen = { blocks: 0, texels: 0, illegal: 0, unsupported: 0 };
  const faults = [];
  let offset = 0;
  while (offset < bytes.length) {
    const [number, width, height, flags] = bytes.subarray(offset, offset + 4);
    const codec = CODECS[NAMES[number]];
    const first = offset + 4 + codec.blockBytes;
    const modes = MODES[NAMES[number]];
    const block = codec.parse(bytes, offset + 4, width, height);
    const hex = Buffer.from(bytes.subarray(offset + 4, first)).toString("hex");
    const fault = (what) => faults.push(`${NAMES[number]} ${width}x${height} ${hex}: ${what}`);
    offset = first + 4 * modes.length * width * height;
    seen.blocks++;
    if ((block.kind === "error") === Boolean(flags & 1)) fault(`${block.kind} ${block.reason}`);
    if (block.kind === "error") seen.illegal++;
    if (block.kind === "unsupported") {
      seen.unsupported++;
      if (flags & 2) fault(block.reason);
      continue;
    }
    modes.forEach((mode, place) => {
      codec.texels(block, width, height, mode).forEach((texel, i) => {
        const expected = view.getFloat32(first + 4 * (place * width * height + i), true);
        const found = Math.fround(codec.value(texel, mode));
        if (!Object.is(found, expected)) fault(`${mode} texel ${i} is ${found}, not ${expected}`);
        seen.texels++;
      });
    });
  }
  console.log(JSON.stringify(seen));
  if (faults.length > 0) {
    console.error(`${faults.length} differences, the first:\n${faults.slice(0, 10).join("\n")}`);
    process.exit(1);
  }
}

function listWeights(html) {
  const elements = new Map();
  for (const [, id, textContent] of html.matchAll(/<script type="application\/json" id="([^"]*)">([^<]*)</g)) {
    elements.set(id, { textContent });
  }
  const { loadTensor } = load({ getElementById: (id) => elements.get(id) });
  for (const id of [...elements.keys()].filter((id) => id.startsWith("tensor-"))) {
    const { data, texture } = loadTensor(id);
    const weights = Buffer.from(texture.buffer).toString("base64");
    console.log(JSON.stringify({ name: data.name, codec: data.codec, weights }));
  }
}

if (task === "blocks") checkBlocks(new Uint8Array(readFileSync(input)));
else listWeights(readFileSync(input, "utf8"));
