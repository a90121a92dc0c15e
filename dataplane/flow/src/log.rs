//! Access-log records on their way from a core to the agent: written as bytes, read back as a [`Record`].
//!
//! ```text
//! time u64 | durations 2 × u64 | bytes 2 × u64 | status u16 | 18 texts, each u16 length + bytes
//! ```

use crate::ending::Ending;

/// What the access log tells about one request or tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it began, core time in nanoseconds (the agent adds the core's beginning).
    pub begun_ns: u64,
    /// From its first byte to its last, nanoseconds.
    pub duration_ns: u64,
    /// From the request's send to the first byte of the service's answer, nanoseconds; 0 when there was none.
    pub upstream_ns: u64,
    /// Bytes of the request's body (of the client's direction, in a tunnel).
    pub received_bytes: u64,
    /// Bytes of the answer's body (of the service's direction, in a tunnel).
    pub sent_bytes: u64,
    /// The status; 0 for none.
    pub status: u16,
    /// How it ended: a label of [`Ending`].
    pub ending: &'a str,
    /// The exact reason of a refusal; empty for none.
    pub detail: &'a str,
    /// The listener's name.
    pub listener: &'a str,
    /// The route's name; empty for none.
    pub route: &'a str,
    /// The service's name; empty for none.
    pub service: &'a str,
    /// The client's address and port; empty on unix sockets.
    pub source: &'a str,
    /// The endpoint's address; empty for none.
    pub destination: &'a str,
    /// `HTTP/1.1`, `HTTP/1.0`, `TCP`, `websocket` …
    pub protocol: &'a str,
    /// The method; empty for none.
    pub method: &'a [u8],
    /// The authority; empty for none.
    pub authority: &'a [u8],
    /// Path and query as they were sent; cut at 2 KiB.
    pub path: &'a [u8],
    /// The request's id; empty for none.
    pub request_id: &'a [u8],
    /// Who the client is: its SPIFFE ID; empty for none.
    pub source_identity: &'a str,
    /// Who the endpoint is: its SPIFFE ID; empty for none.
    pub destination_identity: &'a str,
    /// The rule of policy that decided: the matching `deny`, or the matching `allow`; empty for none.
    pub rule: &'a str,
    /// The rule that would have refused, were it enforced; empty for none.
    pub dry_run: &'a str,
    /// `TLSv1.3`, `TLSv1.2`; empty for plaintext.
    pub tls: &'a str,
    /// The server's name that the client asked for in its handshake; empty for none.
    pub sni: &'a str,
}

const PATH_BYTES: usize = 2048;
/// The longest SPIFFE ID (SPIFFE-ID specification, section 2).
const IDENTITY_BYTES: usize = 2048;
const TEXT_BYTES: usize = 512;

impl<'a> Record<'a> {
    /// Appends the record to `out`; texts are cut at their bounds.
    pub fn write(&self, out: &mut Vec<u8>) {
        for number in [self.begun_ns, self.duration_ns, self.upstream_ns, self.received_bytes, self.sent_bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.status.to_le_bytes());
        let texts = [
            self.ending,
            self.detail,
            self.listener,
            self.route,
            self.service,
            self.source,
            self.destination,
            self.protocol,
        ];
        for text in texts {
            put(out, text.as_bytes(), TEXT_BYTES);
        }
        put(out, self.method, TEXT_BYTES);
        put(out, self.authority, TEXT_BYTES);
        put(out, self.path, PATH_BYTES);
        put(out, self.request_id, TEXT_BYTES);
        put(out, self.source_identity.as_bytes(), IDENTITY_BYTES);
        put(out, self.destination_identity.as_bytes(), IDENTITY_BYTES);
        for text in [self.rule, self.dry_run, self.tls, self.sni] {
            put(out, text.as_bytes(), TEXT_BYTES);
        }
    }

    /// Reads what [`Record::write`] wrote; `None` for anything else.
    pub fn read(bytes: &'a [u8]) -> Option<Record<'a>> {
        let mut rest = bytes;
        let mut number = || {
            let (head, tail) = rest.split_first_chunk::<8>()?;
            rest = tail;
            Some(u64::from_le_bytes(*head))
        };
        let (begun_ns, duration_ns, upstream_ns) = (number()?, number()?, number()?);
        let (received_bytes, sent_bytes) = (number()?, number()?);
        let (status, mut rest) = rest.split_first_chunk::<2>()?;
        let mut take = || {
            let (length, tail) = rest.split_first_chunk::<2>()?;
            let (text, tail) = tail.split_at_checked(u16::from_le_bytes(*length).into())?;
            rest = tail;
            Some(text)
        };
        Some(Record {
            begun_ns,
            duration_ns,
            upstream_ns,
            received_bytes,
            sent_bytes,
            status: u16::from_le_bytes(*status),
            ending: text(take()?)?,
            detail: text(take()?)?,
            listener: text(take()?)?,
            route: text(take()?)?,
            service: text(take()?)?,
            source: text(take()?)?,
            destination: text(take()?)?,
            protocol: text(take()?)?,
            method: take()?,
            authority: take()?,
            path: take()?,
            request_id: take()?,
            source_identity: text(take()?)?,
            destination_identity: text(take()?)?,
            rule: text(take()?)?,
            dry_run: text(take()?)?,
            tls: text(take()?)?,
            sni: text(take()?)?,
        })
    }

    /// Notes how it ended.
    pub fn ended(mut self, ending: Ending) -> Record<'a> {
        self.ending = ending.label();
        self.detail = ending.detail().unwrap_or_default();
        self
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn put(out: &mut Vec<u8>, text: &[u8], most: usize) {
    let mut text = &text[..text.len().min(most)];
    // Names are UTF-8 and shorter than the bound; if one is not, it is cut at a character.
    while let Err(error) = std::str::from_utf8(text)
        && error.error_len().is_none()
    {
        text = &text[..error.valid_up_to()];
    }
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were() {
        let record = Record {
            begun_ns: 1,
            duration_ns: 2,
            upstream_ns: 3,
            received_bytes: 4,
            sent_bytes: 5,
            status: 404,
            listener: "web",
            source: "127.0.0.1:5",
            method: b"GET",
            path: b"/\xff",
            request_id: b"id",
            source_identity: "spiffe://shop/web",
            destination_identity: "spiffe://shop/cart",
            rule: "web",
            dry_run: "old-net",
            tls: "TLSv1.3",
            sni: "shop.example.com",
            ..Record::default()
        }
        .ended(Ending::NoRoute);
        let mut bytes = Vec::new();
        record.write(&mut bytes);
        assert_eq!(Record::read(&bytes), Some(record));
        for length in 0..bytes.len() {
            assert_eq!(Record::read(&bytes[..length]), None);
        }
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let name = "ä".repeat(400);
        let mut bytes = Vec::new();
        Record { listener: &name, ..Record::default() }.write(&mut bytes);
        assert_eq!(Record::read(&bytes).map(|record| record.listener.len()), Some(512));
        let identity = format!("spiffe://shop/{}", "x".repeat(2034));
        bytes.clear();
        Record { source_identity: &identity, ..Record::default() }.write(&mut bytes);
        assert_eq!(Record::read(&bytes).map(|record| record.source_identity), Some(&*identity), "identities are whole");
    }
}
