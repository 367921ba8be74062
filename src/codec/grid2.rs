//! `grid2`: the balanced 2-bit grid, ŵ = s·q with q in {-1.5, -0.5, 0.5, 1.5}.
//!
//! Parts: `codes` U8 [rows, ceil(cols/4)], four codes to a byte; `scales` F16 [rows, groups].
//! Parameter `group`: weights that share a scale; absent for one scale a row.

use std::num::NonZeroUsize;
use std::sync::Arc;

use compress_model_qat::{Error, Grid2};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::halves::Halves;
use super::{Codec, CodecError, Params, Part, Worker};

pub(super) const NAME: &str = "grid2";

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GridParams {
    #[serde(default)]
    group: Option<NonZeroUsize>,
}

#[derive(Debug)]
struct GridCodec {
    params: GridParams,
    grid: Grid2,
}

pub(super) fn build(params: Params) -> Result<Arc<dyn Codec>, String> {
    let params: GridParams = super::parse_params(params)?;
    let grid = params.group.map_or_else(Grid2::per_row, Grid2::grouped);
    Ok(Arc::new(GridCodec { params, grid }))
}

impl Codec for GridCodec {
    fn name(&self) -> &'static str {
        NAME
    }

    fn params(&self) -> Params {
        super::write_params(&self.params)
    }

    fn row_multiple(&self) -> usize {
        1
    }

    fn parts(&self, rows: usize, cols: usize) -> Vec<Part> {
        vec![
            Part {
                suffix: "codes",
                dtype: Dtype::U8,
                shape: vec![rows, self.grid.code_bytes_per_row(cols)],
            },
            Part {
                suffix: "scales",
                dtype: Dtype::F16,
                shape: vec![rows, self.grid.scales_per_row(cols)],
            },
        ]
    }

    #[cfg(feature = "model")]
    fn column_unit(&self) -> Option<usize> {
        Some(1)
    }

    fn worker(&self) -> Result<Box<dyn Worker>, CodecError> {
        Ok(Box::new(GridWorker { grid: self.grid, scales: Halves::default() }))
    }
}

struct GridWorker {
    grid: Grid2,
    scales: Halves,
}

impl Worker for GridWorker {
    fn encode(
        &mut self,
        panel: &[f32],
        cols: usize,
        parts: &mut [Vec<u8>],
    ) -> Result<(), CodecError> {
        let scales = self.scales.room(&parts[1]);
        self.grid.encode_rows(panel, cols, &mut parts[0], scales).map_err(|e| row_error(&e))?;
        self.scales.store(&mut parts[1]);
        Ok(())
    }

    #[cfg(feature = "model")]
    fn column_coder<'w>(
        &'w mut self,
        panel: &[f32],
        cols: usize,
        importance: &[f32],
    ) -> Result<Box<dyn super::PanelCoder + 'w>, CodecError> {
        let group = self.grid.group().map_or(cols, NonZeroUsize::get);
        let coder = super::columns::Grid2Columns::new(panel, cols, group, importance)
            .map_err(|row| CodecError::Row { row, message: "needs a scale past fp16".into() })?;
        Ok(Box::new(coder))
    }

    fn decode(
        &mut self,
        parts: &[Vec<u8>],
        cols: usize,
        panel: &mut [f32],
    ) -> Result<(), CodecError> {
        self.grid.decode_rows(&parts[0], self.scales.load(&parts[1]), cols, panel);
        Ok(())
    }
}

/// A fault of the fit, in terms of the pipeline.
pub(super) fn row_error(error: &Error) -> CodecError {
    CodecError::Row { row: error.row(), message: error.to_string() }
}
