//! A request and its answer, at the same time: the body goes up while the answer comes down.

use super::answer::body_bytes;
use super::reply::{self, Replied, Reuse};
use super::request::{Outcome, Request};
use super::switched::Switched;
use super::{After, Next, send};
use crate::client::Client;
use crate::core::Core;
use crate::ending::{Blame, Ending};
use crate::pump::{Broke, Incoming, Meter, Outgoing, Pump};
use crate::stream::Stream;
use crate::upstream::{self, Destination, Tried, Upstream};
use balance::Outcome as EndpointOutcome;
use plan::Forward;
use ring::{Buf, Either, Error, Message, OutBuf};
use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use wire::h1::Body;
use wire::h1::write::write_error;

/// How long an answer may take before the client is looked after.
const LOOK_NS: u64 = 100_000_000;
/// Times that a pooled connection may turn out to be closed before we give up.
const STALE: u32 = 3;

/// What both directions of an exchange share.
pub(crate) struct Talk<'a> {
    pub(crate) core: &'a Rc<Core>,
    pub(crate) request: &'a Request,
    /// When the answer must be complete; not known before the request is.
    total_by_ns: Cell<u64>,
    /// The same, or earlier while an attempt has a time of its own for the answer's head.
    pub(crate) answer_by_ns: Cell<u64>,
    /// When the request must be.
    arrive_by_ns: Cell<u64>,
    /// When the service was last heard of, from the whole request on: before, it is not its turn (`u64::MAX`).
    last_ns: Cell<u64>,
    /// When the request was handed to the kernel; 0 while it was not.
    sent_ns: Cell<u64>,
    upstream_ns: Cell<u64>,
    /// The client has got bytes of the final answer, or a part of one may be under way to it.
    pub(crate) begun: Cell<bool>,
    /// Something of the request was sent: it must not be sent again.
    sent: Cell<bool>,
    /// All of the request stands in the message that is to be sent, or was.
    filled: Cell<bool>,
    /// The request was sent whole.
    whole: Cell<bool>,
    /// Only a reset shows the client that the answer was cut short.
    pub(crate) cut: Cell<bool>,
    pub(crate) status: Cell<u16>,
    up: Cell<u64>,
    pub(crate) down: Cell<u64>,
    /// When the client is looked after, should the answer not have begun.
    look_ns: Cell<u64>,
    /// The client reset its connection.
    gone: Cell<bool>,
}

/// Why an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    ending: Ending,
    /// The client has seen a part of the answer: nothing else can be said.
    begun: bool,
}

/// What one attempt came to.
enum Attempt {
    Ended(Result<Replied, Fault>),
    /// Nothing of the request was sent, because the pooled connection was closed: another may be taken.
    Stale,
}

impl<'a> Talk<'a> {
    fn new(core: &'a Rc<Core>, request: &'a Request) -> Talk<'a> {
        Talk {
            core,
            request,
            total_by_ns: Cell::new(u64::MAX),
            answer_by_ns: Cell::new(u64::MAX),
            arrive_by_ns: Cell::new(request.arrive_by_ns()),
            last_ns: Cell::new(u64::MAX),
            sent_ns: Cell::new(0),
            upstream_ns: Cell::new(0),
            begun: Cell::new(false),
            sent: Cell::new(false),
            filled: Cell::new(false),
            whole: Cell::new(false),
            cut: Cell::new(false),
            status: Cell::new(0),
            up: Cell::new(0),
            down: Cell::new(0),
            look_ns: Cell::new(ring::now() + LOOK_NS),
            gone: Cell::new(false),
        }
    }

    pub(crate) fn fault(&self, ending: Ending) -> Fault {
        Fault { ending, begun: self.begun.get() }
    }

    /// The request is sent whole: the time for the answer begins.
    fn request_is_whole(&self, forward: &Forward) {
        self.whole.set(true);
        self.last_ns.set(ring::now());
        self.request_is_complete(forward);
    }

    /// All of the request has come from the client: the time for the answer begins, connecting and retries included.
    fn request_is_complete(&self, forward: &Forward) {
        if self.total_by_ns.get() == u64::MAX {
            self.total_by_ns.set(ring::now().saturating_add(forward.timeout_ns));
        }
        self.answer_by_ns.set(self.answer_by_ns.get().min(self.total_by_ns.get()));
    }

    /// The service gave a sign of life: its idle time begins anew, once it has begun at all.
    pub(crate) fn service_moved(&self) {
        if self.last_ns.get() != u64::MAX {
            self.last_ns.set(ring::now());
        }
    }

    /// The first head of an answer is there.
    pub(crate) fn answered(&self) {
        if self.upstream_ns.get() == 0 && self.sent_ns.get() > 0 {
            self.upstream_ns.set(ring::now().saturating_sub(self.sent_ns.get()).max(1));
        }
        self.answer_by_ns.set(self.total_by_ns.get());
    }

    /// When the wait for the answer's head ends, looked at whenever the task wakes. An answer that takes its time is
    /// waited for with an eye on the client: the wait ends at once when it resets its connection. Most answers come
    /// before that begins, and cost nothing for it.
    pub(crate) fn head_by_ns(&self, client: &Stream) -> u64 {
        let by_ns = self.answer_by_ns.get().min(self.last_ns.get().saturating_add(self.request.idle_ns()));
        if ring::now() < self.look_ns.get() {
            return by_ns.min(self.look_ns.get());
        }
        self.gone.set(client.is_failed());
        if self.gone.get() { 0 } else { by_ns }
    }

    /// What it means that the answer's head did not come in time.
    pub(crate) fn late(&self) -> Ending {
        if self.gone.get() { Ending::ClientGone } else { Ending::UpstreamTimeout }
    }

    /// Whether the request was sent whole.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole.get()
    }

    /// Whether the client may be told that its connection goes on.
    pub(crate) fn keeps_client(&self) -> bool {
        self.request.keep_alive && self.whole.get() && !self.core.draining.get()
    }
}

