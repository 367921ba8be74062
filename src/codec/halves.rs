//! F16 parts: numbers of a codec, and bytes of unknown alignment where they are stored.

use half::f16;

/// Scratch memory for the numbers of one part of a panel, kept from panel to panel.
#[derive(Debug, Default)]
pub(super) struct Halves(Vec<f16>);

impl Halves {
    /// Room for the numbers that `part` will hold, to be filled.
    pub(super) fn room(&mut self, part: &[u8]) -> &mut [f16] {
        self.0.resize(part.len() / 2, f16::ZERO);
        &mut self.0
    }

    /// Copies what fills the room into `part`.
    pub(super) fn store(&self, part: &mut [u8]) {
        part.copy_from_slice(bytemuck::cast_slice(&self.0));
    }

    /// The numbers of `part`.
    pub(super) fn load(&mut self, part: &[u8]) -> &[f16] {
        let room = self.room(part);
        bytemuck::cast_slice_mut(room).copy_from_slice(part);
        room
    }
}
