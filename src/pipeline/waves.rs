//! Panels worked off in waves: while one wave is coded on all threads, the wave before it is written
//! and the wave after it prepared.
//!
//! Results come back in panel order, and memory holds two waves of results and one panel a thread.

use rayon::prelude::*;

use super::memory::PANELS_PER_THREAD;
use crate::error::Result;

/// Runs `work` on every job, on all threads of the current pool, and `record` on the results, in
/// the order of the jobs. `prepare` sees each wave, in order, before it is worked off.
///
/// # Errors
/// The first error of the earliest wave that has one.
pub(super) fn run<J, C, O>(
    jobs: impl Iterator<Item = J>,
    mut prepare: impl FnMut(&[J]) -> Result<C> + Send,
    work: impl Fn(&J, &C) -> Result<O> + Sync,
    mut record: impl FnMut(J, O) -> Result<()> + Send,
) -> Result<()>
where
    J: Send + Sync,
    C: Send + Sync,
    O: Send,
{
    let wave_len = PANELS_PER_THREAD * rayon::current_num_threads();
    let mut jobs = jobs.fuse();
    let mut next_wave = move || -> Vec<J> { jobs.by_ref().take(wave_len).collect() };
    let mut wave = next_wave();
    let mut context = prepare(&wave)?;
    let mut finished: Vec<(J, O)> = Vec::new();
    while !wave.is_empty() {
        let next = next_wave();
        let (results, beside) = rayon::join(
            || wave.par_iter().map(|job| work(job, &context)).collect::<Vec<Result<O>>>(),
            || -> Result<Result<C>> {
                finished.drain(..).try_for_each(|(job, output)| record(job, output))?;
                Ok(prepare(&next))
            },
        );
        let prepared = beside?;
        let results = results.into_iter().collect::<Result<Vec<O>>>()?;
        finished.extend(wave.into_iter().zip(results));
        context = prepared?;
        wave = next;
    }
    finished.into_iter().try_for_each(|(job, output)| record(job, output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_everything_is_recorded() {
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut seen = Vec::new();
            pool.install(|| {
                run(
                    0..1000,
                    |_| Ok(7),
                    |&j, &c| Ok(j * c),
                    |j, o| {
                        assert_eq!(o, j * 7);
                        seen.push(j);
                        Ok(())
                    },
                )
            })
            .unwrap();
            assert_eq!(seen, (0..1000).collect::<Vec<_>>());
        }
    }
}
