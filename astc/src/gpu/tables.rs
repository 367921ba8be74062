//! The lookup tables of the shaders, packed into 32-bit words.

use crate::Footprint;
use crate::tables::{BlockMode, QUINT_BLOCKS, Quant, TRIT_BLOCKS, colour_values, weight_values};

/// Pairs of endpoint values: 0 to 9, in a table of 16.
const PAIRS: usize = 16;
/// The mark of a number of values that does not fit.
const NO_QUANT: u32 = 0xFF;

/// The tables, and the WGSL constants that say where each of them starts.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) words: Vec<u32>,
    pub(super) constants: String,
}

impl Tables {
    /// Those of decode.wgsl for `footprint`; their places are the same for every footprint.
    pub(super) fn new(footprint: Footprint) -> Self {
        let mut tables = Self::default();
        tables.words.extend(signed_steps(255));
        tables.add("MODES", (0..1 << 11).map(|bits| mode_word(bits, footprint)));
        let quants = || (0..Quant::COUNT).map(Quant::from_index);
        let digits = tables.add_digits();
        tables.add("QUANTS", quants().flat_map(|quant| quant_words(quant, &digits)));
        tables.add("COLOURS", quants().flat_map(|quant| packed_bytes(colour_values(quant), 64)));
        let weights = quants().take(Quant::WEIGHT_COUNT);
        tables.add("WEIGHTS", weights.flat_map(|quant| packed_bytes(weight_values(quant), 8)));
        tables.add(
            "ENDPOINT_QUANTS",
            (0..10).flat_map(|pairs| (0..128).map(move |bits| endpoint_quant(2 * pairs, bits))),
        );
        tables.add(
            "SEQUENCE_BITS",
            quants()
                .flat_map(|quant| (0..PAIRS).map(move |pairs| quant.ise_bits(2 * pairs) as u32)),
        );
        tables
    }

    fn add_digits(&mut self) -> DigitPlaces {
        let none = self.words.len();
        self.words.push(0);
        let trits = self.words.len();
        self.words.extend(TRIT_BLOCKS.iter().map(|digits| packed_digits(digits, 2)));
        let quints = self.words.len();
        self.words.extend(QUINT_BLOCKS.iter().map(|digits| packed_digits(digits, 3)));
        DigitPlaces([none, trits, quints])
    }

    fn add(&mut self, name: &str, words: impl Iterator<Item = u32>) {
        self.constants += &format!("const {name}: u32 = {}u;\n", self.words.len());
        self.words.extend(words);
    }
}

/// 2v/steps - 1 for v = 0..=steps as bits, as the CPU decoders compute it.
pub(super) fn signed_steps(steps: u32) -> impl Iterator<Item = u32> {
    (0..=steps).map(move |v| (2.0 * (v as f32 / steps as f32) - 1.0).to_bits())
}

/// 0 for an illegal mode, else bit 0, two planes, range, grid width, grid height, weight bits.
fn mode_word(bits: u16, footprint: Footprint) -> u32 {
    let Some(mode) = BlockMode::decode(bits).filter(|mode| mode.fits(footprint)) else { return 0 };
    1 | u32::from(mode.dual_plane) << 1
        | (mode.weights.index() as u32) << 2
        | u32::from(mode.grid_width) << 6
        | u32::from(mode.grid_height) << 10
        | (mode.weight_bits() as u32) << 14
}

/// Words at which the digits of ranges without digits, with trits and with quints stand.
struct DigitPlaces([usize; 3]);

/// How a range is stored: plain bits, values a group, bits a digit and shared bits; then, a nibble
/// for each value of a group, how many shared bits follow it and how many come before it; then
/// where its digits stand.
fn quant_words(quant: Quant, digits: &DigitPlaces) -> [u32; 4] {
    let DigitPlaces([none, trits, quints]) = *digits;
    let (group, width, shared, splits, prefixes, digits) = if quant.has_trit() {
        (5, 2, 8, 0x1_2122, 0x7_5420, trits)
    } else if quant.has_quint() {
        (3, 3, 7, 0x0_0223, 0x7_7530, quints)
    } else {
        (1, 0, 0, 0, 0, none)
    };
    [quant.bits() | group << 4 | width << 8 | shared << 12, splits, prefixes, digits as u32]
}

fn packed_digits(digits: &[u8], width: usize) -> u32 {
    digits.iter().rev().fold(0, |word, &digit| word << width | u32::from(digit))
}

/// Four bytes a word, the first lowest, in `words` words.
fn packed_bytes(bytes: &'static [u8], words: usize) -> impl Iterator<Item = u32> {
    let byte = |index: usize| bytes.get(index).copied().unwrap_or(0);
    (0..words).map(move |word| u32::from_le_bytes([0, 1, 2, 3].map(|i| byte(4 * word + i))))
}

fn endpoint_quant(count: usize, bits: usize) -> u32 {
    Quant::largest_fitting(count, bits)
        .filter(|&quant| quant >= Quant::COLOUR_MIN)
        .map_or(NO_QUANT, |quant| quant.index() as u32)
}
