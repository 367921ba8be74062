//! Profile "hdr" of `astc`: HDR luminance with an offset a block, ŵ = t + offset.
//!
//! The form of the published system, 128 + 16 bits a block. Parts: `blocks` U8 [block rows, block
//! columns, 16] and `offsets` F16 [block rows, block columns], both in raster order. Parameters:
//! `footprint` ("6x6") and `offset`, "fitted" with the block's endpoints or its "minimum".

use std::sync::Arc;

use compress_model_astc::hdr::{HdrDecoder, HdrEncoder, HdrOffset};
use compress_model_astc::{BlockGrid, Footprint, TexelMode};
use safetensors::Dtype;

use super::astc::{NAME, coder_error};
use super::halves::Halves;
use super::{Codec, CodecError, Params, Part, Worker};

#[derive(Debug)]
struct HdrCodec {
    params: Params,
    footprint: Footprint,
    offset: HdrOffset,
}

/// The codec; `params` are all its parameters.
pub(super) fn codec(params: Params, footprint: Footprint, offset: HdrOffset) -> Arc<dyn Codec> {
    Arc::new(HdrCodec { params, footprint, offset })
}

impl Codec for HdrCodec {
    fn name(&self) -> &'static str {
        NAME
    }

    fn params(&self) -> Params {
        self.params.clone()
    }

    fn row_multiple(&self) -> usize {
        self.footprint.height()
    }

    fn parts(&self, rows: usize, cols: usize) -> Vec<Part> {
        let grid = BlockGrid::new(rows, cols, self.footprint);
        let (down, across) = (grid.blocks_down(), grid.blocks_across());
        vec![
            Part { suffix: "blocks", dtype: Dtype::U8, shape: vec![down, across, 16] },
            Part { suffix: "offsets", dtype: Dtype::F16, shape: vec![down, across] },
        ]
    }

    fn texture(&self) -> Option<(Footprint, TexelMode)> {
        Some((self.footprint, TexelMode::AstcHdr))
    }

    fn worker(&self) -> Result<Box<dyn Worker>, CodecError> {
        let Self { footprint, offset, .. } = *self;
        let decoder = HdrDecoder::new(footprint);
        Ok(Box::new(HdrWorker {
            footprint,
            offset,
            encoder: None,
            decoder,
            offsets: Halves::default(),
        }))
    }
}

struct HdrWorker {
    footprint: Footprint,
    offset: HdrOffset,
    /// Made on first use: workers that only decode need no search tables.
    encoder: Option<Box<HdrEncoder>>,
    decoder: HdrDecoder,
    offsets: Halves,
}

impl Worker for HdrWorker {
    fn encode(
        &mut self,
        panel: &[f32],
        cols: usize,
        parts: &mut [Vec<u8>],
    ) -> Result<(), CodecError> {
        let (footprint, offset) = (self.footprint, self.offset);
        let encoder =
            self.encoder.get_or_insert_with(|| Box::new(HdrEncoder::new(footprint, offset)));
        let offsets = self.offsets.room(&parts[1]);
        encoder
            .encode_rows(panel, panel.len() / cols, cols, &mut parts[0], offsets)
            .map_err(|e| coder_error(&e))?;
        self.offsets.store(&mut parts[1]);
        Ok(())
    }

    fn decode(
        &mut self,
        parts: &[Vec<u8>],
        cols: usize,
        panel: &mut [f32],
    ) -> Result<(), CodecError> {
        let offsets = self.offsets.load(&parts[1]);
        self.decoder
            .decode_rows(&parts[0], offsets, panel.len() / cols, cols, panel)
            .map_err(|e| coder_error(&e))
    }
}
