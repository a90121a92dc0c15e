//! What bodies carry: bytes that are a function of whose body it is and where in it they stand.

use crate::choice::Choice;
use std::sync::OnceLock;

/// A prime, so that no buffer's size divides it.
const LENGTH: usize = 262_147;

fn data() -> &'static [u8] {
    static DATA: OnceLock<Vec<u8>> = OnceLock::new();
    DATA.get_or_init(|| {
        let mut choice = Choice::new(7);
        (0..LENGTH).map(|_| choice.below(256) as u8).collect()
    })
}

/// At most `most` bytes of a body, from `at`.
pub(crate) fn part(key: u64, at: usize, most: usize) -> &'static [u8] {
    let base = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let from = (base as usize % LENGTH + at) % LENGTH;
    &data()[from..LENGTH.min(from + most)]
}

/// Whether these bytes stand at `at` of a body.
pub(crate) fn is_part(key: u64, mut at: usize, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let expected = part(key, at, bytes.len());
        if bytes[..expected.len()] != *expected {
            return false;
        }
        at += expected.len();
        bytes = &bytes[expected.len()..];
    }
    true
}
