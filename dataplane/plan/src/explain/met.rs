//! What a listener knows of a client once the handshake is done; or why there is none.

use super::Explanation;
use crate::{Kind, Listener, Peer, Transport};
use std::net::IpAddr;
use wire::spiffe::SpiffeId;
use wire::tls::{Clients, Expect, Server};

/// A client as a listener knows it.
pub(super) struct Met<'a> {
    pub(super) peer: Peer<'a>,
    /// Why its identity is not known, though it has one.
    unknown: &'static str,
}

impl<'a> Met<'a> {
    /// Without an identity the client shows no certificate.
    ///
    /// # Errors
    /// There is no handshake, and nothing of a request is looked at.
    pub(super) fn by(through: &Listener, peer: Peer<'a>) -> Result<Met<'a>, Explanation> {
        let identity = peer.identity.and_then(|text| SpiffeId::parse(text).ok());
        let server = match (&through.kind, &through.transport) {
            (Kind::Passthrough(_), _) => return Ok(Met::unknown(peer, ": what is passed through is not opened")),
            (_, Transport::Plain) => return Ok(Met::unknown(peer, ": there is no TLS to prove one")),
            // Who comes in plain is nobody, and let in.
            (_, Transport::Migrate(_)) if identity.is_none() => return Ok(Met { peer, unknown: "" }),
            (_, Transport::Tls(server) | Transport::Migrate(server)) => server,
        };
        match server.admits(identity.as_ref()) {
            Ok(None) => Ok(Met::unknown(peer, ": the listener asks for no certificate")),
            Ok(Some(_)) => Ok(Met { peer, unknown: "" }),
            Err(failure) => {
                let (name, reason) = (&through.name, why(server, identity.as_ref()));
                let lines = vec![
                    format!("listener {name}: TLS handshake refused: {reason} ({})", failure.label()),
                    format!("identity: {}", peer.identity.unwrap_or("none")),
                    where_it_listens(through),
                ];
                Err(Explanation { lines })
            }
        }
    }

    fn unknown(peer: Peer<'a>, why: &'static str) -> Met<'a> {
        let unknown = if peer.identity.is_some() { why } else { "" };
        Met { peer: Peer { identity: None, ..peer }, unknown }
    }

    /// Who asks, and from where; `source` is the address that rules know.
    pub(super) fn tell(&self, source: Option<IpAddr>, lines: &mut Vec<String>) {
        let or_none = |address: Option<IpAddr>| address.map_or("none".to_owned(), |ip| ip.to_string());
        lines.push(format!("identity: {}{}", self.peer.identity.unwrap_or("none"), self.unknown));
        lines.push(format!("source: {}", or_none(source)));
        lines.push(format!("peer: {}", or_none(self.peer.direct)));
    }
}

/// Why a server does not let a client in, in the language's words.
fn why(server: &Server, identity: Option<&SpiffeId>) -> String {
    let (Some(identity), Some(trust)) = (identity, server.trust()) else {
        return "`clients: required`, and the client shows no certificate".to_owned();
    };
    if !trust.speaks_for(identity.trust_domain()) {
        let (domain, domains) = (identity.trust_domain(), trust.domains().join(", "));
        return format!("`{domain}` is none of the domains of `trust`: {domains}");
    }
    let of = |expect: &Expect| match expect {
        Expect::Identity(pattern) => pattern.as_str().to_owned(),
        Expect::Name(name) => name.to_string(),
    };
    let expected: Vec<String> = server.expect().iter().map(of).collect();
    format!("the identity is none of `expect`: {}", expected.join(", "))
}

/// A listener's address, and what it asks of clients.
pub(super) fn where_it_listens(through: &Listener) -> String {
    let clients = |server: &Server| match server.clients() {
        Clients::None => "TLS",
        Clients::Optional => "TLS, clients: optional",
        Clients::Required => "TLS, clients: required",
    };
    let transport = match (&through.kind, &through.transport) {
        (Kind::Passthrough(_), _) => "TLS passed through",
        (_, Transport::Plain) => "plain",
        (_, Transport::Tls(server)) => clients(server),
        (_, Transport::Migrate(_)) => "TLS, or plain while clients migrate",
    };
    format!("listener: {} at {}, {transport}", through.name, through.address)
}

#[cfg(test)]
pub(super) mod tests {
    use crate::tests::plan_in;
    use crate::{ListenerId, Peer, Plan, Request, World};
    use wire::tls::Clock;

