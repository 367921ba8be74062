//! What an adapter really does with ASTC blocks: nothing is trusted before this has passed.
//!
//! A driver exists that reports ASTC and returns zeros, and those that decode do it with one of
//! two precisions that no interface tells. So a fixed set of blocks is decoded in every footprint
//! and compared with the CPU reference: every block mode, hence every weight range, weight grid
//! and plane count, with 1 to 4 partitions, random and extreme endpoints; and constant blocks.

use half::f16;

use super::{DecodePath, Gpu, GpuDecoder, GpuError, PathChoice};
use crate::decode::{Profile, decode_fp16, decode_unorm8};
use crate::tables::{BlockMode, Quant, colour_values, write_ise};
use crate::{ArmQuality, BlockGrid, Coder, DecodeMode, Encoder, Footprint, Params};

/// What the texture unit returns for LDR blocks in one texture format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The top 8 bits of the interpolation, over 255.
    Unorm8,
    /// The interpolation rounded towards zero to fp16.
    Fp16,
    /// Something else, or nothing: the reason.
    Refused(String),
}

impl Verdict {
    /// The precision, if the format can be trusted.
    pub const fn mode(&self) -> Option<DecodeMode> {
        match self {
            Self::Unorm8 => Some(DecodeMode::Unorm8),
            Self::Fp16 => Some(DecodeMode::Fp16),
            Self::Refused(_) => None,
        }
    }
}

/// What the self-test of one adapter found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfTest {
    /// The LDR (unorm) format.
    pub ldr: Verdict,
    /// The HDR format, which also takes LDR blocks, where the adapter reports it.
    pub hdr: Option<Verdict>,
}

/// How far a unorm8 texel times 255 may be from its code; the unit's division is not exact.
const CODE_TOLERANCE: f32 = 1.0 / 2048.0;

impl SelfTest {
    /// Samples the known blocks in every format that `gpu` reports.
    ///
    /// # Errors
    /// A driver that fails; wrong results are a [`Verdict::Refused`].
    pub fn run(gpu: &Gpu) -> Result<Self, GpuError> {
        let ldr = if gpu.info().astc {
            sampled_verdict(gpu, wgpu::AstcChannel::Unorm)?
        } else {
            Verdict::Refused("it reports no ASTC textures".to_owned())
        };
        let hdr = if gpu.info().astc_hdr {
            Some(sampled_verdict(gpu, wgpu::AstcChannel::Hdr)?)
        } else {
            None
        };
        Ok(Self { ldr, hdr })
    }

    /// The texture format that samples with precision `mode`.
    pub(super) fn channel(&self, mode: DecodeMode) -> Option<wgpu::AstcChannel> {
        let finds = |verdict: &Verdict| verdict.mode() == Some(mode);
        if finds(&self.ldr) {
            return Some(wgpu::AstcChannel::Unorm);
        }
        self.hdr.as_ref().is_some_and(finds).then_some(wgpu::AstcChannel::Hdr)
    }

    /// The precision that sampling has: `wanted` if any format gives it.
    pub fn sampled_mode(&self, wanted: DecodeMode) -> Option<DecodeMode> {
        let other = match wanted {
            DecodeMode::Unorm8 => DecodeMode::Fp16,
            DecodeMode::Fp16 => DecodeMode::Unorm8,
        };
        [wanted, other].into_iter().find(|&mode| self.channel(mode).is_some())
    }

    /// Why the LDR format is refused, if it is.
    pub fn refusal(&self) -> Option<&str> {
        match &self.ldr {
            Verdict::Refused(reason) => Some(reason),
            _ => None,
        }
    }
}

