//! What this program was built from.

/// Program, version and commit: what its output depends on.
pub(crate) const IDENTITY: &str =
    concat!("compress-model ", env!("CARGO_PKG_VERSION"), " (", env!("BUILD_COMMIT"), ")");

/// Commit, target, features and the instruction sets in use, one line each.
pub(crate) fn describe() -> String {
    let features: Vec<&str> = [
        ("astcenc", cfg!(feature = "astcenc")),
        ("cuda", cfg!(feature = "cuda")),
        ("gpu", cfg!(feature = "gpu")),
        ("lapack", cfg!(feature = "lapack")),
        ("metal", cfg!(feature = "metal")),
        ("model", cfg!(feature = "model")),
    ]
    .into_iter()
    .filter_map(|(name, on)| on.then_some(name))
    .collect();
    format!(
        "compress-model {}\n\
         commit     {}\n\
         target     {}\n\
         features   {}\n\
         SIMD       {}\n\
         format     {}\n",
        env!("CARGO_PKG_VERSION"),
        env!("BUILD_COMMIT"),
        env!("BUILD_TARGET"),
        if features.is_empty() { "none".to_owned() } else { features.join(" ") },
        simd(),
        crate::pipeline::manifest::FORMAT_VERSION,
    )
}

/// Whether this processor fuses multiplication and addition. The products behind an adapter's SVD do
/// where it can, and round otherwise; codes are the same either way.
pub(crate) fn arithmetic() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    let fused = is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    let fused = cfg!(target_arch = "aarch64");
    if fused { "fused" } else { "unfused" }
}

/// The widest instruction set that the kernels find on this machine.
fn simd() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            return "AVX-512";
        }
        if is_x86_feature_detected!("avx2") {
            return "AVX2";
        }
        "SSE2"
    }
    #[cfg(target_arch = "aarch64")]
    {
        "NEON"
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        "none"
    }
}
