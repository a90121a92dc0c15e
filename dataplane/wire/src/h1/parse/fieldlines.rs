//! The field lines (RFC 9112 section 5), up to the empty line that ends the head.

use super::meaning::Meaning;
use super::{Field, FieldName, Head, Limits, Reject, Stop, line_end, span, wrong};
use crate::h1::bytes::{self, TOKEN};

impl Head {
    /// Parses all field lines; gives the end of the head.
    #[inline]
    pub(super) fn field_lines(
        &mut self,
        bytes: &[u8],
        mut at: usize,
        limits: &Limits,
        meaning: &mut Meaning,
    ) -> Result<usize, Stop> {
        loop {
            match bytes.get(at) {
                Some(b'\r') => return line_end(bytes, at, Reject::BareCr),
                None => return Err(Stop::More),
                Some(_) if self.fields.len() >= limits.fields => {
                    return Err(Reject::TooManyFields.into());
                }
                Some(_) => {}
            }
            let (field, next) = field_line(bytes, at)?;
            if field.id.has_meaning() {
                meaning.note(bytes, &field)?;
            }
            self.fields.push(field);
            at = next;
        }
    }
}

#[inline(always)]
pub(super) fn field_line(bytes: &[u8], at: usize) -> Result<(Field, usize), Stop> {
    let colon = bytes::name_end(bytes, at);
    let name = &bytes[at..colon];
    let id = FieldName::of(name);
    // A well-known name is a token; any other is looked at byte by byte.
    if id == FieldName::Other || bytes.get(colon) != Some(&b':') {
        check_name(bytes, at)?;
    }
    let mut start = colon + 1;
    while let Some(b' ' | b'\t') = bytes.get(start) {
        start += 1;
    }
    let text_end = bytes::text_end(bytes, start);
    let next = line_end(bytes, text_end, Reject::ControlCharacter)?;
    let mut end = text_end;
    while end > start && matches!(bytes[end - 1], b' ' | b'\t') {
        end -= 1;
    }
    let hop_by_hop = id.is_hop_by_hop();
    Ok((Field { name: span(at, colon), value: span(start, end), id, hop_by_hop }, next))
}

/// Checks that a token and a colon stand at `at`.
fn check_name(bytes: &[u8], at: usize) -> Result<(), Stop> {
    let end = bytes::run_end(bytes, at, TOKEN);
    let reject = match bytes.get(end) {
        Some(b':') if end > at => return Ok(()),
        Some(b':') => Reject::EmptyName,
        Some(b' ' | b'\t') if end == at => Reject::ObsFold,
        Some(b' ' | b'\t') => Reject::SpaceBeforeColon,
        _ => Reject::BadName,
    };
    Err(wrong(bytes, end, reject))
}
