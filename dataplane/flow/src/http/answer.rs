//! Answers of our own: redirects, fixed answers, errors.

use super::request::{Outcome, Request};
use super::{After, SKIP_BYTES, send};
use crate::client::Client;
use crate::core::Core;
use crate::ending::Ending;
use crate::pump::Incoming;
use plan::{Edits, Limited, Permit, Route};
use ring::OutBuf;
use std::rc::Rc;
use wire::h1::write::{reason, write_decimal, write_error, write_field, write_status_line};
use wire::h1::{Body, Piece, Version};

/// Writes a redirect to `location`.
pub(crate) fn write_redirect(
    out: &mut Vec<u8>,
    core: &Core,
    request: &Request,
    status: u16,
    location: &[u8],
    permit: &Permit,
) {
    write_status_line(out, status, reason(status).as_bytes());
    if !edits(request).is_some_and(|edits| edits.drops(b"location")) {
        write_field(out, b"location", location);
    }
    write_rest(out, core, request, b"", permit);
}

/// Writes the fixed answer of the request's route.
pub(crate) fn write_response(out: &mut Vec<u8>, core: &Core, request: &Request, status: u16, permit: &Permit) {
    let body = route(request).map_or(&b""[..], |route| &route.body);
    write_status_line(out, status, reason(status).as_bytes());
    if !body.is_empty() && !edits(request).is_some_and(|edits| edits.drops(b"content-type")) {
        out.extend_from_slice(b"content-type: text/plain\r\n");
    }
    write_rest(out, core, request, body, permit);
}

/// Writes the answer to a CORS preflight, whose fields are the request's lines.
pub(crate) fn write_preflight(out: &mut Vec<u8>, core: &Core, request: &Request) {
    write_status_line(out, 204, reason(204).as_bytes());
    out.extend_from_slice(request.lines());
    write_persistence(out, request, keeps(core, request));
    out.extend_from_slice(b"\r\n");
}

