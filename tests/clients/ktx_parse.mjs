// Reads every KTX2 file of an export with ktx-parse and compares it with the export's index.
// node ktx_parse.mjs FOLDER; prints one JSON object, exit code 1 says that something differs.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as ktx from 'ktx-parse';

const folder = process.argv[2];
const index = JSON.parse(readFileSync(join(folder, 'index.json'), 'utf8'));
const KHR_DF_MODEL_BC4 = 131; // the library has no name for it
const differences = [];
let bytes = 0;

for (const entry of index.tensors) {
    const expect = (what, found, wanted) => {
        if (found !== wanted) differences.push(`${entry.name}: ${what} is ${found}, not ${wanted}`);
    };
    const file = ktx.read(new Uint8Array(readFileSync(join(folder, entry.file))));
    expect('vkFormat', file.vkFormat, ktx[entry.vk_format]);
    expect('pixelWidth', file.pixelWidth, entry.width);
    expect('pixelHeight', file.pixelHeight, entry.height);
    expect('layerCount', Math.max(file.layerCount, 1), entry.layers);
    expect('levels', file.levels.length, 1);

    const [descriptor] = file.dataFormatDescriptor;
    const astc = entry.vk_format.includes('ASTC');
    expect('colorModel', descriptor.colorModel, astc ? ktx.KHR_DF_MODEL_ASTC : KHR_DF_MODEL_BC4);
    expect('transferFunction', descriptor.transferFunction, ktx.KHR_DF_TRANSFER_LINEAR);
    const [width, height] = descriptor.texelBlockDimension.map((less) => less + 1);
    const blocks = Math.ceil(entry.width / width) * Math.ceil(entry.height / height) * entry.layers;
    expect('level size', file.levels[0].levelData.byteLength, blocks * descriptor.bytesPlane[0]);

    // The library decodes the values of its own keys alone; ours are bytes, text with a final NUL.
    const text = (key) => new TextDecoder().decode(file.keyValue[`compress-model.${key}`]).replace(/\0$/, '');
    expect('tensor', text('tensor'), entry.name);
    expect('decode', text('decode'), entry.decode);
    expect('shape', text('shape'), entry.shape.join('x'));
    expect('tiles', text('tiles'), `${entry.tiles_down}x${entry.tiles_across}`);
    expect('scales', file.keyValue['compress-model.scales'].byteLength,
        2 * entry.shape.slice(0, -1).reduce((product, side) => product * side, 1));
    bytes += file.levels[0].levelData.byteLength;
}

console.log(JSON.stringify({ files: index.tensors.length, bytes, differences }));
process.exit(differences.length === 0 && index.tensors.length > 0 ? 0 : 1);
