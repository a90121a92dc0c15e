//! Listeners that pass TLS on as it comes: a filter chain for each set of server names, none with TLS of its own.

use super::rejection::Place;
use super::{Work, listener};
use crate::hosts::{HostName, Names};
use crate::{Passage, Passthrough};
use api::envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain};
use std::collections::HashSet;
use std::mem::take;

/// Whether the chains are of such a listener: one asks for TLS and does not end it.
pub(super) fn is_meant(chains: &[FilterChain]) -> bool {
    chains.iter().any(|chain| {
        let asks = chain.filter_chain_match.as_ref();
        let asks = asks.is_some_and(|asks| asks.transport_protocol == "tls" || !asks.server_names.is_empty());
        asks && chain.transport_socket.is_none()
    })
}

/// Compiles all chains of a listener.
pub(super) fn listener(
    work: &mut Work<'_>,
    place: &Place,
    name: &str,
    chains: Vec<FilterChain>,
    logged: bool,
) -> Option<Passthrough> {
    let before = work.rejections.len();
    let mut taken = HashSet::new();
    // Chains of one listener have the same rules before their last filter, as a rule: then they share them.
    let mut rules: Option<Vec<Filter>> = None;
    let mut hosts = Vec::new();
    for (index, mut chain) in chains.into_iter().enumerate() {
        let place = place.element("filter_chains", index);
        let mut asks = chain.filter_chain_match.take().unwrap_or_default();
        if take(&mut asks.transport_protocol) != "tls" {
            work.refuse(&place.field("filter_chain_match.transport_protocol"), "must be tls, as in the other chains");
        }
        let names =
            names(work, &place.field("filter_chain_match.server_names"), take(&mut asks.server_names), &mut taken);
        work.refuse_rest(&place.field("filter_chain_match"), &asks);
        let mut filters = take(&mut chain.filters);
        (chain.name, chain.metadata) = Default::default();
        work.refuse_rest(&place, &chain);
        let last = filters.pop();
        if rules.as_ref() != Some(&filters) {
            work.through.clear();
            rules = Some(filters.clone());
        } else {
            filters.clear();
        }
        filters.extend(last);
        let place = place.field("filters");
        let Some((config, place)) = listener::last_filter(work, place, name, filters) else { continue };
        let Some(tcp) = listener::tcp(work, &place, name, &config, logged) else { continue };
        let (texts, names) = names.into_iter().unzip();
        hosts.push((Passage { names: texts, tcp }, names));
    }
    let access_log = hosts.iter().any(|(passage, _)| passage.tcp.access_log);
    (work.rejections.len() == before).then(|| Passthrough { access_log, hosts: Names::new(hosts) })
}

