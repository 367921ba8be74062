//! What becomes of each tensor of a model, collected before anything is written.

use std::collections::{BTreeMap, HashMap};

use super::factor::{Factor, MatrixFactors, apply, apply_to_columns};
use crate::checkpoint::dtype::AlignedBytes;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::Result;
use crate::model::LinearPlan;

/// Rows of one tensor that a linear layer, a bias or an embedding table has, and what they go
/// through.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    /// First row of the tensor, all its matrices below each other.
    pub(super) first_row: usize,
    /// Rows and columns.
    pub(super) shape: (usize, usize),
    /// What each row goes through.
    input: Vec<Factor>,
    /// What each column goes through.
    output: Vec<Factor>,
}

impl Slice {
    /// Rows that stay as they are.
    pub(super) fn plain(first_row: usize, shape: (usize, usize)) -> Self {
        Self { first_row, shape, input: Vec::new(), output: Vec::new() }
    }

    /// Whether each row can be worked on alone.
    pub(super) fn by_rows(&self) -> bool {
        self.output.is_empty()
    }

    /// `rows` of its rows from row `first` on.
    pub(super) fn part(&self, first: usize, rows: usize) -> Self {
        let first_row = self.first_row + first;
        Self { first_row, shape: (rows, self.shape.1), ..self.clone() }
    }
}

/// A tensor of the transformed model.
#[derive(Debug, Clone, Default)]
pub(super) struct Edit {
    /// By first row.
    pub(super) slices: BTreeMap<usize, Slice>,
    /// New values in place of the old.
    pub(super) values: Option<Vec<f32>>,
    /// What was done, for people.
    reasons: Vec<&'static str>,
}

impl Edit {
    /// What was done, for people.
    pub(super) fn describe(&self) -> String {
        self.reasons.join(", ")
    }

    fn note(&mut self, reason: &'static str) {
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }
}

/// All edits of a model.
pub(super) struct Edits<'a> {
    checkpoint: &'a Checkpoint,
    by_name: BTreeMap<String, Edit>,
    /// Tensors that the original does not have: the new name and whose weights they start from.
    added: HashMap<String, String>,
    /// Weights are not read: they seem to be all zero.
    outline: bool,
}

impl<'a> Edits<'a> {
    /// None yet. For an `outline`, matrices of weights are not read and seem to be all zero.
    pub(super) fn new(checkpoint: &'a Checkpoint, outline: bool) -> Self {
        Self { checkpoint, by_name: BTreeMap::new(), added: HashMap::new(), outline }
    }

