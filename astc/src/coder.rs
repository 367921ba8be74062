//! The matrix-level interface: weights to blocks and row scales, and back.

use half::f16;

#[cfg(feature = "astcenc")]
use crate::arm::ArmContext;
use crate::decode::LuminanceDecoder;
use crate::encode::{Importance, NativeEncoder, Preset, check_length};
use crate::row_scale::row_scale;
use crate::{BlockGrid, Error, Footprint};

/// How the reader's hardware returns LDR texels (KDF 1.3 section 23.19).
///
/// The two differ by up to 0.79 of an 8-bit step, so a file must record which one was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecodeMode {
    /// The top 8 bits of the interpolated value, over 255.
    Unorm8,
    /// The interpolated 16-bit value over 65536, rounded towards zero to fp16.
    Fp16,
}

impl DecodeMode {
    /// Its name in files and reports: "unorm8" or "fp16".
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unorm8 => "unorm8",
            Self::Fp16 => "fp16",
        }
    }
}

/// Search effort of ARM's astcenc, by the names of its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ArmQuality {
    /// `-fastest`.
    Fastest,
    /// `-fast`.
    Fast,
    /// `-medium`.
    Medium,
    /// `-thorough`.
    Thorough,
    /// `-exhaustive`.
    Exhaustive,
}

/// Which program chooses the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoder {
    /// ARM's astcenc; [`Error::NoEncoder`] without the feature `astcenc`.
    Arm(ArmQuality),
    /// This crate's search for weights.
    Native(Preset, RowScale),
}

/// How the native encoder sets the scale of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowScale {
    /// max|w|, rounded up to f16: nothing clips. A clipped outlier costs little squared error,
    /// but can cost the model its function.
    FullRange,
    /// The trial with the least squared error, which may clip the tails of a row.
    Searched,
}

/// What a [`Coder`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Params {
    /// Texels a block.
    pub footprint: Footprint,
    /// Texel precision of the reader; encoders optimise for it.
    pub decode: DecodeMode,
    /// Which program chooses the blocks.
    pub encoder: Encoder,
}

/// Encodes and decodes panels of matrix rows.
///
/// Holds scratch memory and the encoder's tables (made on first use), so that one coder a thread
/// is meant to be kept. Results do not depend on earlier calls or on the thread.
#[derive(Debug)]
pub struct Coder {
    params: Params,
    decoder: Option<LuminanceDecoder>,
    native: Option<Box<NativeEncoder>>,
    #[cfg(feature = "astcenc")]
    arm: Option<ArmContext>,
}

impl Coder {
    /// A coder; cheap, and free of encoder tables until [`encode_rows`](Self::encode_rows).
    pub fn new(params: Params) -> Result<Self, Error> {
        Ok(Self {
            params,
            decoder: None,
            native: None,
            #[cfg(feature = "astcenc")]
            arm: None,
        })
    }

    /// Encodes `rows` x `cols` finite weights, row-major, into blocks in raster order and one
    /// scale a row.
    ///
    /// Texel t = 0.5 + w/(2a). With astcenc and with [`RowScale::FullRange`] a = max|w| rounded up
    /// to f16, so that nothing clips. Blocks over the right or lower edge repeat the last texel
    /// with astcenc; the native encoder lets the padding float. A row below the smallest positive f16 (2^-24) gets
    /// scale 0 and decodes to zeros. `rows` must be a multiple of the footprint's height
    /// unless these are the last rows of the matrix.
    ///
    /// # Errors
    /// [`Error::Length`] if `w` is not rows·cols long, `blocks` not [`BlockGrid::byte_len`] or
    /// `scales` not `rows`; [`Error::NotFinite`]; [`Error::ScaleOverflow`] past 65504;
    /// [`Error::NoEncoder`]; [`Error::Astcenc`].
    pub fn encode_rows(
        &mut self,
        w: &[f32],
        rows: usize,
        cols: usize,
        blocks: &mut [u8],
        scales: &mut [f16],
    ) -> Result<(), Error> {
        let grid = BlockGrid::new(rows, cols, self.params.footprint);
        check_lengths(&grid, w.len(), blocks.len(), scales.len())?;
        if grid.block_count() == 0 {
            scales.fill(f16::ZERO);
            return Ok(());
        }
        match self.params.encoder {
            Encoder::Arm(quality) => {
                full_range_scales(w, cols, scales)?;
                self.encode_arm(quality, &grid, w, blocks, scales)
            }
            Encoder::Native(preset, policy) => {
                let native = native_encoder(&mut self.native, self.params, preset);
                match policy {
                    RowScale::FullRange => {
                        full_range_scales(w, cols, scales)?;
                        native.encode_checked(&grid, w, Importance::Equal, scales, blocks);
                        Ok(())
                    }
                    RowScale::Searched => {
                        native.encode_rows(w, rows, cols, Importance::Equal, blocks, scales)
                    }
                }
            }
        }
    }

