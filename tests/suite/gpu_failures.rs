//! A GPU that fails in mid-run: an error with its exit code, no panic and no hang.
//!
//! Without an adapter the tests say so and pass, unless `COMPRESS_MODEL_REQUIRE_GPU` is 1.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::Workspace;
use compress_model::Error;
use compress_model::pipeline::{CompressedFolder, GpuReference, Progress, verify_gpu};
use compress_model_astc::gpu::{DecodePath, Gpu, GpuAdapter, GpuDecoder, GpuError, PathChoice};
use compress_model_astc::{BlockGrid, TextureCodec, bc4};
use half::f16;

fn gpus() -> Vec<Arc<Gpu>> {
    let gpus: Vec<_> = GpuAdapter::all().iter().map(|a| Arc::new(a.open().unwrap())).collect();
    let required = std::env::var("COMPRESS_MODEL_REQUIRE_GPU").is_ok_and(|value| value == "1");
    assert!(!required || !gpus.is_empty(), "no GPU adapter");
    if gpus.is_empty() {
        eprintln!("skipped: no GPU adapter");
    }
    gpus
}

/// Destroys the device once some bytes are verified.
struct Saboteur {
    gpu: Arc<Gpu>,
    after: u64,
    advanced: AtomicU64,
}

impl Progress for Saboteur {
    fn begin(&self, _phase: &'static str, total_bytes: u64) {
        assert!(self.after < total_bytes, "the device would outlive the run");
    }

    fn advance(&self, bytes: u64) {
        if self.advanced.fetch_add(bytes, Ordering::Relaxed) >= self.after {
            self.gpu.destroy();
        }
    }

    fn tensor(&self, _line: &str) {}
}

#[test]
fn a_device_that_is_lost_in_mid_run_ends_the_verification_with_exit_code_4() {
    let workspace = Workspace::with_tiny_llama(1);
    workspace.run("compress", "model", &["-o", "out", "--preset", "server-desktop"]).ok();
    let folder = CompressedFolder::open(&workspace.path("out")).unwrap();
    for gpu in gpus() {
        let label = gpu.info().label();
        let saboteur = Saboteur { gpu: Arc::clone(&gpu), after: 100_000, advanced: 0.into() };
        let choice = PathChoice::Auto;
        let found = verify_gpu(&folder, &gpu, choice, GpuReference::Detected, &saboteur);
        let error = found.unwrap_err();
        assert!(matches!(error, Error::Gpu(GpuError::DeviceLost { .. })), "{error:?}");
        assert_eq!(error.exit_code(), 4);
        let message = error.to_string();
        assert!(message.contains(&label) && message.contains("the device was lost"), "{message}");
    }
}

#[test]
fn a_texture_that_no_memory_holds_is_out_of_memory_with_exit_code_5() {
    // The largest layers that llvmpipe takes, past the 2 GiB that it gives a texture.
    let side = 16_384;
    let layers = 17;
    let footprint = bc4::footprint();
    let mut seen = 0;
    for gpu in gpus().iter().filter(|gpu| gpu.info().name.contains("llvmpipe")) {
        let Some(mode) = gpu.self_test().unwrap().sampled_mode(TextureCodec::Bc4.modes()[0]) else {
            continue;
        };
        let decoder = GpuDecoder::new(gpu, DecodePath::Sampled(mode)).unwrap();
        let grid = BlockGrid::new(layers * side, side, footprint);
        let blocks = vec![0; bc4::byte_len(grid.rows, grid.cols)];
        let error = decoder.upload(grid, &blocks, &vec![f16::ONE; grid.rows]).unwrap_err();
        let error = Error::from(error);
        println!("{error}");
        let (label, code) = (gpu.info().label(), error.exit_code());
        match &error {
            Error::Gpu(GpuError::OutOfMemory { .. }) => assert_eq!(code, 5),
            // wgpu does not ask GL whether an allocation failed, so the size is limited instead.
            Error::Gpu(GpuError::OverLimit { .. }) if label.starts_with("gl") => {
                assert_eq!(code, 3);
            }
            other => panic!("{other:?}"),
        }
        assert!(error.to_string().contains(&label));
        seen += 1;

        // The device lives on.
        let grid = BlockGrid::new(4, 4, footprint);
        let matrix = decoder.upload(grid, &[0; 8], &[f16::ONE; 4]).unwrap();
        decoder.decode(&matrix, 0..4, &mut [0.0; 16]).unwrap();
    }
    eprintln!("{seen} adapters ran out of memory");
}
