//! Ends that must not come together, each with its reason; and certificates that cannot be used at all.

use super::support::*;
use super::*;
use crate::spiffe::Pattern;
use Failure::*;
use rcgen::{ExtendedKeyUsagePurpose as Usage, SanType};

const API: &str = "spiffe://example.org/ns/prod/sa/api";

fn identity(pattern: &str) -> Expect {
    Expect::Identity(Pattern::parse(pattern).unwrap())
}

/// What a server says to a client that shows `shown`, and what the client learns when it reads on.
pub(super) fn to_client(ca: &Ca, shown: Option<&Pems>, change: impl FnOnce(&mut ServerSettings)) -> Option<Failure> {
    let mut server = ca.server(&ca.named(&["a.example"]));
    server.clients = Clients::Required;
    server.trust = Some(ca.trust(&["example.org"]));
    change(&mut server);
    let mut client = ca.client();
    client.certificate = shown.map(Pems::credential);
    let mut pair = shake_settings(server, client);
    // In TLS 1.3 the client is done before the server has seen its certificate.
    assert_eq!(pair.client.state, HandshakeState::Done);
    let read = pair.client.receive(&[]);
    let failure = pair.server.failure();
    match failure {
        Some(_) => {
            assert_eq!(read, Err(PeerAlert));
            assert!(pair.server.session.open(&mut [0; 40]).is_err());
        }
        None => pair.talk(b"let in"),
    }
    failure
}

/// What a client says to a server that shows `shown`.
pub(super) fn to_server(ca: &Ca, shown: &Pems, change: impl FnOnce(&mut ClientSettings)) -> Option<Failure> {
    let mut client = ca.client();
    change(&mut client);
    let pair = shake_settings(ca.server(shown), client);
    let (server, client) = pair.failures();
    assert_eq!(server, client.map(|_| PeerAlert));
    client
}

#[test]
fn client_certificates_none_optional_required() {
    let ca = Ca::new("ca");
    let api = ca.identified(API);
    for (clients, shown, proven) in [
        (Clients::None, true, false),
        (Clients::Optional, true, true),
        (Clients::Optional, false, false),
        (Clients::Required, true, true),
    ] {
        let mut server = ca.server(&ca.named(&["a.example"]));
        server.clients = clients;
        let mut client = ca.client();
        client.certificate = shown.then(|| api.credential());
        let mut pair = shake_settings(server, client);
        pair.assert_done();
        pair.talk(b"x");
        let peer = pair.server.session.peer();
        assert_eq!(peer.identity.as_ref().map(|id| id.as_str()), proven.then_some(API), "{clients:?}");
        assert_eq!(peer.fingerprint.is_some(), proven);
        assert!(!peer.resumed);
        // The name's certificate has no URI.
        assert_eq!(pair.client.session.peer().identity, None);
        assert!(pair.client.session.peer().fingerprint.is_some());
    }
}

#[test]
fn servers_that_need_a_bundle_or_a_certificate() {
    let ca = Ca::new("ca");
    let mut settings = ca.server(&ca.named(&["a.example"]));
    (settings.clients, settings.trust) = (Clients::Optional, None);
    assert!(Server::new(settings.clone()).is_err());
    (settings.clients, settings.certificates) = (Clients::None, Vec::new());
    assert!(Server::new(settings).is_err());
}

