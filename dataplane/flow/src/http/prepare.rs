//! From a parsed head to what is done with it: the decision, and the head that goes upstream. One step, no waiting.

use super::answer;
use super::request::{Note, Request};
use crate::client::Client;
use crate::core::{Core, Current, Scratch};
use crate::ending::Ending;
use plan::{Action, Decision, Edits, Forward, ForwardedMode, ListenerId, Permit};
use ring::OutBuf;
use std::rc::Rc;
use wire::h1::write::{write_decimal, write_field, write_fields, write_request_line};
use wire::h1::{Body, Field, FieldName, Head, Reject};
use wire::path::normalise;

/// A request id that a client sent is taken over when it is this short.
const REQUEST_ID_BYTES: usize = 128;
const VIA: &[u8] = b"1.1 ringway";

/// What is to be done with a request.
pub(crate) enum Prepared {
    /// Forward it, with this head.
    Forward(Request, OutBuf, Forward),
    /// Give this answer of our own (its head and body).
    Answer(Request, OutBuf, Ending),
    /// Refuse it, and end the connection.
    Refuse(Request, Ending),
}

/// Works out what to do with the request whose head was just parsed into the core's scratch memory.
pub(crate) fn request(
    core: &Core,
    current: &Rc<Current>,
    listener: ListenerId,
    client: &Client,
    bytes: &[u8],
    begun_ns: u64,
    closing: bool,
) -> Prepared {
    let Scratch { head, path, cache } = &mut *core.scratch.borrow_mut();
    let head = &*head;
    let made = core.request_id();
    let id = request_id(current, listener, head, bytes).unwrap_or(&made);
    let mut request = Request {
        current: current.clone(),
        decision: None,
        series: current.plan.listener(listener).unrouted,
        listener,
        method: head.method,
        version: head.version,
        body: head.body,
        keep_alive: head.keep_alive && !closing,
        last: !head.keep_alive,
        expects: head.expect_continue,
        upgrade: !head.upgrade.is_empty() && matches!(head.body, Body::None | Body::Length(0)),
        begun_ns,
        note: note(current, listener, head, bytes, id),
        lines: None,
        head: None,
    };
    let path = match self::path(head, bytes, path) {
        Ok(path) => path,
        Err(reject) => return Prepared::Refuse(request, Ending::Refused(reject)),
    };
    let mut out = OutBuf::new();
    if is_misdirected(current, listener, client, head.authority.of(bytes)) {
        return Prepared::Answer(request, out, Ending::Misdirected);
    }
    let seen = seen(head, bytes, path, client);
    let decision = current.plan.decide(listener, &seen, ring::random(), cache);
    request.decision = Some(decision);
    request.series = decision.series;
    current.count_rules(core, &decision);
    if decision.cors.is_some() {
        let lines = request.lines.get_or_insert_default();
        let cors = current.plan.cors_lines(&decision, &seen);
        cors.for_each(|(name, value)| write_field(lines, name.as_bytes(), value));
    }
    if let Err(limited) = current.plan.take_quotas(&decision, &seen, ring::now()) {
        current.count_refusal(core, limited.rule);
        request.decision = Some(Decision { rule: Some(limited.rule), ..decision });
        let name = &current.plan.rules[limited.rule.0 as usize].name;
        answer::write_limited(request.lines.get_or_insert_default(), name, &limited);
        return Prepared::Answer(request, out, Ending::QuotaExceeded);
    }
    let too_large = matches!(head.body, Body::Length(length) if length > request.body_limit());
    match decision.action {
        Action::Denied => Prepared::Answer(request, out, Ending::Denied),
        _ if too_large => Prepared::Answer(request, out, Ending::BodyTooLarge),
        Action::Forward(forward) => {
            let path = if forward.path_rewritten { &cache.text[..] } else { path };
            let lines = Lines { request: &request, head, bytes, client, id: request.note.id() };
            lines.write(&mut out, path, &decision, &forward.permit);
            if request.upgrade {
                let mut kept = OutBuf::new();
                kept.extend_from_slice(bytes);
                request.head = Some(kept);
            }
            Prepared::Forward(request, out, forward)
        }
        Action::Redirect(redirect) => {
            answer::write_redirect(&mut out, core, &request, redirect.status, &cache.text, &redirect.permit);
            Prepared::Answer(request, out, Ending::Redirected)
        }
        Action::Respond(respond) => {
            answer::write_response(&mut out, core, &request, respond.status, &respond.permit);
            Prepared::Answer(request, out, Ending::Responded)
        }
        Action::Preflight => {
            answer::write_preflight(&mut out, core, &request);
            Prepared::Answer(request, out, Ending::Preflight)
        }
        Action::NotFound => Prepared::Answer(request, out, Ending::NoRoute),
        Action::UnknownService(_) => Prepared::Answer(request, out, Ending::UnknownService),
    }
}

