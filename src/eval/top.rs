//! The most probable tokens of a position.

/// How many tokens the agreement of the leading tokens looks at.
pub(super) const TOP: usize = 5;

/// Logits compared at once before any of them is looked at.
const CHUNK: usize = 64;

/// The [`TOP`] largest logits, largest first; of equal ones the lower token comes first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Top {
    values: [f32; TOP],
    tokens: [u32; TOP],
    count: usize,
}

impl Top {
    /// Finds them; `None` if a logit is not finite or there is none.
    pub(super) fn of(logits: &[f32]) -> Option<Self> {
        let mut top = Self {
            values: [f32::NEG_INFINITY; TOP],
            tokens: [u32::MAX; TOP],
            count: TOP.min(logits.len()),
        };
        let (chunks, rest) = logits.as_chunks::<CHUNK>();
        let mut not_finite = 0;
        for (index, chunk) in chunks.iter().enumerate() {
            let (largest, bits) = look(chunk);
            not_finite |= bits;
            if largest > top.values[TOP - 1] {
                top.insert_all(chunk, index * CHUNK);
            }
        }
        top.insert_all(rest, chunks.len() * CHUNK);
        let finite = not_finite == 0 && rest.iter().all(|x| x.is_finite());
        (finite && !logits.is_empty()).then_some(top)
    }

    /// The largest logit.
    pub(super) fn peak(&self) -> f32 {
        self.values[0]
    }

    /// Its token.
    pub(super) fn first(&self) -> u32 {
        self.tokens[0]
    }

    /// Share of the tokens that `other` has too, in any order.
    pub(super) fn overlap(&self, other: &Self) -> f64 {
        let shared = self.tokens[..self.count]
            .iter()
            .filter(|&token| other.tokens[..other.count].contains(token))
            .count();
        shared as f64 / self.count as f64
    }

    fn insert_all(&mut self, logits: &[f32], from: usize) {
        for (offset, &value) in logits.iter().enumerate() {
            if value > self.values[TOP - 1] {
                let at = self.values.partition_point(|&other| other >= value);
                self.values[at..].rotate_right(1);
                self.tokens[at..].rotate_right(1);
                self.values[at] = value;
                self.tokens[at] = (from + offset) as u32;
            }
        }
    }
}

/// The largest value, and bits that are zero if every value is finite: x·0 is a zero then and NaN
/// otherwise.
fn look(chunk: &[f32; CHUNK]) -> (f32, u32) {
    const LANES: usize = 16;
    let mut largest = [f32::NEG_INFINITY; LANES];
    let mut bits = [0; LANES];
    for lanes in chunk.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            largest[i] = if lanes[i] > largest[i] { lanes[i] } else { largest[i] };
            bits[i] |= (lanes[i] * 0.0).to_bits() << 1;
        }
    }
    let largest = largest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    (largest, bits.into_iter().fold(0, |all, lane| all | lane))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ties_go_to_the_lower_token() {
        let top = Top::of(&[1.0, 3.0, 3.0, 2.0, 3.0, 0.0, 2.0]).unwrap();
        assert_eq!(top.tokens, [1, 2, 4, 3, 6]);
        assert_eq!((top.peak(), top.first()), (3.0, 1));
        assert_eq!(Top::of(&[0.0; 200]).unwrap().tokens, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn overlap_counts_shared_tokens() {
        let one = Top::of(&[9.0, 8.0, 7.0, 6.0, 5.0, 0.0, 0.0]).unwrap();
        let two = Top::of(&[5.0, 6.0, 7.0, 0.0, 0.0, 8.0, 9.0]).unwrap();
        assert_eq!(one.overlap(&two), 0.6);
        let small = Top::of(&[1.0, 2.0]).unwrap();
        assert_eq!(small.overlap(&Top::of(&[2.0, 1.0]).unwrap()), 1.0);
        assert_eq!(Top::of(&[]), None);
    }

    proptest! {
        #[test]
        fn as_a_stable_sort(logits in prop::collection::vec(-4_i8..4, 5..300)) {
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let mut order: Vec<u32> = (0..logits.len() as u32).collect();
            order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
            prop_assert_eq!(Top::of(&logits).unwrap().tokens.to_vec(), order[..TOP].to_vec());
        }
    }
}
