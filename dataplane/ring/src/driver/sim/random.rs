//! The generator behind every choice of a simulation.

/// splitmix64.
pub(super) struct Random {
    state: u64,
}

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`, which is not zero.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Within a range, both ends included.
    pub(super) fn within(&mut self, (least, most): (u64, u64)) -> u64 {
        least + self.below(most.saturating_sub(least).saturating_add(1))
    }

    pub(super) fn size(&mut self, (least, most): (usize, usize)) -> usize {
        self.within((least as u64, most as u64)) as usize
    }

    /// Whether something with this probability (in thousandths) happens. Draws nothing when it cannot.
    pub(super) fn happens(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.below(1000) < u64::from(thousandths)
    }
}
