//! Panels worked off in waves: a wave is coded on all threads while the wave before it is written.
//!
//! Results come back in panel order, and memory holds two waves of results and one panel a thread.

use rayon::prelude::*;

use super::memory::PANELS_PER_THREAD;
use crate::error::Result;

/// Runs `work` on every job, on all threads of the current pool, and `record` on the results, in
/// the order of the jobs. `prepare` sees each wave before it is worked off.
///
/// # Errors
/// The first error of the earliest wave that has one.
pub(super) fn run<J, C, O>(
    jobs: impl Iterator<Item = J>,
    mut prepare: impl FnMut(&[J]) -> Result<C>,
    work: impl Fn(&J, &C) -> Result<O> + Sync,
    mut record: impl FnMut(J, O) -> Result<()> + Send,
) -> Result<()>
where
    J: Send + Sync,
    C: Sync,
    O: Send,
{
    let wave_len = PANELS_PER_THREAD * rayon::current_num_threads();
    let mut jobs = jobs.fuse();
    let mut finished: Vec<(J, O)> = Vec::new();
    loop {
        let wave: Vec<J> = jobs.by_ref().take(wave_len).collect();
        let last = wave.is_empty();
        let context = prepare(&wave)?;
        let (results, recorded) = rayon::join(
            || wave.par_iter().map(|job| work(job, &context)).collect::<Vec<Result<O>>>(),
            || finished.drain(..).try_for_each(|(job, output)| record(job, output)),
        );
        recorded?;
        let results = results.into_iter().collect::<Result<Vec<O>>>()?;
        finished.extend(wave.into_iter().zip(results));
        if last {
            return Ok(());
        }
    }
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
