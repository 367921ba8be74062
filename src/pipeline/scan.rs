//! The first pass over the weights: every fault of the input is found before any work is done.
//!
//! It looks for NaN and infinity in every float tensor and hashes the data. It runs at the speed of the disk and leaves the files in the system's cache.

use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

use super::progress::Progress;
use crate::checkpoint::dtype::{AlignedBytes, dtype_name};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::{Error, Result};

/// Bytes read at a time; a multiple of every element size.
pub(super) const CHUNK_BYTES: u64 = 1 << 20;

/// What the scan learnt.
#[derive(Debug, Clone)]
pub(super) struct Scan {
    /// BLAKE3 of each tensor's data, in the checkpoint's order.
    pub(super) hashes: Vec<blake3::Hash>,
    /// BLAKE3 over name, dtype, shape and hash of all tensors.
    pub(super) fingerprint: blake3::Hash,
}

/// Scans all tensors of `checkpoint`.
///
/// # Errors
/// [`Error::Tensor`] for the first tensor, in order, that holds NaN or infinity;
/// [`Error::StoppedEarly`].
pub(super) fn scan(checkpoint: &Checkpoint, progress: &dyn Progress) -> Result<Scan> {
    let hashes = checkpoint
        .tensors()
        .par_iter()
        .map(|tensor| {
            progress.check_stopped()?;
            let hash = scan_tensor(checkpoint, tensor)?;
            progress.advance(tensor.byte_len);
            Ok(hash)
        })
        .collect::<Vec<Result<_>>>()
        .into_iter()
        .collect::<Result<Vec<blake3::Hash>>>()?;
    let fingerprint = fingerprint(checkpoint, &hashes);
    Ok(Scan { hashes, fingerprint })
}

/// Hash of what a checkpoint is, however it is cut into files.
pub(super) fn fingerprint(checkpoint: &Checkpoint, hashes: &[blake3::Hash]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for (tensor, hash) in checkpoint.tensors().iter().zip(hashes) {
        let line =
            format!("{} {} {:?} {hash}\n", tensor.name, dtype_name(tensor.dtype), tensor.shape);
        hasher.update(line.as_bytes());
    }
    hasher.finalize()
}

/// The fingerprint that a manifest of this checkpoint would carry.
///
/// # Errors
/// [`Error::Io`] if reading fails.
#[cfg(feature = "model")]
pub(crate) fn source_fingerprint(checkpoint: &Checkpoint) -> Result<blake3::Hash> {
    let hash = |tensor| hash_tensor(checkpoint, tensor, |_, _| Ok(()));
    let hashes: Vec<Result<_>> = checkpoint.tensors().par_iter().map(hash).collect();
    Ok(fingerprint(checkpoint, &hashes.into_iter().collect::<Result<Vec<_>>>()?))
}

/// Hashes a tensor and makes sure that it holds no NaN or infinity.
///
/// # Errors
/// [`Error::Tensor`] for the first element that is not finite; I/O.
pub(super) fn scan_tensor(checkpoint: &Checkpoint, tensor: &Tensor) -> Result<blake3::Hash> {
    hash_tensor(checkpoint, tensor, |position, chunk| {
        let Some((index, value)) = first_non_finite(tensor.dtype, chunk) else { return Ok(()) };
        let element = position * 8 / tensor.dtype.bitsize() as u64 + index as u64;
        Err(Error::tensor(
            checkpoint.file_of(tensor),
            &tensor.name,
            format!("element {:?} is {value}", coordinates(element, &tensor.shape)),
        ))
    })
}

/// BLAKE3 of a tensor's data, read in chunks that `check` sees with their position in bytes.
///
/// # Errors
/// [`Error::Io`] if reading fails, and what `check` gives.
pub(crate) fn hash_tensor(
    checkpoint: &Checkpoint,
    tensor: &Tensor,
    mut check: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = AlignedBytes::default();
    let mut position = 0;
    while position < tensor.byte_len {
        chunk.resize(CHUNK_BYTES.min(tensor.byte_len - position) as usize);
        checkpoint.read_bytes(tensor, position, chunk.as_mut_slice())?;
        hasher.update(chunk.as_slice());
        check(position, chunk.as_slice())?;
        position += chunk.as_slice().len() as u64;
    }
    Ok(hasher.finalize())
}

/// Index and value of the first NaN or infinity of a float type; other types have none.
fn first_non_finite(dtype: Dtype, bytes: &[u8]) -> Option<(usize, f64)> {
    fn search<T: bytemuck::AnyBitPattern>(
        bytes: &[u8],
        is_finite: impl Fn(T) -> bool,
        value: impl Fn(T) -> f64,
    ) -> Option<(usize, f64)> {
        let elements: &[T] = bytemuck::cast_slice(bytes);
        // Without a branch the fold vectorises; the search runs only on bad input.
        if elements.iter().fold(true, |ok, &x| ok & is_finite(x)) {
            return None;
        }
        let index = elements.iter().position(|&x| !is_finite(x))?;
        Some((index, value(elements[index])))
    }
    match dtype {
        Dtype::F16 => search(bytes, f16::is_finite, f64::from),
        Dtype::BF16 => search(bytes, bf16::is_finite, f64::from),
        Dtype::F32 => search(bytes, f32::is_finite, f64::from),
        Dtype::F64 => search(bytes, f64::is_finite, |x| x),
        _ => None,
    }
}

fn coordinates(mut index: u64, shape: &[usize]) -> Vec<u64> {
    let mut coordinates = vec![0; shape.len()];
    for (coordinate, &size) in coordinates.iter_mut().zip(shape).rev() {
        *coordinate = index % size as u64;
        index /= size as u64;
    }
    coordinates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_finite_is_found_in_every_float_type() {
        let f16s = [f16::ONE, f16::NEG_INFINITY];
        let bf16s = [bf16::ONE, bf16::ONE, bf16::NAN];
        let find = |dtype, bytes: &[u8]| first_non_finite(dtype, bytes).map(|(i, _)| i);
        assert_eq!(find(Dtype::F16, bytemuck::cast_slice(&f16s)), Some(1));
        assert_eq!(find(Dtype::BF16, bytemuck::cast_slice(&bf16s)), Some(2));
        assert_eq!(find(Dtype::F32, bytemuck::cast_slice(&[f32::NAN])), Some(0));
        assert_eq!(find(Dtype::F64, bytemuck::cast_slice(&[0.0, f64::INFINITY])), Some(1));
        assert_eq!(find(Dtype::F32, bytemuck::cast_slice(&[f32::MAX])), None);
        assert_eq!(find(Dtype::I64, &[0xff; 8]), None);
    }

    #[test]
    fn coordinates_are_row_major() {
        assert_eq!(coordinates(23, &[2, 3, 4]), [1, 2, 3]);
        assert_eq!(coordinates(5, &[7]), [5]);
    }
}
