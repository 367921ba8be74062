//! Codecs that can code a panel column by column, as error feedback does.

mod astc;
mod grid2;
mod int4;

use compress_model_feedback::ColumnCoder;
use half::f16;

pub(super) use astc::AstcColumns;
pub(super) use grid2::Grid2Columns;
pub(super) use int4::Int4Columns;

/// Codes the columns of one panel and then writes the panel's parts.
pub trait PanelCoder: ColumnCoder {
    /// Writes the parts, of the sizes that [`super::Codec::parts`] gives for the panel.
    fn write(&self, parts: &mut [Vec<u8>]);
}

/// Multiplies `scale` by `factor`, and gives the new scale and the factor that fp16 allows. A scale
/// of zero, or a factor that would make it zero, negative or too large, changes nothing.
fn rescaled(scale: f16, factor: f32) -> (f16, f32) {
    let old = scale.to_f32();
    let new = f16::from_f32(old * factor);
    if old > 0.0 && new.is_finite() && new.to_f32() > 0.0 {
        (new, new.to_f32() / old)
    } else {
        (scale, 1.0)
    }
}

/// Copies the accepted tiles of a column of codes.
fn take<T: Copy>(from: &[T], to: &mut [T], tiles: &[bool]) {
    for ((from, to), &tile) in from.iter().zip(to).zip(tiles) {
        if tile {
            *to = *from;
        }
    }
}
