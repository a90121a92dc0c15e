//! Filter chains: which connections a listener takes, and what stands before their own bytes. A connection that no chain
//! matches is closed.

use envoy_types::pb::{
    envoy::config::{
        core::v3::TransportSocket,
        listener::v3::{Filter, FilterChain, FilterChainMatch, ListenerFilter, listener_filter},
    },
    google::protobuf::Any,
};

use super::{policy, tls};
use crate::{
    model::{Clients, Listener, Passage, Protocol},
    xds,
};

/// What looks at a connection before its chain is chosen: the PROXY header first, TLS comes behind it.
pub(super) fn listener_filters(of: &Listener) -> Vec<ListenerFilter> {
    // What both are told says nothing: so their messages are empty.
    let filter = |name: &str, type_url: &str| ListenerFilter {
        name: format!("envoy.filters.listener.{name}"),
        config_type: Some(listener_filter::ConfigType::TypedConfig(Any {
            type_url: type_url.to_owned(),
            value: Vec::new(),
        })),
        ..ListenerFilter::default()
    };
    let inspected = migrates(of) || matches!(of.protocol, Protocol::Passthrough(_));
    let proxy = of.proxy_protocol.is_some().then(|| filter("proxy_protocol", xds::PROXY_PROTOCOL));
    proxy.into_iter().chain(inspected.then(|| filter("tls_inspector", xds::TLS_INSPECTOR))).collect()
}

/// One chain; two, by what the first bytes are, while clients migrate to TLS.
pub(super) fn by_transport(of: &Listener, filters: Vec<Filter>) -> Vec<FilterChain> {
    let chain = |socket: Option<TransportSocket>, protocol: &str| FilterChain {
        filters: filters.clone(),
        transport_socket: socket,
        filter_chain_match: matching(of, protocol, &[]),
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
pub(super) fn by_name(
    of: &Listener,
    passages: &[Passage],
    filters: impl Fn(&Passage) -> Vec<Filter>,
) -> Vec<FilterChain> {
    let mut chains = Vec::new();
    for passage in passages {
        let (any, names): (Vec<String>, Vec<String>) = passage.names.iter().cloned().partition(|name| name == "*");
        let chain = |name: &str, names: &[String]| FilterChain {
            name: name.to_owned(),
            filter_chain_match: matching(of, "tls", names),
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

/// Which connections a chain takes; every one if nothing is asked. Who may send a PROXY header is asked of the socket's
/// peer, not of whom the header names.
fn matching(of: &Listener, protocol: &str, names: &[String]) -> Option<FilterChainMatch> {
    let matching = FilterChainMatch {
        transport_protocol: protocol.to_owned(),
        server_names: names.to_vec(),
        direct_source_prefix_ranges: of.proxy_protocol.iter().flatten().map(policy::range).collect(),
        ..FilterChainMatch::default()
    };
    (matching != FilterChainMatch::default()).then_some(matching)
}