#[test]
fn clients_are_refused() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let same = |_: &mut ServerSettings| {};
    let good = ca.identified(API);
    assert_eq!(to_client(&ca, Some(&good), same), None);
    assert_eq!(to_client(&ca, None, same), Some(NoCertificate));
    assert_eq!(to_client(&ca, Some(&other.identified(API)), same), Some(UnknownIssuer));
    let late = |server: &mut ServerSettings| server.clock.set(NOW_S + 400 * DAY_S);
    let early = |server: &mut ServerSettings| server.clock.set(NOW_S - 400 * DAY_S);
    assert_eq!(to_client(&ca, Some(&good), late), Some(Expired));
    assert_eq!(to_client(&ca, Some(&good), early), Some(NotYetValid));
    let usage = ca.issue(|params| {
        params.subject_alt_names = vec![SanType::URI(API.try_into().unwrap())];
        params.extended_key_usages = vec![Usage::ServerAuth];
    });
    assert_eq!(to_client(&ca, Some(&usage), same), Some(WrongUsage));
    let domain = ca.identified("spiffe://example.com/ns/prod/sa/api");
    assert_eq!(to_client(&ca, Some(&domain), same), Some(WrongIdentity));
    assert_eq!(to_client(&ca, Some(&ca.named(&["c.example"])), same), Some(WrongIdentity));
    // Of those expected one suffices.
    let expect = |server: &mut ServerSettings| {
        server.expect = vec![identity("spiffe://example.org/ns/test/**"), identity("spiffe://example.org/ns/prod/**")];
    };
    assert_eq!(to_client(&ca, Some(&good), expect), None);
    let web = ca.identified("spiffe://example.org/ns/stage/sa/web");
    assert_eq!(to_client(&ca, Some(&web), expect), Some(WrongIdentity));
}

