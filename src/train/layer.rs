//! What is trained of one linear layer: its weight on the 2-bit grid, or its adapter.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use compress_model_qat::train::{AdamW, FakeGrid, Rates, Step};

use crate::error::Result;
use crate::model::{GradientSum, HeldBlock, Model, Site, Trained};

/// Where a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Name of the weight.
    pub(super) name: String,
    pub(super) block: usize,
    pub(super) site: Site,
    /// Among the layers of the site.
    pub(super) index: usize,
    /// [out, in]
    pub(super) shape: (usize, usize),
}

/// Layers and what of them is trained, in the order in which they run.
pub(super) type Layers = Vec<(Place, Parameters)>;

/// Something that is trained.
#[derive(Debug)]
pub(super) enum Parameters {
    Grid(GridWeight),
    Adapter(LowRank),
}

/// A weight on the 2-bit grid.
#[derive(Debug)]
pub(super) struct GridWeight {
    pub(super) grid: FakeGrid,
    /// Weights a scale as the codec stores them; none for one scale a row.
    pub(super) group: Option<NonZeroUsize>,
    gradient: GradientSum,
}

/// The factors of an adapter.
#[derive(Debug)]
pub(super) struct LowRank {
    pub(super) rank: usize,
    /// A [rank, in] and B [out, rank].
    pub(super) factors: [Vec<f32>; 2],
    states: [AdamW; 2],
    /// What rates are multiples of, for each element; see [`units`].
    units: [Vec<f32>; 2],
    gradients: [GradientSum; 2],
}

fn sum(len: usize) -> GradientSum {
    Arc::new(Mutex::new(vec![0.0; len]))
}

/// Units of the rates of A [rank, in] and B [out, rank]: the root mean squares of the columns of A and
/// of the rows of B, so that loud input channels, whose elements are small, move little. At least a
/// hundredth of the whole factor's, so that everything can move.
fn units(rank: usize, a: &[f32], b: &[f32]) -> [Vec<f32>; 2] {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let mean = |x: &[f32]| x.iter().map(|&x| square(x)).sum::<f64>() / x.len().max(1) as f64;
    let least = |factor: &[f32]| 1e-4 * mean(factor);
    let (inputs, least_a, least_b) = (a.len() / rank, least(a), least(b));
    let columns = (0..inputs).map(|j| {
        let sum: f64 = a[j..].iter().step_by(inputs).map(|&x| square(x)).sum();
        (sum / rank as f64).max(least_a).sqrt() as f32
    });
    let rows = b.chunks_exact(rank).map(|row| mean(row).max(least_b).sqrt() as f32);
    let rows = rows.flat_map(|unit| std::iter::repeat_n(unit, rank));
    [columns.collect::<Vec<f32>>().repeat(rank), rows.collect()]
}

impl Parameters {
    /// A weight that codec `grid2` stores in groups of `group`, or with one scale a row.
    pub(super) fn of_grid(grid: FakeGrid, group: Option<NonZeroUsize>) -> Self {
        let gradient = sum(grid.weights.len());
        Self::Grid(GridWeight { grid, group, gradient })
    }

    /// An adapter that starts as `a` [rank, in] and `b` [out, rank].
    pub(super) fn of_adapter(rank: usize, a: Vec<f32>, b: Vec<f32>) -> Self {
        let units = units(rank, &a, &b);
        let states = [AdamW::new(a.len()), AdamW::new(b.len())];
        let gradients = [sum(a.len()), sum(b.len())];
        Self::Adapter(LowRank { rank, factors: [a, b], states, units, gradients })
    }

    /// Makes the layer take part in backward passes.
    pub(super) fn attach(&self, model: &Model, held: &mut HeldBlock, place: &Place) -> Result<()> {
        let trained = match self {
            Self::Grid(weight) => Trained::Weight(Arc::clone(&weight.gradient)),
            Self::Adapter(adapter) => {
                let [a, b] = adapter.gradients.clone();
                Trained::Adapter { rank: adapter.rank, a, b }
            }
        };
        model.train_layer(held, place.site, place.index, trained)
    }

    /// Puts what is trained into the layer: as training sees it, or as it is `exported`.
    pub(super) fn install(
        &self,
        model: &Model,
        held: &mut HeldBlock,
        place: &Place,
        exported: bool,
    ) -> Result<()> {
        match self {
            Self::Grid(GridWeight { grid, .. }) => {
                let mut weight = vec![0.0; grid.weights.len()];
                if exported {
                    grid.round_exported(&mut weight);
                } else {
                    grid.round(&mut weight);
                }
                model.set_weight(held, place.site, place.index, weight)
            }
            Self::Adapter(adapter) => {
                let factors = if exported {
                    adapter.factors.each_ref().map(|factor| {
                        factor.iter().map(|&x| half::f16::from_f32(x).to_f32()).collect()
                    })
                } else {
                    adapter.factors.clone()
                };
                model.set_adapter(held, place.site, place.index, factors)
            }
        }
    }

