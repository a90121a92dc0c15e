//! Many simulated proxies in this process, each a task with a connection of its own.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::daemon::{Daemon, Operator};
use super::failed;
use super::member::{Common, Event, live};

/// So many join at a time.
const TOGETHER: usize = 16;
/// A whole fleet has to do what it is waited for within this.
const PATIENCE: Duration = Duration::from_secs(120);

/// The fleet; its members end with it.
pub(super) struct Fleet {
    members: JoinSet<()>,
    events: mpsc::UnboundedReceiver<Event>,
}

/// How a push went, as the members saw it.
#[derive(Debug)]
pub(super) struct Taken {
    /// When the last of them had answered.
    pub(super) last: Instant,
    /// What all of them got, bytes of messages.
    pub(super) bytes: u64,
}

impl Fleet {
    /// Members of the group `fleet` join and have what is in force.
    pub(super) async fn start(size: usize, daemon: &Daemon, operator: &mut Operator) -> io::Result<Fleet> {
        let token = operator.token("fleet", size).await?;
        let (tell, events) = mpsc::unbounded_channel();
        let common = Arc::new(Common {
            daemon: daemon.address,
            roots: daemon.roots()?,
            token,
            events: tell,
            joining: Semaphore::new(TOGETHER),
        });
        let mut members = JoinSet::new();
        (0..size).for_each(|number| drop(members.spawn(live(number, common.clone()))));
        let mut fleet = Fleet { members, events };
        fleet.connected(size).await?;
        Ok(fleet)
    }

    /// How many there are.
    pub(super) fn size(&self) -> usize {
        self.members.len()
    }

    /// Waits until so many have connected, from now on; when each of them did, in order.
    pub(super) async fn connected(&mut self, count: usize) -> io::Result<Vec<Instant>> {
        let mut times = Vec::new();
        let until = tokio::time::Instant::now() + PATIENCE;
        while times.len() < count {
            match self.next(until).await? {
                Event::Connected { at } => times.push(at),
                Event::Failed => return Err(failed("a member could not join")),
                Event::Acknowledged { .. } | Event::Lost => {}
            }
        }
        Ok(times)
    }

    /// Waits until all have answered messages of a push.
    pub(super) async fn taken(&mut self, push: u64) -> io::Result<Taken> {
        let (mut done, mut last, mut sum) = (BTreeSet::new(), Instant::now(), 0);
        let until = tokio::time::Instant::now() + PATIENCE;
        while done.len() < self.size() {
            if let Event::Acknowledged { member, version, bytes, at } = self.next(until).await?
                && version >= push
            {
                (last, sum) = (at, sum + bytes);
                done.insert(member);
            }
        }
        Ok(Taken { last, bytes: sum })
    }

    /// What was told so far is forgotten; how many connections were lost meanwhile.
    pub(super) fn forget(&mut self) -> usize {
        let mut lost = 0;
        while let Ok(event) = self.events.try_recv() {
            lost += usize::from(matches!(event, Event::Lost));
        }
        lost
    }

    async fn next(&mut self, until: tokio::time::Instant) -> io::Result<Event> {
        let next = timeout_at(until, self.events.recv()).await;
        next.map_err(|_| failed("the fleet is not there within two minutes"))?
            .ok_or_else(|| failed("the fleet is gone"))
    }
}