/// The names of a chain, as they are written and as they are found; without any it takes what no other chain does.
fn names(
    work: &mut Work<'_>,
    place: &Place,
    texts: Vec<String>,
    taken: &mut HashSet<HostName>,
) -> Vec<(Box<str>, HostName)> {
    let any = || vec!["*".to_owned()];
    let texts = if texts.is_empty() { any() } else { texts };
    let mut names = Vec::new();
    for text in texts {
        match HostName::read(&text) {
            // A ClientHello names no port.
            Ok(_) if text.contains(':') => work.refuse(place, format!("{text:?} is not a host name")),
            Ok(name) if !taken.insert(name.clone()) => {
                work.refuse(place, format!("{text:?} belongs to another chain"));
            }
            Ok(name) => names.push((text.into(), name)),
            Err(reason) => work.refuse(place, format!("{text:?} {reason}")),
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use crate::tests::plan_of;
    use crate::{Action, Kind, ListenerId, Peer, World, compile};
    use api::envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener};

    const FILE: &str = "
listeners:
  tls:
    address: 127.0.0.1:443
    protocol: tls-passthrough
    idle-timeout: 1h
    deny: [ { name: old-net, source: 192.0.2.0/24 } ]
    hosts:
      - { names: [a.test], to: a }
      - { names: ['*.b.test', '*'], to: { b: 1, a: 0 } }
      - { names: ['*.c.b.test'], to: c }
services:
  a: { endpoints: [10.0.0.1:443] }
  b: { endpoints: [10.0.0.2:443] }
  c: { endpoints: [10.0.0.3:443] }
limits: { request-timeout: 3s }
";
    const TLS: ListenerId = ListenerId(0);

    /// What is said about a listener whose chains were changed.
    fn refused(change: impl FnOnce(&mut Listener)) -> String {
        let mut resources = api::translate(&api::load(FILE, "f").unwrap());
        change(&mut resources.listeners[0]);
        let rejections = compile(&resources, None, 1, &World::default()).map(|plan| plan.to_json()).unwrap_err();
        rejections.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn the_most_specific_name_wins() {
        let plan = plan_of(FILE);
        assert_eq!((plan.ignored.len(), plan.listener(TLS).opening_timeout_ns), (0, 3_000_000_000));
        let to = |name: Option<&str>| {
            let decision = plan.decide_tcp(TLS, name, &Peer::default(), 7);
            plan.service(decision.service().unwrap()).name.clone()
        };
        for (name, service) in [("a.test", "a"), ("x.b.test", "b"), ("x.y.b.test", "b"), ("x.c.b.test", "c")] {
            assert_eq!(&*to(Some(name)), service, "{name}");
        }
        for (name, service) in [(Some("c.b.test"), "b"), (Some("b.test"), "b"), (Some("x.a.test"), "b"), (None, "b")] {
            assert_eq!(&*to(name), service, "{name:?}");
        }
        assert_eq!(plan.tcp(TLS, None).unwrap().idle_timeout_ns, 3_600_000_000_000);
        let address = "192.0.2.1".parse().ok();
        let peer = Peer { address, direct: address, identity: None };
        assert_eq!(plan.decide_tcp(TLS, Some("a.test"), &peer, 7).action, Action::Denied);
        assert_eq!(plan.rules.len(), 2, "chains share their rules: one, and that nobody else is refused");
        let Kind::Passthrough(passthrough) = &plan.listener(TLS).kind else { panic!("{:?}", plan.listeners) };
        assert_eq!(passthrough.hosts.iter().count(), 4);
    }

    #[test]
    fn without_a_host_for_the_name_it_goes_nowhere() {
        let plan = plan_of(&FILE.replace(", '*'", ""));
        for name in [None, Some("b.test"), Some("test"), Some("other")] {
            assert_eq!(plan.decide_tcp(TLS, name, &Peer::default(), 0).action, Action::NotFound, "{name:?}");
            assert!(plan.tcp(TLS, name).is_none());
        }
    }

    #[test]
    fn what_would_send_it_astray_is_refused() {
        let asks =
            |chain: usize, change: fn(&mut FilterChain)| refused(|listener| change(&mut listener.filter_chains[chain]));
        let names = |names: &[&str]| {
            refused(|listener| {
                let asks = listener.filter_chains[0].filter_chain_match.as_mut().unwrap();
                asks.server_names = names.iter().map(ToString::to_string).collect();
            })
        };
        for (told, reason) in [
            (names(&["*.b.test"]), "\"*.b.test\" belongs to another chain"),
            (names(&[]), "\"*\" belongs to another chain"),
            (names(&["a*.test"]), "only a leading `*.` is supported"),
            (names(&["a.test:443"]), "is not a host name"),
            (asks(1, |chain| chain.filter_chain_match = None), "transport_protocol: must be tls"),
            (asks(0, |chain| chain.transport_socket = Some(Default::default())), "transport_socket: is not supported"),
            (asks(0, |chain| drop(chain.filters.pop())), "TcpProxy is wanted"),
            (
                asks(0, |chain| {
                    let asks = chain.filter_chain_match.as_mut().unwrap();
                    asks.application_protocols.push("h2".to_owned());
                }),
                "application_protocols: is not supported",
            ),
        ] {
            assert!(told.contains(reason), "{told}, not {reason}");
        }
    }
}
