//! Which modules of mlx-lm's model the tensors of the folder become.
//!
//! mlx-lm holds the experts of a layer in one module, `switch_mlp`, with a matrix an expert. Its
//! loaders put experts that are stored one by one there, but for Qwen3-MoE without their scales; so
//! they are written as the module has them.

use std::collections::BTreeMap;

use safetensors::Dtype;

use super::MlxOptions;
use super::affine::Affine;
use crate::architecture::{Architecture, Content, Projection};
use crate::checkpoint::OutputTensor;
use crate::checkpoint::dtype::parse_dtype;
use crate::checkpoint::role::Role;
use crate::error::{Error, Result};
use crate::export::rows::Job;
use crate::pipeline::manifest::Status;
use crate::pipeline::{CompressedFolder, OutputDtype};

/// A tensor of the export, with its scales and biases.
#[derive(Debug)]
pub(super) struct Module {
    /// Name of the tensor that holds codes or numbers.
    pub(super) name: String,
    /// Dimensions of the weights.
    pub(super) shape: Vec<usize>,
    /// How they are stored.
    pub(super) form: Form,
}

/// How weights are stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// Codes of so many bits in groups of so many weights, scales and biases of this type.
    Affine { bits: usize, group: usize, dtype: Dtype },
    /// Numbers of this type.
    Plain(Dtype),
}

/// Elements of a job that belong to a module: those from `start` on, `len` of every `period`. They
/// follow one another in the module from its element `first` on.
#[derive(Debug, Clone, Copy)]
struct Place {
    module: usize,
    period: usize,
    start: usize,
    len: usize,
    first: usize,
}

/// A job and where its elements go.
#[derive(Debug)]
pub(super) struct Placed<'a> {
    pub(super) job: Job<'a>,
    /// The job's codes, where its modules hold them.
    pub(super) affine: Option<Affine>,
    places: Vec<Place>,
}

/// Elements of a run that follow one another in a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) module: usize,
    /// Where in the run they start.
    pub(super) from: usize,
    pub(super) len: usize,
    /// Where in the module they start.
    pub(super) to: usize,
}

impl Placed<'_> {
    /// The segments of a run of `len` elements from `first` on.
    pub(super) fn segments(&self, first: usize, len: usize) -> Vec<Segment> {
        segments(&self.places, first, len)
    }
}

fn segments(places: &[Place], first: usize, len: usize) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut at = first;
    while at < first + len {
        let inside = |place: &&Place| {
            let within = at % place.period;
            place.start <= within && within < place.start + place.len
        };
        let place = places.iter().find(inside).expect("invariant: places cover every element");
        let (round, within) = (at / place.period, at % place.period - place.start);
        let count = (place.len - within).min(first + len - at);
        segments.push(Segment {
            module: place.module,
            from: at - first,
            len: count,
            to: place.first + round * place.len + within,
        });
        at += count;
    }
    segments
}

/// What becomes one module: which jobs, and their part of each.
#[derive(Debug, Default)]
struct Member {
    /// Job, place of its matrices in the module, and which of `of` equal parts of a matrix's rows.
    pieces: Vec<(usize, usize, usize, usize)>,
    /// Experts of a layer.
    stacked: bool,
}

/// Modules in the order of their first tensors, and the jobs with their places.
///
/// # Errors
/// [`Error::Tensor`] for stacked experts that are coded in a model that is not known here.
pub(super) fn layout<'a>(
    input: &CompressedFolder,
    architecture: Option<&Architecture>,
    inside: bool,
    jobs: Vec<Job<'a>>,
    options: MlxOptions,
) -> Result<(Vec<Module>, Vec<Placed<'a>>)> {
    let mut names: Vec<String> = Vec::new();
    let mut members: BTreeMap<String, Member> = BTreeMap::new();
    for (index, job) in jobs.iter().enumerate() {
        let name = &job.entry.name;
        let content = architecture.and_then(|a| a.content(name));
        let mut put = |name: String, stacked: bool, piece: (usize, usize, usize, usize)| {
            let member = members.entry(name.clone()).or_insert_with(|| {
                names.push(name);
                Member { stacked, ..Member::default() }
            });
            member.pieces.push(piece);
        };
        match (architecture, content) {
            (Some(a), Some(Content::Expert { layer, expert, projection })) => {
                put(switch(a, layer, projection), true, (index, expert, 0, 1));
            }
            (Some(a), Some(Content::Stack { layer, projections })) => {
                for (part, &projection) in projections.iter().enumerate() {
                    let name = switch(a, layer, projection);
                    put(name, true, (index, 0, part, projections.len()));
                }
            }
            (_, Some(Content::One(plain))) if inside => {
                put(format!("language_model.{plain}"), false, (index, 0, 0, 1));
            }
            (_, Some(Content::One(plain))) => put(plain, false, (index, 0, 0, 1)),
            // A tower, as mlx-lm's multimodal modules name it.
            (Some(_), None) => {
                let name = name.strip_prefix("model.").unwrap_or(name);
                put(name.to_owned(), false, (index, 0, 0, 1));
            }
            (None, _) => put(name.clone(), false, (index, 0, 0, 1)),
        }
    }
    let adds_one = architecture.is_some_and(|a| a.norm_adds_one);
    let mut affines: Vec<Option<Affine>> = jobs.iter().map(|job| affine(job, options)).collect();
    let mut modules = Vec::new();
    let mut places: Vec<Vec<Place>> = vec![Vec::new(); jobs.len()];
    for name in names {
        let member = &members[&name];
        let module = module(input, name, member, &jobs, &mut affines, (options, adds_one))?;
        for &(job, expert, part, of) in &member.pieces {
            let entry = jobs[job].entry;
            let elements: usize = entry.shape.iter().product();
            let period = if of == 1 { elements } else { elements / entry.shape[0] };
            let len = period / of;
            places[job].push(Place {
                module: modules.len(),
                period,
                start: part * len,
                len,
                first: expert * elements,
            });
        }
        modules.push(module);
    }
    let placed = jobs
        .into_iter()
        .zip(affines)
        .zip(places)
        .map(|((job, affine), places)| Placed { job, affine, places })
        .collect();
    Ok((modules, placed))
}

