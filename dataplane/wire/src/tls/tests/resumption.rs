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

#[test]
fn who_has_expired_meanwhile_does_not_resume() {
    let ca = Ca::new("ca");
    let brief = |name: SanType| {
        ca.issue(|params| {
            params.not_after = date_time_ymd(2025, 1, 2);
            params.subject_alt_names = vec![name];
        })
    };
    let shown = brief(SanType::URI("spiffe://example.org/a".try_into().unwrap()));
    let served = brief(SanType::DnsName("a.example".try_into().unwrap()));
    // An hour before, and a minute after: the ticket is still good.
    let (before, after) = (NOW_S + DAY_S - 3600, NOW_S + DAY_S + 60);
    let run = |served: Option<&Pems>, shown: Option<&Pems>| {
        let (mut server, mut client) = (settings(&ca), ca.client());
        served.into_iter().for_each(|pems| server.certificates = vec![pems.credential()]);
        client.certificate = shown.map(Pems::credential);
        server.clock.set(before);
        client.clock.set(before);
        let (clocks, client) = ([server.clock.clone(), client.clock.clone()], Client::new(client).unwrap());
        first(&server, &client);
        clocks.iter().for_each(|clock| clock.set(after));
        let mut pair = shake(&Server::new(server).unwrap(), &client);
        (pair.failures(), pair.client.receive(&[]).err())
    };
    assert_eq!(run(None, None), ((None, None), None));
    let ((server, _), told) = run(None, Some(&shown));
    assert_eq!((server, told), (Some(Failure::Expired), Some(Failure::PeerAlert)));
    assert_eq!(run(Some(&served), None).0.1, Some(Failure::Expired));
}

#[test]
fn certificates_by_name() {
    let ca = Ca::new("ca");
    let mut server = ca.server(&ca.named(&["default.example"]));
    let names: [&[&str]; 3] = [&["a.example", "B.example"], &["*.a.example"], &["x.a.example", "a.example"]];
    server.certificates.extend(names.iter().map(|names| ca.named(names).credential()));
    let server = Server::new(server).unwrap();
    assert_eq!(server.certificates(), 4);
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
        assert_eq!(peer.certificate, number, "{asked}");
        assert_eq!(peer.sni.as_deref().unwrap_or_default(), asked.to_ascii_lowercase());
        let leaf = server.certificate(number).unwrap().key().cert[0].to_vec();
        let print = crypto::digest::digest(&crypto::digest::SHA256, &leaf);
        assert_eq!(pair.client.session.peer().fingerprint.as_ref().map(|print| &print[..]), Some(print.as_ref()));
    }
}
