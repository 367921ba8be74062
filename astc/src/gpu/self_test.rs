//! What an adapter really does with blocks: nothing is trusted before this has passed.
//!
//! A driver exists that reports ASTC and returns zeros, and those that decode do it with one of
//! several precisions that no interface tells. So the known blocks are decoded and compared with
//! the CPU reference in every precision that the codec has.

use super::decoder::step_tolerance;
use super::format::Format;
use super::known::KnownBlocks;
use super::{DecodePath, Gpu, GpuDecoder, GpuError, PathChoice};
use crate::{Error, Footprint, TexelMode, TextureCodec};

/// What the texture unit returns in one texture format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The texels of this precision.
    Decodes(TexelMode),
    /// Something else, or nothing: the reason.
    Refused(String),
}

impl Verdict {
    /// The precision, if the format can be trusted.
    pub const fn mode(&self) -> Option<TexelMode> {
        match self {
            Self::Decodes(mode) => Some(*mode),
            Self::Refused(_) => None,
        }
    }
}

/// What the self-test of one adapter found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfTest {
    /// LDR blocks in the LDR (unorm) format of ASTC.
    pub ldr: Verdict,
    /// LDR blocks in the HDR format of ASTC, where the adapter reports it.
    pub ldr_in_hdr: Option<Verdict>,
    /// HDR blocks in the HDR format of ASTC.
    pub hdr: Verdict,
    /// BC4.
    pub bc4: Verdict,
}

impl SelfTest {
    /// Samples the known blocks in every format that `gpu` reports.
    ///
    /// # Errors
    /// A lost device or no memory. Wrong results, and a driver that fails in one format, are a
    /// [`Verdict::Refused`] of that format alone.
    pub fn run(gpu: &Gpu) -> Result<Self, GpuError> {
        let test = |codec: TextureCodec| {
            if gpu.info().reports(codec) {
                return sampled_verdict(gpu, codec, Format::of(codec)[0]);
            }
            Ok(Verdict::Refused(format!("it reports no {} textures", codec.title())))
        };
        let in_hdr = |reported: bool| {
            let format = Format::Astc(wgpu::AstcChannel::Hdr);
            reported.then(|| sampled_verdict(gpu, TextureCodec::Astc, format)).transpose()
        };
        Ok(Self {
            ldr: test(TextureCodec::Astc)?,
            ldr_in_hdr: in_hdr(gpu.info().astc_hdr)?,
            hdr: test(TextureCodec::AstcHdr)?,
            bc4: test(TextureCodec::Bc4)?,
        })
    }

    /// The verdict on the usual format of `codec`.
    pub const fn of(&self, codec: TextureCodec) -> &Verdict {
        match codec {
            TextureCodec::Astc => &self.ldr,
            TextureCodec::AstcHdr => &self.hdr,
            TextureCodec::Bc4 => &self.bc4,
        }
    }

    /// The texture format that samples with precision `mode`.
    pub(super) fn format(&self, mode: TexelMode) -> Option<Format> {
        let verdicts = [Some(self.of(mode.codec())), self.ldr_in_hdr.as_ref()];
        let mut formats = Format::of(mode.codec()).iter().zip(verdicts);
        let (format, _) =
            formats.find(|(_, verdict)| verdict.is_some_and(|v| v.mode() == Some(mode)))?;
        Some(*format)
    }

    /// The precision that sampling has: `wanted` if any format gives it.
    pub fn sampled_mode(&self, wanted: TexelMode) -> Option<TexelMode> {
        let others = wanted.codec().modes().iter().copied();
        std::iter::once(wanted).chain(others).find(|&mode| self.format(mode).is_some())
    }

    /// Why the usual format of `codec` is refused, if it is.
    pub fn refusal(&self, codec: TextureCodec) -> Option<&str> {
        match self.of(codec) {
            Verdict::Refused(reason) => Some(reason),
            Verdict::Decodes(_) => None,
        }
    }
}

