//! The two things of a certificate that nobody hands out: when it is valid, and all of its alternative names, also those that
//! are malformed (RFC 5280 section 4.1); and until when a revocation list is good. The structure was checked by whoever verified the
//! signature.

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// [0] EXPLICIT: the version; [3] EXPLICIT: the extensions.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const BOOLEAN: u8 = 1;
const INTEGER: u8 = 2;
const SUBJECT_ALT_NAME: &[u8] = &[0x06, 3, 0x55, 0x1d, 0x11];
/// [2] dNSName and [6] uniformResourceIdentifier of GeneralName.
pub(super) const DNS: u8 = 0x82;
pub(super) const URI: u8 = 0x86;

/// What stands in a certificate.
pub(super) struct Leaf<'a> {
    /// Unix seconds.
    pub(super) not_before_s: u64,
    /// Unix seconds.
    pub(super) not_after_s: u64,
    names: &'a [u8],
}

impl<'a> Leaf<'a> {
    /// Reads a certificate; `None` for what is none.
    pub(super) fn read(certificate: &'a [u8]) -> Option<Leaf<'a>> {
        let mut outer = Reader(certificate).of(SEQUENCE)?;
        let mut body = outer.of(SEQUENCE)?;
        body.skip_if(VERSION);
        // Serial number, signature, issuer.
        for _ in 0..3 {
            body.next()?;
        }
        let mut validity = body.of(SEQUENCE)?;
        let (not_before_s, not_after_s) = (time(validity.next()?)?, time(validity.next()?)?);
        let mut names: &[u8] = &[];
        while let Some((tag, value)) = body.next() {
            if tag == EXTENSIONS {
                names = alternative_names(value)?;
            }
        }
        Some(Leaf { not_before_s, not_after_s, names })
    }

    /// The alternative names of a kind, as bytes.
    pub(super) fn names(&self, kind: u8) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = Reader(self.names);
        std::iter::from_fn(move || rest.next()).filter(move |(tag, _)| *tag == kind).map(|(_, value)| value)
    }
}

fn alternative_names(extensions: &[u8]) -> Option<&[u8]> {
    let mut list = Reader(extensions).of(SEQUENCE)?;
    while let Some((_, extension)) = list.next() {
        if let Some(rest) = extension.strip_prefix(SUBJECT_ALT_NAME) {
            let mut rest = Reader(rest);
            rest.skip_if(BOOLEAN);
            let (_, value) = rest.next()?;
            return Reader(value).of(SEQUENCE).map(|names| names.0);
        }
    }
    Some(&[])
}

/// When a revocation list says that the next one comes (RFC 5280 section 5.1), Unix seconds; `None` where it does not.
pub(super) fn next_update_s(list: &[u8]) -> Option<u64> {
    let mut body = Reader(list).of(SEQUENCE)?.of(SEQUENCE)?;
    body.skip_if(INTEGER);
    // Signature, issuer, this update.
    for _ in 0..3 {
        body.next()?;
    }
    time(body.next()?)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], mut rest) = self.0.split_first_chunk::<2>()?;
        let mut length = usize::from(first);
        if first & 0x80 != 0 {
            let (bytes, after) =
                rest.split_at_checked(usize::from(first & 0x7f)).filter(|(bytes, _)| bytes.len() <= 3)?;
            length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            rest = after;
        }
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    fn of(&mut self, wanted: u8) -> Option<Reader<'a>> {
        self.next().filter(|(tag, _)| *tag == wanted).map(|(_, value)| Reader(value))
    }

    fn skip_if(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            self.next();
        }
    }
}

/// A time in Unix seconds (RFC 5280 section 4.1.2.5: always UTC, with seconds).
fn time((tag, text): (u8, &[u8])) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    let number = |at: usize, count: usize| {
        let digits = digits.get(at..at + count)?;
        digits.iter().all(u8::is_ascii_digit).then(|| digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
    };
    let (year, rest) = match tag {
        UTC_TIME => (number(0, 2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        GENERALIZED_TIME => (number(0, 4)?, 4),
        _ => return None,
    };
    let (month, day) = (number(rest, 2)?, number(rest + 2, 2)?);
    let seconds = number(rest + 4, 2)? * 3600 + number(rest + 6, 2)? * 60 + number(rest + 8, 2)?;
    // Days since 1970-01-01 of a Gregorian date, with the year begun in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    u64::try_from(days * 86_400 + seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc5280_4_1_2_5_times() {
        assert_eq!(time((UTC_TIME, b"700101000000Z")), Some(0));
        assert_eq!(time((UTC_TIME, b"260229000000Z")), Some(1_772_323_200));
        assert_eq!(time((GENERALIZED_TIME, b"20500101000000Z")), Some(2_524_608_000));
        assert_eq!(time((UTC_TIME, b"4912312359590")), None);
        assert_eq!(time((GENERALIZED_TIME, b"99991231235959Z")), Some(253_402_300_799));
    }

    #[test]
    fn what_is_cut_short_is_none() {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        let leaf = Leaf::read(made.der()).unwrap();
        assert_eq!(leaf.names(DNS).collect::<Vec<_>>(), [b"a.example"]);
        assert!(leaf.not_before_s < leaf.not_after_s);
        for length in 0..made.der().len() {
            let _ = Leaf::read(&made.der()[..length]);
        }
    }
}