/// Forwards a request that was prepared, with `head` as the service is to see it.
pub(crate) async fn forward(
    core: &Rc<Core>,
    client: &mut Client,
    request: Request,
    head: OutBuf,
    forward: Forward,
) -> Next {
    let talk = Talk::new(core, &request);
    let permit = match upstream::request(&request.current, forward.service) {
        Ok(permit) => permit,
        Err(ending) => {
            let fault = talk.fault(ending);
            return conclude(&talk, client, None, Err(fault)).await.into();
        }
    };
    let mut tried = Tried::default();
    let mut message = Message::new();
    let mut incoming = Incoming::of(request.body);
    let mut head = Some(head);
    if !request.has_body() {
        talk.request_is_complete(&forward);
    }
    let connect_by_ns = ring::now().saturating_add(forward.timeout_ns.min(request.idle_ns()));
    for _ in 0..=STALE {
        let found = upstream::connection(core, &request.current, &forward, &mut tried, client, connect_by_ns);
        let mut up = match found.await {
            Ok(up) => up,
            Err(ending) => return conclude(&talk, client, None, Err(talk.fault(ending))).await.into(),
        };
        let try_by_ns = ring::now().saturating_add(forward.per_try_timeout_ns);
        talk.answer_by_ns.set(talk.total_by_ns.get().min(try_by_ns));
        let attempt = exchange(&talk, &forward, client, &mut up, &mut incoming, head.take(), &mut message).await;
        let result = match attempt {
            Attempt::Stale => continue,
            Attempt::Ended(Ok(Replied::Tunnel)) => {
                up.finish(talk.upstream_ns.get(), EndpointOutcome::Success);
                let upstream_ns = talk.upstream_ns.get();
                return Next::Switched(Switched::new(request, up, permit, upstream_ns));
            }
            Attempt::Ended(Ok(Replied::Done(reuse))) => Ok(reuse),
            Attempt::Ended(Err(fault)) => Err(fault),
        };
        return conclude(&talk, client, Some(up), result).await.into();
    }
    conclude(&talk, client, None, Err(talk.fault(Ending::UpstreamReset))).await.into()
}

/// One attempt on one connection.
async fn exchange(
    talk: &Talk<'_>,
    forward: &Forward,
    client: &mut Client,
    up: &mut Upstream,
    incoming: &mut Incoming,
    head: Option<OutBuf>,
    message: &mut Message,
) -> Attempt {
    let reused = up.reused;
    let (upstream, answer_input) = up.split();
    let Client { stream, input, .. } = client;
    let has_body = talk.request.has_body();
    let started = Cell::new(false);
    let mut nothing = None;
    let mut body = Pump {
        from: stream,
        to: upstream,
        outgoing: if talk.request.body == Body::Chunked { Outgoing::Chunked } else { Outgoing::Plain },
        incoming,
        // Without a body, what follows the head is the next request's, or waits for the 101.
        input: if has_body { input } else { &mut nothing },
        deadline_ns: &talk.arrive_by_ns,
        idle_ns: talk.request.idle_ns(),
        limit: talk.request.body_limit(),
        last: false,
        passed: &talk.up,
        started: &started,
        sent: &talk.sent,
        filled: &talk.filled,
        meter: Meter::up(&talk.core.counters),
    };
    if !has_body {
        if let Err(broke) = body.run(head, message).await {
            return sent_in_vain(talk, broke, reused);
        }
        talk.sent_ns.set(ring::entered_at());
        talk.request_is_whole(forward);
        return Attempt::Ended(reply::pass_on(talk, upstream, answer_input, stream).await);
    }
    with_body(talk, forward, body, head, message, reused, answer_input).await
}

