// Holds the JavaScript decoder of the page that `compress-model view` writes against texels of the
// Rust reference decoder: node view_decoder.mjs DECODER.js CASES. tests/view.rs writes the cases.
//
// A case: width, height, flags, 0; the 16 bytes of the block; the unorm8 texels; the fp16 texels as
// little-endian f32. Flag 1: the block is legal. Flag 2: it has luminance endpoints only, so that
// "unsupported" is no answer.

import { readFileSync } from "node:fs";

const [, , source, cases] = process.argv;
const decoder = new Function(
  `"use strict";${readFileSync(source, "utf8")}\nreturn { parseBlock, decodeTexels, unorm8, unormToHalf };`,
)();
const bytes = new Uint8Array(readFileSync(cases));
const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

const seen = { blocks: 0, texels: 0, illegal: 0, unsupported: 0 };
const faults = [];

function check(offset) {
  const [width, height, flags] = bytes.subarray(offset, offset + 3);
  const block = decoder.parseBlock(bytes, offset + 4, width, height);
  const hex = Buffer.from(bytes.subarray(offset + 4, offset + 20)).toString("hex");
  const fault = (what) => faults.push(`${width}x${height} ${hex}: ${what}`);
  seen.blocks++;
  if ((block.kind === "error") === Boolean(flags & 1)) fault(`${block.kind} ${block.reason}`);
  if (block.kind === "error") seen.illegal++;
  if (block.kind === "unsupported") {
    seen.unsupported++;
    if (flags & 2) fault(block.reason);
    return;
  }
  decoder.decodeTexels(block, width, height).forEach((value, i) => {
    const expected = [bytes[offset + 20 + i], view.getFloat32(offset + 20 + width * height + 4 * i, true)];
    const found = [decoder.unorm8(value), decoder.unormToHalf(value)];
    if (expected.some((e, k) => e !== found[k])) fault(`texel ${i} is ${found}, not ${expected}`);
    seen.texels++;
  });
}

for (let offset = 0; offset < bytes.length; offset += 20 + 5 * bytes[offset] * bytes[offset + 1]) {
  check(offset);
}
console.log(JSON.stringify(seen));
if (faults.length > 0) {
  console.error(`${faults.length} differences, the first:\n${faults.slice(0, 10).join("\n")}`);
  process.exit(1);
}