    /// Finishes the gradients of a step and gives the sum of their squares.
    pub(super) fn squared_norm(&mut self) -> f64 {
        match self {
            Self::Grid(GridWeight { grid, gradient, .. }) => {
                let mut gradient = gradient.lock().expect("invariant: no addition panics");
                grid.backward(&mut gradient);
                grid.squared_norm(&gradient)
            }
            Self::Adapter(adapter) => {
                let squares = |sum: &GradientSum| -> f64 {
                    let sum = sum.lock().expect("invariant: no addition panics");
                    sum.iter().map(|&g| f64::from(g) * f64::from(g)).sum()
                };
                adapter.gradients.iter().map(squares).sum()
            }
        }
    }

    /// Takes a step and clears the gradients.
    pub(super) fn step(&mut self, rates: &Rates, step: &Step) {
        match self {
            Self::Grid(GridWeight { grid, gradient, .. }) => {
                let mut gradient = gradient.lock().expect("invariant: no addition panics");
                grid.step(&gradient, rates, step);
                gradient.fill(0.0);
            }
            Self::Adapter(LowRank { factors, states, units, gradients, .. }) => {
                let parts = factors.iter_mut().zip(states).zip(units).zip(gradients);
                for (((factor, state), unit), gradient) in parts {
                    let mut gradient = gradient.lock().expect("invariant: no addition panics");
                    state.update_in_units(factor, &gradient, (rates.weight, unit), step);
                    gradient.fill(0.0);
                }
            }
        }
    }

    /// Clears the gradients.
    pub(super) fn clear(&self) {
        let clear = |sum: &GradientSum| {
            sum.lock().expect("invariant: no addition panics").fill(0.0);
        };
        match self {
            Self::Grid(weight) => clear(&weight.gradient),
            Self::Adapter(adapter) => adapter.gradients.iter().for_each(clear),
        }
    }

    /// Number of parameters that are trained.
    pub(super) fn count(&self) -> usize {
        let trained = |name: &str| !name.contains('.') && name != "average";
        self.arrays().iter().filter(|(name, _)| trained(name)).map(|(_, values)| values.len()).sum()
    }

    /// Every array of the state by name, in a fixed order. The first ones, which say what would be
    /// exported, are named without a dot.
    pub(super) fn arrays(&self) -> Vec<(&'static str, &[f32])> {
        match self {
            Self::Grid(GridWeight { grid, .. }) => vec![
                ("weights", &grid.weights),
                ("scales", &grid.scales),
                ("average", &grid.average),
                ("factor", std::slice::from_ref(&grid.factor)),
                ("weights.first", &grid.weight_state.first),
                ("weights.second", &grid.weight_state.second),
                ("scales.first", &grid.scale_state.first),
                ("scales.second", &grid.scale_state.second),
            ],
            Self::Adapter(LowRank { factors: [a, b], states: [state_a, state_b], .. }) => vec![
                ("a", a),
                ("b", b),
                ("a.first", &state_a.first),
                ("a.second", &state_a.second),
                ("b.first", &state_b.first),
                ("b.second", &state_b.second),
            ],
        }
    }

    /// The same arrays, to be read into.
    pub(super) fn arrays_mut(&mut self) -> Vec<(&'static str, &mut [f32])> {
        match self {
            Self::Grid(GridWeight { grid, .. }) => vec![
                ("weights", &mut grid.weights),
                ("scales", &mut grid.scales),
                ("average", &mut grid.average),
                ("factor", std::slice::from_mut(&mut grid.factor)),
                ("weights.first", &mut grid.weight_state.first),
                ("weights.second", &mut grid.weight_state.second),
                ("scales.first", &mut grid.scale_state.first),
                ("scales.second", &mut grid.scale_state.second),
            ],
            Self::Adapter(LowRank { factors: [a, b], states: [state_a, state_b], .. }) => vec![
                ("a", a),
                ("b", b),
                ("a.first", &mut state_a.first),
                ("a.second", &mut state_a.second),
                ("b.first", &mut state_b.first),
                ("b.second", &mut state_b.second),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_input_and_output_channels() {
        // Two inputs, three outputs, rank 2; the last column and row are silent.
        let a = [3.0, 0.0, 4.0, 0.0];
        let b = [1.0, 1.0, 0.0, 5.0, 0.0, 0.0];
        let [of_a, of_b] = units(2, &a, &b);
        let loud = 12.5_f32.sqrt();
        let (least_a, least_b) = (0.01 * 6.25_f32.sqrt(), 0.01 * 4.5_f32.sqrt());
        let close = |found: &[f32], wanted: &[f32]| {
            found.len() == wanted.len()
                && found.iter().zip(wanted).all(|(f, w)| (f / w - 1.0).abs() < 1e-6)
        };
        assert!(close(&of_a, &[loud, least_a, loud, least_a]), "{of_a:?}");
        assert!(close(&of_b, &[1.0, 1.0, loud, loud, least_b, least_b]), "{of_b:?}");
    }
}