/// The path, normalised: in `scratch`, unless it was so from the start.
pub(super) fn path<'a>(head: &Head, bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<&'a [u8], Reject> {
    let sent = head.path.of(bytes);
    normalise(sent, scratch).map(|changed| if changed { &scratch[..] } else { sent })
}

/// What the plan looks at.
pub(super) fn seen<'a>(head: &'a Head, bytes: &'a [u8], path: &'a [u8], client: &'a Client) -> plan::Request<'a> {
    plan::Request {
        method: head.method,
        method_bytes: head.method_span.of(bytes),
        authority: head.authority.of(bytes),
        path,
        query: head.query.of(bytes),
        fields: &head.fields,
        head: bytes,
        peer: client.peer(),
    }
}

/// The handshake asked for a name whose certificate is not the one that stands for this host. Clients that take one
/// certificate for two hosts' may send both on one connection (RFC 9110 section 7.4).
fn is_misdirected(current: &Current, listener: ListenerId, client: &Client, authority: &[u8]) -> bool {
    let Some(name) = client.stream.peer().and_then(|peer| peer.sni.as_deref()) else { return false };
    let server = current.plan.listener(listener).transport.server();
    server.is_some_and(|server| !server.is_certificate_for(name, authority))
}

/// What is noted: for the log the whole target, otherwise the id alone.
fn note(current: &Current, listener: ListenerId, head: &Head, bytes: &[u8], id: &[u8]) -> Note {
    if current.http(listener).is_some_and(|http| http.access_log) {
        let authority = head.authority.of(bytes);
        Note::take(id, head.method_span.of(bytes), authority, head.path.of(bytes), head.query.of(bytes))
    } else {
        Note::take(id, b"", b"", b"", b"")
    }
}

/// The id that the client sent, where it is kept.
fn request_id<'a>(current: &Current, listener: ListenerId, head: &Head, bytes: &'a [u8]) -> Option<&'a [u8]> {
    if mode(current, listener) == ForwardedMode::Replace {
        return None;
    }
    let value = head.field(FieldName::XRequestId)?.value.of(bytes);
    let fits = (1..=REQUEST_ID_BYTES).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    fits.then_some(value)
}

fn mode(current: &Current, listener: ListenerId) -> ForwardedMode {
    current.http(listener).map_or(ForwardedMode::Append, |http| http.forwarded.mode)
}

/// The head that goes upstream, line by line.
struct Lines<'a> {
    request: &'a Request,
    head: &'a Head,
    bytes: &'a [u8],
    client: &'a Client,
    id: &'a [u8],
}

