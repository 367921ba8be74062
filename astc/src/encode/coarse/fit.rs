//! Fit of eight leads at once: grid weights one at a time, in turn with least-squares endpoints.
//!
//! Texels are taken as lo_p + d_p·u, u the exact bilinear mix of the grid; the decoder's rounding
//! (at most one texel step) is far below the error of these footprints. The error is then quadratic
//! in every grid weight, whose best level given the others is the one nearest to the minimum.
//! Everything is element by element in f32, so it is equal on every machine.

use super::CoarseTexels;
use super::rank::Lead;
use super::stage::Stage;
use crate::Footprint;
use crate::simd::{Simd, dispatch};

/// Leads fitted together.
pub(super) const JOBS: usize = 8;

/// First distance of the ends of a partition, in standard deviations: interpolation flattens.
const FIRST_DISTANCE: f32 = 2.4;

type Lanes = [f32; JOBS];
type Plane = [Lanes; Footprint::MAX_TEXELS];
const ZERO: Lanes = [0.0; JOBS];
const PLANE: Plane = [ZERO; Footprint::MAX_TEXELS];

/// A lead for one block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) texels: &'a CoarseTexels,
    pub(super) lead: Lead,
}

/// Eight fits under way, and their results.
#[derive(Debug)]
pub(super) struct Fits {
    /// Texel steps from the middle.
    x: Plane,
    /// Square root of the importance.
    root: Plane,
    /// Partition of each texel.
    owner: Plane,
    /// Importance in each partition, 0 elsewhere.
    own: [Plane; 4],
    /// Distance of the ends of the texel's partition, times `root`.
    distance: Plane,
    /// What is left of x, times `root`.
    residual: Plane,
    /// Interpolation weight, 0..=1.
    u: Plane,
    /// Interpolation weight of each grid point, 0..=1.
    pub(super) weights: [Lanes; 64],
    sums: [Sums; 4],
    /// Index of the low and high end of each partition.
    pub(super) ends: [[Lanes; 2]; 4],
    low: [Lanes; 4],
    slope: [Lanes; 4],
    /// Σ importance·(x - fit)².
    pub(super) errors: Lanes,
}

/// Weighted sums over a partition.
#[derive(Debug, Clone, Copy)]
struct Sums {
    q: Lanes,
    x: Lanes,
    xx: Lanes,
    u: Lanes,
    uu: Lanes,
    ux: Lanes,
}

impl Fits {
    pub(super) fn new() -> Box<Self> {
        let none = Sums { q: ZERO, x: ZERO, xx: ZERO, u: ZERO, uu: ZERO, ux: ZERO };
        Box::new(Self {
            x: PLANE,
            root: PLANE,
            owner: PLANE,
            own: [PLANE; 4],
            distance: PLANE,
            residual: PLANE,
            u: PLANE,
            weights: [ZERO; 64],
            sums: [none; 4],
            ends: [[ZERO; 2]; 4],
            low: [ZERO; 4],
            slope: [ZERO; 4],
            errors: ZERO,
        })
    }
}

