//! Two connections as one: bytes pass both ways as they come, each direction ends for itself (half-close).
//!
//! A tunnel may outlive many plans, so it keeps none: what it is counted and logged under is taken out when it begins.

use crate::client::Client;
use crate::core::{Core, Current};
use crate::counters::{Count, Series};
use crate::ending::Ending;
use crate::log::Record;
use crate::pump::{Meter, SEND_BYTES};
use crate::stream::Stream;
use plan::{Plan, RuleId, SeriesId};
use ring::{Buf, Either, Error, Message};
use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

/// What a tunnel carried.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    /// Bytes from the client.
    pub(crate) up: u64,
    /// Bytes from the endpoint.
    pub(crate) down: u64,
}

/// What a tunnel is counted and logged under.
pub(crate) struct Account {
    series: Option<Arc<Series>>,
    service: Box<str>,
    /// The names of listener and route, and of the rules that let it in and that would not have; `None`: it is not logged.
    names: Option<[Box<str>; 4]>,
}

impl Account {
    pub(crate) fn of(current: &Current, series: SeriesId, rules: [Option<RuleId>; 2], logged: bool) -> Account {
        let key = &current.plan.series[series.0 as usize];
        let rule = |id: Option<RuleId>| id.map(|id| &current.plan.rules[id.0 as usize]);
        let decided = rule(rules[0]).map(|rule| rule.name.clone()).unwrap_or_default();
        // That no rule let it in has no name, and would look like no dry run at all.
        let tried = rule(rules[1]).map(|rule| rule.title().into()).unwrap_or_default();
        Account {
            series: current.series.get(series.0 as usize).cloned(),
            service: key.service.clone(),
            names: logged.then(|| [key.listener.clone(), key.route.clone(), decided, tried]),
        }
    }

    /// Counts and logs the tunnel at its end. `record` says what there is beside names, client and ending.
    pub(crate) fn close(&self, core: &Core, client: &Client, ending: Ending, record: Record<'_>) {
        let ending = core.ended(ending);
        if let Some(series) = &self.series {
            series.core(core.index).record(ending, record.status, record.duration_ns);
        }
        core.count_pair(client.identity(), &self.service, record.status, ending);
        if let Some([listener, route, rule, dry_run]) = &self.names {
            let record = Record { listener, route, service: &self.service, rule, dry_run, ..client.record(record) };
            core.log(&record.ended(ending));
        }
    }
}

/// One side: its connection, and what has arrived from it already.
pub(crate) struct Side<'a> {
    pub(crate) stream: &'a Stream,
    pub(crate) input: Option<Buf>,
}

/// Passes bytes both ways, the client's side first, until both directions have ended, one broke, nothing passed for
/// `idle_ns`, or a new plan is not `permitted` to go on with it.
pub(crate) async fn run(
    core: &Core,
    sides: [Side<'_>; 2],
    idle_ns: u64,
    permitted: impl Fn(&Plan) -> bool,
) -> (Ending, Carried) {
    let [client, upstream] = sides;
    let meters = [Meter::up(&core.counters), Meter::down(&core.counters)];
    let (up, down) = (Cell::new(0), Cell::new(0));
    let last = Cell::new(ring::now());
    let idle = Idle { last: &last, idle_ns };
    let ending = {
        let mut there = pin!(pass(client.input, client.stream, upstream.stream, idle, meters[0], &up));
        let mut back = pin!(pass(upstream.input, upstream.stream, client.stream, idle, meters[1], &down));
        let both = async {
            match ring::select(there.as_mut(), back.as_mut()).await {
                Either::First(Ok(())) => ending(back.await, false),
                Either::Second(Ok(())) => ending(there.await, true),
                Either::First(broken) => ending(broken, true),
                Either::Second(broken) => ending(broken, false),
            }
        };
        match ring::select(pin!(both), pin!(revoked(core, permitted))).await {
            Either::First(ending) => ending,
            Either::Second(()) => Ending::Denied,
        }
    };
    if ending != Ending::TunnelClosed {
        client.stream.reset_on_close();
        upstream.stream.reset_on_close();
    }
    (ending, Carried { up: up.get(), down: down.get() })
}

/// Waits for a plan that does not permit it.
async fn revoked(core: &Core, permitted: impl Fn(&Plan) -> bool) {
    let _told = core.tell_of_plans(ring::current_task());
    let mut seen = core.generation();
    std::future::poll_fn(|_| {
        let newest = core.generation();
        if newest == seen {
            return Poll::Pending;
        }
        seen = newest;
        match core.current() {
            Some(current) if !permitted(&current.plan) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
    .await
}

fn ending(result: Result<(), Stop>, from_client: bool) -> Ending {
    match result {
        Ok(()) => Ending::TunnelClosed,
        Err(Stop::Idle) => Ending::TunnelIdle,
        Err(Stop::From) if from_client => Ending::TunnelClientReset,
        Err(Stop::To) if !from_client => Ending::TunnelClientReset,
        Err(_) => Ending::TunnelUpstreamReset,
    }
}

enum Stop {
    Idle,
    From,
    To,
}

/// When a byte passed last, either way.
#[derive(Clone, Copy)]
struct Idle<'a> {
    last: &'a Cell<u64>,
    idle_ns: u64,
}

impl Idle<'_> {
    fn until_ns(&self) -> u64 {
        self.last.get().saturating_add(self.idle_ns)
    }
}

/// One direction, to its end; then the other side is told (FIN).
async fn pass(
    mut input: Option<Buf>,
    from: &Stream,
    to: &Stream,
    idle: Idle<'_>,
    meter: Meter<'_>,
    passed: &Cell<u64>,
) -> Result<(), Stop> {
    let mut message = Message::new();
    loop {
        if input.is_none() {
            input = receive(from, idle, meter.received).await?;
        }
        let Some(buf) = input.take() else {
            to.finish().await;
            return Ok(());
        };
        message.buf(buf);
        while message.room() > 0
            && message.length() < SEND_BYTES
            && let Some(buf) = from.try_recv()
        {
            meter.received.add(buf.len() as u64);
            message.buf(buf);
        }
        let length = message.length() as u64;
        send(to, &mut message, idle).await?;
        meter.sent.add(length);
        meter.counters.body_bytes.add(length);
        passed.set(passed.get() + length);
        idle.last.set(ring::now());
    }
}

async fn receive(from: &Stream, idle: Idle<'_>, received: &Count) -> Result<Option<Buf>, Stop> {
    loop {
        match from.recv(idle.until_ns()).await {
            Ok(buf) => {
                received.add(buf.as_ref().map_or(0, |buf| buf.len() as u64));
                idle.last.set(ring::now());
                return Ok(buf);
            }
            // The other direction may have been at work meanwhile.
            Err(Error::TimedOut) if ring::now() >= idle.until_ns() => return Err(Stop::Idle),
            Err(Error::TimedOut) => {}
            Err(_) => return Err(Stop::From),
        }
    }
}

async fn send(to: &Stream, message: &mut Message, idle: Idle<'_>) -> Result<(), Stop> {
    loop {
        match to.send(message, idle.until_ns()).await {
            Ok(()) => return Ok(()),
            Err(Error::TimedOut) if ring::now() >= idle.until_ns() => return Err(Stop::Idle),
            Err(Error::TimedOut) => {}
            Err(_) => return Err(Stop::To),
        }
    }
}
