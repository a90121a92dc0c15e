//! Sessions that are resumed, and those that must not be; certificates chosen by name.

use super::support::*;
use super::*;
use crate::spiffe::Pattern;
use rcgen::{SanType, date_time_ymd};

const KEYS: TicketKeys = TicketKeys { current: [1; 32], previous: None };

fn settings(ca: &Ca) -> ServerSettings {
    let mut server = ca.server(&ca.named(&["a.example"]));
    (server.clients, server.tickets) = (Clients::Optional, Some(KEYS));
    server
}

/// A handshake, after which the client has the ticket.
fn first(server: &ServerSettings, client: &Client) {
    let mut pair = shake(&Server::new(server.clone()).unwrap(), client);
    pair.assert_done();
    assert!(!pair.server.session.peer().resumed);
    assert_eq!(pair.client.receive(&[]), Ok((Vec::new(), Opened::Nothing)));
}

fn resumed(server: &ServerSettings, client: &Client) -> bool {
    let mut pair = shake(&Server::new(server.clone()).unwrap(), client);
    pair.assert_done();
    pair.talk(b"again");
    assert_eq!(pair.server.session.peer().resumed, pair.client.session.peer().resumed);
    pair.client.session.peer().resumed
}

#[test]
fn a_session_is_resumed_with_what_it_had() {
    let ca = Ca::new("ca");
    let server = settings(&ca);
    let mut client = ca.client();
    client.certificate = Some(ca.identified("spiffe://example.org/a").credential());
    let client = Client::new(client).unwrap();
    first(&server, &client);
    let pair = shake(&Server::new(server).unwrap(), &client);
    let peer = pair.server.session.peer();
    assert!(peer.resumed && pair.client.session.peer().resumed);
    assert_eq!(peer.identity.as_ref().map(|id| id.as_str()), Some("spiffe://example.org/a"));
    assert!(peer.fingerprint.is_some() && pair.client.session.peer().fingerprint.is_some());
    assert_eq!(peer.sni.as_deref(), Some("a.example"));
}

#[test]
fn tickets_end_with_their_key_and_the_settings() {
    let ca = Ca::new("ca");
    let server = settings(&ca);
    let after = |change: &dyn Fn(&mut ServerSettings)| {
        let client = Client::new(ca.client()).unwrap();
        first(&server, &client);
        let mut changed = server.clone();
        change(&mut changed);
        resumed(&changed, &client)
    };
    assert!(after(&|_| {}));
    assert!(after(&|server| server.tickets = Some(TicketKeys { current: [2; 32], previous: Some([1; 32]) })));
    assert!(after(&|server| server.certificates = vec![ca.named(&["a.example"]).credential()]));
    assert!(!after(&|server| server.tickets = Some(TicketKeys { current: [2; 32], previous: None })));
    assert!(!after(&|server| server.tickets = None));
    assert!(!after(&|server| server.clients = Clients::None));
    assert!(!after(&|server| server.trust = Some(ca.trust(&["example.org"]))));
    assert!(!after(&|server| server.trust = Some(Ca::new("other").trust(&[]))));
    assert!(!after(&|server| {
        server.expect = vec![Expect::Identity(Pattern::parse("spiffe://example.org/**").unwrap())];
    }));
    // A client of other settings has none of them.
    let client = Client::new(ca.client()).unwrap();
    first(&server, &client);
    assert!(!resumed(&server, &Client::new(ca.client()).unwrap()));
}

/// When the night is over.
const NEXT: Day = (2025, 1, 2);

/// A handshake an hour before midnight and one a minute after it, when every ticket is still good by itself: whether that
/// one resumes, or why each end fails. `change`: what the server is meanwhile.
fn overnight(
    server: &ServerSettings,
    client: ClientSettings,
    change: impl FnOnce(&mut ServerSettings),
) -> Result<bool, (Option<Failure>, Option<Failure>)> {
    let clocks = [server.clock.clone(), client.clock.clone()];
    clocks.iter().for_each(|clock| clock.set(NOW_S + DAY_S - 3600));
    let client = Client::new(client).unwrap();
    first(server, &client);
    clocks.iter().for_each(|clock| clock.set(NOW_S + DAY_S + 60));
    let mut server = server.clone();
    change(&mut server);
    let pair = shake(&Server::new(server).unwrap(), &client);
    match pair.failures() {
        (None, None) => Ok(pair.client.session.peer().resumed),
        failures => Err(failures),
    }
}

