//! `astc`: one-channel LDR textures with a scale a row, ŵ = a·(2t - 1).
//!
//! Parts: `blocks` U8 [block rows, block columns, 16], in raster order; `scales` F16 [rows].
//! Parameters: `footprint` ("6x6"); `profile` ("ldr", or "hdr" with its own parts and its
//! `offset`, see `astc_hdr`); of "ldr", `decode` ("unorm8" or "fp16"), how the reader's hardware
//! returns texels; `encoder`, either "native", the search made for weights, with its `effort`
//! ("fast", "default", "best") and its `row_scale`, or "astcenc", ARM's encoder, with its `quality` ("fastest" to
//! "exhaustive"). A `row_scale` of "full" spans each row's largest weight; "searched" may clip
//! it, for less squared error and, on models with outliers, a worse model.

use std::str::FromStr;
use std::sync::Arc;

use compress_model_astc::encode::Preset;
use compress_model_astc::hdr::HdrOffset;
use compress_model_astc::{
    ArmQuality, BlockGrid, Coder, DecodeMode, Encoder, Error, Footprint, RowScale, TexelMode,
};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::halves::Halves;
use super::{Codec, CodecError, Params, Part, Worker};

pub(super) const NAME: &str = "astc";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AstcParams {
    #[serde(default = "default_footprint")]
    footprint: String,
    #[serde(default)]
    profile: Profile,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decode: Option<Decode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encoder: Option<EncoderName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    effort: Option<Effort>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    row_scale: Option<Scale>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quality: Option<Quality>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset: Option<Offset>,
}

fn default_footprint() -> String {
    "6x6".to_owned()
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Profile {
    #[default]
    Ldr,
    Hdr,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Offset {
    Fitted,
    Minimum,
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
        match *self.encoder.get_or_insert_default() {
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

impl AstcParams {
    /// The offset policy of profile "hdr"; fills it in.
    fn hdr_offset(&mut self) -> Result<HdrOffset, String> {
        let of_ldr = [
            ("decode", self.decode.is_some()),
            ("encoder", self.encoder.is_some()),
            ("effort", self.effort.is_some()),
            ("row_scale", self.row_scale.is_some()),
            ("quality", self.quality.is_some()),
        ];
        if let Some((name, _)) = of_ldr.iter().find(|(_, given)| *given) {
            return Err(format!("{name} belongs to profile \"ldr\"; profile \"hdr\" has offset"));
        }
        Ok(match self.offset.get_or_insert(Offset::Fitted) {
            Offset::Fitted => HdrOffset::Fitted,
            Offset::Minimum => HdrOffset::Minimum,
        })
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
    if matches!(params.profile, Profile::Hdr) {
        let offset = params.hdr_offset()?;
        return Ok(super::astc_hdr::codec(super::write_params(&params), footprint, offset));
    }
    if params.offset.is_some() {
        return Err("offset belongs to profile \"hdr\"; profile \"ldr\" has row scales".to_owned());
    }
    let decode = match params.decode.get_or_insert_default() {
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

    fn texture(&self) -> Option<(Footprint, TexelMode)> {
        Some((self.coder.footprint, self.coder.decode.into()))
    }

    #[cfg(feature = "model")]
    fn column_unit(&self) -> Option<usize> {
        match self.coder.encoder {
            Encoder::Native(..) => Some(self.coder.footprint.width()),
            _ => None,
        }
    }

    fn worker(&self) -> Result<Box<dyn Worker>, CodecError> {
        let coder = Coder::new(self.coder).map_err(|e| coder_error(&e))?;
        Ok(Box::new(AstcWorker {
            #[cfg(feature = "model")]
            footprint: self.coder.footprint,
            coder,
            scales: Halves::default(),
        }))
    }
}

struct AstcWorker {
    coder: Coder,
    scales: Halves,
    #[cfg(feature = "model")]
    footprint: Footprint,
}

impl Worker for AstcWorker {
    fn encode(
        &mut self,
        panel: &[f32],
        cols: usize,
        parts: &mut [Vec<u8>],
    ) -> Result<(), CodecError> {
        let rows = panel.len() / cols;
        let scales = self.scales.room(&parts[1]);
        self.coder
            .encode_rows(panel, rows, cols, &mut parts[0], scales)
            .map_err(|e| coder_error(&e))?;
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
        let Some((encoder, row_scale)) = self.coder.native() else {
            return Err(CodecError::Unavailable("astcenc codes whole panels only".to_owned()));
        };
        let coder = super::columns::AstcColumns::new(
            panel,
            cols,
            importance,
            self.footprint,
            encoder,
            row_scale,
        )
        .map_err(|e| coder_error(&e))?;
        Ok(Box::new(coder))
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

/// A fault of the coder, in terms of the pipeline.
pub(super) fn coder_error(error: &Error) -> CodecError {
    match error.row() {
        Some(row) => CodecError::Row { row, message: error.to_string() },
        None => CodecError::Unavailable(error.to_string()),
    }
}
