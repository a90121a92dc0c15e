//! Choosing by weight in constant time: Walker's alias table, built as Vose showed (1991), in integers.
//!
//! Every entry owns a column of the same height. What an entry weighs less than the average is filled up with a piece
//! of one that weighs more; a draw picks a column, then the lower or the upper piece of it.

/// The height of a column: a draw's upper half is compared with where the lower piece ends.
const FULL: u64 = 1 << 32;

/// A weighted choice among a fixed number of things, such as the services of one route.
#[derive(Clone, Debug)]
pub struct Weighted {
    columns: Box<[Column]>,
}

#[derive(Clone, Copy, Debug)]
struct Column {
    /// Where the lower piece, the column's own entry, ends: 0 to 2^32.
    own: u64,
    /// Whose the upper piece is.
    other: u32,
}

impl Weighted {
    /// A choice by these weights; a weight of zero is never chosen. `None` if nothing could be chosen (no weights, or
    /// only zeros), or if there are more than 2^31.
    pub fn new(weights: &[u32]) -> Option<Self> {
        let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        if total == 0 || weights.len() > 1 << 31 {
            return None;
        }
        Some(Weighted { columns: columns(weights, total) })
    }

    /// The index that `random`, 64 uniform bits, chooses.
    pub fn pick(&self, random: u64) -> usize {
        // Multiply and shift instead of a remainder: the lower half of the bits as a fraction of the columns.
        let index = (((random & (FULL - 1)) * self.columns.len() as u64) >> 32) as usize;
        let column = self.columns[index];
        if random >> 32 < column.own { index } else { column.other as usize }
    }
}

/// Fills the columns. `left[i]` is what entry i still has to place, in units of 1/n of a column's height `total`.
fn columns(weights: &[u32], total: u64) -> Box<[Column]> {
    let count = weights.len() as u128;
    let total = u128::from(total);
    let mut left: Vec<u128> = weights.iter().map(|&weight| u128::from(weight) * count).collect();
    let mut columns = vec![Column { own: FULL, other: 0 }; weights.len()];
    let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..left.len()).partition(|&index| left[index] < total);
    while let (Some(&low), Some(&high)) = (small.last(), large.last()) {
        small.pop();
        columns[low] = Column { own: (left[low] * u128::from(FULL) / total) as u64, other: high as u32 };
        left[high] -= total - left[low];
        if left[high] < total {
            large.pop();
            small.push(high);
        }
    }
    // In integers the pieces add up, so what remains here fills its column exactly.
    columns.into_boxed_slice()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::service::Draws;
    use proptest::prelude::*;

    #[test]
    fn nothing_to_choose_is_told_at_once() {
        assert!(Weighted::new(&[]).is_none());
        assert!(Weighted::new(&[0, 0]).is_none());
    }

    #[test]
    fn one_choice_is_always_it() {
        let weighted = Weighted::new(&[7]).unwrap();
        assert_eq!([0, 1, u64::MAX, 1 << 63].map(|random| weighted.pick(random)), [0; 4]);
    }

    #[test]
    fn draws_follow_ten_to_ninety() {
        let weighted = Weighted::new(&[10, 90]).unwrap();
        let mut draws = Draws::new(42);
        let first = (0..100_000).filter(|_| weighted.pick(draws.next()) == 0).count();
        // Standard deviation: sqrt(100,000 * 0.1 * 0.9) = 95; five of them.
        assert!((9_525..=10_475).contains(&first), "{first}");
    }

    proptest! {
        /// What the pieces of the table give each entry is what its weight says, to within the rounding of a piece.
        #[test]
        fn pieces_add_up_to_weights(weights in prop::collection::vec(prop_oneof![Just(0u32), 1u32..100, any::<u32>()], 1..60)) {
            let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
            prop_assume!(total > 0);
            let table = Weighted::new(&weights).unwrap();
            let mut share = vec![0u64; weights.len()];
            for (index, column) in table.columns.iter().enumerate() {
                share[index] += column.own;
                share[column.other as usize] += FULL - column.own;
            }
            for (share, &weight) in share.iter().zip(&weights) {
                let expected = u128::from(weight) * weights.len() as u128 * u128::from(FULL) / u128::from(total);
                prop_assert!(u128::from(*share).abs_diff(expected) <= weights.len() as u128 + 1);
                prop_assert!(weight > 0 || *share == 0, "a weight of zero got a piece");
            }
        }
    }
}