/// The lines of an answer that a quota refuses: when to ask again (RFC 9110 section 10.2.3), and what the quota is
/// (draft-ietf-httpapi-ratelimit-headers: `q` requests in `w` seconds, of which `r` remain, and all are there again in `t`).
pub(crate) fn write_limited(out: &mut Vec<u8>, name: &str, limited: &Limited) {
    out.extend_from_slice(b"retry-after: ");
    write_decimal(out, limited.retry_after_s);
    let lines = [
        (&b"\r\nratelimit-policy: "[..], [(b'q', limited.limit.into()), (b'w', limited.window_s)]),
        (b"\r\nratelimit: ", [(b'r', limited.remaining.into()), (b't', limited.reset_s)]),
    ];
    for (field, parameters) in lines {
        out.extend_from_slice(field);
        for part in [&b"\""[..], name.as_bytes(), b"\""] {
            out.extend_from_slice(part);
        }
        for (key, value) in parameters {
            out.extend_from_slice(&[b';', key, b'=']);
            write_decimal(out, value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn write_rest(out: &mut Vec<u8>, core: &Core, request: &Request, body: &[u8], _: &Permit) {
    let bodiless = status_of(out) == 204 || status_of(out) == 304;
    if !bodiless {
        out.extend_from_slice(b"content-length: ");
        write_decimal(out, body.len() as u64);
        out.extend_from_slice(b"\r\n");
    }
    for (name, value) in edits(request).into_iter().flat_map(Edits::writes) {
        write_field(out, name.as_bytes(), value);
    }
    out.extend_from_slice(request.lines());
    write_persistence(out, request, keeps(core, request));
    out.extend_from_slice(b"\r\n");
    if !request.head_only() && !bodiless {
        out.extend_from_slice(body);
    }
}

fn route(request: &Request) -> Option<&Route> {
    request.decision.and_then(|decision| decision.route).map(|id| request.current.plan.route(id))
}

fn edits(request: &Request) -> Option<&Edits> {
    route(request).map(|route| &route.response_edits)
}

/// The status in a status line that was written here.
fn status_of(out: &[u8]) -> u16 {
    let digits = out.get(9..12).unwrap_or_default();
    digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit.wrapping_sub(b'0')))
}

/// How long the body is of a message that was written here.
pub(crate) fn body_bytes(message: &[u8]) -> u64 {
    let head = message.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    head.map_or(0, |head| (message.len() - head - 4) as u64)
}

/// Writes whether the connection goes on, where that must be said.
pub(crate) fn write_persistence(out: &mut Vec<u8>, request: &Request, keep: bool) {
    if !keep {
        out.extend_from_slice(b"connection: close\r\n");
    } else if request.version == Version::Http10 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
}

/// Whether the connection can go on after an answer of our own: what is left of the request can be read to its end.
fn keeps(core: &Core, request: &Request) -> bool {
    let readable = match request.body {
        Body::None => true,
        Body::Length(length) => length == 0 || (length <= SKIP_BYTES && !request.expects),
        Body::Chunked => !request.expects,
        Body::UntilClose => false,
    };
    request.keep_alive && readable && !core.draining.get()
}

/// Gives an answer that was written, or the error that the ending says; then reads what is left of the request.
pub(crate) async fn give(
    core: &Rc<Core>,
    client: &mut Client,
    request: Request,
    mut out: OutBuf,
    ending: Ending,
) -> After {
    let keep = keeps(core, &request) && (ending.status().is_none() || request.outlives_errors());
    if let Some(status) = ending.status() {
        out.clear();
        let (id, lines) = (request.note.id(), request.lines());
        write_error(&mut out, status, ending.text(), id, lines, !keep, request.head_only());
    }
    let (status, sent_bytes) = (status_of(&out), body_bytes(&out));
    let until_ns = ring::now().saturating_add(request.idle_ns());
    if !send(core, client, out, until_ns, !keep).await {
        request.finish(core, client, Ending::ClientGone, Outcome { status, ..Outcome::default() });
        return After::Close;
    }
    let mut received_bytes = 0;
    let read = keep && skip(core, client, &request, &mut received_bytes).await;
    request.finish(core, client, ending, Outcome { status, received_bytes, sent_bytes, ..Outcome::default() });
    match (keep, read) {
        (true, true) => After::Keep,
        (false, _) if !request.has_body() => request.close(),
        _ => After::Discard,
    }
}

/// Refuses a request that cannot be relied on to end where it says: the connection ends.
pub(crate) async fn refuse(core: &Rc<Core>, client: &mut Client, request: Request, ending: Ending) -> After {
    let status = ending.status().unwrap_or(400);
    let mut out = OutBuf::new();
    write_error(&mut out, status, ending.text(), request.note.id(), request.lines(), true, request.head_only());
    let until_ns = ring::now().saturating_add(request.idle_ns());
    let sent_bytes = body_bytes(&out);
    let sent = send(core, client, out, until_ns, true).await;
    let sent_bytes = if sent { sent_bytes } else { 0 };
    request.finish(core, client, ending, Outcome { status, sent_bytes, ..Outcome::default() });
    if sent { After::Discard } else { After::Close }
}

/// Reads the request's body and forgets it, adding up its bytes. `false`: it is malformed, too long, or does not come.
async fn skip(core: &Core, client: &mut Client, request: &Request, bytes: &mut u64) -> bool {
    let mut body = Incoming::of(request.body);
    let mut skipped = 0;
    let until_ns = request.arrive_by_ns().min(ring::now().saturating_add(request.idle_ns()));
    loop {
        if let Incoming::Length(0) = body {
            return true;
        }
        let buf = match client.input.take() {
            Some(buf) => Some(buf),
            None => {
                let buf = client.stream.recv(until_ns).await.ok().flatten();
                core.counters.downstream_received_bytes.add(buf.as_ref().map_or(0, |buf| buf.len() as u64));
                buf
            }
        };
        let Some(mut buf) = buf else { return false };
        skipped += buf.len() as u64;
        let ended = match &mut body {
            Incoming::Length(left) => {
                let taken = (*left).min(buf.len() as u64);
                *left -= taken;
                *bytes += taken;
                buf.advance(taken as usize);
                *left == 0
            }
            Incoming::Chunked(chunked) => loop {
                match chunked.next(&buf) {
                    Ok(Piece::Data { skip, length }) => {
                        *bytes += length as u64;
                        buf.advance(skip + length);
                    }
                    Ok(Piece::More) => {
                        buf.truncate(0);
                        break false;
                    }
                    Ok(Piece::End { consumed }) => {
                        buf.advance(consumed);
                        break true;
                    }
                    Err(_) => return false,
                }
            },
            Incoming::UntilClose => return false,
        };
        if !buf.is_empty() {
            client.input = Some(buf);
        }
        if ended {
            return true;
        }
        if skipped > SKIP_BYTES {
            return false;
        }
    }
}
