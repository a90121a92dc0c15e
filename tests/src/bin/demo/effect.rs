//! When a push takes effect, seen from outside: in each proxy for itself, by requests that no other one would refuse.

use crate::ask::Caller;
use crate::document::local;
use crate::mesh::Mesh;
use ringway_tests::until;
use std::fmt;
use std::time::{Duration, Instant};

/// All proxies do as a push says within this time, from when `ringwayctl` was started.
const AT_ONCE: Duration = Duration::from_secs(1);
/// On a machine that has much else to do: within the time in which `ringwayctl` looks at the mesh so many times.
const LOOKS: u32 = 20;
/// Then nobody waits for it any more.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long one proxy took.
pub(crate) struct Effect {
    proxy: &'static str,
    took: Option<Duration>,
    most: Duration,
}

impl Effect {
    pub(crate) fn is_at_once(&self) -> bool {
        self.took.is_some_and(|took| took <= self.most)
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.took {
            Some(took) => write!(out, "{} {:.2}", self.proxy, took.as_secs_f64()),
            None => write!(out, "{} never", self.proxy),
        }
    }
}

/// Where a POST is let through or refused by this proxy alone: those before it have no rule for it.
fn doors(mesh: &Mesh) -> [(&'static str, u16, &'static str); 4] {
    let ports = &mesh.ports;
    [
        ("gateway", ports.public, "/basket"),
        ("web", ports.inside, "/basket"),
        ("cart v1", ports.out, "/v1/1"),
        ("cart v2", ports.out, "/v2/1"),
    ]
}

/// What each proxy answers to a POST now.
pub(crate) fn answers_to_posts(mesh: &Mesh) -> [u16; 4] {
    doors(mesh).map(|(_, port, path)| Caller::new(local(port)).status("POST", path))
}

/// Runs `ringwayctl`, and sends POSTs past all proxies until each of them answers so: what was said, and how long each took.
pub(crate) fn effect(mesh: &Mesh, arguments: &[&str], status: u16) -> Result<(String, [Effect; 4]), String> {
    let begun = Instant::now();
    mesh.must(&["status"])?;
    let most = AT_ONCE.max(begun.elapsed() * LOOKS);
    std::thread::scope(|scope| {
        let begun = Instant::now();
        let watched = doors(mesh).map(|(proxy, port, path)| {
            let mut caller = Caller::new(local(port));
            let watch = move || until(PATIENCE, || (caller.status("POST", path) == status).then(|| begun.elapsed()));
            (proxy, scope.spawn(watch))
        });
        let said = mesh.must(arguments);
        let effects = watched.map(|(proxy, watch)| Effect { proxy, took: watch.join().unwrap_or_default(), most });
        Ok((said?.last().to_owned(), effects))
    })
}
