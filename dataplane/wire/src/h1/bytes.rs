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
    let rest = bytes.get(from..).unwrap_or_default();
    let run = rest.iter().position(|&byte| !is(byte, classes));
    run.map_or(bytes.len(), |run| from + run)
}

/// The first index from `from` on of a control character other than the tab, or the length.
#[inline]
pub(crate) fn text_end(bytes: &[u8], mut from: usize) -> usize {
    while let Some(word) = word_at(bytes, from) {
        let hits = below(word, 0x20) | equal(word, 0x7f);
        if hits == 0 {
            from += 8;
            continue;
        }
        from += hits.trailing_zeros() as usize / 8;
        if bytes[from] != b'\t' {
            return from;
        }
        from += 1;
    }
    let is_control = |&byte: &u8| (byte < 0x20 && byte != b'\t') || byte == 0x7f;
    let rest = bytes.get(from..).unwrap_or_default();
    rest.iter().position(is_control).map_or(bytes.len(), |text| from + text)
}

/// The first index from `from` on of a colon, a space or a control character below it, or the length.
#[inline]
pub(crate) fn name_end(bytes: &[u8], mut from: usize) -> usize {
    while let Some(word) = word_at(bytes, from) {
        let hits = below(word, 0x21) | equal(word, b':');
        if hits != 0 {
            return from + hits.trailing_zeros() as usize / 8;
        }
        from += 8;
    }
    let rest = bytes.get(from..).unwrap_or_default();
    let is_end = |&byte: &u8| byte < 0x21 || byte == b':';
    rest.iter().position(is_end).map_or(bytes.len(), |name| from + name)
}

/// The first index from `from` on of a space, a control character or a byte beyond ASCII, or the length.
pub(crate) fn word_end(bytes: &[u8], mut from: usize) -> usize {
    while let Some(word) = word_at(bytes, from) {
        let hits = below(word, 0x21) | equal(word, 0x7f) | word & HIGH;
        if hits != 0 {
            return from + hits.trailing_zeros() as usize / 8;
        }
        from += 8;
    }
    let rest = bytes.get(from..).unwrap_or_default();
    let is_end = |&byte: &u8| !byte.is_ascii_graphic();
    rest.iter().position(is_end).map_or(bytes.len(), |end| from + end)
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

/// The high bit of each byte below `limit` (at most 0x80). The lowest bit set is exact; those above it may be borrowed.
#[inline]
fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(ONES * limit as u64) & !word & HIGH
}

/// The high bit of each byte that equals `byte`; exact as `below` is.
#[inline]
fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * byte as u64), 1)
}

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    mark(&mut table, b"!#$%&'*+-.^_`|~", TOKEN);
    mark(&mut table, b"-._~!$&'()*+,;=:@%/", PATH | QUERY);
    mark(&mut table, b"?[]{}|^`\\", QUERY);
    mark(&mut table, b"-._", HOST);
    mark(&mut table, b"-._~", UNRESERVED);
    mark(&mut table, b"abcdefABCDEF", HEX);
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() {
            table[byte] |= TOKEN | PATH | QUERY | HOST | UNRESERVED;
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
                    let word = bytes.iter().position(|b| !b.is_ascii_graphic());
                    assert_eq!(word_end(&bytes, 0), word.unwrap_or(20), "{byte:#x} at {place}");
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