#[test]
fn a_session_ends_with_the_first_thing_that_the_trust_in_its_client_rests_on() {
    let root = Ca::new("root");
    let run = |shown: &Pems, trust: Trust| {
        let (mut server, mut client) = (settings(&root), root.client());
        client.certificate = Some(shown.credential());
        server.trust = Some(trust);
        overnight(&server, client, |_| {})
    };
    let lasting = root.numbered(1);
    assert_eq!(run(&lasting, root.trust(&[])), Ok(true));
    let expired = Err((Some(Failure::Expired), None));
    let leaf = root.issue(|params| params.not_after = date_time_ymd(2025, 1, 2));
    assert_eq!(run(&leaf, root.trust(&[])), expired);
    assert_eq!(run(&root.between("between", 1, NEXT).numbered(1), root.trust(&[])), expired);
    let brief = Ca::until("brief", NEXT);
    assert_eq!(run(&brief.numbered(1), brief.trust(&[])), expired);
    let with = |list: String| Trust::from_pem(&[root.pem.as_bytes()], Vec::new(), &[list.as_bytes()]).unwrap();
    assert_eq!(run(&lasting, with(root.list(&[2], NEXT))), Err((Some(Failure::RevocationUnknown), None)));
    assert_eq!(run(&lasting, with(root.list(&[2], (2026, 1, 1)))), Ok(true));
    // Another issuer's list ends for others, whatever that one's name.
    for other in ["other", "root"] {
        assert_eq!(run(&lasting, with(Ca::new(other).list(&[2], NEXT))), Ok(true));
    }
}

#[test]
fn a_session_ends_with_the_first_thing_that_the_trust_in_its_server_rests_on() {
    let root = Ca::new("root");
    let run = |served: &Pems, trust: &Trust, then: Option<&Pems>| {
        let (mut server, mut client) = (settings(&root), root.client());
        server.certificates = vec![served.credential()];
        client.trust = trust.clone();
        overnight(&server, client, |server| {
            then.into_iter().for_each(|pems| server.certificates = vec![pems.credential()]);
        })
    };
    let (lasting, brief) = (root.numbered(1), Ca::until("brief", NEXT));
    let leaf = root.issue(|params| {
        params.not_after = date_time_ymd(2025, 1, 2);
        params.subject_alt_names = vec![SanType::DnsName("a.example".try_into().unwrap())];
    });
    let between = root.between("between", 1, NEXT).numbered(1);
    let both = Trust::from_pem(&[root.pem.as_bytes(), brief.pem.as_bytes()], Vec::new(), &[]).unwrap();
    let list = root.list(&[2], NEXT);
    let listed = Trust::from_pem(&[root.pem.as_bytes()], Vec::new(), &[list.as_bytes()]).unwrap();
    assert_eq!(run(&lasting, &both, None), Ok(true));
    for served in [&leaf, &between, &brief.numbered(1)] {
        assert_eq!(run(served, &both, None), Err((Some(Failure::PeerAlert), Some(Failure::Expired))));
        // Renewed meanwhile: verified again, and well.
        assert_eq!(run(served, &both, Some(&lasting)), Ok(false));
    }
    assert_eq!(run(&lasting, &listed, None), Err((Some(Failure::PeerAlert), Some(Failure::RevocationUnknown))));
}

#[test]
fn what_a_session_rests_on_is_handed_on_with_its_tickets() {
    // Resumed before midnight: the ticket of that session ends no later.
    let root = Ca::new("root");
    let (mut server, mut client) = (settings(&root), root.client());
    client.certificate = Some(root.between("between", 1, NEXT).numbered(1).credential());
    let clocks = [server.clock.clone(), client.clock.clone()];
    let set = |at_s: u64| clocks.iter().for_each(|clock| clock.set(at_s));
    set(NOW_S + DAY_S - 3600);
    let client = Client::new(client).unwrap();
    first(&server, &client);
    assert!(resumed(&server, &client));
    // The ticket of the first session is used up: what follows is the second's.
    server.tickets = Some(KEYS);
    set(NOW_S + DAY_S);
    assert!(resumed(&server, &client), "the last second counts");
    set(NOW_S + DAY_S + 1);
    assert_eq!(shake(&Server::new(server).unwrap(), &client).server.failure(), Some(Failure::Expired));
}