impl<'g> GpuDecoder<'g> {
    /// A decoder along the path of `choice` for weights made for readers of precision `wanted`.
    ///
    /// Automatic: the texture unit where it passes the self-test, with the precision found, else
    /// the compute shader with `wanted`. The compute shader is tested as well before it is used.
    ///
    /// # Errors
    /// [`GpuError::Refused`] if the path's results are wrong, or a driver that fails.
    pub fn choose(gpu: &'g Gpu, choice: PathChoice, wanted: DecodeMode) -> Result<Self, GpuError> {
        if choice != PathChoice::Computed {
            let found = gpu.self_test()?;
            if let Some(mode) = found.sampled_mode(wanted) {
                return Self::new(gpu, DecodePath::Sampled(mode));
            }
            if choice == PathChoice::Sampled {
                return Err(gpu.refused(found.refusal().unwrap_or_default()));
            }
        }
        let decoder = Self::new(gpu, DecodePath::Computed(wanted))?;
        match decoder.computed_fault()? {
            None => Ok(decoder),
            Some(reason) => Err(gpu.refused(reason)),
        }
    }

    /// Decodes the known blocks and says what is wrong with the weights, if anything is.
    ///
    /// # Errors
    /// A driver that fails.
    pub fn computed_fault(&self) -> Result<Option<String>, GpuError> {
        let decode = self.path().mode();
        for footprint in Footprint::ALL {
            let known = KnownBlocks::new(footprint);
            let grid = known.grid;
            let scales = vec![f16::ONE; grid.rows];
            let mut expected = vec![0.0; grid.rows * grid.cols];
            // Decoding needs no encoder.
            let encoder = Encoder::Arm(ArmQuality::Fastest);
            Coder::new(Params { footprint, decode, encoder })?.decode_rows(
                &known.bytes,
                &scales,
                grid.rows,
                grid.cols,
                &mut expected,
            )?;
            let mut found = vec![0.0; expected.len()];
            let matrix = self.upload(grid, &known.bytes, &scales)?;
            self.decode(&matrix, 0..grid.rows, &mut found)?;
            let differing = expected.iter().zip(&found).filter(|(e, f)| e.to_bits() != f.to_bits());
            let count = differing.count();
            if count > 0 {
                return Ok(Some(format!(
                    "its compute shaders decode {count} of {} known {footprint} weights wrongly",
                    expected.len()
                )));
            }
        }
        Ok(None)
    }
}

fn sampled_verdict(gpu: &Gpu, channel: wgpu::AstcChannel) -> Result<Verdict, GpuError> {
    // The texels themselves are read, so the precision of the path does not matter.
    let path = DecodePath::Sampled(DecodeMode::Unorm8);
    let decoder = GpuDecoder::with_channel(gpu, path, channel)?;
    let mut tally = Tally::default();
    for footprint in Footprint::ALL {
        let known = KnownBlocks::new(footprint);
        let grid = known.grid;
        let mut found = vec![0.0; grid.rows * grid.cols];
        let matrix = decoder.upload(grid, &known.bytes, &vec![f16::ONE; grid.rows])?;
        decoder.texels(&matrix, 0..grid.rows, &mut found)?;
        tally.add(&known, &found);
    }
    Ok(tally.verdict())
}

/// Comparison of sampled texels with both references.
#[derive(Debug, Default)]
struct Tally {
    texels: usize,
    zeros: usize,
    wrong_unorm8: usize,
    wrong_fp16: usize,
    /// Footprint, expected unorm8, expected fp16 and found value of the first texel that is
    /// neither.
    first: Option<(Footprint, f32, f32, f32)>,
}

