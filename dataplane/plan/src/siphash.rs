//! SipHash-2-4 (Aumasson and Bernstein, 2012): a hash of short inputs that nobody can aim without its key.

/// A hash on its way.
pub(crate) struct SipHash {
    v: [u64; 4],
    /// Bytes that wait for a whole word, from the low end.
    tail: u64,
    length: u64,
}

impl SipHash {
    /// Keyed by two words.
    pub(crate) fn new(key: [u64; 2]) -> SipHash {
        let constants = [0x736f_6d65_7073_6575, 0x646f_7261_6e64_6f6d, 0x6c79_6765_6e65_7261, 0x7465_6462_7974_6573];
        let [a, b, c, d] = constants;
        SipHash { v: [a ^ key[0], b ^ key[1], c ^ key[0], d ^ key[1]], tail: 0, length: 0 }
    }

    /// Takes bytes; how they are cut does not matter.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.tail |= u64::from(byte) << (8 * (self.length & 7));
            self.length += 1;
            if self.length & 7 == 0 {
                self.word(self.tail);
                self.tail = 0;
            }
        }
    }

    /// The hash of all bytes.
    pub(crate) fn finish(mut self) -> u64 {
        self.word(self.tail | self.length << 56);
        self.v[2] ^= 0xff;
        for _ in 0..4 {
            self.round();
        }
        self.v.iter().fold(0, |all, part| all ^ part)
    }

    #[inline]
    fn word(&mut self, word: u64) {
        self.v[3] ^= word;
        self.round();
        self.round();
        self.v[0] ^= word;
    }

    #[inline(always)]
    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.v;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.v = [a, b, c, d];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paper's own example (appendix A), and neighbours from its reference implementation's table.
    #[test]
    fn agrees_with_the_paper() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let of = |length: u8| {
            let mut hash = SipHash::new(key);
            hash.write(&(0..length).collect::<Vec<u8>>());
            hash.finish()
        };
        assert_eq!(of(15), 0xa129_ca61_49be_45e5);
        assert_eq!(of(0), 0x726f_db47_dd0e_0e31);
        assert_eq!(of(8), 0x93f5_f579_9a93_2462);
    }

    #[test]
    fn cuts_do_not_matter_and_keys_do() {
        let of = |key, parts: &[&str]| {
            let mut hash = SipHash::new(key);
            parts.iter().for_each(|part| hash.write(part.as_bytes()));
            hash.finish()
        };
        assert_eq!(of([1, 2], &["spiffe://shop", "/a"]), of([1, 2], &["s", "piffe://shop/", "a"]));
        assert_ne!(of([1, 2], &["a"]), of([1, 3], &["a"]));
        assert_ne!(of([1, 2], &["a"]), of([1, 2], &["b"]));
        assert_ne!(of([1, 2], &[]), of([1, 2], &["\0"]));
    }
}
