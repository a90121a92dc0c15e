//! Configuration over a stream: taken, refused resource by resource, acknowledged.

use super::fake::Fake;
use super::{document, file, joined, plain};
use api::envoy_types::pb::envoy::config::cluster::v3::Cluster;
use api::prost::Message;
use api::xds;
use ringway_tests::{Client, Origin, eventually, free_port};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The status and body of `GET /` at a port, on a new connection.
pub(super) fn get(port: u16) -> (u16, String) {
    let answer = Client::to(SocketAddr::from(([127, 0, 0, 1], port))).get("/");
    (answer.status, answer.text().to_owned())
}

fn serves(port: u16, body: &str) {
    let answers = || Client::try_to(SocketAddr::from(([127, 0, 0, 1], port))).is_ok() && get(port).1 == body;
    eventually(&format!("port {port} answers {body}"), answers);
}

#[test]
fn a_proxy_serves_what_the_daemon_says_and_acknowledges_it() {
    let (origin, port) = (Origin::text("one"), free_port());
    let fake = Fake::start();
    fake.push(&plain(port, &[&origin]));
    let proxy = joined(&fake);
    assert_eq!(get(port), (200, "one".into()));
    fake.applied();
    let shared = fake.shared();
    assert!(shared.requests.iter().all(|request| request.error_detail.is_none()), "{:#?}", shared.requests);
    let node = shared.requests[0].node.clone().unwrap();
    assert_eq!((&*node.id, &*node.cluster), ("proxy-1", "edge"));
    drop(shared);
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("ringway_daemon_connected", &[]), 1.0);
    assert_eq!(metrics.sum("ringway_daemon_push", &[]), 1.0);
    assert_eq!(metrics.sum("ringway_daemon_resources_refused_total", &[]), 0.0);
    proxy.printed("joined group edge as proxy-1 (spiffe://shop/group/edge)");
}

#[test]
fn a_push_takes_effect_within_a_second_and_connections_go_on() {
    let (one, two, port) = (Origin::text("one"), Origin::text("two"), free_port());
    let fake = Fake::start();
    fake.push(&plain(port, &[&one]));
    let _proxy = joined(&fake);
    let mut kept = Client::to(SocketAddr::from(([127, 0, 0, 1], port)));
    assert_eq!(kept.get("/").text(), "one");
    let begun = Instant::now();
    fake.push(&plain(port, &[&two]));
    fake.applied();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(kept.get("/").text(), "two", "the same connection");
}

#[test]
fn a_daemon_without_delta_is_asked_for_all_of_it() {
    let (origin, port) = (Origin::text("one"), free_port());
    let fake = Fake::start();
    fake.behave(|behaviour| behaviour.whole_only = true);
    fake.push(&plain(port, &[&origin]));
    let _proxy = joined(&fake);
    assert_eq!(get(port), (200, "one".into()));
    let other = free_port();
    fake.push(&plain(other, &[&origin]));
    serves(other, "one");
    eventually("the old port is closed", || Client::try_to(SocketAddr::from(([127, 0, 0, 1], port))).is_err());
    let shared = fake.shared();
    let last = shared.whole_requests.iter().rev().find(|request| request.type_url == xds::LISTENER).unwrap();
    assert_eq!(last.version_info, "2");
    let routes = shared.whole_requests.iter().find(|request| request.type_url == xds::ROUTE_CONFIGURATION).unwrap();
    assert_eq!(routes.resource_names, ["web"]);
}

#[test]
fn a_bad_resource_is_refused_by_name_and_the_rest_of_the_push_is_taken() {
    let (origin, port, other) = (Origin::text("one"), free_port(), free_port());
    let fake = Fake::start();
    fake.push(&plain(port, &[&origin]));
    let proxy = joined(&fake);
    fake.applied();
    let listeners = format!(
        "web: {{ address: '127.0.0.1:{port}', routes: [ {{ name: all, to: app }} ] }}\n      \
         more: {{ address: '127.0.0.1:{other}', routes: [ {{ name: all, to: app }} ] }}"
    );
    fake.shared().requests.clear();
    fake.push(&document(&listeners, &[&origin]));
    serves(other, "one");
    fake.change(xds::LISTENER, "web", |resource| {
        let any = resource.resource.as_mut().unwrap();
        let mut listener: api::envoy_types::pb::envoy::config::listener::v3::Listener =
            Message::decode(&any.value[..]).unwrap();
        listener.filter_chains[0].filters.clear();
        any.value = listener.encode_to_vec();
    });
    let nack = fake.until("a NACK", |shared| shared.requests.iter().find_map(|request| request.error_detail.clone()));
    assert!(nack.message.starts_with("listener/web: filter_chains[0].filters: must end with"), "{}", nack.message);
    let detail: api::pb::Rejected = xds::decode(&nack.details[0], xds::REJECTED).unwrap();
    assert_eq!((&*detail.type_url, &*detail.name), (xds::LISTENER, "web"));
    assert!(detail.version.ends_with('+'), "the version that is refused: {}", detail.version);
    assert_eq!(get(port), (200, "one".into()), "the last good one stays");
    proxy.printed("refused, the last good one stays: listener/web: filter_chains[0].filters");
    fake.until("the report of it", |shared| {
        let last = shared.reports.last()?;
        last.rejected.iter().any(|one| one.name == "web" && one.reason.starts_with("must end with")).then_some(())
    });
    assert_eq!(proxy.metrics().sum("ringway_daemon_resources_rejected", &[]), 1.0);
    fake.push(&document(&listeners, &[&origin]));
    fake.until("that it is well again", |shared| shared.reports.last()?.rejected.is_empty().then_some(()));
    assert!(proxy.is_ready());
}

