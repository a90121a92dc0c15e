//! Which bytes may stand where, and scans over them. Eight bytes at a time where a word can tell.

/// A byte of a token (RFC 9110 section 5.6.2).
pub(crate) const TOKEN: u8 = 1;
/// A byte of a path: `pchar` and `/` (RFC 3986 section 3.3).
pub(crate) const PATH: u8 = 2;
/// A byte of a query (RFC 3986 section 3.4), and those that browsers leave as they are there (WHATWG URL, query state).
pub(crate) const QUERY: u8 = 4;
/// A byte of a host's name: what DNS names consist of, and `_`. RFC 3986 allows more; no name that is routed has it, and a comma
/// shows that two Host fields became one.
pub(crate) const HOST: u8 = 8;
/// A byte of a path that normalising never touches: all but `%`.
pub(crate) const CLEAN_PATH: u8 = 64;
/// A hexadecimal digit.
pub(crate) const HEX: u8 = 16;
/// A byte that stands for itself in a path, whether percent-encoded or not (RFC 3986 section 2.3).
pub(crate) const UNRESERVED: u8 = 32;

static CLASSES: [u8; 256] = classes();

/// Whether `byte` is of one of the classes.
#[inline]
pub(crate) fn is(byte: u8, classes: u8) -> bool {
    CLASSES[byte as usize] & classes != 0
}

/// The first index from `from` on whose byte is of none of the classes, or the length.
#[inline]
pub(crate) fn run_end(bytes: &[u8], from: usize, classes: u8) -> usize {
    first(bytes, from, |byte| !is(byte, classes))
}

/// As `run_end` for `PATH` or `CLEAN_PATH`: what most paths consist of is skipped by the word.
#[inline]
pub(crate) fn path_end(bytes: &[u8], from: usize, class: u8) -> usize {
    let mut at = from;
    while let Some(word) = word_at(bytes, at)
        && is_plain(word)
    {
        at += 8;
    }
    run_end(bytes, at, class)
}

/// The first index whose byte cannot stand in a host's name, or the length.
#[inline]
pub(crate) fn host_end(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = word_at(bytes, at)
        && is_plain(word)
        && exact(word, b'/') == 0
    {
        at += 8;
    }
    run_end(bytes, at, HOST)
}

/// The first index from `from` on of a control character other than the tab, or the length.
#[inline]
pub(crate) fn text_end(bytes: &[u8], mut from: usize) -> usize {
    loop {
        from = control(bytes, from);
        if bytes.get(from) != Some(&b'\t') {
            return from;
        }
        from += 1;
    }
}

#[inline]
fn control(bytes: &[u8], from: usize) -> usize {
    let hits = |word: u64| (below(word, 0x20) | equal(word, 0x7f)) & !word & HIGH;
    scan(bytes, from, hits, |byte| byte < 0x20 || byte == 0x7f)
}

/// The first index from `from` on of a colon, a space or a control character below it, or the length.
#[inline]
pub(crate) fn name_end(bytes: &[u8], from: usize) -> usize {
    let hits = |word: u64| (below(word, 0x21) | equal(word, b':')) & !word & HIGH;
    scan(bytes, from, hits, |byte| byte < 0x21 || byte == b':')
}

/// The first index from `from` on of a space, a control character or a byte beyond ASCII, or the length.
#[inline]
pub(crate) fn word_end(bytes: &[u8], from: usize) -> usize {
    let hits = |word: u64| ((below(word, 0x21) | equal(word, 0x7f)) & !word | word) & HIGH;
    scan(bytes, from, hits, |byte| !byte.is_ascii_graphic())
}

/// The first index from `from` on where the byte is `wanted`, or the length. `hits` says the same of a word: a high bit for each
/// such byte. Only the lowest bit needs to be exact, as a borrow disturbs those above it.
#[inline]
fn scan(bytes: &[u8], from: usize, hits: impl Fn(u64) -> u64, wanted: impl Fn(u8) -> bool) -> usize {
    let mut at = from;
    while let Some(word) = word_at(bytes, at) {
        let hits = hits(word);
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    first(bytes, at, wanted)
}

#[inline]
fn first(bytes: &[u8], from: usize, wanted: impl Fn(u8) -> bool) -> usize {
    let mut at = from;
    while let Some(&byte) = bytes.get(at) {
        if wanted(byte) {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

/// Whether two bytes that follow each other are `first` and one of `second`; words at a time.
#[inline]
pub(crate) fn has_pair(bytes: &[u8], first: u8, second: [u8; 2]) -> bool {
    let mut before = 0;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        let firsts = exact(word, first);
        if (firsts << 8 | before) & (exact(word, second[0]) | exact(word, second[1])) != 0 {
            return true;
        }
        before = firsts >> 56;
    }
    let mut follows = before != 0;
    for &byte in rest {
        if follows && second.contains(&byte) {
            return true;
        }
        follows = byte == first;
    }
    false
}

/// The value of a hexadecimal digit.
#[inline]
pub(crate) fn hex_value(hex: u8) -> u8 {
    match hex {
        b'0'..=b'9' => hex - b'0',
        _ => (hex | 0x20) - b'a' + 10,
    }
}

/// Without white space at both ends (RFC 9110 section 5.6.3).
#[inline]
pub(crate) fn trimmed(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

#[inline]
fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    let chunk = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*chunk))
}

/// For bytes without a high bit: the high bit of each that is below `limit` (at most 0x80).
#[inline]
fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(ONES * limit as u64)
}

