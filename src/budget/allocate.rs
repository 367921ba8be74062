//! The cheapest sum of costs within a number of bytes, one choice an item.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// One way to store an item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Choice {
    pub(super) bytes: u64,
    pub(super) cost: f64,
}

/// A step from one choice of an item to a larger, better one.
#[derive(Debug, PartialEq)]
struct Step {
    /// Cost saved for each byte added.
    gain: f64,
    item: usize,
    /// Position on the item's hull.
    to: usize,
}

impl Eq for Step {}

impl Ord for Step {
    fn cmp(&self, other: &Self) -> Ordering {
        // The lower item first among equals, so that results do not depend on anything else.
        self.gain.total_cmp(&other.gain).then(other.item.cmp(&self.item))
    }
}

impl PartialOrd for Step {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Picks a choice for each item so that the bytes add up to at most `room`, which holds the
/// smallest choices: the step with the most gain a byte first, along the lower convex hull of each
/// item's choices. Steps that do not fit are passed over, so that what is left at the end is less
/// than the smallest step that is still open.
pub(super) fn allocate(items: &[Vec<Choice>], mut room: u64) -> Vec<usize> {
    let hulls: Vec<Vec<usize>> = items.iter().map(|choices| hull(choices)).collect();
    let mut at = vec![0; items.len()];
    let mut steps = BinaryHeap::new();
    let step = |item: usize, to: usize| -> Option<Step> {
        let hull: &Vec<usize> = &hulls[item];
        let (from, next) = (items[item][hull[to - 1]], items[item][*hull.get(to)?]);
        let gain = (from.cost - next.cost) / (next.bytes - from.bytes) as f64;
        Some(Step { gain, item, to })
    };
    for (item, hull) in hulls.iter().enumerate() {
        room -= items[item][hull[0]].bytes;
        steps.extend(step(item, 1));
    }
    while let Some(Step { item, to, .. }) = steps.pop() {
        let hull = &hulls[item];
        let more = items[item][hull[to]].bytes - items[item][hull[to - 1]].bytes;
        if more <= room {
            room -= more;
            at[item] = to;
            steps.extend(step(item, to + 1));
        }
    }
    at.iter().zip(&hulls).map(|(&at, hull)| hull[at]).collect()
}

/// The choices on the lower convex hull of cost over bytes, by bytes.
fn hull(choices: &[Choice]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..choices.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (choices[a], choices[b]);
        a.bytes.cmp(&b.bytes).then(a.cost.total_cmp(&b.cost))
    });
    let mut hull: Vec<usize> = Vec::new();
    for next in order {
        let new = choices[next];
        if hull.last().is_some_and(|&last| choices[last].cost <= new.cost) {
            continue;
        }
        let slope = |a: Choice, b: Choice| (a.cost - b.cost) / (b.bytes - a.bytes) as f64;
        while let [.., before, last] = hull[..] {
            let (before, last) = (choices[before], choices[last]);
            if last.bytes == new.bytes || slope(before, last) <= slope(last, new) {
                hull.pop();
            } else {
                break;
            }
        }
        if let [only] = hull[..]
            && choices[only].bytes == new.bytes
        {
            hull.pop();
        }
        hull.push(next);
    }
    hull
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn choice(bytes: u64, cost: f64) -> Choice {
        Choice { bytes, cost }
    }

    #[test]
    fn by_hand() {
        let steep = vec![choice(10, 8.0), choice(20, 2.0), choice(30, 1.0)];
        let flat = vec![choice(10, 3.0), choice(20, 2.5), choice(25, 2.9), choice(15, 9.0)];
        assert_eq!(hull(&steep), [0, 1, 2]);
        assert_eq!(hull(&flat), [0, 1]);
        let items = [steep, flat];
        assert_eq!(allocate(&items, 20), [0, 0]);
        assert_eq!(allocate(&items, 30), [1, 0]);
        assert_eq!(allocate(&items, 40), [2, 0]);
        assert_eq!(allocate(&items, 50), [2, 1]);
    }

    proptest! {
        /// Never over, never worse than the best of all combinations by more than one step.
        #[test]
        fn near_the_best_of_all(
            sizes in prop::collection::vec(prop::collection::vec((1u64..40, 0u32..100), 1..5), 1..5),
            extra in 0u64..80,
        ) {
            let items: Vec<Vec<Choice>> = sizes
                .iter()
                .map(|all| all.iter().map(|&(b, c)| choice(b, f64::from(c))).collect())
                .collect();
            let least: u64 = items.iter().map(|all| all.iter().map(|c| c.bytes).min().unwrap()).sum();
            let room = least + extra;
            let sum = |picks: &[usize]| {
                picks.iter().zip(&items).fold((0, 0.0), |(bytes, cost), (&pick, all)| {
                    (bytes + all[pick].bytes, cost + all[pick].cost)
                })
            };
            let (bytes, cost) = sum(&allocate(&items, room));
            prop_assert!(bytes <= room);
            let mut best = f64::INFINITY;
            let total: usize = items.iter().map(Vec::len).product();
            for mut code in 0..total {
                let picks: Vec<usize> = items.iter().map(|all| {
                    let pick = code % all.len();
                    code /= all.len();
                    pick
                }).collect();
                let (bytes, cost) = sum(&picks);
                if bytes <= room {
                    best = best.min(cost);
                }
            }
            // The relaxed optimum differs from the greedy one by at most one step of a hull.
            let largest_step = items.iter().flat_map(|all| {
                let hull = hull(all);
                hull.windows(2).map(|w| all[w[0]].cost - all[w[1]].cost).collect::<Vec<_>>()
            }).fold(0.0, f64::max);
            prop_assert!(cost <= best + largest_step + 1e-9, "{cost} {best}");
        }
    }
}