#[test]
fn fields_that_are_not_understood_are_listed() {
    let (origin, port) = (Origin::text("one"), free_port());
    let fake = Fake::start();
    fake.push(&plain(port, &[&origin]));
    fake.change(xds::CLUSTER, "app", |resource| {
        let any = resource.resource.as_mut().unwrap();
        let mut cluster: Cluster = Message::decode(&any.value[..]).unwrap();
        cluster.outlier_detection = Some(Default::default());
        any.value = cluster.encode_to_vec();
        // And one that is newer than everything.
        any.value.extend([0xfa, 0x7c, 3, b'n', b'e', b'w']);
    });
    let _proxy = joined(&fake);
    let ignored = fake.until("the list", |shared| {
        shared.reports.iter().rev().map(|report| report.ignored.clone()).find(|ignored| !ignored.is_empty())
    });
    assert_eq!(ignored, ["cluster/app: 1999", "cluster/app: outlier_detection"]);
    assert_eq!(get(port), (200, "one".into()));
}

#[test]
fn endpoints_that_come_and_go_are_followed_without_a_push() {
    let (one, two, port) = (Origin::text("one"), Origin::text("two"), free_port());
    let fake = Fake::start();
    fake.push(&plain(port, &[&one]));
    let _proxy = joined(&fake);
    fake.applied();
    let requests = fake.shared().requests.len();
    let begun = Instant::now();
    fake.change(xds::CLUSTER_LOAD_ASSIGNMENT, "app", |resource| {
        let with_two = api::mesh::load(&plain(port, &[&two]), "m").unwrap();
        let all = with_two.resources(with_two.group("edge").unwrap(), &Default::default());
        resource.resource = Some(api::Packed::endpoints(&all.endpoints[0]).body);
    });
    serves(port, "two");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    fake.until("the answer", |shared| (shared.requests.len() > requests).then_some(()));
    let shared = fake.shared();
    assert_eq!(shared.requests[requests..].len(), 1, "an ACK and nothing else: {:#?}", &shared.requests[requests..]);
}

#[test]
fn an_address_that_is_taken_refuses_one_listener_until_it_is_free() {
    let (origin, port) = (Origin::text("one"), free_port());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = taken.local_addr().unwrap().port();
    let fake = Fake::start();
    let listeners = format!(
        "web: {{ address: '127.0.0.1:{port}', routes: [ {{ name: all, to: app }} ] }}\n      \
         more: {{ address: '127.0.0.1:{other}', routes: [ {{ name: all, to: app }} ] }}"
    );
    fake.push(&document(&listeners, &[&origin]));
    let proxy = joined(&fake);
    assert_eq!(get(port), (200, "one".into()));
    proxy.printed("listener/more: address: cannot listen on");
    drop(taken);
    // It is tried again without anybody saying so.
    let begun = Instant::now();
    while Client::try_to(SocketAddr::from(([127, 0, 0, 1], other))).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{}", proxy.output());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(get(other), (200, "one".into()));
    fake.until("that it is well again", |shared| shared.reports.last()?.rejected.is_empty().then_some(()));
}

#[test]
fn the_file_of_a_proxy_under_a_daemon_is_reloaded_for_what_belongs_to_the_process() {
    let (origin, port) = (Origin::text("one"), free_port());
    let fake = Fake::start();
    fake.push(&plain(port, &[&origin]));
    let mut proxy = file(&fake).start();
    let section = format!("daemon: {{ addresses: ['{}'], token: $dir/join, state: $dir/state }}\n", fake.address());
    proxy.rewrite(&format!("{section}limits: {{ connections: 77 }}\n"));
    proxy.signal("HUP");
    proxy.printed("reloaded: generation");
    assert_eq!(proxy.metrics().sum("ringway_connections_limit", &[]), 77.0);
    assert_eq!(get(port), (200, "one".into()));
    proxy.rewrite(&section.replace("$dir/state", "$dir/other"));
    proxy.signal("HUP");
    proxy.printed("`daemon` has changed, which takes a restart");
    proxy.rewrite(&plain(port, &[&origin]).replace("trust-domain: shop\n", ""));
    proxy.signal("HUP");
    proxy.printed("reload refused");
    assert_eq!(get(port), (200, "one".into()));
}
