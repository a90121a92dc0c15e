//! A request under way: what was decided, and what is remembered of it until it is counted and logged.

use super::After;
use crate::client::Client;
use crate::core::{Core, Current};
use crate::ending::Ending;
use crate::log::Record;
use plan::{Decision, FOREVER_NS, SeriesId};
use ring::OutBuf;
use std::rc::Rc;
use wire::h1::{Body, Method, Version};

pub(crate) struct Request {
    pub(crate) current: Rc<Current>,
    pub(crate) decision: Option<Decision>,
    pub(crate) series: SeriesId,
    pub(crate) listener: plan::ListenerId,
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) body: Body,
    /// The client would use the connection again.
    pub(crate) keep_alive: bool,
    /// The client said that it sends nothing behind it.
    pub(crate) last: bool,
    /// It waits for 100 before it sends the body.
    pub(crate) expects: bool,
    /// It asks for another protocol.
    pub(crate) upgrade: bool,
    pub(crate) begun_ns: u64,
    pub(crate) note: Note,
    /// Whole field lines that any answer to it has, whoever gives it.
    pub(crate) lines: Option<OutBuf>,
    /// The head, where the request asks for another protocol: later plans look at it again.
    pub(crate) head: Option<OutBuf>,
}

/// Texts of a request that outlive its head: one after the other in pooled memory.
#[derive(Default)]
pub(crate) struct Note {
    text: OutBuf,
    id: u16,
    method: u16,
    authority: u16,
}

impl Note {
    /// Notes the request's id, and what the log wants to know.
    pub(crate) fn take(id: &[u8], method: &[u8], authority: &[u8], path: &[u8], query: &[u8]) -> Note {
        let mut text = OutBuf::new();
        let mut put = |part: &[u8], most: usize| {
            let part = &part[..part.len().min(most)];
            text.extend_from_slice(part);
            part.len() as u16
        };
        let (id, method, authority) = (put(id, 128), put(method, 32), put(authority, 256));
        put(path, 1024);
        put(query, 1024);
        Note { text, id, method, authority }
    }

    /// The request's id, method, authority and path with query.
    pub(crate) fn split(&self) -> [&[u8]; 4] {
        let (id, rest) = self.text.split_at(self.id.into());
        let (method, rest) = rest.split_at(self.method.into());
        let (authority, path) = rest.split_at(self.authority.into());
        [id, method, authority, path]
    }

    /// The request's id.
    pub(crate) fn id(&self) -> &[u8] {
        self.split()[0]
    }
}

/// What is known of a request at its end.
#[derive(Clone, Copy, Default)]
pub(crate) struct Outcome<'a> {
    /// The status that the client got; 0 for none.
    pub(crate) status: u16,
    pub(crate) upstream_ns: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) destination: &'a str,
    pub(crate) destination_identity: &'a str,
}

impl Request {
    /// The deadline for the request to be there whole: head begun to body ended.
    pub(crate) fn arrive_by_ns(&self) -> u64 {
        let timeout = self.current.http(self.listener).map_or(FOREVER_NS, |http| http.request_timeout_ns);
        self.begun_ns.saturating_add(timeout)
    }

    pub(crate) fn idle_ns(&self) -> u64 {
        self.current.http(self.listener).map_or(FOREVER_NS, |http| http.idle_timeout_ns)
    }

    /// Whether the client's connection may go on after an error. Errors never say `keep-alive`, without which an HTTP/1.0
    /// client takes its connection for ended.
    pub(crate) fn outlives_errors(&self) -> bool {
        self.keep_alive && self.version == Version::Http11
    }

    /// The most bytes of body that it may have.
    pub(crate) fn body_limit(&self) -> u64 {
        self.current.http(self.listener).map_or(u64::MAX, |http| http.body_bytes)
    }

    /// Bytes of a body follow the head.
    pub(crate) fn has_body(&self) -> bool {
        !matches!(self.body, Body::None | Body::Length(0))
    }

    /// Whole field lines that any answer to it has.
    pub(crate) fn lines(&self) -> &[u8] {
        self.lines.as_deref().map_or(&[], |lines| lines)
    }

    pub(crate) fn head_only(&self) -> bool {
        self.method == Method::Head
    }

    /// What follows an answer with which we end the connection, when the request was taken whole. A client that did not
    /// expect the end may have sent more, and closing over it would destroy the answer (RFC 9112 section 9.6).
    pub(crate) fn close(&self) -> After {
        if self.last { After::Close } else { After::Discard }
    }

    /// Counts and logs the request. Its end.
    pub(crate) fn finish(&self, core: &Core, client: &Client, ending: Ending, outcome: Outcome<'_>) {
        let duration_ns = ring::now().saturating_sub(self.begun_ns);
        let ending = core.ended(ending);
        self.current.record(core, self.series, ending, outcome.status, duration_ns);
        let key = &self.current.plan.series[self.series.0 as usize];
        core.count_pair(client.identity(), &key.service, outcome.status, ending);
        if self.current.http(self.listener).is_some_and(|http| http.access_log) {
            self.log(core, client, ending, outcome, duration_ns);
        }
    }

    fn log(&self, core: &Core, client: &Client, ending: Ending, outcome: Outcome<'_>, duration_ns: u64) {
        let [request_id, method, authority, path] = self.note.split();
        let key = &self.current.plan.series[self.series.0 as usize];
        let rule = |id: Option<plan::RuleId>| id.map(|id| &self.current.plan.rules[id.0 as usize]);
        let record = Record {
            begun_ns: self.begun_ns,
            duration_ns,
            upstream_ns: outcome.upstream_ns,
            received_bytes: outcome.received_bytes,
            sent_bytes: outcome.sent_bytes,
            status: outcome.status,
            listener: &key.listener,
            route: &key.route,
            service: &key.service,
            rule: rule(self.decision.and_then(|decision| decision.rule)).map_or("", |rule| &rule.name),
            // That no rule let it in has no name, and would look like no dry run at all.
            dry_run: rule(self.decision.and_then(|decision| decision.dry_run)).map_or("", |rule| rule.title()),
            destination: outcome.destination,
            destination_identity: outcome.destination_identity,
            protocol: match self.version {
                Version::Http10 => "HTTP/1.0",
                Version::Http11 => "HTTP/1.1",
            },
            method,
            authority,
            path,
            request_id,
            ..client.record(Record::default())
        };
        core.log(&record.ended(ending));
    }
}

impl Core {
    /// Hands a record to the log, or counts it as dropped.
    pub(crate) fn log(&self, record: &Record<'_>) {
        let mut bytes = OutBuf::new();
        record.write(&mut bytes);
        if !self.log.borrow_mut().try_push(&bytes) {
            self.counters.log_dropped.add(1);
        }
    }
}
