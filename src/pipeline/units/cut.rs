//! Where a compression is cut.

use super::{Segment, job_counts};
use crate::checkpoint::Checkpoint;
use crate::pipeline::coding::{Job, jobs};
use crate::pipeline::plan::Plan;

/// Bytes that are copied in the time in which one weight is coded, about.
const BYTES_PER_WEIGHT: u64 = 64;

/// Cuts the jobs of `plan`, in their order, into at most `count` runs of about the same work. A unit
/// starts where the whole work before it is its share, be it inside a tensor.
pub(super) fn cut(checkpoint: &Checkpoint, plan: &Plan, count: usize) -> Vec<Vec<Segment>> {
    let work = |job: &Job| -> u64 {
        match job {
            Job::Copy { len, .. } => (*len as u64).div_ceil(BYTES_PER_WEIGHT),
            Job::Code { tensor, panel } => {
                let source = &checkpoint.tensors()[plan.tensors[*tensor].source];
                let cols = source.as_matrices().map_or(1, |(_, _, cols)| cols);
                (panel.rows.len() * cols) as u64
            }
        }
    };
    let counts = job_counts(checkpoint, plan);
    let all = || (0..plan.tensors.len()).flat_map(|tensor| jobs(checkpoint, plan, tensor));
    let total: u64 = all().map(|job| work(&job)).sum();
    let count = count.clamp(1, all().count().max(1)) as u64;
    let (mut units, mut unit, mut done) = (Vec::new(), Vec::new(), 0);
    for (tensor, &jobs_of_tensor) in counts.iter().enumerate() {
        let name = &checkpoint.tensors()[plan.tensors[tensor].source].name;
        let segment = |first, count| Segment { tensor: name.clone(), first, count };
        if jobs_of_tensor == 0 {
            unit.push(segment(0, 0));
        }
        let mut first = 0;
        for (i, job) in jobs(checkpoint, plan, tensor).enumerate() {
            let share = total * (units.len() as u64 + 1) / count;
            if done >= share && units.len() as u64 + 1 < count {
                if i > first {
                    unit.push(segment(first, i - first));
                }
                units.push(std::mem::take(&mut unit));
                first = i;
            }
            done += work(&job);
        }
        if jobs_of_tensor > first {
            unit.push(segment(first, jobs_of_tensor - first));
        }
    }
    units.push(unit);
    units
}