impl Tally {
    fn add(&mut self, known: &KnownBlocks, found: &[f32]) {
        let footprint = known.grid.footprint;
        let (width, height, cols) = (footprint.width(), footprint.height(), known.grid.cols);
        let mut codes = vec![[0; 4]; footprint.texels()];
        let mut halves = vec![[f16::ZERO; 4]; footprint.texels()];
        let blocks = known.bytes.chunks_exact(BlockGrid::BLOCK_BYTES);
        for (index, block) in blocks.enumerate() {
            let block = block.try_into().expect("invariant: chunks of 16 bytes");
            // All known blocks are legal; an illegal one would compare as the error colour.
            let _ = decode_unorm8(block, footprint, &mut codes);
            let _ = decode_fp16(block, footprint, Profile::Ldr, &mut halves);
            let across = known.grid.blocks_across();
            let first = index / across * height * cols + index % across * width;
            for (texel, (code, half)) in codes.iter().zip(&halves).enumerate() {
                let t = found[first + texel / width * cols + texel % width];
                self.add_texel(footprint, code[0], half[0].to_f32(), t);
            }
        }
    }

    fn add_texel(&mut self, footprint: Footprint, code: u8, half: f32, found: f32) {
        let is_unorm8 = (found * 255.0 - f32::from(code)).abs() <= CODE_TOLERANCE;
        let is_fp16 = found == half;
        self.texels += 1;
        self.zeros += usize::from(found == 0.0);
        self.wrong_unorm8 += usize::from(!is_unorm8);
        self.wrong_fp16 += usize::from(!is_fp16);
        if !is_unorm8 && !is_fp16 {
            self.first.get_or_insert((footprint, f32::from(code) / 255.0, half, found));
        }
    }

    fn verdict(&self) -> Verdict {
        match (self.wrong_unorm8, self.wrong_fp16) {
            (0, _) => Verdict::Unorm8,
            (_, 0) => Verdict::Fp16,
            _ if self.zeros == self.texels => {
                Verdict::Refused("it reports ASTC textures but samples every texel as 0".to_owned())
            }
            (unorm8, fp16) => {
                let example = self.first.map_or(String::new(), |(footprint, code, half, found)| {
                    format!("; the first is {found} in a {footprint} block, not {code} or {half}")
                });
                Verdict::Refused(format!(
                    "of {} known texels, {unorm8} differ from unorm8 and {fp16} from fp16{example}",
                    self.texels
                ))
            }
        }
    }
}

/// The blocks of one footprint, in rows of [`KnownBlocks::ACROSS`].
struct KnownBlocks {
    grid: BlockGrid,
    bytes: Vec<u8>,
}

impl KnownBlocks {
    const ACROSS: usize = 64;

    fn new(footprint: Footprint) -> Self {
        let mut noise = Noise(footprint.texels() as u64);
        let mut blocks: Vec<u128> =
            [0, 1, 0x00FF, 0x0100, 0x7FFF, 0x8000, 0xFEFF, 0xFFFE, 0xFFFF].map(constant).into();
        let mut seen = Vec::new();
        for bits in 0..1 << 11 {
            let Some(mode) = BlockMode::decode(bits).filter(|mode| mode.fits(footprint)) else {
                continue;
            };
            if seen.contains(&mode) {
                continue;
            }
            seen.push(mode);
            for partitions in 1..=if mode.dual_plane { 3 } else { 4 } {
                blocks.extend(luminance(bits, mode, partitions, &mut noise).into_iter().flatten());
            }
        }
        let down = blocks.len().div_ceil(Self::ACROSS);
        blocks.resize(down * Self::ACROSS, constant(0x1234));
        let (rows, cols) = (down * footprint.height(), Self::ACROSS * footprint.width());
        let bytes = blocks.into_iter().flat_map(u128::to_le_bytes).collect();
        Self { grid: BlockGrid::new(rows, cols, footprint), bytes }
    }
}

/// A void-extent block without a rectangle, all four channels alike.
fn constant(value: u16) -> u128 {
    let colour = u128::from(value) * 0x0001_0001_0001_0001;
    colour << 64 | 0xFFFF_FFFF_FFFF_FDFC
}

