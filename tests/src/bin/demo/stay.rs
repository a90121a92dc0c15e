//! The mesh is left running: what to try by hand, and what comes of it.

use crate::document::{GROUPS, Ports};
use crate::mesh::Mesh;
use crate::place::relative;
use crate::show::{Show, number, say, share};
use crate::traffic::Traffic;
use ringway_tests::workspace;
use std::path::Path;
use std::time::{Duration, Instant};

/// A daemon that somebody has killed stays away for so long.
const AWAY: Duration = Duration::from_secs(5);

/// Until Ctrl-C, or until something ends that should not.
pub(crate) fn stay(mut mesh: Mesh, traffic: &Traffic, show: &Show) -> Result<bool, String> {
    traffic.slow_down();
    advise(&mesh);
    let mut gone: Option<Instant> = None;
    loop {
        let before = traffic.count();
        std::thread::sleep(Duration::from_secs(1));
        let count = traffic.count();
        let now = count - before;
        show.now(&format!(
            "{} requests, {} failed; in the last second {}, {} to cart v2, {} failed",
            number(count.all),
            number(count.failed),
            now.all,
            share(now.v2, now.all),
            now.failed
        ));
        GROUPS.iter().for_each(|group| mesh.place.shorten(&format!("{group}/access.log")));
        if let Some(ended) = mesh.ended() {
            say("");
            return Err(ended);
        }
        if !mesh.daemon_has_ended() {
            continue;
        }
        let since = *gone.get_or_insert_with(|| {
            say("\nringwayd is gone");
            Instant::now()
        });
        if since.elapsed() >= AWAY {
            mesh.revive_daemon()?;
            gone = None;
            say(&format!("\nringwayd is started again: process {}", mesh.daemon_id()));
        }
    }
}

/// What to try.
fn advise(mesh: &Mesh) {
    let folder = relative(mesh.place.folder());
    let credential = here(&mesh.place.folder().join("ringwayd/operator"));
    let programs = here(mesh.programs());
    let version = mesh.standing().map_or(1, |(version, _)| version);
    let Ports { public, inside, .. } = mesh.ports;
    let [open, quota, inside] = [(public, "basket"), (public, "export"), (inside, "cart/1")]
        .map(|(port, path)| format!("http://127.0.0.1:{port}/{path}"));
    let daemon = mesh.daemon_id();
    say(&format!(
        "
Try it by hand, here, in another terminal:

  export PATH={programs}:$PATH RINGWAY_CREDENTIAL={credential}

  curl {open:<40} # by the gateway and web to cart: who called whom
  curl -i {quota:<37} # seven times: its quota is a burst of five
  curl -i {inside:<37} # the gateway asks cart: it is not let in

  ringwayctl status                             # each proxy: version, certificate
  ringwayctl top                                # rates and latency, live
  ringwayctl edges                              # who talks to whom
  ringwayctl certs                              # who holds what, until when
  ringwayctl history

  sed -i 's/cart: 90, cart-v2: 10/cart: 50, cart-v2: 50/' {folder}/mesh.yaml
  ringwayctl plan {folder}/mesh.yaml         # what would change
  ringwayctl apply {folder}/mesh.yaml --wait
  ringwayctl rollback {version}
  ringwayctl certs rotate --root
  kill -9 {daemon:<37} # ringwayd; five seconds later it is started again

Documents, access logs and what each process says are in {folder}. Ctrl-C ends everything.
"
    ));
}

/// A path as one types it in the workspace, wherever one goes from there.
fn here(path: &Path) -> String {
    if path.starts_with(workspace()) { format!("$PWD/{}", relative(path)) } else { path.display().to_string() }
}