/// Name of the tensor of a projection of all experts of a layer.
fn switch(a: &Architecture, layer: usize, projection: Projection) -> String {
    let (module, _) = a.expert_names();
    let projection = match projection {
        Projection::Gate => "gate_proj",
        Projection::Up => "up_proj",
        Projection::Down => "down_proj",
    };
    format!("model.layers.{layer}.{module}.switch_mlp.{projection}.weight")
}

fn source_dtype(job: &Job<'_>) -> Dtype {
    parse_dtype(&job.entry.dtype).unwrap_or(Dtype::F32)
}

fn affine(job: &Job<'_>, options: MlxOptions) -> Option<Affine> {
    Affine::of(job, options.dtype.of(source_dtype(job)))
}

/// Shape and form of the module `name`. Where its pieces are not all coded alike, none stays coded.
fn module(
    input: &CompressedFolder,
    name: String,
    member: &Member,
    jobs: &[Job<'_>],
    affines: &mut [Option<Affine>],
    (options, adds_one): (MlxOptions, bool),
) -> Result<Module> {
    let (first, .., of) = member.pieces[0];
    let entry = jobs[first].entry;
    if !member.stacked && entry.shape.len() == 3 && jobs[first].codes().is_some() {
        let message = "mlx-lm has no form for coded matrices that are stacked in one tensor";
        return Err(Error::tensor(input.stored.folder(), &entry.name, message));
    }
    let shape = match (member.stacked, &entry.shape[..]) {
        (true, &[rows, cols]) => vec![member.pieces.len(), rows, cols],
        (true, &[experts, rows, cols]) => vec![experts, rows / of, cols],
        _ => entry.shape.clone(),
    };
    let forms: Vec<Option<(usize, usize, Dtype)>> = member
        .pieces
        .iter()
        .map(|&(job, ..)| affines[job].as_ref().map(|a| (a.bits, a.group, a.dtype)))
        .collect();
    if name.ends_with(".weight")
        && let Some((bits, group, dtype)) = forms[0]
        && forms.iter().all(|form| *form == forms[0])
    {
        return Ok(Module { name, shape, form: Form::Affine { bits, group, dtype } });
    }
    for &(job, ..) in &member.pieces {
        affines[job] = None;
    }
    let plain = |job: usize| {
        let source = source_dtype(&jobs[job]);
        let entry = jobs[job].entry;
        let kept = matches!(entry.status, Status::Kept { .. });
        // mlx-lm adds 1 to Gemma's norms in the type that they have.
        let widened = adds_one && entry.role == Role::Norm && options.dtype == OutputDtype::F32;
        if kept && !widened { source } else { options.dtype.of(source) }
    };
    let dtype = plain(first);
    let alike = member.pieces.iter().all(|&(job, ..)| plain(job) == dtype);
    Ok(Module { name, shape, form: Form::Plain(if alike { dtype } else { Dtype::F32 }) })
}

impl Module {
    /// Path of the module.
    pub(super) fn path(&self) -> &str {
        self.name.strip_suffix(".weight").unwrap_or(&self.name)
    }

    /// The tensors that are stored: codes, scales and biases, or numbers.
    pub(super) fn outputs(&self) -> Vec<OutputTensor> {
        let (bits, group, dtype) = match self.form {
            Form::Affine { bits, group, dtype } => (bits, group, dtype),
            Form::Plain(dtype) => {
                let (name, shape) = (self.name.clone(), self.shape.clone());
                return vec![OutputTensor { name, dtype, shape }];
            }
        };
        let (cols, outer) = self.shape.split_last().expect("invariant: codes are of matrices");
        let output = |name: String, dtype, last| {
            let shape = outer.iter().copied().chain([last]).collect();
            OutputTensor { name, dtype, shape }
        };
        let path = self.path();
        vec![
            output(self.name.clone(), Dtype::U32, cols * bits / 32),
            output(format!("{path}.scales"), dtype, cols / group),
            output(format!("{path}.biases"), dtype, cols / group),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gate_and_up_of_a_stack_come_apart() {
        // Two experts of gate and up, three elements each.
        let place = |module, start| Place { module, period: 6, start, len: 3, first: 0 };
        let places = [place(0, 0), place(1, 3)];
        let of = |first, len| segments(&places, first, len);
        let segment = |module, from, len, to| Segment { module, from, len, to };
        assert_eq!(
            of(0, 12),
            [segment(0, 0, 3, 0), segment(1, 3, 3, 0), segment(0, 6, 3, 3), segment(1, 9, 3, 3)]
        );
        assert_eq!(of(4, 4), [segment(1, 0, 2, 1), segment(0, 2, 2, 3)]);
        let alone = [Place { module: 5, period: 4, start: 0, len: 4, first: 8 }];
        assert_eq!(segments(&alone, 1, 3), [segment(5, 0, 3, 9)]);
    }
}