#[test]
fn a_ticket_that_comes_late_is_worth_no_more() {
    let root = Ca::new("root");
    let (mut server, client) = (settings(&root), root.client());
    server.certificates = vec![root.between("between", 1, NEXT).numbered(1).credential()];
    let clocks = [server.clock.clone(), client.clock.clone()];
    let set = |at_s: u64| clocks.iter().for_each(|clock| clock.set(at_s));
    set(NOW_S + DAY_S - 3600);
    let client = Client::new(client).unwrap();
    first(&server, &client);
    let mut slow = shake(&Server::new(server.clone()).unwrap(), &client);
    assert!(slow.client.session.peer().resumed);
    set(NOW_S + DAY_S + 60);
    server.certificates = vec![root.numbered(1).credential()];
    // Forgets what has ended, and remembers nothing new.
    drop(Session::connect(&client));
    assert_eq!(slow.client.receive(&[]), Ok((Vec::new(), Opened::Nothing)));
    assert!(!resumed(&server, &client));
}

#[test]
fn tls12_sessions_resume_against_rustls() {
    let ca = Ca::new("ca");
    let (served, shown) = (ca.named(&["a.example"]), ca.identified("spiffe://example.org/a"));
    let check = |mut mixed: Mixed, resumed: bool| {
        assert_eq!(mixed.ours.state, HandshakeState::Done);
        let peer = mixed.ours.session.peer().clone();
        assert_eq!((peer.version, peer.resumed), ("TLSv1.2", resumed));
        mixed.talk(b"as before");
        mixed.talk(&pattern(20_000));
        peer
    };
    for suite in SUITES_12 {
        // With a client that shows a certificate: it is known again, and asked for none.
        let server = Server::new(settings(&ca)).unwrap();
        let remembers = ca.other_client_settings(suite, Some(&shown));
        for resumed in [false, true, true] {
            let mixed = Mixed::shake(Session::accept(&server).unwrap(), other_client_of(&remembers));
            let peer = check(mixed, resumed);
            assert_eq!(peer.identity.as_ref().map(|id| id.as_str()), Some("spiffe://example.org/a"));
            assert_eq!(peer.sni.as_deref(), Some("a.example"));
        }
        // With servers that remember by session id, and that give tickets (RFC 5077).
        for tickets in [false, true] {
            let mut remembers = other_server_settings(suite, &served);
            if tickets {
                remembers.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
            }
            let (remembers, client) = (Arc::new(remembers), Client::new(ca.client()).unwrap());
            for resumed in [false, true, true] {
                let other = other_server_of(remembers.clone());
                check(Mixed::shake(Session::connect(&client).unwrap(), other), resumed);
            }
        }
    }
}

#[test]
fn certificates_by_name() {
    let ca = Ca::new("ca");
    let mut server = ca.server(&ca.named(&["default.example"]));
    let names: [&[&str]; 3] = [&["a.example", "B.example"], &["*.a.example"], &["x.a.example", "a.example"]];
    server.certificates.extend(names.iter().map(|names| ca.named(names).credential()));
    let credentials = server.certificates.clone();
    let server = Server::new(server).unwrap();
    for (asked, number) in [
        ("default.example", 0),
        // Of two with a name, the first.
        ("a.example", 1),
        ("b.example", 1),
        ("B.EXAMPLE", 1),
        ("y.a.example", 2),
        // An exact name goes before a wildcard, which is for one label.
        ("x.a.example", 3),
        ("z.y.a.example", 0),
        ("other.example", 0),
        ("", 0),
    ] {
        let mut client = ca.client();
        (client.sni, client.expect) = ((!asked.is_empty()).then(|| asked.to_owned()), Vec::new());
        let pair = shake(&server, &Client::new(client).unwrap());
        pair.assert_done();
        let peer = pair.server.session.peer();
        assert_eq!(server.certificate_for(peer.sni.as_deref()).digest(), credentials[number].digest(), "{asked}");
        for (host, other) in [("default.example", 0), ("a.EXAMPLE:443", 1), ("y.a.example.", 2), ("x.a.example", 3)] {
            assert_eq!(server.is_certificate_for(asked, host.as_bytes()), number == other, "{asked} {host}");
        }
        assert_eq!(peer.sni.as_deref().unwrap_or_default(), asked.to_ascii_lowercase());
        let leaf = credentials[number].key().cert[0].to_vec();
        let print = crypto::digest::digest(&crypto::digest::SHA256, &leaf);
        assert_eq!(pair.client.session.peer().fingerprint.as_ref().map(|print| &print[..]), Some(print.as_ref()));
    }
}
