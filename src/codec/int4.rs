//! `int4`: 4-bit groups, ŵ = scale·q + min with q in 0..=15.
//!
//! Parts: `codes` U8 [rows, ceil(cols/2)], two codes to a byte; `scales` and `mins` F16
//! [rows, groups]. Parameter `group`: weights that share scale and minimum, 64 if absent.

use std::num::NonZeroUsize;
use std::sync::Arc;

use compress_model_qat::Int4;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::grid2::row_error;
use super::halves::Halves;
use super::{Codec, CodecError, Params, Part, Worker};

pub(super) const NAME: &str = "int4";

const DEFAULT_GROUP: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not zero");

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Int4Params {
    #[serde(default = "default_group")]
    group: NonZeroUsize,
}

fn default_group() -> NonZeroUsize {
    DEFAULT_GROUP
}

#[derive(Debug)]
struct Int4Codec {
    params: Int4Params,
}

pub(super) fn build(params: Params) -> Result<Arc<dyn Codec>, String> {
    Ok(Arc::new(Int4Codec { params: super::parse_params(params)? }))
}

impl Int4Codec {
    fn groups(&self) -> Int4 {
        Int4::grouped(self.params.group)
    }
}

impl Codec for Int4Codec {
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
        let groups = self.groups();
        let per_group = vec![rows, groups.scales_per_row(cols)];
        let codes = vec![rows, groups.code_bytes_per_row(cols)];
        vec![
            Part { suffix: "codes", dtype: Dtype::U8, shape: codes },
            Part { suffix: "scales", dtype: Dtype::F16, shape: per_group.clone() },
            Part { suffix: "mins", dtype: Dtype::F16, shape: per_group },
        ]
    }

    #[cfg(feature = "model")]
    fn column_unit(&self) -> Option<usize> {
        Some(1)
    }

    fn worker(&self) -> Result<Box<dyn Worker>, CodecError> {
        Ok(Box::new(Int4Worker {
            groups: self.groups(),
            scales: Halves::default(),
            mins: Halves::default(),
        }))
    }
}

struct Int4Worker {
    groups: Int4,
    scales: Halves,
    mins: Halves,
}

impl Worker for Int4Worker {
    fn encode(
        &mut self,
        panel: &[f32],
        cols: usize,
        parts: &mut [Vec<u8>],
    ) -> Result<(), CodecError> {
        let (scales, mins) = (self.scales.room(&parts[1]), self.mins.room(&parts[2]));
        self.groups
            .encode_rows(panel, cols, &mut parts[0], scales, mins)
            .map_err(|e| row_error(&e))?;
        self.scales.store(&mut parts[1]);
        self.mins.store(&mut parts[2]);
        Ok(())
    }

    #[cfg(feature = "model")]
    fn column_coder<'w>(
        &'w mut self,
        panel: &[f32],
        cols: usize,
        _: &[f32],
    ) -> Result<Box<dyn super::PanelCoder + 'w>, CodecError> {
        let coder = super::columns::Int4Columns::new(panel, cols, self.groups)
            .map_err(|e| row_error(&e))?;
        Ok(Box::new(coder))
    }

    fn decode(
        &mut self,
        parts: &[Vec<u8>],
        cols: usize,
        panel: &mut [f32],
    ) -> Result<(), CodecError> {
        let (scales, mins) = (self.scales.load(&parts[1]), self.mins.load(&parts[2]));
        self.groups.decode_rows(&parts[0], scales, mins, cols, panel);
        Ok(())
    }
}
