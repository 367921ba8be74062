// The texture on the GPU: uploaded as it is stored, sampled by a compute shader, read back.

const SAMPLER = `
@group(0) @binding(0) var blocks: texture_2d<f32>;
@group(0) @binding(1) var<storage, read_write> texels: array<f32>;
@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) at: vec3u) {
  let size = textureDimensions(blocks);
  if (at.x < size.x && at.y < size.y) {
    texels[at.y * size.x + at.x] = textureLoad(blocks, at.xy, 0).r;
  }
}`;

const PATIENCE_MS = 20000;

// Opens the browser's adapter once; throws an error that says why there is none.
let opened = null;
function openGpu() {
  opened ??= (async () => {
    if (!navigator.gpu) throw new Error("this browser has no WebGPU");
    const adapter = await navigator.gpu.requestAdapter({ featureLevel: "compatibility" });
    if (!adapter) throw new Error("WebGPU found no adapter");
    const { vendor, architecture, device, description } = adapter.info ?? {};
    const parts = [vendor, architecture, description || device].filter(Boolean);
    const software = adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter;
    const name = (parts.join(" ") || "unnamed adapter") + (software ? " (software)" : "");
    // The limits of a device are the least that any adapter has, unless it asks for more.
    const { maxTextureDimension2D } = adapter.limits;
    const features = [LDR.feature, BC4.feature].filter((feature) => adapter.features.has(feature));
    const gpu = await adapter.requestDevice({
      requiredFeatures: features,
      requiredLimits: { maxTextureDimension2D },
    });
    const lost = gpu.lost.then((info) => {
      throw new Error(`${name} was lost: ${info.message || info.reason}`);
    });
    lost.catch(() => {});
    return { gpu, name, lost };
  })();
  return opened;
}

// The red channel of every texel, padding included, as the adapter returns it. Some drivers never
// answer: that is an error too.
function decodeOnGpu(tensor) {
  if (!tensor.codec.feature) return Promise.reject(new Error("WebGPU has no HDR textures of ASTC"));
  const silence = new Promise((_, reject) => {
    setTimeout(() => reject(new Error("WebGPU did not answer")), PATIENCE_MS);
  });
  return Promise.race([uploadAndSample(tensor), silence]);
}

async function uploadAndSample(tensor) {
  const { gpu, name, lost } = await openGpu();
  const { feature, title } = tensor.codec;
  if (!gpu.features.has(feature)) throw new Error(`${name} has no ${title} textures`);
  gpu.pushErrorScope("out-of-memory");
  gpu.pushErrorScope("validation");
  const work = sample(gpu, tensor);
  const errors = [gpu.popErrorScope(), gpu.popErrorScope()];
  const [texels, ...found] = await Promise.race([Promise.all([work, ...errors]), lost]);
  const error = found.find(Boolean);
  if (error) throw new Error(`${name}: ${error.message}`);
  return { texels, name };
}

async function sample(gpu, { codec, blocks, across, down, blockWidth, blockHeight }) {
  const [width, height] = [across * blockWidth, down * blockHeight];
  const bytes = width * height * 4;
  const texture = gpu.createTexture({
    size: [width, height],
    format: codec.format(blockWidth, blockHeight),
    usage: GPUTextureUsage.TEXTURE_BINDING | GPUTextureUsage.COPY_DST,
  });
  const layout = { bytesPerRow: across * codec.blockBytes, rowsPerImage: down };
  gpu.queue.writeTexture({ texture }, blocks, layout, [width, height]);
  const storage = gpu.createBuffer({ size: bytes, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC });
  const result = gpu.createBuffer({ size: bytes, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const pipeline = gpu.createComputePipeline({
    layout: "auto",
    compute: { module: gpu.createShaderModule({ code: SAMPLER }), entryPoint: "main" },
  });
  const entries = [
    { binding: 0, resource: texture.createView() },
    { binding: 1, resource: { buffer: storage } },
  ];
  const commands = gpu.createCommandEncoder();
  const pass = commands.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, gpu.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  pass.dispatchWorkgroups(Math.ceil(width / 8), Math.ceil(height / 8));
  pass.end();
  commands.copyBufferToBuffer(storage, 0, result, 0, bytes);
  gpu.queue.submit([commands.finish()]);
  try {
    await result.mapAsync(GPUMapMode.READ);
    return new Float32Array(result.getMappedRange()).slice();
  } finally {
    [texture, storage, result].forEach((resource) => resource.destroy());
  }
}

// Compares sampled texels with those of the JavaScript decoder in every precision that an adapter may
// have, and returns the nearest; texels of blocks that JavaScript does not decode are not compared.
function compareWithGpu(tensor, sampled) {
  const width = tensor.across * tensor.blockWidth;
  const reports = Object.entries(tensor.codec.modes).map(([mode, tolerance]) => {
    const texels = decodeBlocks(tensor, mode);
    const report = { mode, compared: 0, differing: 0, first: [] };
    sampled.forEach((t, i) => {
      if (blockOfTexel(tensor, i, width).kind === "unsupported") return;
      report.compared++;
      if (Math.abs(t - tensor.codec.value(texels[i], mode)) <= tolerance) return;
      if (report.differing++ < 3) report.first.push([Math.floor(i / width), i % width]);
    });
    return report;
  });
  return reports.reduce((best, report) => (report.differing < best.differing ? report : best));
}

function blockOfTexel(tensor, i, width) {
  const row = Math.floor(i / width / tensor.blockHeight);
  return tensor.parsed[row * tensor.across + Math.floor((i % width) / tensor.blockWidth)];
}
