//! What the fields say about the message and the connection: framing, host, options, expectations.
//!
//! Decisions: a well-known field that is not hop-by-hop must not be named by `Connection` (a peer could have a proxy drop what
//! others rely on): refused, and so is Transfer-Encoding in a request. An answer that names Transfer-Encoding, as some
//! servers' do, is let through: we frame anew. Other names are marked and not forwarded.

use super::{Body, Field, FieldName, Head, Method, Reject, Span, Stop, Version};
use crate::h1::bytes::{self, TOKEN};
use crate::host;

/// Elements that `Connection` may have altogether: each is compared with every field.
const OPTIONS: u8 = 32;

/// Who speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Response,
}

/// What the field lines so far have said.
pub(super) struct Meaning {
    side: Side,
    version: Version,
    host: Option<Span>,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade_named: bool,
    others_named: bool,
    options: u8,
    upgrade: Upgrade,
    expect: bool,
    te_trailers: bool,
}

enum Upgrade {
    None,
    One(Span),
    /// Several, or none that is a protocol: ignored (RFC 9110 section 7.8).
    Unclear,
}

impl Meaning {
    pub(super) fn new(side: Side, version: Version) -> Meaning {
        Meaning {
            side,
            version,
            host: None,
            length: None,
            chunked: false,
            close: false,
            keep_alive: false,
            upgrade_named: false,
            others_named: false,
            options: 0,
            upgrade: Upgrade::None,
            expect: false,
            te_trailers: false,
        }
    }