    /// A plan whose certificates are all the same one.
    pub(in crate::explain) fn secure(text: &str) -> Plan {
        let mut world = World { clock: Clock::new(1_735_689_600), ..World::default() };
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(vec!["shop.com".to_owned()]).unwrap().self_signed(&key).unwrap();
        for (name, text) in [("a.pem", made.pem()), ("a.key", key.serialize_pem())] {
            world.files.insert(name.into(), Ok(text.into_bytes().into()));
        }
        plan_in(text, &world)
    }

    const DOORS: &str = "
listeners:
  plain: { address: '127.0.0.1:1', protocol: tcp, to: pg }
  none: { address: '127.0.0.1:2', protocol: tcp, tls: { certificates: [ { certificate: a.pem, key: a.key } ] }, to: pg }
  optional: { address: '127.0.0.1:3', protocol: tcp, tls: { certificates: [ { certificate: a.pem, key: a.key } ], clients: optional, trust: { roots: [a.pem], domains: [shop, b] } }, to: pg }
  required: { address: '127.0.0.1:4', protocol: tcp, tls: { certificates: [ { certificate: a.pem, key: a.key } ], clients: required, trust: a.pem, expect: ['spiffe://shop/a', 'spiffe://shop/x/**'] }, to: pg }
  migrate: { address: '127.0.0.1:5', protocol: tcp, tls: { certificates: [ { certificate: a.pem, key: a.key } ], clients: migrate, trust: { roots: [a.pem], domains: [shop] } }, to: pg }
  web: { address: '127.0.0.1:6', protocol: http, tls: { certificates: [ { certificate: a.pem, key: a.key } ], clients: required, trust: a.pem }, routes: [ { to: pg } ] }
  through: { address: '127.0.0.1:7', protocol: tls-passthrough, hosts: [ { names: [a.test], to: pg } ] }
services: { pg: { endpoints: [10.0.0.1:80] } }
";

    #[test]
    fn a_handshake_that_is_refused_says_why() {
        let plan = secure(DOORS);
        let of = |name: &str, identity: Option<&'static str>| {
            let at = plan.listeners.iter().position(|listener| *listener.name == *name).unwrap();
            plan.explain_bytes(ListenerId(at as u16), Some("a.test"), &Peer { identity, ..Peer::default() }).lines
        };
        let (shop, bank) = (Some("spiffe://shop/x/y"), Some("spiffe://bank/x"));
        let first = |name: &str, identity| of(name, identity).swap_remove(0);
        for (name, identity) in [
            ("none", shop),
            ("none", None),
            ("optional", None),
            ("optional", shop),
            ("required", shop),
            ("migrate", None),
            ("migrate", shop),
        ] {
            let passes = format!("listener {name}: forward to pg");
            assert!(first(name, identity).starts_with(&passes), "{name} {identity:?}");
        }
        let refused = |reason: &str| format!("TLS handshake refused: {reason}");
        let none = refused("`clients: required`, and the client shows no certificate (no_certificate)");
        assert_eq!(first("required", None), format!("listener required: {none}"));
        let domains = refused("`bank` is none of the domains of `trust`: shop, b (wrong_identity)");
        assert_eq!(first("optional", bank), format!("listener optional: {domains}"));
        let domain = refused("`bank` is none of the domains of `trust`: shop (wrong_identity)");
        assert_eq!(first("migrate", bank), format!("listener migrate: {domain}"));
        let expect = refused("the identity is none of `expect`: spiffe://shop/a, spiffe://shop/x/** (wrong_identity)");
        assert_eq!(
            of("required", bank),
            [
                format!("listener required: {expect}"),
                "identity: spiffe://bank/x".to_owned(),
                "listener: required at 127.0.0.1:4, TLS, clients: required".to_owned(),
            ]
        );
        // An http listener says the same before it looks at the request.
        let lines = plan.explain(ListenerId(5), &Request::of_bytes(&Peer::default())).lines;
        assert_eq!(lines[0], format!("listener web: {none}"));
    }

    #[test]
    fn what_nobody_asks_for_nobody_knows() {
        let plan = secure(DOORS);
        let peer = Peer { identity: Some("spiffe://shop/x"), ..Peer::default() };
        for (at, why) in [
            (0, "there is no TLS to prove one"),
            (1, "the listener asks for no certificate"),
            (6, "what is passed through is not opened"),
        ] {
            let lines = plan.explain_bytes(ListenerId(at), Some("a.test"), &peer).lines;
            assert!(lines.contains(&format!("identity: none: {why}")), "{lines:#?}");
        }
    }
}
