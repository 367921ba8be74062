//! Which texels a reader makes of a texture's blocks: the codec, and its precision.

use half::f16;

use crate::hdr::HdrDecoder;
use crate::{ArmQuality, BlockGrid, Coder, DecodeMode, Encoder, Error, Footprint, Params, bc4};

/// The codec of a texture that holds one weight a texel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TextureCodec {
    /// ASTC LDR blocks of 16 bytes, of any 2D footprint, and a scale a row.
    Astc,
    /// ASTC HDR blocks of 16 bytes, of any 2D footprint, and an offset a block.
    AstcHdr,
    /// BC4 blocks of 8 bytes, 4x4, and a scale a row.
    Bc4,
}

impl TextureCodec {
    /// Every codec.
    pub const ALL: [Self; 3] = [Self::Astc, Self::AstcHdr, Self::Bc4];

    /// Its name in reports: "astc", "astc-hdr" or "bc4".
    pub const fn name(self) -> &'static str {
        match self {
            Self::Astc => "astc",
            Self::AstcHdr => "astc-hdr",
            Self::Bc4 => "bc4",
        }
    }

    /// Its name in messages.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Astc => "ASTC",
            Self::AstcHdr => "ASTC HDR",
            Self::Bc4 => "BC4",
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::Astc | Self::AstcHdr => BlockGrid::BLOCK_BYTES,
            Self::Bc4 => bc4::BLOCK_BYTES,
        }
    }

    /// The footprints that it has.
    pub fn footprints(self) -> Vec<Footprint> {
        match self {
            Self::Astc | Self::AstcHdr => Footprint::ALL.to_vec(),
            Self::Bc4 => vec![bc4::footprint()],
        }
    }

    /// How many f16 numbers stand beside the blocks of a matrix: one scale a row, or one offset a
    /// block.
    pub const fn side_count(self, grid: &BlockGrid) -> usize {
        match self {
            Self::Astc | Self::Bc4 => grid.rows,
            Self::AstcHdr => grid.block_count(),
        }
    }

    /// Every precision with which some reader decodes it.
    pub const fn modes(self) -> &'static [TexelMode] {
        use bc4::DecodeMode::{Exact, Llvmpipe, Unorm8};
        match self {
            Self::Astc => &[TexelMode::Astc(DecodeMode::Unorm8), TexelMode::Astc(DecodeMode::Fp16)],
            Self::AstcHdr => &[TexelMode::AstcHdr],
            Self::Bc4 => &[TexelMode::Bc4(Exact), TexelMode::Bc4(Unorm8), TexelMode::Bc4(Llvmpipe)],
        }
    }
}

/// A codec and the precision of its texels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TexelMode {
    /// ASTC LDR.
    Astc(DecodeMode),
    /// ASTC HDR: always fp16.
    AstcHdr,
    /// BC4.
    Bc4(bc4::DecodeMode),
}

impl TexelMode {
    /// The codec.
    pub const fn codec(self) -> TextureCodec {
        match self {
            Self::Astc(_) => TextureCodec::Astc,
            Self::AstcHdr => TextureCodec::AstcHdr,
            Self::Bc4(_) => TextureCodec::Bc4,
        }
    }

    /// The precision's name in files and reports: "unorm8", "fp16", "exact" or "llvmpipe".
    pub const fn name(self) -> &'static str {
        match self {
            Self::Astc(mode) => mode.name(),
            Self::AstcHdr => DecodeMode::Fp16.name(),
            Self::Bc4(mode) => mode.name(),
        }
    }

    /// The n of which every texel is a whole number of n-ths; `None` for fp16.
    ///
    /// A seventh and a fifth of 1/255 are 5/8925 and 7/8925.
    pub const fn steps(self) -> Option<u32> {
        match self {
            Self::Astc(DecodeMode::Fp16) | Self::AstcHdr => None,
            Self::Bc4(bc4::DecodeMode::Exact) => Some(255 * 35),
            _ => Some(255),
        }
    }

    /// The weights of a matrix, row-major, as the CPU reference decodes them: `blocks` in raster
    /// order, and beside them in `side` one scale a row or one offset a block
    /// ([`TextureCodec::side_count`]).
    ///
    /// # Errors
    /// [`Error::Length`] if a slice does not fit `grid`.
    ///
    /// # Panics
    /// If the codec is BC4 and the footprint is not 4x4.
    pub fn decode_rows(
        self,
        grid: &BlockGrid,
        blocks: &[u8],
        side: &[f16],
        out: &mut [f32],
    ) -> Result<(), Error> {
        let BlockGrid { rows, cols, footprint } = *grid;
        match self {
            Self::Astc(decode) => {
                // Decoding needs no encoder.
                let encoder = Encoder::Arm(ArmQuality::Fastest);
                let mut coder = Coder::new(Params { footprint, decode, encoder })?;
                coder.decode_rows(blocks, side, rows, cols, out)
            }
            Self::AstcHdr => HdrDecoder::new(footprint).decode_rows(blocks, side, rows, cols, out),
            Self::Bc4(decode) => {
                assert!(footprint == bc4::footprint(), "BC4 blocks are 4x4, not {footprint}");
                let effort = bc4::Effort::Fast;
                let coder = bc4::Coder::new(bc4::Params { decode, effort });
                coder.decode_rows(blocks, side, rows, cols, out)
            }
        }
    }
}

impl From<DecodeMode> for TexelMode {
    fn from(mode: DecodeMode) -> Self {
        Self::Astc(mode)
    }
}

impl From<bc4::DecodeMode> for TexelMode {
    fn from(mode: bc4::DecodeMode) -> Self {
        Self::Bc4(mode)
    }
}
