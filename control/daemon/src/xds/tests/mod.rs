//! The protocol by its rules, and by chance: whatever is pushed, acknowledged or refused in whatever order, a client never
//! has a route to a cluster that was taken from it, and ends with what it should have.

mod chance;
mod delta;
mod envoy;
mod older;
mod whole;
mod wire;

use super::offer::Progress;
use crate::snapshot::{Kind, Snapshot, Snapshots};
use api::envoy_types::pb::google::rpc::Status;
use api::{pb, xds};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A gateway with a route to each of these services, which have the endpoints of a group of this name.
fn mesh(services: &[&str]) -> String {
    let rest = "{ name: rest, respond: {} }".to_owned();
    let routes: Vec<String> = services
        .iter()
        .map(|name| format!("{{ name: {name}, match: {{ path: /{name}/* }}, to: {name} }}"))
        .chain([rest])
        .collect();
    let mut text = format!(
        "trust-domain: shop\ngroups:\n  edge:\n    listeners:\n      web: {{ address: 127.0.0.1:80, routes: [ {} ] }}\n",
        routes.join(", ")
    );
    for name in services {
        text.push_str(&format!(
            "  {name}: {{ listeners: {{ in: {{ address: 127.0.0.1:81, routes: [ {{ respond: {{}} }} ] }} }} }}\n"
        ));
    }
    text.push_str("services:\n");
    for name in services {
        text.push_str(&format!("  {name}: {{ endpoints: {{ group: {name}, listener: in }} }}\n"));
    }
    if services.is_empty() {
        text.push_str("  none: { endpoints: set }\n");
    }
    text
}

fn push(snapshots: &Snapshots, number: u64, text: &str) {
    let mesh = api::mesh::load(text, "mesh.yaml").unwrap_or_else(|findings| panic!("{findings:#?}"));
    snapshots.put_in_force(number, Arc::new(mesh));
}

fn at(text: &str) -> BTreeSet<SocketAddr> {
    BTreeSet::from([text.parse().unwrap()])
}

/// The snapshot of the gateway, as it is now.
fn now_of(snapshots: &Snapshots) -> Arc<Snapshot> {
    snapshots.subscribe("edge").borrow().clone()
}

/// What an answer says that does not take some resources.
fn refusing(kind: Kind, names: &[&str]) -> Status {
    let rejected = |name: &&str| pb::Rejected {
        type_url: kind.type_url().to_owned(),
        name: (*name).to_owned(),
        field: "field".to_owned(),
        reason: "is bad".to_owned(),
        ..pb::Rejected::default()
    };
    let details = names.iter().map(|name| xds::any(xds::REJECTED, &rejected(name))).collect();
    Status { code: 3, message: "all of it is bad".to_owned(), details }
}

/// `kind/name: reason` of what is refused.
fn told(progress: &Progress) -> Vec<String> {
    let kind = |one: &pb::Rejected| Kind::of(&one.type_url).map_or("?", Kind::word);
    progress.rejected.iter().map(|one| format!("{}/{}: {}", kind(one), one.name, one.reason)).collect()
}

fn seconds(count: f64) -> Duration {
    Duration::from_secs_f64(count)
}

/// A time that only passes when a test says so.
fn start() -> Instant {
    Instant::now()
}