impl Lines<'_> {
    fn write(&self, out: &mut Vec<u8>, path: &[u8], decision: &Decision, _: &Permit) {
        let plan = &self.request.current.plan;
        let route = decision.route.map(|id| plan.route(id));
        let host = route.and_then(|route| route.host.as_deref()).map(str::as_bytes);
        let edits = route.map(|route| &route.request_edits).filter(|edits| !edits.is_empty());
        write_request_line(out, self.head.method_span.of(self.bytes), path, self.head.query.of(self.bytes));
        let keep_host = host.is_none() && self.head.field(FieldName::Host).is_some();
        if !keep_host {
            write_field(out, b"host", host.unwrap_or(self.head.authority.of(self.bytes)));
        }
        self.write_kept(out, edits, keep_host);
        self.write_framing(out);
        self.write_forwarded(out, edits);
        for (name, value) in edits.iter().flat_map(|edits| edits.writes()) {
            write_field(out, name.as_bytes(), value);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The client's fields that go on as they are.
    fn write_kept(&self, out: &mut Vec<u8>, edits: Option<&Edits>, keep_host: bool) {
        let keep_forwarded = self.mode() == ForwardedMode::Keep;
        let keep_proto = keep_forwarded || self.trusts_proto();
        let keep = |field: &Field| match field.id {
            FieldName::Host => keep_host,
            FieldName::ContentLength | FieldName::TransferEncoding | FieldName::Via | FieldName::XRequestId => false,
            FieldName::XForwardedClientCert => false,
            FieldName::XForwardedFor => keep_forwarded,
            FieldName::XForwardedProto => keep_proto,
            FieldName::Expect => self.request.expects,
            _ => true,
        };
        match edits {
            None => write_fields(out, self.bytes, &self.head.fields, keep),
            Some(edits) => write_fields(out, self.bytes, &self.head.fields, |field| {
                keep(field) && !edits.drops(field.name.of(self.bytes))
            }),
        }
    }

    fn write_framing(&self, out: &mut Vec<u8>) {
        match self.head.body {
            Body::Length(length) => {
                out.extend_from_slice(b"content-length: ");
                write_decimal(out, length);
                out.extend_from_slice(b"\r\n");
            }
            Body::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Body::None | Body::UntilClose => {}
        }
        if self.request.upgrade {
            out.extend_from_slice(b"connection: upgrade\r\n");
            write_field(out, b"upgrade", self.head.upgrade.of(self.bytes));
        } else if self.head.te_trailers {
            out.extend_from_slice(b"connection: te\r\nte: trailers\r\n");
        }
    }

    /// `Via`, `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Request-Id`, but for those that the route sets or removes.
    fn write_forwarded(&self, out: &mut Vec<u8>, edits: Option<&Edits>) {
        let ours = |name: &[u8]| edits.is_none_or(|edits| !edits.drops(name));
        if ours(b"via") {
            self.write_list(out, FieldName::Via, b"via", VIA);
        }
        if self.mode() != ForwardedMode::Keep {
            if ours(b"x-forwarded-for") {
                self.write_forwarded_for(out);
            }
            if ours(b"x-forwarded-proto") && !self.trusts_proto() {
                let scheme = if self.client.stream.peer().is_some() { "https" } else { "http" };
                write_field(out, b"x-forwarded-proto", scheme.as_bytes());
            }
        }
        self.write_client_certificate(out);
        if ours(b"x-request-id") {
            write_field(out, b"x-request-id", self.id);
        }
    }

    /// `X-Forwarded-Client-Cert`, where it is asked for: who let the client in, and who it is.
    fn write_client_certificate(&self, out: &mut Vec<u8>) {
        let asked = |http: &plan::Http| http.forward_client_certificate;
        if !self.request.current.http(self.request.listener).is_some_and(asked) {
            return;
        }
        let Some((peer, fingerprint)) = self.client.stream.peer().and_then(|peer| Some((peer, peer.fingerprint?)))
        else {
            return;
        };
        out.extend_from_slice(b"x-forwarded-client-cert: ");
        let listener = self.request.current.plan.listener(self.request.listener);
        let own = listener.transport.server().map(|server| server.certificate_for(peer.sni.as_deref()));
        if let Some(own) = own.and_then(|own| own.identity().ok()) {
            out.extend_from_slice(b"By=");
            out.extend_from_slice(own.as_str().as_bytes());
            out.push(b';');
        }
        out.extend_from_slice(b"Hash=");
        for byte in fingerprint {
            out.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
        }
        if let Some(identity) = self.client.identity() {
            out.extend_from_slice(b";URI=");
            out.extend_from_slice(identity.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }

    fn write_forwarded_for(&self, out: &mut Vec<u8>) {
        if self.mode() == ForwardedMode::Append {
            self.write_list(out, FieldName::XForwardedFor, b"x-forwarded-for", self.client.source.ip());
        } else if !self.client.source.ip().is_empty() {
            write_field(out, b"x-forwarded-for", self.client.source.ip());
        }
    }

    /// One line of all values that the client sent, and one more.
    fn write_list(&self, out: &mut Vec<u8>, id: FieldName, name: &[u8], value: &[u8]) {
        let mut sent = self.head.fields.iter().filter(|field| field.id == id && !field.hop_by_hop).peekable();
        if value.is_empty() && sent.peek().is_none() {
            return;
        }
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        for field in sent {
            let sent = field.value.of(self.bytes);
            if !sent.is_empty() {
                out.extend_from_slice(sent);
                out.extend_from_slice(if value.is_empty() { b"," } else { b", " });
            }
        }
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }

    fn mode(&self) -> ForwardedMode {
        mode(&self.request.current, self.request.listener)
    }

    /// The scheme that a trusted proxy in front of us told.
    fn trusts_proto(&self) -> bool {
        let forwarded = self.request.current.http(self.request.listener).map(|http| http.forwarded);
        forwarded.is_some_and(|forwarded| forwarded.mode == ForwardedMode::Append && forwarded.trusted_hops > 0)
            && self.head.field(FieldName::XForwardedProto).is_some()
    }
}

impl Scratch {
    /// The head that was parsed last.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }
}
