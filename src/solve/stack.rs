//! Stacks of matrices, solved one by one and stored as one tensor.

use std::collections::BTreeMap;

use crate::pipeline::SolvedLayer;

/// Parts of a matrix's codes, and what is reported of it.
type Piece = (Vec<Vec<u8>>, SolvedLayer);

/// Matrices of stacks that are not all solved yet, by the stack's number in the plan.
#[derive(Debug, Default)]
pub(super) struct Stacks(BTreeMap<usize, Vec<Option<Piece>>>);

impl Stacks {
    /// Takes matrix number `matrix` of `count`. Gives the parts and the reports of the whole stack
    /// once all matrices are there.
    pub(super) fn add(
        &mut self,
        number: usize,
        (matrix, count): (usize, usize),
        piece: Piece,
    ) -> Option<(Vec<Vec<u8>>, Vec<SolvedLayer>)> {
        let pieces = self.0.entry(number).or_insert_with(|| vec![None; count]);
        pieces[matrix] = Some(piece);
        if pieces.iter().any(Option::is_none) {
            return None;
        }
        let (mut parts, mut reports): (Vec<Vec<u8>>, _) = (Vec::new(), Vec::new());
        for (own, report) in self.0.remove(&number)?.into_iter().flatten() {
            parts.resize(own.len(), Vec::new());
            parts.iter_mut().zip(own).for_each(|(all, own)| all.extend(own));
            reports.push(report);
        }
        Some((parts, reports))
    }
}
