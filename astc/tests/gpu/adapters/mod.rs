//! The GPUs of this machine.
//!
//! Without an adapter the tests say so and pass, unless `COMPRESS_MODEL_REQUIRE_GPU` is 1: then
//! there must be one that samples ASTC, and Vulkan as a second driver.

use std::sync::LazyLock;

use compress_model_astc::TextureCodec;
use compress_model_astc::gpu::{DecodePath, Gpu, GpuAdapter, GpuDecoder};

/// Every adapter, opened for all tests but the one that loses them.
pub(crate) fn gpus() -> &'static [Gpu] {
    static GPUS: LazyLock<Vec<Gpu>> = LazyLock::new(open_all);
    &GPUS
}

pub(crate) fn open_all() -> Vec<Gpu> {
    let gpus: Vec<Gpu> = GpuAdapter::all().iter().map(|adapter| adapter.open().unwrap()).collect();
    if std::env::var("COMPRESS_MODEL_REQUIRE_GPU").is_ok_and(|value| value == "1") {
        // No software renderer samples ASTC HDR.
        for codec in [TextureCodec::Astc, TextureCodec::Bc4] {
            let samples = |gpu: &Gpu| gpu.self_test().unwrap().refusal(codec).is_none();
            assert!(gpus.iter().any(samples), "no adapter samples {}", codec.title());
        }
        let vulkan = gpus.iter().any(|gpu| gpu.info().backend == "vulkan");
        assert!(vulkan, "no Vulkan adapter");
    }
    if gpus.is_empty() {
        eprintln!("skipped: no GPU adapter");
    }
    gpus
}

/// Every path of a GPU: all precisions of the compute shaders, and what it samples.
pub(crate) fn decoders(gpu: &Gpu) -> Vec<GpuDecoder<'_>> {
    let paths = TextureCodec::ALL.into_iter().flat_map(|codec| {
        let sampled = gpu.self_test().unwrap().sampled_mode(codec.modes()[0]);
        let computed = codec.modes().iter().copied().map(DecodePath::Computed);
        sampled.map(DecodePath::Sampled).into_iter().chain(computed)
    });
    paths.map(|path| GpuDecoder::new(gpu, path).unwrap()).collect()
}