    /// Takes in one field that has a meaning.
    pub(super) fn note(&mut self, head: &[u8], field: &Field) -> Result<(), Reject> {
        let value = field.value.of(head);
        match field.id {
            FieldName::Host => self.host(value, field.value),
            FieldName::ContentLength => self.content_length(value),
            FieldName::TransferEncoding => self.transfer_encoding(value),
            FieldName::Connection => self.connection(value),
            FieldName::Upgrade => {
                self.upgrade(value, field.value);
                Ok(())
            }
            FieldName::Expect => self.expectation(value),
            FieldName::Te => {
                self.te_trailers |= elements(value).any(|element| is_word(element, b"trailers"));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// RFC 9112 section 3.2. In an answer the field means nothing.
    fn host(&mut self, value: &[u8], place: Span) -> Result<(), Reject> {
        if self.side == Side::Response {
            return Ok(());
        }
        if self.host.is_some() {
            return Err(Reject::TwoHosts);
        }
        host::check(value)?;
        self.host = Some(place);
        Ok(())
    }

    /// RFC 9112 section 6.3; the RFC lets lists and repetitions of one number pass, we do not.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Reject> {
        if self.chunked {
            return Err(Reject::BothLengths);
        }
        if self.length.is_some() {
            return Err(Reject::TwoLengths);
        }
        self.length = Some(decimal(value).ok_or(Reject::BadLength)?);
        Ok(())
    }

    /// RFC 9112 sections 6.1 and 7: exactly one `chunked`.
    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Reject> {
        if self.length.is_some() {
            return Err(Reject::BothLengths);
        }
        if self.version == Version::Http10 {
            return Err(Reject::TransferEncodingInHttp10);
        }
        if self.chunked {
            return Err(Reject::BadTransferEncoding);
        }
        if !is_word(value, b"chunked") {
            return Err(refused_coding(value));
        }
        self.chunked = true;
        Ok(())
    }

    /// RFC 9110 section 7.6.1.
    fn connection(&mut self, value: &[u8]) -> Result<(), Reject> {
        for option in elements(value) {
            self.options += 1;
            if self.options > OPTIONS {
                return Err(Reject::BadConnection);
            }
            if option.is_empty() {
                continue;
            }
            if bytes::run_end(option, 0, TOKEN) != option.len() {
                return Err(Reject::BadConnection);
            }
            match FieldName::of(option) {
                FieldName::KeepAlive => self.keep_alive = true,
                FieldName::Upgrade => self.upgrade_named = true,
                FieldName::Other if is_word(option, b"close") => self.close = true,
                FieldName::Other | FieldName::Trailer => self.others_named = true,
                FieldName::TransferEncoding if self.side == Side::Request => {
                    return Err(Reject::BadConnection);
                }
                name if !name.is_hop_by_hop() => return Err(Reject::BadConnection),
                _ => {}
            }
        }
        Ok(())
    }

    /// RFC 9110 section 7.8.
    fn upgrade(&mut self, value: &[u8], place: Span) {
        let is_protocol = |part: &[u8]| !part.is_empty() && bytes::run_end(part, 0, TOKEN) == part.len();
        let clear = value.splitn(2, |&byte| byte == b'/').all(is_protocol);
        self.upgrade = match self.upgrade {
            Upgrade::None if clear => Upgrade::One(place),
            _ => Upgrade::Unclear,
        };
    }

    /// RFC 9110 section 10.1.1. In an answer the field means nothing.
    fn expectation(&mut self, value: &[u8]) -> Result<(), Reject> {
        if self.side == Side::Response {
            return Ok(());
        }
        if self.expect || !is_word(value, b"100-continue") {
            return Err(Reject::ExpectationUnknown);
        }
        self.expect = true;
        Ok(())
    }

    /// RFC 9112 section 9.3.
    fn keeps_alive(&self) -> bool {
        !self.close && (self.version == Version::Http11 || self.keep_alive)
    }

    /// The protocol to change to: HTTP/1.1 only, and never h2c, whose upgrade would smuggle requests past us.
    fn protocol(&self, head: &[u8]) -> Span {
        match self.upgrade {
            Upgrade::One(place)
                if self.upgrade_named && self.version == Version::Http11 && !is_word(place.of(head), b"h2c") =>
            {
                place
            }
            _ => Span::default(),
        }
    }
}

impl Head {
    /// What is known only when all fields of a request were seen. `absolute`: the target has an authority.
    #[inline]
    pub(super) fn conclude_request(&mut self, head: &[u8], meaning: &Meaning, absolute: bool) -> Result<(), Stop> {
        match meaning.host {
            Some(host) if !absolute => self.authority = host,
            // RFC 9112 section 3.2.2 has Host ignored; a difference is an attack or a mistake.
            Some(host) if !is_word(host.of(head), self.authority.of(head)) => {
                return Err(Reject::HostMismatch.into());
            }
            Some(_) => {}
            None if self.version == Version::Http11 => return Err(Reject::MissingHost.into()),
            None => {}
        }
        self.body = match (meaning.chunked, meaning.length) {
            (true, _) => Body::Chunked,
            (false, Some(length)) => Body::Length(length),
            (false, None) => Body::None,
        };
        let has_content = !matches!(self.body, Body::None | Body::Length(0));
        if self.method == Method::Trace && has_content {
            return Err(Reject::TraceWithBody.into());
        }
        // RFC 9110 section 10.1.1: ignored in HTTP/1.0 and without content.
        self.expect_continue = meaning.expect && has_content && self.version == Version::Http11;
        self.conclude_connection(head, meaning);
        Ok(())
    }

    /// What is known only when all fields of an answer were seen (RFC 9112 section 6.3).
    pub(super) fn conclude_response(&mut self, head: &[u8], meaning: &Meaning, to: Method) -> Result<(), Stop> {
        let says_length = meaning.chunked || meaning.length.is_some_and(|length| length > 0);
        self.body = match self.status {
            100..=199 if says_length || meaning.length.is_some() => {
                return Err(Reject::BodyForbidden.into());
            }
            204 if says_length => return Err(Reject::BodyForbidden.into()),
            100..=199 | 204 | 304 => Body::None,
            _ if to == Method::Head => Body::None,
            _ if meaning.chunked => Body::Chunked,
            _ => meaning.length.map_or(Body::UntilClose, Body::Length),
        };
        self.conclude_connection(head, meaning);
        self.keep_alive &= self.body != Body::UntilClose;
        if self.status == 204 {
            // RFC 9110 section 8.6: a 204 must not say a length, not even 0.
            let lengths = self.fields.iter_mut().filter(|f| f.id == FieldName::ContentLength);
            lengths.for_each(|field| field.hop_by_hop = true);
        }
        Ok(())
    }

    fn conclude_connection(&mut self, head: &[u8], meaning: &Meaning) {
        self.keep_alive = meaning.keeps_alive();
        self.upgrade = meaning.protocol(head);
        self.te_trailers = meaning.te_trailers;
        if meaning.others_named {
            self.mark_named(head);
        }
    }

    /// Marks the fields that `Connection` names.
    fn mark_named(&mut self, head: &[u8]) {
        for at in 0..self.fields.len() {
            if self.fields[at].id != FieldName::Connection {
                continue;
            }
            for option in elements(self.fields[at].value.of(head)) {
                let named = self.fields.iter_mut().filter(|f| is_word(f.name.of(head), option));
                named.for_each(|field| field.hop_by_hop = true);
            }
        }
    }
}

/// The elements of a list, empty ones too (RFC 9110 section 5.6.1).
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(bytes::trimmed)
}

fn is_word(value: &[u8], word: &[u8]) -> bool {
    value.eq_ignore_ascii_case(word)
}

/// A number of digits and nothing else (RFC 9110 section 8.6), up to 64 bits.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    let mut number = 0u64;
    for &digit in value {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    Some(number)
}

/// RFC 9112 section 6.1 wants 501 for codings that are not understood; section 6.3 wants 400 where `chunked` is not the last one.
fn refused_coding(value: &[u8]) -> Reject {
    let is_token = |coding: &[u8]| !coding.is_empty() && bytes::run_end(coding, 0, TOKEN) == coding.len();
    let chunked = |coding: &[u8]| is_word(coding, b"chunked");
    let well_formed = elements(value).all(is_token);
    let chunked_count = elements(value).filter(|coding| chunked(coding)).count();
    let chunked_last = elements(value).last().is_some_and(chunked);
    match well_formed && chunked_last && chunked_count == 1 {
        true => Reject::UnsupportedTransferCoding,
        false => Reject::BadTransferEncoding,
    }
}
