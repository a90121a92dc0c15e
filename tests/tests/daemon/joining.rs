//! Joining with a token, certificates and their renewal, and who is taken for the daemon.

use super::authority::key_of;
use super::fake::Fake;
use super::stream::get;
use super::{DOMAIN, document, file, joined, plain};
use ringway_tests::tls::Tls;
use ringway_tests::{Client, Origin, Proxy, check, eventually, free_port, until};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use tonic::Status;

/// A listener with the workload's certificate, for whoever has one of the mesh, beside a plain one.
fn both(secure: u16, plain: u16) -> String {
    format!(
        "secure: {{ address: '127.0.0.1:{secure}', tls: {{ clients: none }}, routes: [ {{ to: app }} ] }}\n      \
         web: {{ address: '127.0.0.1:{plain}', routes: [ {{ name: all, to: app }} ] }}"
    )
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The identity that a port shows.
fn shown(port: u16, fake: &Fake) -> Option<Vec<u8>> {
    let tls = Tls::rooted(&fake.authority.root).any_name();
    let mut client = tls.try_connect(local(port), "any.example").ok()?;
    client.get("/");
    Some(client.met().certificate.unwrap_or_default())
}

#[test]
fn keys_and_certificates_are_the_owners_alone_and_the_key_never_leaves() {
    let fake = Fake::start();
    fake.push(&plain(free_port(), &[]));
    let proxy = joined(&fake);
    let state = proxy.folder().join("state");
    let mode = |name: &str| std::fs::metadata(state.join(name)).unwrap().mode() & 0o777;
    assert_eq!(std::fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
    eventually("the generation is kept", || state.join("generation").exists());
    for name in ["key.pem", "chain.pem", "bundle.pem", "generation"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    let join = fake.shared().joins[0].clone();
    assert!(!join.csr.windows(7).any(|window| window == b"PRIVATE"));
    assert!(!join.name.is_empty() && join.clock_ms > 0);
    assert!(!proxy.output().contains(&fake.token()), "a token is no word for logs");
}

#[test]
fn a_lost_answer_burns_nothing_the_same_key_asks_again() {
    let fake = Fake::start();
    fake.behave(|behaviour| behaviour.refuse = Some(Status::unavailable("come back later")));
    fake.push(&plain(free_port(), &[]));
    // Before the patience of what follows begins.
    ringway_tests::build();
    let run = file(&fake);
    let refusing = std::thread::scope(|scope| {
        let proxy = scope.spawn(|| run.start());
        fake.until("two attempts", |shared| (shared.joins.len() >= 2).then_some(()));
        fake.behave(|behaviour| behaviour.refuse = None);
        proxy.join().unwrap()
    });
    refusing.printed("joining is refused: come back later");
    assert_eq!(refusing.output().matches("come back later").count(), 1, "it is said once");
    let metrics = refusing.metrics();
    assert!(metrics.sum("ringway_daemon_certificates_total", &[("result", "failed")]) >= 2.0);
    assert_eq!(metrics.sum("ringway_daemon_certificates_total", &[("result", "issued")]), 1.0);
    let keys: std::collections::BTreeSet<_> = fake.shared().joins.iter().map(|join| key_of(&join.csr)).collect();
    assert_eq!(keys.len(), 1);
}

#[test]
fn whoever_has_another_root_or_another_identity_is_no_daemon() {
    let real = Fake::start();
    for (liar, reason) in [
        (Fake::start(), "the peer's certificate is from nobody who is trusted"),
        (
            Fake::with(real.authority.clone(), &format!("spiffe://{DOMAIN}/group/edge")),
            "the peer's identity is not one that is expected",
        ),
    ] {
        let text = format!("daemon: {{ addresses: ['{}'], token: $dir/join, state: $dir/state }}\n", liar.address());
        let run = ringway_tests::Run::new(&text);
        let mut proxy = run.file_of("join", &real.token()).start_unready();
        proxy.printed(&format!("the daemon at {}: ", liar.address()));
        std::thread::sleep(Duration::from_secs(1));
        assert!(liar.shared().joins.is_empty(), "the token is not for everybody: {}", proxy.output());
        assert!(!proxy.is_ready() && proxy.runs(), "{reason}: {}", proxy.output());
        assert!(proxy.output().contains(reason), "{reason}: {}", proxy.output());
    }
}

#[test]
fn who_has_joined_talks_to_nobody_else() {
    let mut fake = Fake::start();
    fake.push(&plain(free_port(), &[]));
    let proxy = joined(&fake);
    let port = fake.address();
    fake.stop();
    // Another one at the same address, of the same root, but a workload.
    let mut workload = Fake::at(fake.authority.clone(), &format!("spiffe://{DOMAIN}/group/edge"), port);
    proxy.printed(&format!("the daemon at {port}: the peer's identity is not one that is expected"));
    assert_eq!(workload.shared().opened, 0);
    workload.stop();
    fake.start_again();
    eventually("the real one is found", || fake.shared().opened == 2);
    assert!(proxy.is_ready());
}

#[test]
fn certificates_are_renewed_at_half_their_life_without_a_failed_request() {
    let (origin, secure, web) = (Origin::text("one"), free_port(), free_port());
    let fake = Fake::start();
    fake.behave(|behaviour| behaviour.life = Duration::from_secs(8));
    fake.push(&document(&both(secure, web), &[&origin]));
    let proxy = joined(&fake);
    let first = shown(secure, &fake).unwrap();
    let mut kept = Tls::rooted(&fake.authority.root).any_name().connect(local(secure), "any.example");
    let mut renewed = 0;
    let ended = until(Duration::from_secs(25), || {
        let now = shown(secure, &fake).expect("every handshake is answered");
        assert_eq!(kept.get("/").text(), "one", "open connections go on");
        renewed = fake.shared().renewals;
        (now != first && renewed >= 2).then_some(())
    });
    assert!(ended.is_some(), "{renewed} renewals: {}", proxy.output());
    proxy.printed("the certificate of spiffe://shop/group/edge is renewed");
    assert_eq!(fake.shared().opened, 1, "the stream goes on");
    let log = proxy.output();
    assert!(!log.contains("has expired") && !log.contains("expires in"), "{log}");
}

#[test]
fn the_end_of_a_certificate_that_renews_itself_is_told_when_its_renewal_is_overdue() {
    let fake = Fake::start();
    fake.behave(|behaviour| behaviour.life = Duration::from_secs(24));
    fake.push(&document(&both(free_port(), free_port()), &[&Origin::text("one")]));
    let proxy = joined(&fake);
    fake.behave(|behaviour| behaviour.refuse = Some(Status::unavailable("come back later")));
    let says = |text: &str| until(Duration::from_secs(20), || proxy.output().contains(text).then_some(())).is_some();
    assert!(says("the certificate is not renewed, it holds for 0 minutes"), "{}", proxy.output());
    assert!(!proxy.output().contains("expires in"), "{}", proxy.output());
    assert!(says("identity: the certificate of spiffe://shop/group/edge expires in 1 minutes"), "{}", proxy.output());
}

#[test]
fn an_order_renews_at_once() {
    let fake = Fake::start();
    fake.push(&plain(free_port(), &[]));
    let _proxy = joined(&fake);
    fake.applied();
    fake.order(api::pb::Order { renew: true, ..Default::default() });
    fake.until("the renewal", |shared| (shared.renewals == 1).then_some(()));
}

#[test]
fn while_renewal_fails_the_old_one_stays_and_when_it_has_expired_what_needs_it_refuses() {
    let (origin, secure, web) = (Origin::text("one"), free_port(), free_port());
    let fake = Fake::start();
    fake.behave(|behaviour| behaviour.life = Duration::from_secs(8));
    fake.push(&document(&both(secure, web), &[&origin]));
    let proxy = joined(&fake);
    fake.behave(|behaviour| behaviour.refuse = Some(Status::permission_denied("this proxy was forgotten")));
    proxy.printed("this proxy was forgotten");
    assert!(shown(secure, &fake).is_some(), "the old one is good for a while");
    proxy.printed("the certificate has expired: what needs it refuses from now on");
    eventually("the listener with the certificate is closed", || Client::try_to(local(secure)).is_err());
    assert_eq!(get(web), (200, "one".into()), "others serve");
    assert!(proxy.is_ready());
    // The token is asked again, with another word from the daemon.
    fake.behave(|behaviour| (behaviour.refuse, behaviour.life) = (None, Duration::from_secs(3600)));
    // Attempts have grown rare.
    let joined_again = until(Duration::from_secs(40), || shown(secure, &fake).map(drop));
    assert!(joined_again.is_some(), "it has not joined again: {}", proxy.output());
}

/// A daemon whose clock is wrong takes no good certificate from anybody.
#[test]
fn a_certificate_that_is_not_valid_now_does_not_take_the_place_of_one_that_is() {
    let (origin, secure, web) = (Origin::text("one"), free_port(), free_port());
    let fake = Fake::start();
    fake.push(&document(&both(secure, web), &[&origin]));
    let proxy = joined(&fake);
    let first = shown(secure, &fake).unwrap();
    let chain = proxy.folder().join("state/chain.pem");
    let kept = std::fs::read(&chain).unwrap();
    for (skew_s, why) in [(3600, "what was issued begins in "), (-2 * 86_400, "what was issued ended ")] {
        fake.behave(|behaviour| behaviour.skew_s = skew_s);
        fake.order(api::pb::Order { renew: true, ..Default::default() });
        proxy.printed(&format!("minutes: {why}"));
        assert_eq!(shown(secure, &fake).unwrap(), first);
        assert_eq!(std::fs::read(&chain).unwrap(), kept);
    }
    assert!(proxy.metrics().sum("ringway_daemon_certificates_total", &[("result", "failed")]) >= 2.0);
    fake.behave(|behaviour| behaviour.skew_s = 0);
    eventually("one that is valid is used", || shown(secure, &fake).unwrap() != first);
}

#[test]
fn without_a_token_or_with_a_bad_one_check_and_run_say_so() {
    let section = "daemon: { addresses: ['127.0.0.1:1'], state: $dir/state }\n";
    let proxy = ringway_tests::Run::new(section).start_unready();
    proxy.printed("this proxy has not joined yet, and there is no token: make one with `ringwayctl token create`");
    let told = |text: &str| {
        let output = check(text);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("join");
    let with_token = format!("daemon: {{ token: {}, state: /nonexistent/state }}\n", token.display());
    assert_eq!(told(&with_token), (Some(0), String::new()), "one that is not there may come yet");
    std::fs::write(&token, "rw1.nonsense").unwrap();
    let (code, text) = told(&with_token);
    assert_eq!(code, Some(1));
    assert!(text.contains("the token is cut off or changed"), "{text}");
    let (code, text) = told(&format!("daemon: {{ state: {} }}\n", token.display()));
    assert_eq!(code, Some(1));
    assert!(text.contains("is no folder"), "{text}");
    let run = ringway_tests::Run::new(&section.replace(", state", ", token: $dir/join, state"));
    let proxy = run.file_of("join", "rw1.nonsense").start_unready();
    proxy.printed("the token is cut off or changed");
    assert!(!proxy.is_ready());
}

#[test]
fn two_processes_cannot_have_the_same_state() {
    let fake = Fake::start();
    fake.push(&plain(free_port(), &[]));
    let proxy = joined(&fake);
    let state = proxy.folder().join("state").display().to_string();
    let text = format!("daemon: {{ addresses: ['{}'], token: $dir/join, state: {state} }}\n", fake.address());
    let output = ringway_tests::Run::new(&text).file_of("join", &fake.token()).fail();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("another process has this state"), "{told}");
}

#[test]
fn of_several_daemons_one_that_answers_is_enough() {
    let fake = Fake::start();
    fake.push(&plain(free_port(), &[]));
    let dead = free_port();
    let addresses = format!("['127.0.0.1:{dead}', '{}']", fake.address());
    let text = format!("daemon: {{ addresses: {addresses}, token: $dir/join, state: $dir/state }}\n");
    for _ in 0..3 {
        let proxy: Proxy = ringway_tests::Run::new(&text).file_of("join", &fake.token()).start();
        assert!(proxy.is_ready());
    }
}
