//! Weight infill (KDF 1.3 section 23.18): a weight for every texel from a coarser grid.

use crate::Footprint;

/// The four grid points around a texel, and their shares of 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InfillPoint {
    /// Raster index of the upper left grid point; the others are 1, `grid_width` and
    /// `grid_width + 1` further. Points past the grid's edge have a share of 0.
    pub first: u8,
    /// Shares in that order; they sum to 16.
    pub shares: [u8; 4],
}

/// Maps the texels of a footprint to a weight grid.
#[derive(Debug, Clone)]
pub struct Infill {
    grid_width: u8,
    points: Vec<InfillPoint>,
}

impl Infill {
    /// Bytes that [`weight`](Self::weight) may look at: 64 weights and one row and column past
    /// them.
    pub const PADDED_WEIGHTS: usize = 64 + 16;

    /// The map from a grid of `grid_width` x `grid_height` (2..=12 each) to `footprint`.
    pub fn new(footprint: Footprint, grid_width: u8, grid_height: u8) -> Self {
        let (width, height) = (footprint.width(), footprint.height());
        let points = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .map(|(x, y)| {
                let across = sixteenths(x, width, grid_width);
                let down = sixteenths(y, height, grid_height);
                let (fx, fy) = (across & 0xF, down & 0xF);
                let both = (fx * fy + 8) >> 4;
                InfillPoint {
                    first: ((across >> 4) + (down >> 4) * usize::from(grid_width)) as u8,
                    shares: [16 + both - fx - fy, fx - both, fy - both, both].map(|s| s as u8),
                }
            })
            .collect();
        Self { grid_width, points }
    }

    /// The points of all texels in raster order.
    pub fn points(&self) -> &[InfillPoint] {
        &self.points
    }

    /// Weight 0..=64 of the texel at `point` from the unquantised weights 0..=64 of the grid.
    pub fn weight(&self, point: InfillPoint, grid: &[u8; Self::PADDED_WEIGHTS]) -> u8 {
        let first = usize::from(point.first);
        let below = first + usize::from(self.grid_width);
        let sum: u32 = [first, first + 1, below, below + 1]
            .iter()
            .zip(point.shares)
            .map(|(&index, share)| u32::from(grid[index]) * u32::from(share))
            .sum();
        ((sum + 8) >> 4) as u8
    }
}

/// Place of texel `position` of `size` on a grid of `points`, in 16ths of the grid's spacing.
fn sixteenths(position: usize, size: usize, points: u8) -> usize {
    let step = (1024 + size / 2) / (size - 1);
    (step * position * usize::from(points - 1) + 32) >> 6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_grid_is_the_identity_and_shares_sum_to_16() {
        for footprint in Footprint::ALL {
            let full = Infill::new(footprint, footprint.width() as u8, footprint.height() as u8);
            for (texel, point) in full.points().iter().enumerate() {
                assert_eq!(*point, InfillPoint { first: texel as u8, shares: [16, 0, 0, 0] });
            }
            for grid_width in 2..=footprint.width() as u8 {
                let infill = Infill::new(footprint, grid_width, 2);
                assert!(infill.points().iter().all(|p| p.shares.iter().sum::<u8>() == 16));
            }
        }
    }

    #[test]
    fn weights_worked_by_hand() {
        // 4x4 texels on a 2x2 grid: texels lie at 0, 5, 11 and 16 sixteenths.
        let infill = Infill::new(Footprint::new(4, 4).unwrap(), 2, 2);
        let mut grid = [0; Infill::PADDED_WEIGHTS];
        grid[..4].copy_from_slice(&[0, 64, 32, 64]);
        assert_eq!(infill.points()[5].shares, [16 - 5 - 5 + 2, 3, 3, 2]);
        let weights: Vec<u8> = infill.points().iter().map(|&p| infill.weight(p, &grid)).collect();
        assert_eq!(weights[..4], [0, 20, 44, 64]);
        assert_eq!(weights[5], ((3 * 64 + 3 * 32 + 2 * 64 + 8) >> 4) as u8);
        assert_eq!(weights[12..], [32, 42, 54, 64]);
    }
}