#[test]
fn what_is_said_of_an_identity_is_what_a_handshake_makes_of_it() {
    let ca = Ca::new("ca");
    let ids = [None, Some(API), Some("spiffe://example.org/ns/test/x"), Some("spiffe://example.com/ns/prod/sa/api")];
    for clients in [Clients::None, Clients::Optional, Clients::Required] {
        for domains in [&[][..], &["example.org"], &["a", "example.com"]] {
            for expect in [vec![], vec![identity("spiffe://example.org/ns/prod/**"), identity("spiffe://x/y")]] {
                let mut settings = ca.server(&ca.named(&["a.example"]));
                (settings.clients, settings.trust, settings.expect) = (clients, Some(ca.trust(domains)), expect);
                let server = Server::new(settings.clone()).unwrap();
                assert_eq!((server.clients(), server.trust().is_some()), (clients, clients != Clients::None));
                for id in ids {
                    let mut client = ca.client();
                    client.certificate = id.map(|id| ca.identified(id).credential());
                    let pair = shake(&server, &Client::new(client).unwrap());
                    let known = match pair.server.failure() {
                        None => Ok(pair.server.session.peer().identity.clone()),
                        Some(failure) => Err(failure),
                    };
                    let id = id.map(|id| crate::spiffe::SpiffeId::parse(id).unwrap());
                    assert_eq!(
                        server.admits(id.as_ref()).map(Option::<&_>::cloned),
                        known,
                        "{clients:?} {domains:?} {id:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn identities_that_are_ambiguous_or_malformed() {
    let ca = Ca::new("ca");
    let api = API.as_bytes();
    assert_eq!(to_client(&ca, Some(&ca.with_uris(&[api])), |_| {}), None);
    let bad: [&[&[u8]]; 8] = [
        &[api, b"spiffe://example.org/two"],
        &[api, api],
        &[api, b"https://example.org/"],
        &[b"spiffe://example.org/api\0"],
        &[b"spiffe://example.org\0.evil/api"],
        &[b"spiffe://example.org/../api"],
        &[b"https://example.org/api"],
        &[b"spiffe://example.org/\xff"],
    ];
    let clock = Clock::new(NOW_S);
    for uris in bad {
        let pems = ca.with_uris(uris);
        assert!(pems.credential().identity().is_err());
        assert_eq!(to_client(&ca, Some(&pems), |_| {}), Some(WrongIdentity), "{uris:?}");
        // Also where any trust domain would do.
        let any = |server: &mut ServerSettings| (server.trust, server.clock) = (Some(ca.trust(&[])), clock.clone());
        assert_eq!(to_client(&ca, Some(&pems), any), Some(WrongIdentity), "{uris:?}");
        // And a pattern is not matched by one of two.
        let expecting = |server: &mut ServerSettings| server.expect = vec![identity("spiffe://example.org/**")];
        assert_eq!(to_client(&ca, Some(&pems), expecting), Some(WrongIdentity), "{uris:?}");
        let client = |client: &mut ClientSettings| client.expect = vec![identity("spiffe://example.org/**")];
        assert_eq!(to_server(&ca, &pems, client), Some(WrongIdentity), "{uris:?}");
    }
}

#[test]
fn servers_are_refused() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let same = |_: &mut ClientSettings| {};
    let good = ca.named(&["a.example"]);
    assert_eq!(to_server(&ca, &good, same), None);
    assert_eq!(to_server(&ca, &other.named(&["a.example"]), same), Some(UnknownIssuer));
    assert_eq!(to_server(&ca, &ca.named(&["b.example"]), same), Some(WrongName));
    assert_eq!(to_server(&ca, &ca.named(&["*.a.example"]), same), Some(WrongName));
    let late = |client: &mut ClientSettings| client.clock.set(NOW_S + 400 * DAY_S);
    let early = |client: &mut ClientSettings| client.clock.set(NOW_S - 400 * DAY_S);
    assert_eq!(to_server(&ca, &good, late), Some(Expired));
    assert_eq!(to_server(&ca, &good, early), Some(NotYetValid));
    // A root that has ended is none, though its certificates go on.
    let brief = Ca::until("brief", (2025, 1, 2));
    let after = |client: &mut ClientSettings| {
        client.trust = brief.trust(&[]);
        client.clock.set(NOW_S + 2 * DAY_S);
    };
    let before = |client: &mut ClientSettings| client.trust = brief.trust(&[]);
    assert_eq!(to_server(&ca, &brief.named(&["a.example"]), before), None);
    assert_eq!(to_server(&ca, &brief.named(&["a.example"]), after), Some(Expired));
    let usage = ca.issue(|params| params.extended_key_usages = vec![Usage::ClientAuth]);
    assert_eq!(to_server(&ca, &usage, same), Some(WrongUsage));
    let api = |client: &mut ClientSettings| (client.expect, client.sni) = (vec![identity(API)], None);
    assert_eq!(to_server(&ca, &ca.identified(API), api), None);
    assert_eq!(to_server(&ca, &ca.identified("spiffe://example.org/ns/prod/sa/web"), api), Some(WrongIdentity));
    assert_eq!(to_server(&ca, &good, api), Some(WrongIdentity));
    // The pattern fits, but the bundle does not speak for the domain.
    let domain = |client: &mut ClientSettings| {
        (client.expect, client.trust) = (vec![identity(API)], ca.trust(&["example.com"]));
    };
    assert_eq!(to_server(&ca, &ca.identified(API), domain), Some(WrongIdentity));
}

#[test]
fn application_protocols() {
    let ca = Ca::new("ca");
    let pems = ca.named(&["a.example"]);
    let run = |server: &[&[u8]], client: &[&[u8]]| {
        let (mut accepts, mut asks) = (ca.server(&pems), ca.client());
        accepts.alpn = server.iter().map(|name| name.to_vec()).collect();
        asks.alpn = client.iter().map(|name| name.to_vec()).collect();
        shake_settings(accepts, asks)
    };
    let pair = run(&[b"http/1.1", b"h2"], &[b"h2", b"http/1.1"]);
    pair.assert_done();
    assert_eq!(pair.server.session.peer().alpn.as_deref(), Some(&b"http/1.1"[..]));
    assert_eq!(pair.client.session.peer().alpn.as_deref(), Some(&b"http/1.1"[..]));
    assert_eq!(run(&[b"http/1.1"], &[b"h2"]).failures(), (Some(NoCommonAlpn), Some(PeerAlert)));
    run(&[b"http/1.1"], &[]).assert_done();
    run(&[], &[b"h2"]).assert_done();
}

#[test]
fn what_is_no_hello() {
    let ca = Ca::new("ca");
    let (server, client) =
        (Server::new(ca.server(&ca.named(&["a.example"]))).unwrap(), Client::new(ca.client()).unwrap());
    let run = |session: &mut Session, input: &[u8]| {
        let mut out = Vec::new();
        session.handshake(&mut input.to_vec(), &mut out).state
    };
    let lines: [&[u8]; 4] = [b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"G", b"\x16\x02", b"PRI * HTTP/2.0\r\n\r\n"];
    for line in lines {
        let mut session = Session::accept(&server).unwrap();
        assert_eq!(run(&mut session, line), HandshakeState::Failed(NotTls), "{line:?}");
        assert_eq!(run(&mut session, b""), HandshakeState::Failed(Other));
    }
    // A client that meets plaintext.
    let mut session = Session::connect(&client).unwrap();
    assert_eq!(run(&mut session, b"HTTP/1.1 400 Bad Request\r\n\r\n"), HandshakeState::Failed(NotTls));
    // Not yet to be told from TLS.
    assert_eq!(run(&mut Session::accept(&server).unwrap(), b"\x16\x03\x01"), HandshakeState::More);
    let huge = b"\x16\x03\x01\xff\xff";
    assert!(matches!(run(&mut Session::accept(&server).unwrap(), huge), HandshakeState::Failed(_)));
}

#[test]
fn a_changed_hello_does_not_shake() {
    let ca = Ca::new("ca");
    let (server, client) =
        (Server::new(ca.server(&ca.named(&["a.example"]))).unwrap(), Client::new(ca.client()).unwrap());
    let mut hello = Vec::new();
    let _ = Session::connect(&client).unwrap().handshake(&mut [], &mut hello);
    // The versions of the record and of the hello itself are not authenticated, or not looked at (RFC 8446 section 5.1).
    for at in (0..hello.len()).filter(|at| *at != 2) {
        let mut pair = shake_tampered(&server, &client, |bytes| bytes[at] ^= 0x41);
        assert_ne!(pair.server.state, HandshakeState::Done, "byte {at}");
        assert!(pair.client.receive(b"").is_err() || pair.client.state != HandshakeState::Done, "byte {at}");
    }
}

#[test]
fn credentials_that_cannot_be_used() {
    let ca = Ca::new("ca");
    let (one, two) = (ca.named(&["A.example", "*.b.example"]), ca.named(&["a.example"]));
    let read = |chain: &str, key: &str| Credential::from_pem(chain.as_bytes(), key.as_bytes());
    let credential = one.credential();
    assert_eq!(credential.names(), [Box::from("a.example"), Box::from("*.b.example")]);
    assert_eq!((credential.not_before_s(), credential.not_after_s()), (1_704_067_200, 1_767_225_600));
    assert_eq!(credential.check_time(NOW_S), Ok(()));
    assert!(credential.check_time(credential.not_after_s()).is_ok());
    assert!(credential.check_time(credential.not_after_s() + 1).is_err());
    assert!(credential.check_time(credential.not_before_s() - 1).is_err());
    assert!(!format!("{credential:?}").contains("secret"));
    assert!(read(&one.chain, &two.key).unwrap_err().contains("does not belong"));
    for chain in ["", "# nothing", &one.key] {
        assert!(read(chain, &one.key).unwrap_err().contains("no certificate"), "{chain}");
    }
    assert!(read(&one.chain, "").is_err());
    assert!(read(&one.chain, &two.chain).is_err());
    // Wherever it is cut off, until only line ends are missing.
    let both = format!("{}{}", one.chain.trim_end(), "\n") + ca.pem.trim_end();
    let first = one.chain.trim_end().len();
    for length in (0..both.len()).filter(|length| !(first..=first + 1).contains(length)) {
        // So little of a second one's first line that it cannot be told.
        if (first..first + 2 + "-----BEGIN CERTIFICATE-----".len()).contains(&length) {
            continue;
        }
        assert!(read(&both[..length], &one.key).is_err(), "{length}");
    }
    assert!(read(&both, &one.key).is_ok());
    for length in 0..one.key.trim_end().len() {
        assert!(read(&one.chain, &one.key[..length]).is_err(), "{length}");
    }
    assert!(read(&one.chain.repeat(17), &one.key).is_err());
    // Bytes that are PEM, but no certificate.
    let bent = one.chain.replacen("MII", "AII", 1);
    assert!(bent == one.chain || read(&bent, &one.key).is_err());
}
