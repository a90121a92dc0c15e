//! The service's answer: its head read and written anew, its body passed on.

use super::answer::write_persistence;
use super::arrive::{self, NoHead};
use super::exchange::{Fault, Talk};
use crate::ending::Ending;
use crate::pump::{Broke, Incoming, Meter, Outgoing, Pump};
use crate::stream::Stream;
use ring::{Buf, Error, Message, OutBuf};
use std::cell::Cell;
use wire::h1::write::{write_decimal, write_field, write_fields, write_status_line};
use wire::h1::{Body, Field, FieldName, Head, Limits, Version};

/// Interim answers (1xx) that a service may give before the final one.
const INTERIM: u32 = 8;
/// Bounds on an answer's head, whatever those on requests are.
const LIMITS: Limits = Limits { head_bytes: 64 * 1024, fields: 256, target_bytes: 0 };

/// How an answer ended that was passed on whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replied {
    /// It is complete.
    Done(Reuse),
    /// 101: from now on bytes pass as they are.
    Tunnel,
}

/// What goes on after an answer that is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reuse {
    /// The service's connection can be used again.
    pub(crate) upstream: bool,
    /// The client was told that its connection goes on.
    pub(crate) client: bool,
}

/// What a head that was written means for what follows.
struct Written {
    incoming: Incoming,
    outgoing: Outgoing,
    upstream: bool,
    client: bool,
}

/// Reads the answer from `from` and passes it on to `to`.
pub(crate) async fn pass_on(
    talk: &Talk<'_>,
    from: &Stream,
    input: &mut Option<Buf>,
    to: &Stream,
) -> Result<Replied, Fault> {
    let core = talk.core;
    let method = talk.request.method;
    for _ in 0..=INTERIM {
        let parse = |bytes: &[u8]| core.scratch.borrow_mut().head.parse_response(bytes, method, &LIMITS);
        let head = arrive::read(from, input, &core.counters.upstream_received_bytes, || talk.head_by_ns(to), parse)
            .await
            .map_err(|none| talk.fault(no_head(talk, none)))?;
        talk.answered();
        let status = core.scratch.borrow().head().status;
        let mut out = OutBuf::new();
        match status {
            101 => {
                if !talk.request.upgrade {
                    return Err(talk.fault(Ending::UpstreamUnasked));
                }
                write_switch(&mut out, core.scratch.borrow().head(), head.bytes());
                head.release(input);
                talk.status.set(101);
                talk.begun.set(true);
                send(talk, to, out).await?;
                return Ok(Replied::Tunnel);
            }
            100..=199 => {
                let wanted = talk.request.version == Version::Http11 && (status != 100 || talk.request.expects);
                if wanted {
                    write_interim(&mut out, core.scratch.borrow().head(), head.bytes());
                }
                head.release(input);
                if wanted {
                    // While it is under way nothing else can be said: a fault now cuts the connection.
                    talk.begun.set(true);
                    talk.cut.set(true);
                    send(talk, to, out).await?;
                    talk.begun.set(false);
                    talk.cut.set(false);
                }
                talk.service_moved();
            }
            _ => {
                let written = write_final(talk, &mut out, core.scratch.borrow().head(), head.bytes());
                head.release(input);
                talk.status.set(status);
                return pass_body(talk, from, input, to, written, out).await;
            }
        }
    }
    Err(talk.fault(Ending::UpstreamUnasked))
}

fn no_head(talk: &Talk<'_>, none: NoHead) -> Ending {
    match none {
        NoHead::Malformed(reject) => Ending::UpstreamInvalid(reject),
        NoHead::TimedOut => talk.late(),
        NoHead::Ended(_) | NoHead::Broken => Ending::UpstreamReset,
    }
}

