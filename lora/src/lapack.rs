//! Full SVD by LAPACK's divide and conquer (`gesdd`), as a reference.

use ndarray::ArrayView2;
use ndarray_linalg::{JobSvd, SVDDC};

use crate::Error;
use crate::svd::TruncatedSvd;

/// All singular triplets of `values`, row-major with `cols` columns.
///
/// # Errors
/// [`Error::NoConvergence`] if LAPACK reports a failure.
///
/// # Panics
/// If `values` is not whole rows.
pub fn full_svd(values: &[f32], cols: usize) -> Result<TruncatedSvd, Error> {
    let rows = values.len() / cols;
    let matrix = ArrayView2::from_shape((rows, cols), values).expect("whole rows");
    let (u, s, vt) = matrix.svddc(JobSvd::Some).map_err(|_| Error::NoConvergence)?;
    let (u, vt) = u.zip(vt).ok_or(Error::NoConvergence)?;
    Ok(TruncatedSvd {
        u: u.iter().copied().collect(),
        s: s.to_vec(),
        vt: vt.iter().copied().collect(),
        rows,
        cols,
    })
}
