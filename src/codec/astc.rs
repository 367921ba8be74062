//! `astc`: one-channel LDR textures with a scale a row, ŵ = a·(2t - 1).
//!
//! Parts: `blocks` U8 [block rows, block columns, 16], in raster order; `scales` F16 [rows].
//! Parameters: `footprint` ("6x6"); `decode` ("unorm8" or "fp16"), how the reader's hardware
//! returns texels; `encoder`, either "native", the search made for weights, with its `effort`
//! ("fast", "default", "best") and its `row_scale`, or "astcenc", ARM's encoder, with its `quality` ("fastest" to
//! "exhaustive"). A `row_scale` of "full" spans each row's largest weight; "searched" may clip
//! it, for less squared error and, on models with outliers, a worse model.

use std::str::FromStr;
use std::sync::Arc;

use compress_model_astc::encode::Preset;
use compress_model_astc::{
    ArmQuality, BlockGrid, Coder, DecodeMode, Encoder, Error, Footprint, RowScale,
};
use half::f16;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::{Codec, CodecError, Params, Part, Worker};

pub(super) const NAME: &str = "astc";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AstcParams {
    #[serde(default = "default_footprint")]
    footprint: String,
    #[serde(default)]
    decode: Decode,
    #[serde(default)]
    encoder: EncoderName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    effort: Option<Effort>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    row_scale: Option<Scale>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quality: Option<Quality>,
}

fn default_footprint() -> String {
    "6x6".to_owned()
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Decode {
    #[default]
    Unorm8,
    Fp16,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EncoderName {
    #[default]
    Native,
    Astcenc,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Effort {
    Fast,
    Default,
    Best,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scale {
    Full,
    Searched,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Quality {
    Fastest,
    Fast,
    Medium,
    Thorough,
    Exhaustive,
}

impl AstcParams {
    /// The encoder asked for; fills in its effort or quality.
    fn encoder(&mut self) -> Result<Encoder, String> {
        match self.encoder {
            EncoderName::Native if self.quality.is_some() => {
                Err("quality belongs to encoder \"astcenc\"; the native one has effort".to_owned())
            }
            EncoderName::Astcenc if self.effort.is_some() || self.row_scale.is_some() => {
                Err("effort and row_scale belong to encoder \"native\"; astcenc has quality".into())
            }
            EncoderName::Native => {
                let preset = match self.effort.get_or_insert(Effort::Default) {
                    Effort::Fast => Preset::Fast,
                    Effort::Default => Preset::Default,
                    Effort::Best => Preset::Best,
                };
                let scale = match self.row_scale.get_or_insert(Scale::Full) {
                    Scale::Full => RowScale::FullRange,
                    Scale::Searched => RowScale::Searched,
                };
                Ok(Encoder::Native(preset, scale))
            }
            EncoderName::Astcenc => {
                Ok(Encoder::Arm(match self.quality.get_or_insert(Quality::Medium) {
                    Quality::Fastest => ArmQuality::Fastest,
                    Quality::Fast => ArmQuality::Fast,
                    Quality::Medium => ArmQuality::Medium,
                    Quality::Thorough => ArmQuality::Thorough,
                    Quality::Exhaustive => ArmQuality::Exhaustive,
                }))
            }
        }
    }
}

#[derive(Debug)]
struct AstcCodec {
    params: AstcParams,
    coder: compress_model_astc::Params,
}

pub(super) fn build(params: Params) -> Result<Arc<dyn Codec>, String> {
    let mut params: AstcParams = super::parse_params(params)?;
    let footprint = Footprint::from_str(&params.footprint).map_err(|e| e.to_string())?;
    let decode = match params.decode {
        Decode::Unorm8 => DecodeMode::Unorm8,
        Decode::Fp16 => DecodeMode::Fp16,
    };
    let encoder = params.encoder()?;
    let coder = compress_model_astc::Params { footprint, decode, encoder };
    Ok(Arc::new(AstcCodec { params, coder }))
}

impl Codec for AstcCodec {
    fn name(&self) -> &'static str {
        NAME
    }

    fn params(&self) -> Params {
        super::write_params(&self.params)
    }

    fn row_multiple(&self) -> usize {
        self.coder.footprint.height()
    }

    fn parts(&self, rows: usize, cols: usize) -> Vec<Part> {
        let grid = BlockGrid::new(rows, cols, self.coder.footprint);
        vec![
            Part {
                suffix: "blocks",
                dtype: Dtype::U8,
                shape: vec![grid.blocks_down(), grid.blocks_across(), 16],
            },
            Part { suffix: "scales", dtype: Dtype::F16, shape: vec![rows] },
        ]
    }

    fn worker(&self) -> Result<Box<dyn Worker>, CodecError> {
        let coder = Coder::new(self.coder).map_err(|e| coder_error(&e))?;
        Ok(Box::new(AstcWorker { coder, scales: Vec::new() }))
    }
}

struct AstcWorker {
    coder: Coder,
    scales: Vec<f16>,
}

impl Worker for AstcWorker {
    fn encode(
        &mut self,
        panel: &[f32],
        cols: usize,
        parts: &mut [Vec<u8>],
    ) -> Result<(), CodecError> {
        let rows = panel.len() / cols;
        self.scales.resize(rows, f16::ZERO);
        self.coder
            .encode_rows(panel, rows, cols, &mut parts[0], &mut self.scales)
            .map_err(|e| coder_error(&e))?;
        parts[1].copy_from_slice(bytemuck::cast_slice(&self.scales));
        Ok(())
    }

    fn decode(
        &mut self,
        parts: &[Vec<u8>],
        cols: usize,
        panel: &mut [f32],
    ) -> Result<(), CodecError> {
        let rows = panel.len() / cols;
        self.scales.resize(rows, f16::ZERO);
        bytemuck::cast_slice_mut(&mut self.scales).copy_from_slice(&parts[1]);
        self.coder
            .decode_rows(&parts[0], &self.scales, rows, cols, panel)
            .map_err(|e| coder_error(&e))
    }
}

pub(super) fn coder_error(error: &Error) -> CodecError {
    match error.row() {
        Some(row) => CodecError::Row { row, message: error.to_string() },
        None => CodecError::Unavailable(error.to_string()),
    }
}
