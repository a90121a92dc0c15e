//! Reading a head, of a request or of an answer: parsed in the buffer it arrived in, or gathered when it came in pieces.

use super::prepare::{self, Prepared};
use super::pump;
use super::request::{Note, Request};
use crate::client::Client;
use crate::core::{Core, Current};
use crate::ending::Ending;
use crate::port::Port;
use crate::stream::Stream;
use plan::{FOREVER_NS, ListenerId};
use ring::{Buf, Error, OutBuf};
use std::rc::Rc;
use wire::h1::{Body, HeadEnd, Method, Parsed, Reject, Version};

/// The bytes of a head that was parsed.
pub(crate) enum HeadBytes {
    /// It stands at the start of a buffer, this long.
    InPlace(Buf, usize),
    /// It was gathered; what followed it is in the input.
    Gathered(OutBuf),
}

/// Why there is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoHead {
    Malformed(Reject),
    TimedOut,
    /// The connection ended before the first byte (`false`) or within the head.
    Ended(bool),
    Broken,
}

impl HeadBytes {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            HeadBytes::InPlace(buf, length) => &buf[..*length],
            HeadBytes::Gathered(out) => out,
        }
    }

    /// Lets the head go; what follows it becomes the input.
    pub(crate) fn release(self, input: &mut Option<Buf>) {
        if let HeadBytes::InPlace(mut buf, length) = self {
            buf.advance(length);
            if !buf.is_empty() {
                *input = Some(buf);
            }
        }
    }
}

/// Reads a head. `parse` is called on whole prefixes; right after this returns, what it left in the core's scratch
/// memory stands for the bytes.
pub(crate) async fn read(
    stream: &Stream,
    input: &mut Option<Buf>,
    received: &crate::counters::Count,
    until_ns: impl Fn() -> u64,
    mut parse: impl FnMut(&[u8]) -> Result<Parsed, Reject>,
) -> Result<HeadBytes, NoHead> {
    let first = match input.take() {
        Some(buf) => buf,
        None => next(stream, received, &until_ns).await?.ok_or(NoHead::Ended(false))?,
    };
    if let Parsed::Complete { length } = parse(&first).map_err(NoHead::Malformed)? {
        return Ok(HeadBytes::InPlace(first, length));
    }
    let mut gathered = OutBuf::new();
    gathered.extend_from_slice(&first);
    drop(first);
    let mut end = HeadEnd::default();
    end.find(&gathered);
    // Parsed when its end is there, or each time it has doubled: a limit shows early, and the work stays linear.
    let mut look_at = gathered.len() * 2;
    loop {
        let mut more = next(stream, received, &until_ns).await?.ok_or(NoHead::Ended(true))?;
        let before = gathered.len();
        gathered.extend_from_slice(&more);
        if !end.find(&gathered) && gathered.len() < look_at {
            continue;
        }
        look_at = gathered.len() * 2;
        if let Parsed::Complete { length } = parse(&gathered).map_err(NoHead::Malformed)? {
            more.advance(length - before);
            if !more.is_empty() {
                *input = Some(more);
            }
            gathered.truncate(length);
            return Ok(HeadBytes::Gathered(gathered));
        }
    }
}

async fn next(
    stream: &Stream,
    received: &crate::counters::Count,
    until_ns: impl Fn() -> u64,
) -> Result<Option<Buf>, NoHead> {
    match pump::receive(stream, until_ns).await {
        Ok(buf) => {
            received.add(buf.as_ref().map_or(0, |buf| buf.len() as u64));
            Ok(buf)
        }
        Err(Error::TimedOut) => Err(NoHead::TimedOut),
        Err(_) => Err(NoHead::Broken),
    }
}

/// Reads a request's head and works out what to do with it; `None` when the client ended the connection before one was
/// whole. `closing`: it is the connection's last.
pub(crate) async fn head(
    core: &Rc<Core>,
    current: &Rc<Current>,
    listener: ListenerId,
    client: &mut Client,
    closing: bool,
) -> Option<Prepared> {
    let begun_ns = ring::now();
    let http = current.http(listener)?;
    let until_ns = begun_ns.saturating_add(http.request_timeout_ns.min(http.idle_timeout_ns));
    let parse = |bytes: &[u8]| core.scratch.borrow_mut().head.parse_request(bytes, &http.head);
    let received = &core.counters.downstream_received_bytes;
    let refuse = |ending| Some(Prepared::Refuse(unknown(core, current, listener, begun_ns), ending));
    let result = read(&client.stream, &mut client.input, received, || until_ns, parse).await;
    match result {
        Ok(head) => {
            let prepared = prepare::request(core, current, listener, client, head.bytes(), begun_ns, closing);
            head.release(&mut client.input);
            Some(prepared)
        }
        Err(NoHead::Malformed(reject)) => refuse(Ending::Refused(reject)),
        Err(NoHead::TimedOut) => refuse(Ending::RequestTimeout),
        Err(NoHead::Ended(_) | NoHead::Broken) => None,
    }
}

/// A request of which nothing is known but that it is refused.
fn unknown(core: &Core, current: &Rc<Current>, listener: ListenerId, begun_ns: u64) -> Request {
    Request {
        current: current.clone(),
        decision: None,
        series: current.plan.listener(listener).unrouted,
        listener,
        method: Method::Get,
        version: Version::Http11,
        body: Body::UntilClose,
        keep_alive: false,
        last: false,
        expects: false,
        upgrade: false,
        begun_ns,
        note: Note::take(&core.request_id(), b"", b"", b"", b""),
        lines: None,
        head: None,
    }
}

/// How long a connection of this port may rest.
pub(crate) fn idle_ns(current: &Current, port: &Port) -> u64 {
    let listener = port.listener.get();
    listener.and_then(|listener| current.http(listener)).map_or(FOREVER_NS, |http| http.idle_timeout_ns)
}