    /// The encoder behind [`Encoder::Native`], made on first use, and its policy for row scales;
    /// none with astcenc.
    pub fn native(&mut self) -> Option<(&mut NativeEncoder, RowScale)> {
        match self.params.encoder {
            Encoder::Arm(_) => None,
            Encoder::Native(preset, policy) => {
                Some((native_encoder(&mut self.native, self.params, preset), policy))
            }
        }
    }

    #[cfg(feature = "astcenc")]
    fn encode_arm(
        &mut self,
        quality: ArmQuality,
        grid: &BlockGrid,
        w: &[f32],
        blocks: &mut [u8],
        scales: &[f16],
    ) -> Result<(), Error> {
        let arm = match &mut self.arm {
            Some(arm) => arm,
            none => none.insert(ArmContext::new(grid.footprint, self.params.decode, quality)?),
        };
        let strip_rows = grid.footprint.height();
        let strip_bytes = grid.blocks_across() * BlockGrid::BLOCK_BYTES;
        w.chunks(strip_rows * grid.cols)
            .zip(scales.chunks(strip_rows))
            .zip(blocks.chunks_exact_mut(strip_bytes))
            .try_for_each(|((w, scales), blocks)| arm.encode_strip(w, grid.cols, scales, blocks))
    }

    #[cfg(not(feature = "astcenc"))]
    fn encode_arm(
        &mut self,
        _quality: ArmQuality,
        _grid: &BlockGrid,
        _w: &[f32],
        _blocks: &mut [u8],
        _scales: &[f16],
    ) -> Result<(), Error> {
        Err(Error::NoEncoder("astcenc"))
    }

    /// Decodes blocks and row scales into `rows` x `cols` weights, ŵ = a·(2t̂ - 1) in f32.
    ///
    /// Needs no encoder and no feature. t̂ is the red channel of the texel, so an illegal block
    /// (LDR error colour, magenta) decodes to its rows' scales.
    ///
    /// # Errors
    /// [`Error::Length`] as for [`encode_rows`](Self::encode_rows).
    pub fn decode_rows(
        &mut self,
        blocks: &[u8],
        scales: &[f16],
        rows: usize,
        cols: usize,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let grid = BlockGrid::new(rows, cols, self.params.footprint);
        check_lengths(&grid, out.len(), blocks.len(), scales.len())?;
        if grid.block_count() == 0 {
            return Ok(());
        }
        let Params { footprint, decode, .. } = self.params;
        let decoder = self.decoder.get_or_insert_with(|| LuminanceDecoder::new(footprint, decode));
        let strip_bytes = grid.blocks_across() * BlockGrid::BLOCK_BYTES;
        for ((out, scales), blocks) in out
            .chunks_mut(footprint.height() * cols)
            .zip(scales.chunks(footprint.height()))
            .zip(blocks.chunks_exact(strip_bytes))
        {
            decoder.decode_strip(blocks, scales, cols, out);
        }
        Ok(())
    }
}

fn native_encoder(
    native: &mut Option<Box<NativeEncoder>>,
    params: Params,
    preset: Preset,
) -> &mut NativeEncoder {
    let Params { footprint, decode, .. } = params;
    native.get_or_insert_with(|| Box::new(NativeEncoder::new(footprint, decode, preset)))
}

/// The scales of [`RowScale::FullRange`] for the rows of `w`, row-major with `cols` columns.
///
/// # Errors
/// [`Error::NotFinite`]; [`Error::ScaleOverflow`] for weights past 65504.
pub fn full_range_scales(w: &[f32], cols: usize, scales: &mut [f16]) -> Result<(), Error> {
    for (row, (scale, weights)) in scales.iter_mut().zip(w.chunks_exact(cols)).enumerate() {
        *scale = row_scale(row, weights)?;
    }
    Ok(())
}

fn check_lengths(
    grid: &BlockGrid,
    weights: usize,
    blocks: usize,
    scales: usize,
) -> Result<(), Error> {
    check_length("weights", weights, grid.rows * grid.cols, grid)?;
    check_length("blocks", blocks, grid.byte_len(), grid)?;
    check_length("scales", scales, grid.rows, grid)
}

#[cfg(all(test, not(feature = "astcenc")))]
mod tests {
    use super::*;

    #[test]
    fn encoding_without_an_encoder_is_an_error() {
        let footprint = Footprint::ALL[0];
        let encoder = Encoder::Arm(ArmQuality::Fast);
        let params = Params { footprint, decode: DecodeMode::Unorm8, encoder };
        let mut coder = Coder::new(params).unwrap();
        let result = coder.encode_rows(&[1.0; 16], 4, 4, &mut [0; 16], &mut [f16::ZERO; 4]);
        assert_eq!(result, Err(Error::NoEncoder("astcenc")));
    }
}