async fn pass_body(
    talk: &Talk<'_>,
    from: &Stream,
    input: &mut Option<Buf>,
    to: &Stream,
    written: Written,
    head: OutBuf,
) -> Result<Replied, Fault> {
    let Written { mut incoming, outgoing, upstream, client } = written;
    let mut message = Message::new();
    let mut pump = Pump {
        from,
        to,
        incoming: &mut incoming,
        outgoing,
        input,
        deadline_ns: &talk.answer_by_ns,
        idle_ns: talk.request.idle_ns(),
        limit: u64::MAX,
        last: !client && talk.is_whole(),
        passed: &talk.down,
        started: &talk.begun,
        sent: &Cell::new(false),
        filled: &Cell::new(false),
        meter: Meter::down(&talk.core.counters),
    };
    // From here on, however the exchange breaks: an answer that ends with its connection must not look complete.
    talk.cut.set(outgoing == Outgoing::Plain && !client);
    let result = pump.run(Some(head), &mut message).await;
    result.map_err(|broke| {
        talk.fault(match broke {
            Broke::From(Error::TimedOut) => Ending::UpstreamTimeout,
            Broke::Malformed(reject) if !talk.begun.get() => Ending::UpstreamInvalid(reject),
            Broke::From(_) | Broke::Ended | Broke::Malformed(_) | Broke::TooLarge => Ending::UpstreamTruncated,
            Broke::To(Error::TimedOut) if ring::now() >= talk.answer_by_ns.get() => Ending::UpstreamTimeout,
            Broke::To(Error::TimedOut) => Ending::ClientStalled,
            Broke::To(_) => Ending::ClientGone,
        })
    })?;
    Ok(Replied::Done(Reuse { upstream, client }))
}

async fn send(talk: &Talk<'_>, to: &Stream, out: OutBuf) -> Result<(), Fault> {
    let length = out.len() as u64;
    let mut message = Message::new();
    message.out(out);
    let until_ns = ring::now().saturating_add(talk.request.idle_ns());
    to.send(&mut message, until_ns).await.map_err(|_| {
        talk.begun.set(true);
        talk.fault(Ending::ClientGone)
    })?;
    talk.core.counters.downstream_sent_bytes.add(length);
    Ok(())
}

fn write_interim(out: &mut Vec<u8>, head: &Head, bytes: &[u8]) {
    write_status_line(out, head.status, head.reason.of(bytes));
    write_fields(out, bytes, &head.fields, |_| true);
    out.extend_from_slice(b"\r\n");
}

fn write_switch(out: &mut Vec<u8>, head: &Head, bytes: &[u8]) {
    write_status_line(out, 101, head.reason.of(bytes));
    out.extend_from_slice(b"connection: upgrade\r\n");
    if let Some(field) = head.field(FieldName::Upgrade) {
        write_field(out, b"upgrade", field.value.of(bytes));
    }
    write_interim_fields(out, head, bytes);
}

fn write_interim_fields(out: &mut Vec<u8>, head: &Head, bytes: &[u8]) {
    write_fields(out, bytes, &head.fields, |field| field.id != FieldName::Upgrade);
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of the final answer.
fn write_final(talk: &Talk<'_>, out: &mut Vec<u8>, head: &Head, bytes: &[u8]) -> Written {
    let request = talk.request;
    let route = request.decision.and_then(|decision| decision.route).map(|id| request.current.plan.route(id));
    let edits = route.map(|route| &route.response_edits).filter(|edits| !edits.is_empty());
    let old = request.version == Version::Http10;
    let unsized_body = matches!(head.body, Body::Chunked | Body::UntilClose);
    let outgoing = if unsized_body && !old { Outgoing::Chunked } else { Outgoing::Plain };
    let client = talk.keeps_client() && !(unsized_body && old);
    write_status_line(out, head.status, head.reason.of(bytes));
    // What an answer without a body says of its length (HEAD, 304) is the service's word and stays.
    let keep_length = head.body == Body::None;
    let keep = |field: &Field| match field.id {
        FieldName::ContentLength => keep_length,
        FieldName::TransferEncoding => false,
        FieldName::Trailer => outgoing == Outgoing::Chunked,
        _ => true,
    };
    // What the route says to browsers takes the place of what the service says.
    let cors = request.decision.is_some_and(|decision| decision.cors.is_some());
    let keep = |field: &Field| keep(field) && !(cors && is_of_cors(field.name.of(bytes)));
    match edits {
        None => write_fields(out, bytes, &head.fields, keep),
        Some(edits) => {
            write_fields(out, bytes, &head.fields, |field| keep(field) && !edits.drops(field.name.of(bytes)));
            for (name, value) in edits.writes() {
                write_field(out, name.as_bytes(), value);
            }
        }
    }
    match (head.body, outgoing) {
        (Body::Length(length), _) => {
            out.extend_from_slice(b"content-length: ");
            write_decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        (_, Outgoing::Chunked) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        _ => {}
    }
    out.extend_from_slice(request.lines());
    write_persistence(out, request, client);
    out.extend_from_slice(b"\r\n");
    let upstream = head.keep_alive && head.body != Body::UntilClose;
    // A HEAD answer and the like have no body, however they are framed.
    let outgoing = if head.body == Body::None { Outgoing::Plain } else { outgoing };
    Written { incoming: Incoming::of(head.body), outgoing, upstream, client }
}

fn is_of_cors(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"access-control-";
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}
