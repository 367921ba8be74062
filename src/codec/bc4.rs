//! `bc4`: one-channel BC4 textures with a scale a row, ŵ = a·(2t - 1).
//!
//! Parts: `blocks` U8 [block rows, block columns, 8], in raster order; `scales` F16 [rows].
//! Parameters: `decode` ("exact" or "unorm8"), how the reader interpolates; `effort` ("fast" or
//! "best", the default), how long the encoder searches.

use std::sync::Arc;

use compress_model_astc::bc4::{self, BLOCK_BYTES, Coder, DecodeMode, Effort};
use compress_model_astc::encode::Importance;
use compress_model_astc::{Footprint, TexelMode};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::astc::coder_error;
use super::halves::Halves;
use super::{Codec, CodecError, Params, Part, Worker};

pub(super) const NAME: &str = "bc4";

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bc4Params {
    #[serde(default)]
    decode: Decode,
    #[serde(default)]
    effort: Search,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Decode {
    #[default]
    Exact,
    Unorm8,
}

impl Decode {
    fn mode(self) -> DecodeMode {
        match self {
            Self::Exact => DecodeMode::Exact,
            Self::Unorm8 => DecodeMode::Unorm8,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Search {
    Fast,
    #[default]
    Best,
}

#[derive(Debug)]
struct Bc4Codec {
    params: Bc4Params,
}

pub(super) fn build(params: Params) -> Result<Arc<dyn Codec>, String> {
    Ok(Arc::new(Bc4Codec { params: super::parse_params(params)? }))
}

impl Codec for Bc4Codec {
    fn name(&self) -> &'static str {
        NAME
    }

    fn params(&self) -> Params {
        super::write_params(&self.params)
    }

    fn row_multiple(&self) -> usize {
        4
    }

    fn parts(&self, rows: usize, cols: usize) -> Vec<Part> {
        let (down, across) = bc4::blocks(rows, cols);
        vec![
            Part { suffix: "blocks", dtype: Dtype::U8, shape: vec![down, across, BLOCK_BYTES] },
            Part { suffix: "scales", dtype: Dtype::F16, shape: vec![rows] },
        ]
    }

    fn texture(&self) -> Option<(Footprint, TexelMode)> {
        Some((bc4::footprint(), self.params.decode.mode().into()))
    }

    fn worker(&self) -> Result<Box<dyn Worker>, CodecError> {
        let decode = self.params.decode.mode();
        let effort = match self.params.effort {
            Search::Fast => Effort::Fast,
            Search::Best => Effort::Best,
        };
        let coder = Coder::new(bc4::Params { decode, effort });
        Ok(Box::new(Bc4Worker { coder, scales: Halves::default() }))
    }
}

struct Bc4Worker {
    coder: Coder,
    scales: Halves,
}

impl Worker for Bc4Worker {
    fn encode(
        &mut self,
        panel: &[f32],
        cols: usize,
        parts: &mut [Vec<u8>],
    ) -> Result<(), CodecError> {
        let rows = panel.len() / cols;
        let scales = self.scales.room(&parts[1]);
        self.coder
            .encode_rows(panel, rows, cols, Importance::Equal, &mut parts[0], scales)
            .map_err(|e| coder_error(&e))?;
        self.scales.store(&mut parts[1]);
        Ok(())
    }

    fn decode(
        &mut self,
        parts: &[Vec<u8>],
        cols: usize,
        panel: &mut [f32],
    ) -> Result<(), CodecError> {
        let rows = panel.len() / cols;
        self.coder
            .decode_rows(&parts[0], self.scales.load(&parts[1]), rows, cols, panel)
            .map_err(|e| coder_error(&e))
    }
}