dispatch! {
    /// Fits the jobs from the start, with so many rounds of weights and endpoints in turn.
    fn fit = fit_with(stage: &Stage, jobs: &[Job<'_>; JOBS], rounds: usize, fits: &mut Fits)
}

#[inline(always)]
fn fit_with<S: Simd>(s: S, stage: &Stage, jobs: &[Job<'_>; JOBS], rounds: usize, fits: &mut Fits) {
    match stage.config.partitions {
        1 => fit_partitions::<S, 1>(s, stage, jobs, rounds, fits),
        2 => fit_partitions::<S, 2>(s, stage, jobs, rounds, fits),
        3 => fit_partitions::<S, 3>(s, stage, jobs, rounds, fits),
        _ => fit_partitions::<S, 4>(s, stage, jobs, rounds, fits),
    }
}

#[inline(always)]
fn fit_partitions<S: Simd, const P: usize>(
    s: S,
    stage: &Stage,
    jobs: &[Job<'_>; JOBS],
    rounds: usize,
    fits: &mut Fits,
) {
    let texels = stage.candidates[0].owners.len();
    fits.load::<S, P>(s, stage, jobs, texels);
    fits.start::<P>(jobs);
    for round in 0..rounds {
        fits.spread::<S, P>(s, texels);
        fits.improve_weights(s, stage);
        if round == 0 {
            fits.improve_weights(s, stage);
        }
        fits.sum_weights::<S, P>(s, texels);
        fits.improve_ends::<P>(stage);
    }
}

impl Fits {
    #[inline(always)]
    fn load<S: Simd, const P: usize>(
        &mut self,
        s: S,
        stage: &Stage,
        jobs: &[Job<'_>; JOBS],
        texels: usize,
    ) {
        for (lane, job) in jobs.iter().enumerate() {
            let owners = &stage.candidates[usize::from(job.lead.candidate)].owners;
            for texel in 0..texels {
                self.x[texel][lane] = job.texels.position[texel] - 127.5;
                self.root[texel][lane] = job.texels.root[texel];
                self.owner[texel][lane] = f32::from(owners[texel]);
            }
        }
        let zero = s.splat_float(0.0);
        let mut sums = [[zero; 3]; P];
        for texel in 0..texels {
            let (x, root) = (s.floats(&self.x[texel]), s.floats(&self.root[texel]));
            let owner = s.floats(&self.owner[texel]);
            let mut rest = s.mul_floats(root, root);
            for (partition, sums) in sums.iter_mut().enumerate() {
                let q = if partition + 1 < P {
                    let limit = s.splat_float(partition as f32 + 0.5);
                    s.select_below_floats(owner, limit, rest, zero)
                } else {
                    rest
                };
                rest = s.sub_floats(rest, q);
                s.store_floats(q, &mut self.own[partition][texel]);
                let qx = s.mul_floats(q, x);
                sums[0] = s.add_floats(sums[0], q);
                sums[1] = s.add_floats(sums[1], qx);
                sums[2] = s.add_floats(sums[2], s.mul_floats(qx, x));
            }
            self.u[texel] = [0.5; JOBS];
        }
        for (sums, out) in sums.iter().zip(&mut self.sums) {
            s.store_floats(sums[0], &mut out.q);
            s.store_floats(sums[1], &mut out.x);
            s.store_floats(sums[2], &mut out.xx);
        }
        self.weights = [[0.5; JOBS]; 64];
    }

    /// Ends about the means, rising or falling as the leads say.
    #[inline(always)]
    fn start<const P: usize>(&mut self, jobs: &[Job<'_>; JOBS]) {
        for partition in 0..P {
            let sums = &self.sums[partition];
            for lane in 0..JOBS {
                let inverse = 1.0 / sums.q[lane].max(f32::MIN_POSITIVE);
                let mean = sums.x[lane] * inverse;
                let deviation = (sums.xx[lane] * inverse - mean * mean).max(0.0).sqrt();
                let falls = jobs[lane].lead.falling >> partition & 1 == 1;
                let slope = FIRST_DISTANCE * if falls { -deviation } else { deviation };
                self.slope[partition][lane] = slope;
                self.low[partition][lane] = mean - 0.5 * slope;
            }
        }
    }

    /// Distances and residuals of all texels from the present ends and weights.
    #[inline(always)]
    fn spread<S: Simd, const P: usize>(&mut self, s: S, texels: usize) {
        let lows: [S::Floats; P] = std::array::from_fn(
            #[inline(always)]
            |partition| s.floats(&self.low[partition]),
        );
        let slopes: [S::Floats; P] = std::array::from_fn(
            #[inline(always)]
            |partition| s.floats(&self.slope[partition]),
        );
        for texel in 0..texels {
            let owner = s.floats(&self.owner[texel]);
            let (mut low, mut slope) = (lows[P - 1], slopes[P - 1]);
            for partition in (0..P - 1).rev() {
                let limit = s.splat_float(partition as f32 + 0.5);
                low = s.select_below_floats(owner, limit, lows[partition], low);
                slope = s.select_below_floats(owner, limit, slopes[partition], slope);
            }
            let root = s.floats(&self.root[texel]);
            let value = s.add_floats(low, s.mul_floats(slope, s.floats(&self.u[texel])));
            let residual = s.mul_floats(root, s.sub_floats(s.floats(&self.x[texel]), value));
            s.store_floats(s.mul_floats(root, slope), &mut self.distance[texel]);
            s.store_floats(residual, &mut self.residual[texel]);
        }
    }

    /// One sweep over the grid; each weight takes its best level given the others.
    #[inline(always)]
    fn improve_weights<S: Simd>(&mut self, s: S, stage: &Stage) {
        let steps = &stage.config.steps;
        let mut start = 0;
        for (weight, &end) in self.weights.iter_mut().zip(&stage.term_ends) {
            let terms = &stage.terms[start..end];
            start = end;
            let (mut pull, mut mass) = (s.splat_float(0.0), s.splat_float(0.0));
            for term in terms {
                let texel = usize::from(term.texel);
                let part = s.mul_floats(s.floats(&self.distance[texel]), s.splat_float(term.share));
                pull = s.add_floats(pull, s.mul_floats(part, s.floats(&self.residual[texel])));
                mass = s.add_floats(mass, s.mul_floats(part, part));
            }
            let before = s.floats(weight);
            let target = s.add_floats(s.mul_floats(before, mass), pull);
            let mut after = s.splat_float(0.0);
            for pair in steps.windows(2) {
                let middle = (f32::from(pair[0]) + f32::from(pair[1])) / 128.0;
                let limit = s.mul_floats(s.splat_float(middle), mass);
                let level = s.splat_float(f32::from(pair[1]) / 64.0);
                after = s.select_below_floats(limit, target, level, after);
            }
            s.store_floats(after, weight);
            let change = s.sub_floats(after, before);
            for term in terms {
                let texel = usize::from(term.texel);
                let change = s.mul_floats(change, s.splat_float(term.share));
                let u = s.add_floats(s.floats(&self.u[texel]), change);
                s.store_floats(u, &mut self.u[texel]);
                let moved = s.mul_floats(s.floats(&self.distance[texel]), change);
                let residual = s.sub_floats(s.floats(&self.residual[texel]), moved);
                s.store_floats(residual, &mut self.residual[texel]);
            }
        }
    }

    #[inline(always)]
    fn sum_weights<S: Simd, const P: usize>(&mut self, s: S, texels: usize) {
        let mut sums = [[s.splat_float(0.0); 3]; P];
        for texel in 0..texels {
            let (x, u) = (s.floats(&self.x[texel]), s.floats(&self.u[texel]));
            for (own, sums) in self.own.iter().zip(&mut sums) {
                let qu = s.mul_floats(s.floats(&own[texel]), u);
                sums[0] = s.add_floats(sums[0], qu);
                sums[1] = s.add_floats(sums[1], s.mul_floats(qu, u));
                sums[2] = s.add_floats(sums[2], s.mul_floats(qu, x));
            }
        }
        for (sums, out) in sums.iter().zip(&mut self.sums) {
            s.store_floats(sums[0], &mut out.u);
            s.store_floats(sums[1], &mut out.uu);
            s.store_floats(sums[2], &mut out.ux);
        }
    }

    /// Least-squares ends, each snapped to the better of its two neighbours on the endpoint grid.
    #[inline(always)]
    fn improve_ends<const P: usize>(&mut self, stage: &Stage) {
        let last = (stage.config.endpoints.len() - 1) as f32;
        self.errors = ZERO;
        for partition in 0..P {
            let sums = &self.sums[partition];
            let mut floors = [ZERO; 2];
            for lane in 0..JOBS {
                let (q, u, x) = (sums.q[lane], sums.u[lane], sums.x[lane]);
                let determinant = q * sums.uu[lane] - u * u;
                let slope = (q * sums.ux[lane] - u * x) / determinant;
                let slope = if determinant > 1e-4 * q * q { slope } else { 0.0 };
                let low = (x - slope * u) / q.max(f32::MIN_POSITIVE);
                floors[0][lane] = floor_index(low, last);
                floors[1][lane] = floor_index(low + slope, last);
            }
            let mut least = [f32::INFINITY; JOBS];
            for (up_low, up_high) in [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)] {
                for lane in 0..JOBS {
                    let (first, second) = (floors[0][lane] + up_low, floors[1][lane] + up_high);
                    let low = first * (255.0 / last) - 127.5;
                    let slope = (second - first) * (255.0 / last);
                    let x = 2.0 * (low * sums.x[lane] + slope * sums.ux[lane]);
                    let u = slope * (2.0 * low * sums.u[lane] + slope * sums.uu[lane]);
                    let error = sums.xx[lane] - x + (low * low * sums.q[lane] + u);
                    let better = error < least[lane];
                    let keep = |new: f32, old: f32| if better { new } else { old };
                    least[lane] = keep(error, least[lane]);
                    self.low[partition][lane] = keep(low, self.low[partition][lane]);
                    self.slope[partition][lane] = keep(slope, self.slope[partition][lane]);
                    self.ends[partition][0][lane] = keep(first, self.ends[partition][0][lane]);
                    self.ends[partition][1][lane] = keep(second, self.ends[partition][1][lane]);
                }
            }
            for lane in 0..JOBS {
                self.errors[lane] += least[lane];
            }
        }
    }
}

/// Index of the endpoint at or below `x`, which is counted from the middle; at most the last but
/// one of evenly spaced endpoints.
#[inline(always)]
fn floor_index(x: f32, last: f32) -> f32 {
    /// Adding and taking it away rounds to the nearest integer.
    const TO_INTEGER: f32 = 12_582_912.0;
    let place = (x + 127.5) * (last / 255.0) - 0.5;
    let place = if place > 0.0 { place } else { 0.0 };
    let place = if place < last - 1.0 { place } else { last - 1.0 };
    (place + TO_INTEGER) - TO_INTEGER
}
