//! A daemon that lies, or does not know what it says: the proxy goes on with what it has, says what is wrong, and hangs nowhere.

use super::fake::{Fake, Mute};
use super::stream::get;
use super::{document, joined, plain};
use api::envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use api::envoy_types::pb::google::protobuf::Any;
use api::xds;
use ringway_tests::{Origin, Proxy, eventually, free_port};
use std::time::Duration;

/// A proxy that serves `one` at a port.
fn serving() -> (Fake, Proxy, Origin, u16) {
    let (origin, port) = (Origin::text("one"), free_port());
    let fake = Fake::start();
    fake.push(&plain(port, &[&origin]));
    let proxy = joined(&fake);
    fake.applied();
    (fake, proxy, origin, port)
}

fn response(nonce: &str, kind: &str) -> DeltaDiscoveryResponse {
    let version = "99".to_owned();
    DeltaDiscoveryResponse {
        system_version_info: version,
        type_url: kind.into(),
        nonce: nonce.into(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn resource(name: &str, type_url: &str, value: &[u8]) -> Resource {
    let resource = Any { type_url: type_url.into(), value: value.to_vec() };
    Resource { name: name.into(), version: "v".into(), resource: Some(resource), ..Resource::default() }
}

/// A good proxy after all: it serves as before, and takes a good push.
fn unharmed(fake: &Fake, proxy: &Proxy, port: u16) {
    assert_eq!(get(port), (200, "one".into()));
    let two = Origin::text("two");
    fake.push(&plain(port, &[&two]));
    eventually("a good push is taken", || get(port).1 == "two");
    assert!(proxy.is_ready());
}

#[test]
fn garbage_is_refused_resource_by_resource() {
    let (fake, proxy, _origin, port) = serving();
    let good = fake.resource(xds::LISTENER, "web");
    let mut garbage = response("g1", xds::LISTENER);
    garbage.resources = vec![
        resource("web", xds::LISTENER, b"\xff\xff\xff\xff"),
        resource("other", xds::CLUSTER, b""),
        resource("empty", xds::LISTENER, b""),
        Resource { name: "half".into(), version: "v".into(), ..Resource::default() },
        Resource { name: "alias".into(), ..good },
        resource("", xds::LISTENER, b""),
    ];
    fake.say(garbage);
    let nack = fake.answer("g1").expect("a NACK");
    for reason in [
        "listener/web: cannot be decoded",
        "listener/other: is a type.googleapis.com/envoy.config.cluster",
        "listener/empty: name: must be given",
        "listener/half: has no content",
        "listener/alias: name: is \"web\" inside",
        "listener: has no name",
    ] {
        assert!(nack.contains(reason), "{reason} is not in {nack}");
    }
    unharmed(&fake, &proxy, port);
}

#[test]
fn garbage_in_a_whole_takes_nothing_away() {
    let (origin, port) = (Origin::text("one"), free_port());
    let fake = Fake::start();
    fake.behave(|behaviour| behaviour.whole_only = true);
    fake.push(&plain(port, &[&origin]));
    let proxy = joined(&fake);
    fake.applied();
    fake.change(xds::LISTENER, "web", |resource| resource.resource.as_mut().unwrap().value = vec![0xff; 4]);
    let reason = fake.until("a NACK", |shared| {
        let refusals = shared.whole_requests.iter().filter_map(|request| request.error_detail.as_ref());
        refusals.map(|detail| detail.message.clone()).next()
    });
    assert!(reason.contains("listener: cannot be decoded"), "{reason}");
    unharmed(&fake, &proxy, port);
}

#[test]
fn a_name_twice_is_refused_both_times() {
    let (fake, proxy, _origin, port) = serving();
    let good = fake.resource(xds::LISTENER, "web");
    fake.say(DeltaDiscoveryResponse { resources: vec![good.clone(), good], ..response("g1", xds::LISTENER) });
    assert_eq!(fake.answer("g1").as_deref(), Some("listener/web: stands in the response twice"));
    unharmed(&fake, &proxy, port);
}

#[test]
fn types_that_nobody_asked_for_are_refused() {
    let (fake, proxy, _origin, port) = serving();
    fake.say(response("g1", "type.googleapis.com/envoy.service.runtime.v3.Runtime"));
    assert!(fake.answer("g1").expect("a NACK").contains("was not asked for"));
    fake.say(response("g2", xds::SECRET));
    assert!(fake.answer("g2").expect("a NACK").contains("was not asked for"));
    fake.say(response("g3", ""));
    assert!(fake.answer("g3").is_some());
    unharmed(&fake, &proxy, port);
}

#[test]
fn a_response_without_a_nonce_ends_the_stream_and_another_is_opened() {
    let (fake, proxy, _origin, port) = serving();
    fake.say(response("", xds::LISTENER));
    proxy.printed("a response has no nonce");
    eventually("it is asked again", || fake.shared().opened == 2);
    unharmed(&fake, &proxy, port);
}

#[test]
fn nonces_may_repeat_and_responses_be_empty() {
    let (fake, proxy, _origin, port) = serving();
    for _ in 0..20 {
        fake.say(response("same", xds::CLUSTER));
    }
    fake.until("twenty answers", |shared| {
        let same = shared.requests.iter().filter(|request| request.response_nonce == "same");
        (same.clone().count() == 20 && same.into_iter().all(|one| one.error_detail.is_none())).then_some(())
    });
    unharmed(&fake, &proxy, port);
}

#[test]
fn names_that_were_never_sent_can_be_removed() {
    let (fake, proxy, _origin, port) = serving();
    for (nonce, kind) in [("g1", xds::LISTENER), ("g2", xds::CLUSTER), ("g3", xds::ROUTE_CONFIGURATION)] {
        fake.say(DeltaDiscoveryResponse {
            removed_resources: vec!["nobody".into(), "".into()],
            ..response(nonce, kind)
        });
        assert_eq!(fake.answer(nonce), None);
    }
    unharmed(&fake, &proxy, port);
}

#[test]
fn routes_that_are_taken_away_under_a_listener_stay_until_it_goes() {
    let (fake, proxy, _origin, port) = serving();
    fake.say(DeltaDiscoveryResponse {
        removed_resources: vec!["web".into()],
        ..response("g1", xds::ROUTE_CONFIGURATION)
    });
    assert_eq!(fake.answer("g1"), None);
    unharmed(&fake, &proxy, port);
}

#[test]
fn half_a_configuration_never_serves_and_is_acknowledged() {
    let (origin, port) = (Origin::text("one"), free_port());
    let fake = Fake::start();
    fake.push(&plain(port, &[&origin]));
    let kept = fake.resource(xds::ROUTE_CONFIGURATION, "web");
    fake.forget(xds::ROUTE_CONFIGURATION, "web");
    let mut proxy = super::file(&fake).start_unready();
    fake.until("its routes are asked for", |shared| {
        shared.requests.iter().any(|request| request.resource_names_subscribe == ["web"]).then_some(())
    });
    std::thread::sleep(Duration::from_millis(300));
    assert!(!proxy.is_ready() && proxy.runs());
    assert!(fake.shared().requests.iter().all(|request| request.error_detail.is_none()), "an ACK waits for nothing");
    fake.change(xds::ROUTE_CONFIGURATION, "web", |resource| *resource = kept);
    eventually("it is ready", || proxy.is_ready());
    assert_eq!(get(port), (200, "one".into()));
}

#[test]
fn silence_leaves_a_proxy_as_it_was() {
    let (fake, proxy, _origin, port) = serving();
    fake.behave(|behaviour| behaviour.silent = true);
    fake.push(&plain(free_port(), &[]));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(get(port), (200, "one".into()));
    assert_eq!(proxy.metrics().sum("ringway_daemon_connected", &[]), 1.0);
    fake.behave(|behaviour| behaviour.silent = false);
    unharmed(&fake, &proxy, port);
}

/// It answers pings, and nothing else: another may be better.
#[test]
fn a_daemon_that_answers_no_call_is_left_for_the_next() {
    let (origin, port) = (Origin::text("one"), free_port());
    let fake = Fake::start();
    fake.push(&plain(port, &[&origin]));
    let _proxy = joined(&fake);
    fake.applied();
    for (mute, opened) in [(Mute::Stream, 2), (Mute::Session, 3)] {
        fake.behave(|behaviour| behaviour.mute = Some(mute));
        fake.stop_streams();
        fake.until("it is left and asked again", |shared| (shared.muted >= 2).then_some(()));
        fake.behave(|behaviour| behaviour.mute = None);
        fake.until("a stream of configuration", |shared| (shared.opened >= opened).then_some(()));
        fake.shared().muted = 0;
        assert_eq!(get(port), (200, "one".into()));
    }
}

#[test]
fn a_policy_with_a_field_that_is_not_known_lets_nobody_in() {
    let (origin, port) = (Origin::text("one"), free_port());
    let fake = Fake::start();
    let guarded = format!(
        "web: {{ address: '127.0.0.1:{port}', deny: [ {{ name: all, source: [127.0.0.0/8] }} ], routes: [ {{ to: app }} ] }}"
    );
    fake.push(&document(&guarded, &[&origin]));
    fake.change(xds::ROUTE_CONFIGURATION, "web", |resource| {
        let value = &mut resource.resource.as_mut().unwrap().value;
        value.extend([0xfa, 0x7c, 3, b'n', b'e', b'w']);
    });
    let proxy = super::file(&fake).start_unready();
    proxy.printed("route/web: 1999: is a field that is not known");
    assert!(!proxy.is_ready());
    assert!(ringway_tests::Client::try_to(([127, 0, 0, 1], port).into()).is_err());
}

#[test]
fn certificates_that_are_no_use_are_not_used() {
    let (fake, proxy, _origin, port) = serving();
    // For another key: the request's own is signed, then everything is cut.
    fake.behave(|behaviour| behaviour.cut = true);
    fake.order(api::pb::Order { renew: true, ..Default::default() });
    proxy.printed("the certificate is not renewed");
    fake.behave(|behaviour| behaviour.cut = false);
    proxy.printed("is renewed: it holds for");
    unharmed(&fake, &proxy, port);
}
