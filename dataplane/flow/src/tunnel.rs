//! Two connections as one: bytes pass both ways as they come, each direction ends for itself (half-close).
//!
//! A tunnel may outlive many plans, so it keeps none: what it is counted and logged under is taken out when it begins.

use crate::core::{Core, Current};
use crate::counters::{Count, Series};
use crate::ending::Ending;
use crate::log::Record;
use crate::pump::Meter;
use plan::SeriesId;
use ring::{Buf, Either, Error, Message, Socket};
use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;

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
    /// The names of listener, route and service; `None`: it is not logged.
    names: Option<[Box<str>; 3]>,
}

impl Account {
    pub(crate) fn of(current: &Current, series: SeriesId, logged: bool) -> Account {
        let key = &current.plan.series[series.0 as usize];
        Account {
            series: current.series.get(series.0 as usize).cloned(),
            names: logged.then(|| [key.listener.clone(), key.route.clone(), key.service.clone()]),
        }
    }

    /// Counts and logs the tunnel at its end. `record` says what there is beside names and ending.
    pub(crate) fn close(&self, core: &Core, ending: Ending, record: Record<'_>) {
        let ending = core.ended(ending);
        if let Some(series) = &self.series {
            series.core(core.index).record(record.status, record.duration_ns);
        }
        if let Some([listener, route, service]) = &self.names {
            core.log(&Record { listener, route, service, ..record }.ended(ending));
        }
    }
}

/// One side: its socket, and what has arrived from it already.
pub(crate) struct Side<'a> {
    pub(crate) socket: &'a Socket,
    pub(crate) input: Option<Buf>,
}

/// Passes bytes until both directions have ended, one broke, or nothing passed for `idle_ns`.
pub(crate) async fn run(
    client: Side<'_>,
    upstream: Side<'_>,
    idle_ns: u64,
    meters: [Meter<'_>; 2],
) -> (Ending, Carried) {
    let (up, down) = (Cell::new(0), Cell::new(0));
    let last = Cell::new(ring::now());
    let idle = Idle { last: &last, idle_ns };
    let ending = {
        let mut there = pin!(pass(client.input, client.socket, upstream.socket, idle, meters[0], &up));
        let mut back = pin!(pass(upstream.input, upstream.socket, client.socket, idle, meters[1], &down));
        match ring::select(there.as_mut(), back.as_mut()).await {
            Either::First(Ok(())) => ending(back.await, false),
            Either::Second(Ok(())) => ending(there.await, true),
            Either::First(broken) => ending(broken, true),
            Either::Second(broken) => ending(broken, false),
        }
    };
    if ending != Ending::TunnelClosed {
        client.socket.reset_on_close();
        upstream.socket.reset_on_close();
    }
    (ending, Carried { up: up.get(), down: down.get() })
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
    from: &Socket,
    to: &Socket,
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
            to.shutdown_write();
            return Ok(());
        };
        message.buf(buf);
        while message.room() > 0
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

async fn receive(from: &Socket, idle: Idle<'_>, received: &Count) -> Result<Option<Buf>, Stop> {
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

async fn send(to: &Socket, message: &mut Message, idle: Idle<'_>) -> Result<(), Stop> {
    loop {
        match to.send(message, idle.until_ns()).await {
            Ok(()) => return Ok(()),
            Err(Error::TimedOut) if ring::now() >= idle.until_ns() => return Err(Stop::Idle),
            Err(Error::TimedOut) => {}
            Err(_) => return Err(Stop::To),
        }
    }
}
