//! `ringway` under a daemon that the test plays: gRPC over TLS with an authority of its own, which does as it should, or lies.

mod authority;
mod fake;
mod independent;
mod joining;
mod kept;
mod killed;
mod lies;
mod reports;
mod stream;

use fake::Fake;
use ringway_tests::{Origin, Proxy, Run};

/// The trust domain of these tests.
pub(crate) const DOMAIN: &str = "shop";

/// A proxy's file: under this daemon, with a token.
pub(crate) fn file(fake: &Fake) -> Run {
    let text = format!("daemon: {{ addresses: ['{}'], token: $dir/join, state: $dir/state }}\n", fake.address());
    let run = Run::new(&text);
    run.file_of("join", &fake.token())
}

/// A proxy that has joined this daemon and serves what it says.
pub(crate) fn joined(fake: &Fake) -> Proxy {
    file(fake).start()
}

/// A document with one group `edge`: an http listener `web` at this port that sends everything to these origins.
pub(crate) fn plain(port: u16, origins: &[&Origin]) -> String {
    document(&format!("web: {{ address: '127.0.0.1:{port}', routes: [ {{ name: all, to: app }} ] }}"), origins)
}

/// A document with one group `edge`, these listeners, and a service `app`.
pub(crate) fn document(listeners: &str, origins: &[&Origin]) -> String {
    let mut endpoints: Vec<_> = origins.iter().map(|origin| origin.address().to_string()).collect();
    if endpoints.is_empty() {
        // Nobody: the discard service.
        endpoints.push("127.0.0.1:9".to_owned());
    }
    format!(
        "trust-domain: {DOMAIN}\ngroups:\n  edge:\n    listeners:\n      {listeners}\nservices:\n  app: {{ endpoints: [{}] }}\n",
        endpoints.join(", ")
    )
}
