//! The turns of a weighted round robin, worked out once.
//!
//! The m entries of one weight w are spread over the round as one entry of weight m * w would be, and take those turns
//! one after the other: the k-th of them stands at (k + 1/2) / (m * w) of the way. So weights 3, 1 give `a a b a`, not
//! `a a a b`, and a heavy entry among a hundred light ones gets a turn after each light one.

use std::collections::HashMap;

/// Rounds are at most this long, or four turns for each entry where that is more: weights that would need a longer
/// round are scaled down (each keeps at least one turn, so 1 : 1,000,000 becomes 1 : 4,095).
const TURNS: u64 = 4_096;

/// The order in which entries take turns, as indices into `weights`. Entries of weight zero take none; empty if all are zero.
pub(crate) fn schedule(weights: &[u32]) -> Box<[u16]> {
    let weights = bounded(weights);
    let mut alike: HashMap<u64, u64> = HashMap::new();
    let place_among_alike: Vec<u64> = weights
        .iter()
        .map(|&weight| {
            let count = alike.entry(weight).or_default();
            *count += 1;
            *count - 1
        })
        .collect();
    let turns_of = |index: usize| {
        let (weight, place) = (weights[index], place_among_alike[index]);
        let count = alike[&weight];
        (0..weight).map(move |turn| Turn {
            odd: 2 * (turn * count + place) + 1,
            of: count * weight,
            index: index as u16,
        })
    };
    let mut turns: Vec<Turn> = (0..weights.len()).flat_map(turns_of).collect();
    turns.sort_unstable();
    turns.into_iter().map(|turn| turn.index).collect()
}

/// The weights in lowest terms, scaled so that the round stays bounded.
fn bounded(weights: &[u32]) -> Vec<u64> {
    let divisor = weights.iter().fold(0, |divisor, &weight| greatest_common_divisor(divisor, weight)).max(1);
    let reduced = weights.iter().map(|&weight| u64::from(weight / divisor));
    let total: u64 = reduced.clone().sum();
    let most = TURNS.max(4 * weights.len() as u64);
    if total <= most {
        return reduced.collect();
    }
    // One turn for each entry is set aside first, so that the minimum of one cannot burst the bound.
    let spread = most - weights.len() as u64;
    reduced.map(|weight| if weight == 0 { 0 } else { (weight * spread / total).max(1) }).collect()
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// A turn at `odd / (2 * of)` of the round. Turns at the same place stand in the order of their entries.
#[derive(PartialEq, Eq)]
struct Turn {
    odd: u64,
    of: u64,
    index: u16,
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (here, there) = (self.odd * other.of, other.odd * self.of);
        here.cmp(&there).then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn equal_weights_take_turns_in_order() {
        assert_eq!(*schedule(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(*schedule(&[40, 40]), [0, 1], "only the ratio counts");
    }

    #[test]
    fn heavy_entries_are_spread_over_the_round() {
        assert_eq!(*schedule(&[3, 1]), [0, 0, 1, 0]);
        assert_eq!(*schedule(&[5, 1, 1]), [0, 1, 0, 0, 0, 2, 0]);
    }

    #[test]
    fn light_entries_do_not_gather() {
        let mut weights = [1; 101];
        weights[0] = 100;
        let round = schedule(&weights);
        assert!(round.windows(3).all(|turns| turns.contains(&0) && turns != [0, 0, 0]), "{round:?}");
    }

    #[test]
    fn zero_takes_no_turn() {
        assert_eq!(*schedule(&[0, 2, 0, 2]), [1, 3]);
        assert!(schedule(&[0, 0]).is_empty());
        assert!(schedule(&[]).is_empty());
    }

    #[test]
    fn the_round_is_bounded() {
        let round = schedule(&[1, u32::MAX]);
        assert!(round.len() as u64 <= TURNS);
        assert_eq!(round.iter().filter(|&&index| index == 0).count(), 1);
        let many: Vec<u32> = (0..65_535).map(|index| index * 65_536 + 1).collect();
        let round = schedule(&many);
        assert!(round.len() <= 4 * many.len());
        let mut turns = vec![0; many.len()];
        round.iter().for_each(|&index| turns[usize::from(index)] += 1);
        assert!(turns.iter().all(|&turns| turns > 0), "every entry keeps a turn");
    }

    proptest! {
        /// Every entry has the turns its weight says, and no stretch of the round favours it: at most one
        /// turn over its share, where each other weight may shift the stretch by one turn.
        #[test]
        fn turns_are_fair_everywhere(weights in prop::collection::vec(0u32..30, 1..12)) {
            let round = schedule(&weights);
            let bounded = bounded(&weights);
            for (index, &weight) in bounded.iter().enumerate() {
                let at: Vec<usize> = (0..round.len()).filter(|&turn| round[turn] as usize == index).collect();
                prop_assert_eq!(at.len() as u64, weight);
                let share = weight as f64 / round.len().max(1) as f64;
                let kinds = bounded.iter().collect::<BTreeSet<_>>().len() as f64;
                for (first, &from) in at.iter().enumerate() {
                    for (last, &to) in at.iter().enumerate().skip(first) {
                        let expected = share * (to - from + 1) as f64;
                        prop_assert!((last - first + 1) as f64 <= expected + 1.001 + kinds * share);
                    }
                }
            }
        }
    }
}
