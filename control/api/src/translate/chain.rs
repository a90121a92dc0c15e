//! Filter chains: which connections a listener takes, and what stands before their own bytes. A connection that no chain
//! matches is closed.

use envoy_types::pb::{
    envoy::config::{
        core::v3::TransportSocket,
        listener::v3::{Filter, FilterChain, FilterChainMatch, ListenerFilter, listener_filter},
    },
    google::protobuf::Any,
};

use super::tls;
use crate::{
    model::{Clients, Listener, Passage, Protocol},
    xds,
};

/// What looks at a connection before its chain is chosen.
pub(super) fn listener_filters(of: &Listener) -> Vec<ListenerFilter> {
    let inspected = migrates(of) || matches!(of.protocol, Protocol::Passthrough(_));
    inspected.then(inspector).into_iter().collect()
}

/// One chain; two, by what the first bytes are, while clients migrate to TLS.
pub(super) fn by_transport(of: &Listener, filters: Vec<Filter>) -> Vec<FilterChain> {
    let chain = |socket: Option<TransportSocket>, protocol: &str| FilterChain {
        filters: filters.clone(),
        transport_socket: socket,
        filter_chain_match: matching(protocol, &[]),
        ..FilterChain::default()
    };
    match &of.tls {
        None => vec![chain(None, "")],
        Some(tls) if migrates(of) => {
            vec![chain(Some(tls::downstream(tls, &of.protocol)), "tls"), chain(None, "raw_buffer")]
        }
        Some(tls) => vec![chain(Some(tls::downstream(tls, &of.protocol)), "")],
    }
}

/// `tls-passthrough`: a chain for the names of each entry; `*` is a chain that asks for none.
pub(super) fn by_name(passages: &[Passage], filters: impl Fn(&Passage) -> Vec<Filter>) -> Vec<FilterChain> {
    let mut chains = Vec::new();
    for passage in passages {
        let (any, names): (Vec<String>, Vec<String>) = passage.names.iter().cloned().partition(|name| name == "*");
        let chain = |name: &str, names: &[String]| FilterChain {
            name: name.to_owned(),
            filter_chain_match: matching("tls", names),
            filters: filters(passage),
            ..FilterChain::default()
        };
        chains.extend(names.first().map(|first| chain(first, &names)));
        chains.extend(any.first().map(|any| chain(any, &[])));
    }
    chains
}

fn migrates(of: &Listener) -> bool {
    of.tls.as_ref().is_some_and(|tls| tls.clients == Clients::Migrate)
}

/// Which connections a chain takes; every one if nothing is asked.
fn matching(protocol: &str, names: &[String]) -> Option<FilterChainMatch> {
    let matching = FilterChainMatch {
        transport_protocol: protocol.to_owned(),
        server_names: names.to_vec(),
        ..FilterChainMatch::default()
    };
    (matching != FilterChainMatch::default()).then_some(matching)
}

/// What tells TLS from other bytes, and the name that it asks for.
fn inspector() -> ListenerFilter {
    let config = Any { type_url: xds::TLS_INSPECTOR.to_owned(), value: Vec::new() };
    ListenerFilter {
        name: "envoy.filters.listener.tls_inspector".to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(config)),
        ..ListenerFilter::default()
    }
}