/// Two blocks of a mode, of random weights and seed: random endpoints, and the two extremes.
fn luminance(
    bits: u16,
    mode: BlockMode,
    partitions: usize,
    noise: &mut Noise,
) -> Option<[u128; 2]> {
    let start = if partitions == 1 { 17 } else { 29 };
    let plane_bits = if mode.dual_plane { 2 } else { 0 };
    let room = (128 - mode.weight_bits()).checked_sub(start + plane_bits)?;
    let quant = Quant::largest_fitting(2 * partitions, room).filter(|&q| q >= Quant::COLOUR_MIN)?;
    let header = u128::from(bits) | (partitions as u128 - 1) << 11;
    // Colour endpoint mode 0 lies in bits 13..17, or 23..29 behind the seed.
    let seed = if partitions == 1 { 0 } else { u128::from(noise.next() & 0x3FF) << 13 };
    let payload = (u128::from(noise.next()) << 64 | u128::from(noise.next())) >> start << start;
    let sequence = quant.ise_bits(2 * partitions);
    let code = |value: u8| colour_values(quant).iter().position(|&v| v == value).map(|c| c as u8);
    let (low, high) = (code(0)?, code(255)?);
    let extremes: Vec<u8> = [low, high].into_iter().cycle().take(2 * partitions).collect();
    let hole = !(((1_u128 << sequence) - 1) << start);
    let extreme = payload & hole | write_ise(quant, &extremes) << start;
    Some([payload, extreme].map(|payload| header | seed | payload))
}

/// A fixed sequence of well-mixed integers (SplitMix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_blocks_are_legal_and_tell_the_precisions_apart() {
        for footprint in Footprint::ALL {
            let known = KnownBlocks::new(footprint);
            let mut codes = vec![[0; 4]; footprint.texels()];
            let mut halves = vec![[f16::ZERO; 4]; footprint.texels()];
            let (mut low, mut high, mut apart) = (0, 0, 0);
            for block in known.bytes.chunks_exact(16) {
                let block = block.try_into().unwrap();
                decode_unorm8(block, footprint, &mut codes).unwrap();
                decode_fp16(block, footprint, Profile::Ldr, &mut halves).unwrap();
                for (code, half) in codes.iter().zip(&halves) {
                    low += usize::from(code[0] == 0);
                    high += usize::from(code[0] == 255);
                    let steps = half[0].to_f32() * 255.0 - f32::from(code[0]);
                    apart += usize::from(steps.abs() > CODE_TOLERANCE);
                }
            }
            assert!(low > 100 && high > 100 && apart > 1000, "{footprint}: {low} {high} {apart}");
        }
    }

    #[test]
    fn a_driver_that_returns_zeros_or_one_wrong_texel_is_refused() {
        let known = KnownBlocks::new(Footprint::ALL[4]);
        let footprint = known.grid.footprint;
        let mut sampled = vec![0.0; known.grid.rows * known.grid.cols];
        let mut tally = Tally::default();
        tally.add(&known, &sampled);
        assert!(matches!(tally.verdict(), Verdict::Refused(reason) if reason.contains("as 0")));

        for (mode, verdict) in
            [(DecodeMode::Unorm8, Verdict::Unorm8), (DecodeMode::Fp16, Verdict::Fp16)]
        {
            let encoder = Encoder::Arm(ArmQuality::Fastest);
            let mut coder = Coder::new(Params { footprint, decode: mode, encoder }).unwrap();
            let BlockGrid { rows, cols, .. } = known.grid;
            let scales = vec![f16::ONE; rows];
            coder.decode_rows(&known.bytes, &scales, rows, cols, &mut sampled).unwrap();
            // Scale 1: weights are 2t - 1.
            let mut texels: Vec<f32> = sampled.iter().map(|w| w.midpoint(1.0)).collect();
            let mut tally = Tally::default();
            tally.add(&known, &texels);
            assert_eq!(tally.verdict(), verdict);

            texels[12_345] += 1.0 / 255.0;
            let mut tally = Tally::default();
            tally.add(&known, &texels);
            assert!(matches!(tally.verdict(), Verdict::Refused(_)), "{mode:?}");
        }
    }
}
