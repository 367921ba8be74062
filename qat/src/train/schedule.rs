//! Rates and the order of windows over a run.

use std::f32::consts::PI;

/// Linear warm-up, then half a cosine down to a floor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Steps of the run.
    pub steps: u64,
    /// Steps until the rate is full.
    pub warmup: u64,
    /// Share of the full rate that the last step has.
    pub floor: f32,
}

impl Schedule {
    /// Share of the full rate that step `number`, from 1, has.
    #[must_use]
    pub fn share(&self, number: u64) -> f32 {
        if number <= self.warmup {
            return number as f32 / self.warmup as f32;
        }
        let rest = self.steps.saturating_sub(self.warmup).max(1) as f32;
        let done = ((number - self.warmup) as f32 / rest).min(1.0);
        self.floor + (1.0 - self.floor) * 0.5 * (1.0 + (PI * done).cos())
    }
}

/// The windows of a text in an order that differs from epoch to epoch and depends on the seed
/// alone: any position of a run can be found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowOrder {
    /// Number of windows.
    pub count: usize,
    /// Seed.
    pub seed: u64,
}

impl WindowOrder {
    /// The windows number `first` to `first + wanted` of the endless sequence of epochs.
    #[must_use]
    pub fn take(&self, first: u64, wanted: usize) -> Vec<usize> {
        let count = self.count as u64;
        let mut known: Option<(u64, Vec<usize>)> = None;
        (first..first + wanted as u64)
            .map(|place| {
                let epoch = place / count;
                if known.as_ref().is_none_or(|(of, _)| *of != epoch) {
                    known = Some((epoch, self.epoch(epoch)));
                }
                known.as_ref().map_or(0, |(_, order)| order[(place % count) as usize])
            })
            .collect()
    }

    /// A permutation: Fisher-Yates with SplitMix64.
    fn epoch(&self, epoch: u64) -> Vec<usize> {
        let mut state = self.seed ^ (epoch + 1).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let mut order: Vec<usize> = (0..self.count).collect();
        for i in (1..self.count).rev() {
            order.swap(i, (next() % (i as u64 + 1)) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_and_down() {
        let schedule = Schedule { steps: 110, warmup: 10, floor: 0.1 };
        assert_eq!(schedule.share(1), 0.1);
        assert_eq!(schedule.share(10), 1.0);
        assert!((schedule.share(60) - 0.55).abs() < 1e-6);
        assert!((schedule.share(110) - 0.1).abs() < 1e-6);
        assert!((schedule.share(1000) - 0.1).abs() < 1e-6);
        let flat = Schedule { steps: 5, warmup: 0, floor: 1.0 };
        assert!((1..=5).all(|step| flat.share(step) == 1.0));
    }

    #[test]
    fn every_epoch_is_a_permutation_of_its_own_and_can_be_entered_anywhere() {
        let order = WindowOrder { count: 17, seed: 3 };
        let all = order.take(0, 51);
        for epoch in all.chunks(17) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..17).collect::<Vec<_>>());
        }
        assert_ne!(all[..17], all[17..34]);
        assert_eq!(order.take(13, 9), all[13..22]);
        assert_ne!(WindowOrder { seed: 4, ..order }.take(0, 17), all[..17]);
    }
}