    /// The original model.
    pub(super) fn checkpoint(&self) -> &'a Checkpoint {
        self.checkpoint
    }

    /// Names of the tensors that change, and the edits.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Edit)> {
        self.by_name.iter()
    }

    /// The edit of tensor `name`, if it changes.
    pub(super) fn get(&self, name: &str) -> Option<&Edit> {
        self.by_name.get(name)
    }

    /// What the rows of `layer` go through.
    pub(super) fn input_factors(&self, layer: &LinearPlan) -> &[Factor] {
        self.factors_at(&layer.weight, layer.first_row)
    }

    /// What the rows of the layer or table that starts at row `first` of tensor `name` go through.
    fn factors_at(&self, name: &str, first: usize) -> &[Factor] {
        let slice = self.by_name.get(name).and_then(|edit| edit.slices.get(&first));
        slice.map_or(&[], |slice| &slice.input)
    }

    /// Number of the matrix of its tensor that has `layer`.
    pub(super) fn matrix_of(&self, layer: &LinearPlan) -> usize {
        layer.first_row / self.matrix_rows(&layer.weight)
    }

    /// Rows of each matrix of tensor `name`.
    fn matrix_rows(&self, name: &str) -> usize {
        self.source(name).as_matrices().map_or(1, |(_, rows, _)| rows)
    }

    /// What the rows of each matrix go through: those of the layer that it starts with.
    pub(super) fn matrix_factors(&self) -> MatrixFactors {
        let of_tensor = |(name, edit): (&String, &Edit)| {
            let rows = self.matrix_rows(name);
            let starts = edit.slices.keys().filter(move |&&first| first.is_multiple_of(rows));
            let named = starts.map(|&first| {
                ((name.clone(), first / rows), self.factors_at(name, first).to_vec())
            });
            named.collect::<Vec<_>>()
        };
        self.by_name.iter().flat_map(of_tensor).collect()
    }

    /// Names of the tensors that are new.
    pub(super) fn added(&self) -> impl Iterator<Item = &String> {
        self.added.keys()
    }

    /// Adds a tensor `name` that starts from the weights of `like`, unchanged.
    pub(super) fn add(&mut self, name: &str, like: &str, reason: &'static str) {
        self.added.insert(name.to_owned(), like.to_owned());
        self.by_name.entry(name.to_owned()).or_default().note(reason);
    }

    /// Whether tensor `name` is changed in the way that tensor `other` is; both are tables whose
    /// rows go through factors.
    pub(super) fn same(&self, name: &str, other: &str) -> bool {
        let count = |name: &str| self.factors_at(name, 0).len();
        count(name) == count(other)
    }

    /// The tensor of the original that tensor `name` starts from.
    pub(super) fn source(&self, name: &str) -> &'a Tensor {
        let name = self.added.get(name).map_or(name, String::as_str);
        self.checkpoint.tensor(name).expect("invariant: the model's plan names tensors that exist")
    }

    /// The features that `layer` reads go through `factor`.
    pub(super) fn input(&mut self, layer: &LinearPlan, factor: &Factor, reason: &'static str) {
        self.slice(&layer.weight, layer.first_row, layer.shape, reason).input.push(factor.clone());
    }

    /// The features that `layer` writes go through `factor`.
    pub(super) fn output(&mut self, layer: &LinearPlan, factor: &Factor, reason: &'static str) {
        self.slice(&layer.weight, layer.first_row, layer.shape, reason).output.push(factor.clone());
        if let Some(bias) = &layer.bias {
            self.slice(bias, 0, (1, layer.shape.0), reason).input.push(factor.clone());
        }
    }

    /// The rows of table `name` go through `factor`.
    pub(super) fn rows(&mut self, name: &str, factor: &Factor, reason: &'static str) {
        let shape = &self.source(name).shape;
        let shape = (shape[0], shape[1]);
        self.slice(name, 0, shape, reason).input.push(factor.clone());
    }

    fn slice(
        &mut self,
        name: &str,
        first_row: usize,
        shape: (usize, usize),
        reason: &'static str,
    ) -> &mut Slice {
        let edit = self.by_name.entry(name.to_owned()).or_default();
        edit.note(reason);
        edit.slices.entry(first_row).or_insert_with(|| Slice::plain(first_row, shape))
    }

    /// Puts `values` in the place of vector `name`.
    pub(super) fn set(&mut self, name: &str, values: Vec<f32>, reason: &'static str) {
        let edit = self.by_name.entry(name.to_owned()).or_default();
        edit.note(reason);
        edit.values = Some(values);
    }

    /// Vector `name` as it is so far.
    pub(super) fn vector(&self, name: &str) -> Result<Vec<f32>> {
        match self.by_name.get(name).and_then(|edit| edit.values.clone()) {
            Some(values) => Ok(values),
            None => self.checkpoint.read_all(self.source(name)),
        }
    }

    /// The weights of `layer` as they are so far, row-major.
    pub(super) fn weights(&self, layer: &LinearPlan) -> Result<Vec<f32>> {
        if self.outline {
            return Ok(vec![0.0; layer.shape.0 * layer.shape.1]);
        }
        let slice = self.by_name.get(&layer.weight).and_then(|e| e.slices.get(&layer.first_row));
        let Some(slice) = slice else {
            return self.read_rows(&layer.weight, layer.first_row, layer.shape);
        };
        self.transformed(&layer.weight, slice)
    }

    /// The rows of `slice` of tensor `name`, transformed.
    pub(super) fn transformed(&self, name: &str, slice: &Slice) -> Result<Vec<f32>> {
        let mut weights = self.read_rows(name, slice.first_row, slice.shape)?;
        apply(&slice.input, &mut weights, slice.shape.1);
        apply_to_columns(&slice.output, &mut weights, slice.shape.1);
        Ok(weights)
    }

    fn read_rows(
        &self,
        name: &str,
        first: usize,
        (rows, cols): (usize, usize),
    ) -> Result<Vec<f32>> {
        let mut weights = vec![0.0; rows * cols];
        let mut scratch = AlignedBytes::default();
        let from = (first * cols) as u64;
        self.checkpoint.read_weights(self.source(name), from, &mut scratch, &mut weights)?;
        Ok(weights)
    }
}