/// For bytes without a high bit: the high bit of each that equals `byte` (below 0x80).
#[inline]
fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * byte as u64), 1)
}

/// The high bit of each byte that equals `byte` (below 0x80), and of no other.
#[inline]
fn exact(word: u64, byte: u8) -> u64 {
    let differs = (word ^ (ONES * byte as u64)) & !HIGH;
    !(differs + !HIGH) & !word & HIGH
}

/// Whether all bytes are letters, digits, `-`, `.` or `/`. Sums stay in their bytes: neither summand has the high bit.
#[inline]
fn is_plain(word: u64) -> bool {
    let from = |word: u64, least: u8| word + ONES * (0x80 - least) as u64;
    let low = word & !HIGH;
    let folded = low | (ONES * 0x20);
    let letter = from(folded, b'a') & !from(folded, b'z' + 1);
    let other = from(low, b'-') & !from(low, b'9' + 1);
    (letter | other) & !word & HIGH == HIGH
}

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    mark(&mut table, b"!#$%&'*+-.^_`|~", TOKEN);
    mark(&mut table, b"-._~!$&'()*+,;=:@/", PATH | CLEAN_PATH | QUERY);
    mark(&mut table, b"%", PATH | QUERY);
    mark(&mut table, b"?[]{}|^`\\", QUERY);
    mark(&mut table, b"-._", HOST);
    mark(&mut table, b"-._~", UNRESERVED);
    mark(&mut table, b"abcdefABCDEF", HEX);
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() {
            table[byte] |= TOKEN | PATH | CLEAN_PATH | QUERY | HOST | UNRESERVED;
        }
        if (byte as u8).is_ascii_digit() {
            table[byte] |= HEX;
        }
        byte += 1;
    }
    table
}

const fn mark(table: &mut [u8; 256], bytes: &[u8], class: u8) {
    let mut at = 0;
    while at < bytes.len() {
        table[bytes[at] as usize] |= class;
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte at every place of a word and behind it, before and behind bytes with the high bit and others near the limits.
    #[test]
    fn scans_agree_with_the_plain_definition() {
        for filler in [b'a', 0x80, 0xff, 0x21, 0x7e, b';', b'9'] {
            for place in 0..20 {
                for byte in 0..=255u8 {
                    let mut bytes = [filler; 20];
                    bytes[place] = byte;
                    let text = bytes.iter().position(|&b| (b < 0x20 && b != b'\t') || b == 0x7f);
                    assert_eq!(text_end(&bytes, 0), text.unwrap_or(20), "{byte:#x} at {place}");
                    let name = bytes.iter().position(|&b| b <= 0x20 || b == b':');
                    assert_eq!(name_end(&bytes, 0), name.unwrap_or(20), "{byte:#x} at {place}");
                    let host = bytes.iter().position(|&b| !is(b, HOST));
                    assert_eq!(host_end(&bytes), host.unwrap_or(20), "{byte:#x} at {place}");
                    let path = bytes.iter().position(|&b| !is(b, PATH));
                    assert_eq!(path_end(&bytes, 0, PATH), path.unwrap_or(20), "{byte:#x} at {place}");
                    let word = bytes.iter().position(|b| !b.is_ascii_graphic());
                    assert_eq!(word_end(&bytes, 0), word.unwrap_or(20), "{byte:#x} at {place}");
                }
            }
        }
    }

    #[test]
    fn plain_words_are_plain() {
        for place in 0..8 {
            for byte in 0..=255u8 {
                let mut word = *b"azAZ09./";
                word[place] = byte;
                let plain = byte.is_ascii_alphanumeric() || b"-./".contains(&byte);
                assert_eq!(is_plain(u64::from_le_bytes(word)), plain, "{byte:#x} at {place}");
            }
        }
    }

    #[test]
    fn pairs_are_seen_at_every_place() {
        for filler in [b'a', b'.', 0xae, b'-', 0] {
            for place in 0..19 {
                for (one, two) in
                    [(b'/', b'/'), (b'/', b'.'), (b'/', b'a'), (b'a', b'/'), (0xaf, b'/'), (b'/', 0xaf), (b'/', b'0')]
                {
                    let mut bytes = [filler; 20];
                    bytes[place..place + 2].copy_from_slice(&[one, two]);
                    let has = bytes.windows(2).any(|pair| pair == b"//" || pair == b"/.");
                    assert_eq!(has_pair(&bytes, b'/', [b'/', b'.']), has, "{bytes:x?}");
                }
            }
        }
    }

    #[test]
    fn rfc9110_5_6_2_tokens() {
        let tokens = (0..=255u8).filter(|&b| is(b, TOKEN)).count();
        assert_eq!(tokens, 15 + 10 + 52);
        assert!(b"\"(),/:;<=>?@[\\]{} \t\r\n\0\x7f\x80".iter().all(|&b| !is(b, TOKEN)));
    }

    #[test]
    fn starts_behind_the_end_are_harmless() {
        assert_eq!(text_end(b"abc", 9), 3);
        assert_eq!(name_end(b"abc", 9), 3);
        assert_eq!(run_end(b"abc", 9, TOKEN), 3);
    }
}
