//! `int4`: 4-bit groups, ŵ = scale·q + min with q in 0..=15.
//!
//! Parts: `codes` U8 [rows, ceil(cols/2)], two codes to a byte; `scales` and `mins` F16
//! [rows, groups]. Parameter `group`: weights that share scale and minimum, 64 if absent.

use std::num::NonZeroUsize;
use std::sync::Arc;

use compress_model_qat::Int4;
use half::f16;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::grid2::row_error;
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

    fn worker(&self) -> Result<Box<dyn Worker>, CodecError> {
        Ok(Box::new(Int4Worker { groups: self.groups(), scales: Vec::new(), mins: Vec::new() }))
    }
}

struct Int4Worker {
    groups: Int4,
    scales: Vec<f16>,
    mins: Vec<f16>,
}

impl Int4Worker {
    fn resize(&mut self, bytes: usize) {
        self.scales.resize(bytes / 2, f16::ZERO);
        self.mins.resize(bytes / 2, f16::ZERO);
    }
}

impl Worker for Int4Worker {
    fn encode(
        &mut self,
        panel: &[f32],
        cols: usize,
        parts: &mut [Vec<u8>],
    ) -> Result<(), CodecError> {
        self.resize(parts[1].len());
        self.groups
            .encode_rows(panel, cols, &mut parts[0], &mut self.scales, &mut self.mins)
            .map_err(|e| row_error(&e))?;
        parts[1].copy_from_slice(bytemuck::cast_slice(&self.scales));
        parts[2].copy_from_slice(bytemuck::cast_slice(&self.mins));
        Ok(())
    }

    fn decode(
        &mut self,
        parts: &[Vec<u8>],
        cols: usize,
        panel: &mut [f32],
    ) -> Result<(), CodecError> {
        self.resize(parts[1].len());
        bytemuck::cast_slice_mut(&mut self.scales).copy_from_slice(&parts[1]);
        bytemuck::cast_slice_mut(&mut self.mins).copy_from_slice(&parts[2]);
        self.groups.decode_rows(&parts[0], &self.scales, &self.mins, cols, panel);
        Ok(())
    }
}