impl<'g> GpuDecoder<'g> {
    /// A decoder along the path of `choice` for weights of the codec of `wanted`, made for readers
    /// of its precision.
    ///
    /// Automatic: the texture unit where it passes the self-test, with the precision found, else
    /// the compute shader with `wanted`. The compute shader is tested as well before it is used.
    ///
    /// # Errors
    /// [`GpuError::Refused`] if the path's results are wrong, or a driver that fails.
    pub fn choose(
        gpu: &'g Gpu,
        choice: PathChoice,
        wanted: impl Into<TexelMode>,
    ) -> Result<Self, GpuError> {
        let wanted = wanted.into();
        if choice != PathChoice::Computed {
            let found = gpu.self_test()?;
            if let Some(mode) = found.sampled_mode(wanted) {
                return Self::new(gpu, DecodePath::Sampled(mode));
            }
            if choice == PathChoice::Sampled {
                return Err(gpu.refused(found.refusal(wanted.codec()).unwrap_or_default()));
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
        let mode = self.path().mode();
        for known in KnownBlocks::all(mode.codec()) {
            let grid = known.grid;
            let expected = known.weights(mode)?;
            let mut found = vec![0.0; expected.len()];
            let matrix = self.upload(grid, &known.bytes, &known.side())?;
            self.decode(&matrix, 0..grid.rows, &mut found)?;
            let differing = expected.iter().zip(&found).filter(|(e, f)| e.to_bits() != f.to_bits());
            let count = differing.count();
            if count > 0 {
                return Ok(Some(format!(
                    "its compute shaders decode {count} of {} known {} weights at {} wrongly",
                    expected.len(),
                    mode.codec().title(),
                    grid.footprint
                )));
            }
        }
        Ok(None)
    }
}

/// What the texture unit makes of the known blocks of `codec` in `format`.
fn sampled_verdict(gpu: &Gpu, codec: TextureCodec, format: Format) -> Result<Verdict, GpuError> {
    match compare_sampled(gpu, codec, format) {
        Err(GpuError::Driver { action, message, .. }) => {
            Ok(Verdict::Refused(format!("it cannot {action}: {message}")))
        }
        verdict => verdict,
    }
}

fn compare_sampled(gpu: &Gpu, codec: TextureCodec, format: Format) -> Result<Verdict, GpuError> {
    // The texels themselves are read, so the precision of the path does not matter.
    let path = DecodePath::Sampled(codec.modes()[0]);
    let decoder = GpuDecoder::with_format(gpu, path, format)?;
    let mut tally = Tally::new(codec);
    for known in KnownBlocks::all(codec) {
        let grid = known.grid;
        let mut found = vec![0.0; grid.rows * grid.cols];
        let matrix = decoder.upload(grid, &known.bytes, &known.side())?;
        decoder.texels(&matrix, 0..grid.rows, &mut found)?;
        tally.add(&known, &found)?;
    }
    Ok(tally.verdict())
}

/// Comparison of sampled texels with the references of all precisions.
#[derive(Debug)]
struct Tally {
    codec: TextureCodec,
    texels: usize,
    zeros: usize,
    /// Texels that differ from each of the codec's precisions.
    wrong: Vec<usize>,
    first: Option<Stray>,
}

/// A texel of no precision.
#[derive(Debug)]
struct Stray {
    footprint: Footprint,
    /// In each precision.
    expected: Vec<f32>,
    found: f32,
}

impl Tally {
    fn new(codec: TextureCodec) -> Self {
        Self { codec, texels: 0, zeros: 0, wrong: vec![0; codec.modes().len()], first: None }
    }

    fn add(&mut self, known: &KnownBlocks, found: &[f32]) -> Result<(), Error> {
        let footprint = known.grid.footprint;
        let modes = self.codec.modes();
        let reference = |&mode: &TexelMode| known.texels(mode);
        let references = modes.iter().map(reference).collect::<Result<Vec<_>, Error>>()?;
        self.texels += found.len();
        for (i, &t) in found.iter().enumerate() {
            self.zeros += usize::from(t == 0.0);
            let mut stray = true;
            for ((&mode, wrong), texels) in modes.iter().zip(&mut self.wrong).zip(&references) {
                let same = is_texel(mode, texels[i], t);
                *wrong += usize::from(!same);
                stray &= !same;
            }
            if stray && self.first.is_none() {
                let expected = references.iter().map(|texels| texels[i]).collect();
                self.first = Some(Stray { footprint, expected, found: t });
            }
        }
        Ok(())
    }

    fn verdict(&self) -> Verdict {
        let mut modes = self.codec.modes().iter().zip(&self.wrong);
        if let Some((&mode, _)) = modes.find(|(_, wrong)| **wrong == 0) {
            return Verdict::Decodes(mode);
        }
        let codec = self.codec.title();
        if self.zeros == self.texels {
            let lie = format!("it reports {codec} textures but samples every texel as 0");
            return Verdict::Refused(lie);
        }
        let counts: Vec<String> = (self.codec.modes().iter().zip(&self.wrong))
            .map(|(mode, wrong)| format!("{wrong} differ from {}", mode.name()))
            .collect();
        let example = self.first.as_ref().map_or(String::new(), |stray| {
            let Stray { footprint, expected, found } = stray;
            let expected: Vec<String> = expected.iter().map(f32::to_string).collect();
            format!("; the first is {found} in a {footprint} block, not {}", expected.join(" or "))
        });
        Verdict::Refused(format!(
            "of {} known {codec} texels, {}{example}",
            self.texels,
            counts.join(", ")
        ))
    }
}

/// Whether a unit that samples `found` means the texel `expected` of precision `mode`.
fn is_texel(mode: TexelMode, expected: f32, found: f32) -> bool {
    mode.steps().map_or(found == expected, |steps| {
        let steps = steps as f32;
        (found * steps - (expected * steps).round()).abs() <= step_tolerance(mode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_blocks_tell_the_precisions_apart_and_reach_both_extremes() {
        for codec in TextureCodec::ALL {
            let most = if codec == TextureCodec::AstcHdr { 65504.0 } else { 1.0 };
            for known in KnownBlocks::all(codec) {
                let texels = |&mode: &TexelMode| known.texels(mode).unwrap();
                let found: Vec<_> = codec.modes().iter().map(texels).collect();
                for (i, &mode) in codec.modes().iter().enumerate() {
                    for other in found.iter().enumerate().filter(|(j, _)| *j != i) {
                        let pairs = found[i].iter().zip(other.1);
                        let apart = pairs.filter(|(e, f)| !is_texel(mode, **e, **f)).count();
                        assert!(apart > 1000, "{mode:?}: {apart}");
                    }
                    let count = |t: f32| found[i].iter().filter(|found| **found == t).count();
                    assert!(count(0.0) > 50 && count(most) > 50, "{mode:?}");
                }
            }
        }
    }

    #[test]
    fn known_bc4_blocks_are_all_pairs_and_every_code_at_every_texel() {
        let known = KnownBlocks::all(TextureCodec::Bc4).next().unwrap();
        let (blocks, _) = known.bytes.as_chunks::<8>();
        let mut seen = [[0; 8]; 16];
        for (number, block) in blocks[..65536].iter().enumerate() {
            assert_eq!([block[0], block[1]], (number as u16).to_be_bytes());
            let codes = u64::from_le_bytes(*block) >> 16;
            for (texel, seen) in seen.iter_mut().enumerate() {
                seen[(codes >> (3 * texel) & 7) as usize] += 1;
            }
        }
        assert_eq!(seen, [[8192; 8]; 16]);
    }

    #[test]
    fn a_driver_that_returns_zeros_or_one_wrong_texel_is_refused() {
        for codec in TextureCodec::ALL {
            let known = KnownBlocks::all(codec).nth(4).or(KnownBlocks::all(codec).next()).unwrap();
            let verdict = |texels: &[f32]| {
                let mut tally = Tally::new(codec);
                tally.add(&known, texels).unwrap();
                tally.verdict()
            };
            let zeros = vec![0.0; known.grid.rows * known.grid.cols];
            assert!(matches!(verdict(&zeros), Verdict::Refused(reason) if reason.contains("as 0")));
            for &mode in codec.modes() {
                let mut texels = known.texels(mode).unwrap();
                assert_eq!(verdict(&texels), Verdict::Decodes(mode));
                texels[12_345] += 1.7 / 255.0;
                let Verdict::Refused(reason) = verdict(&texels) else { panic!("{mode:?}") };
                assert!(reason.contains(&format!("1 differ from {}", mode.name())), "{reason}");
            }
        }
    }
}
