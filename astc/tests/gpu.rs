//! The GPU against the CPU reference, on every adapter of this machine.
//!
//! Without an adapter the tests say so and pass, unless `COMPRESS_MODEL_REQUIRE_GPU` is 1.
#![cfg(feature = "gpu")]

mod random_blocks;

use compress_model_astc::gpu::{Gpu, GpuAdapter, GpuDecoder, GpuError, PathChoice};
use compress_model_astc::{
    ArmQuality, BlockGrid, Coder, DecodeMode, Encoder, Footprint, Params,
};

#[test]
fn probe() {
    for adapter in GpuAdapter::all() {
        println!("{:#?}", adapter.info());
        let t = std::time::Instant::now();
        let gpu = adapter.open().unwrap();
        println!("open {:?}", t.elapsed());
        let t = std::time::Instant::now();
        println!("{:?} {:?}", gpu.self_test(), t.elapsed());
        for mode in [DecodeMode::Unorm8, DecodeMode::Fp16] {
            let t = std::time::Instant::now();
            let decoder = GpuDecoder::choose(&gpu, PathChoice::Computed, mode);
            println!("{mode:?} {:?} {:?}", decoder.map(|d| d.path()), t.elapsed());
        }
    }
}