async fn with_body(
    talk: &Talk<'_>,
    forward: &Forward,
    mut body: Pump<'_>,
    head: Option<OutBuf>,
    message: &mut Message,
    reused: bool,
    answer_input: &mut Option<Buf>,
) -> Attempt {
    let (client, upstream): (&Stream, &Stream) = (body.from, body.to);
    talk.sent_ns.set(ring::now());
    let broke = {
        let mut up = pin!(body.run(head, message));
        let mut down = pin!(reply::pass_on(talk, upstream, answer_input, client));
        match ring::select(up.as_mut(), down.as_mut()).await {
            Either::Second(result) => return Attempt::Ended(result),
            Either::First(Ok(())) => {
                talk.sent_ns.set(ring::entered_at());
                talk.request_is_whole(forward);
                return Attempt::Ended(down.await);
            }
            // The service takes no more: it may have answered all the same.
            Either::First(Err(Broke::To(error))) if talk.sent.get() && error != Error::TimedOut => {
                talk.request_is_whole(forward);
                talk.whole.set(false);
                return Attempt::Ended(down.await);
            }
            Either::First(Err(broke)) => broke,
        }
    };
    sent_in_vain(talk, broke, reused)
}

/// The request could not be sent to its end.
fn sent_in_vain(talk: &Talk<'_>, broke: Broke, reused: bool) -> Attempt {
    let ending = match broke {
        Broke::To(Error::TimedOut) => Ending::UpstreamTimeout,
        Broke::To(_) if reused && !talk.sent.get() && !talk.begun.get() => return Attempt::Stale,
        Broke::To(_) => Ending::UpstreamReset,
        Broke::From(Error::TimedOut) => Ending::RequestTimeout,
        Broke::From(_) | Broke::Ended => Ending::ClientGone,
        Broke::Malformed(reject) => Ending::Refused(reject),
        Broke::TooLarge => Ending::BodyTooLarge,
    };
    Attempt::Ended(Err(talk.fault(ending)))
}

/// What follows from how the exchange ended: for the client, for the service's connection, for the counters.
async fn conclude(talk: &Talk<'_>, client: &mut Client, up: Option<Upstream>, result: Result<Reuse, Fault>) -> After {
    let destination = up.as_ref().map(Upstream::destination).unwrap_or_default();
    let (ending, after) = match result {
        Ok(Reuse { upstream, client }) => {
            if let Some(mut up) = up {
                up.finish(talk.upstream_ns.get(), EndpointOutcome::Success);
                if upstream
                    && talk.whole.get()
                    && let Some(service) = talk.request.decision.and_then(|decision| decision.service())
                {
                    up.keep(talk.core, &talk.request.current, service);
                }
            }
            let after = match (client, talk.whole.get()) {
                (true, true) => After::Keep,
                (_, true) => talk.request.close(),
                (_, false) => After::Discard,
            };
            (Ending::Complete, after)
        }
        Err(fault) => {
            if let Some(mut up) = up {
                if fault.ending.blame() == Blame::Upstream {
                    let latency_ns = ring::now().saturating_sub(talk.sent_ns.get().max(talk.request.begun_ns));
                    up.finish(latency_ns, EndpointOutcome::Failure);
                }
                // What the service has got of the request must not look complete.
                up.stream().reset_on_close();
            }
            return fail(talk, client, fault, &destination).await;
        }
    };
    finish(talk, client, ending, &destination);
    after
}

/// Answers with an error, where that can still be done.
async fn fail(talk: &Talk<'_>, client: &mut Client, fault: Fault, destination: &Destination) -> After {
    let Some(status) = fault.ending.status().filter(|_| !fault.begun) else {
        finish(talk, client, fault.ending, destination);
        return if talk.cut.get() { After::Reset } else { After::Close };
    };
    // Where the request was not taken from the client to its end, its connection cannot go on.
    let has_body = talk.request.has_body();
    let keep = talk.request.outlives_errors() && (!has_body || talk.whole.get()) && !talk.core.draining.get();
    let mut out = OutBuf::new();
    let head_only = talk.request.head_only();
    let (id, lines) = (talk.request.note.id(), talk.request.lines());
    write_error(&mut out, status, fault.ending.text(), id, lines, !keep, head_only);
    talk.status.set(status);
    let until_ns = ring::now().saturating_add(talk.request.idle_ns());
    let sent_bytes = body_bytes(&out);
    let sent = send(talk.core, client, out, until_ns, !keep).await;
    talk.down.set(if sent { sent_bytes } else { 0 });
    finish(talk, client, fault.ending, destination);
    match (sent, keep) {
        (false, _) => After::Close,
        (true, true) => After::Keep,
        (true, false) if has_body => After::Discard,
        (true, false) => talk.request.close(),
    }
}

fn finish(talk: &Talk<'_>, client: &Client, ending: Ending, destination: &Destination) {
    let outcome = Outcome {
        status: talk.status.get(),
        upstream_ns: talk.upstream_ns.get(),
        received_bytes: talk.up.get(),
        sent_bytes: talk.down.get(),
        destination: destination.name(),
        destination_identity: destination.identity(),
    };
    talk.request.finish(talk.core, client, ending, outcome);
}
