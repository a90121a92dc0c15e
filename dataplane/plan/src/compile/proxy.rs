//! The PROXY header: read from the front of a listener's connections, written at the front of a service's.

use super::Work;
use super::rejection::Place;
use crate::{Networks, ProxyVersion};
use api::envoy_types::pb::envoy::config::core::v3::proxy_protocol_config::Version;
use api::envoy_types::pb::envoy::config::core::v3::{CidrRange, TransportSocket, transport_socket};
use api::envoy_types::pb::envoy::config::listener::v3::FilterChain;
use api::envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use api::envoy_types::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use api::envoy_types::pb::google::protobuf::Any;
use api::xds;
use std::mem::take;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The listener filter that reads a header. What it may be told would make the header optional, or one form of it.
pub(super) fn filter(work: &mut Work<'_>, place: &Place, index: usize, config: &Any) {
    match xds::decode::<ProxyProtocol>(config, xds::PROXY_PROTOCOL) {
        Ok(mut rest) => {
            rest.stat_prefix.clear();
            work.refuse_rest(place, &rest);
        }
        Err(error) => work.refuse(place, error),
    }
    if index > 0 {
        work.refuse(place, "must be the first: the header stands before everything else");
    }
}

/// Takes from the chains who may send a header: the peers that all of them ask for, everybody where none asks.
pub(super) fn allowed(
    work: &mut Work<'_>,
    place: &Place,
    proxied: bool,
    chains: &mut [FilterChain],
) -> Option<Networks> {
    let mut asked: Option<Vec<CidrRange>> = None;
    for (index, chain) in chains.iter_mut().enumerate() {
        let asks = chain.filter_chain_match.as_mut();
        let ranges = asks.map(|asks| take(&mut asks.direct_source_prefix_ranges)).unwrap_or_default();
        let place = place.element("filter_chains", index).field("filter_chain_match.direct_source_prefix_ranges");
        match &asked {
            None if !proxied && !ranges.is_empty() => {
                work.refuse(&place, "is supported with a proxy_protocol filter alone; rules say `peer`");
            }
            Some(first) if *first != ranges => work.refuse(&place, "must be that of the first chain"),
            _ => {}
        }
        asked.get_or_insert(ranges);
        // A match that asks for nothing else is none.
        chain.filter_chain_match = chain.filter_chain_match.take().filter(|asks| *asks != Default::default());
    }
    if !proxied {
        return None;
    }
    let place = place.field("filter_chains.filter_chain_match.direct_source_prefix_ranges");
    let mut ranges: Vec<(IpAddr, u32)> = Vec::new();
    for range in asked.unwrap_or_default() {
        match range.address_prefix.parse() {
            Ok(address) => ranges.push((address, range.prefix_len.map_or(0, |bits| bits.value))),
            Err(_) => work.refuse(&place, format!("{:?} is no address", range.address_prefix)),
        }
    }
    if ranges.is_empty() {
        ranges = vec![(Ipv4Addr::UNSPECIFIED.into(), 0), (Ipv6Addr::UNSPECIFIED.into(), 0)];
    }
    Networks::new(ranges).map_err(|reason| work.refuse(&place, reason)).ok()
}

/// Takes the header off a service's transport: which form of it, and the transport behind it, TLS or nothing.
pub(super) fn transport(
    work: &mut Work<'_>,
    place: &Place,
    socket: Option<TransportSocket>,
) -> (Option<ProxyVersion>, Option<TransportSocket>) {
    let config = |socket: &Option<TransportSocket>| match socket.as_ref()?.config_type.as_ref()? {
        transport_socket::ConfigType::TypedConfig(config) => Some(config.clone()),
    };
    let around = match config(&socket) {
        Some(config) if xds::is(&config, xds::UPSTREAM_PROXY_PROTOCOL) => config,
        _ => return (None, socket),
    };
    let around: Result<ProxyProtocolUpstreamTransport, String> = xds::decode(&around, xds::UPSTREAM_PROXY_PROTOCOL);
    let mut rest = match around {
        Ok(around) => around,
        Err(error) => {
            work.refuse(place, error);
            return (None, None);
        }
    };
    let mut header = rest.config.take().unwrap_or_default();
    let version = match Version::try_from(take(&mut header.version)) {
        Ok(Version::V1) => Some(ProxyVersion::V1),
        Ok(Version::V2) => Some(ProxyVersion::V2),
        Err(_) => {
            work.refuse(&place.field("config.version"), "is not known");
            None
        }
    };
    work.refuse_rest(&place.field("config"), &header);
    let inner = rest.transport_socket.take();
    // Without addresses a header says LOCAL or UNKNOWN, whatever the message says.
    rest.allow_unspecified_address = false;
    work.refuse_rest(place, &rest);
    let plain = config(&inner).is_some_and(|inner| xds::is(&inner, xds::RAW_BUFFER));
    (version, inner.filter(|_| !plain))
}

#[cfg(test)]
mod tests {
    use crate::tests::plan_of;
    use crate::{Kind, ProxyVersion, World, compile};
    use api::envoy_types::pb::envoy::config::listener::v3::{ListenerFilter, listener_filter};
    use api::envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
    use api::{Resources, xds};

    const FILE: &str = "
listeners:
  web: { address: 127.0.0.1:80, proxy-protocol: { from: [10.0.0.0/8, '::1'] }, routes: [ { to: a } ] }
  tls: { address: 127.0.0.1:81, proxy-protocol: { from: 10.0.0.0/8 }, protocol: tls-passthrough, to: b }
  open: { address: 127.0.0.1:82, routes: [ { to: c } ] }
services:
  a: { endpoints: [10.0.0.1:80], proxy-protocol: v1 }
  b: { endpoints: [10.0.0.2:443], proxy-protocol: v2 }
  c: { endpoints: [10.0.0.3:80] }
";

    fn resources() -> Resources {
        api::translate(&api::load(FILE, "f").unwrap())
    }

    fn refused(change: impl FnOnce(&mut Resources)) -> String {
        let mut resources = resources();
        change(&mut resources);
        let rejections = compile(&resources, None, 1, &World::default()).map(|plan| plan.to_json()).unwrap_err();
        rejections.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn who_may_say_it_and_who_is_told() {
        let plan = plan_of(FILE);
        assert_eq!(*plan.ignored, [""; 0]);
        let from = |index: usize| plan.listeners[index].proxy_protocol.as_ref().map(ToString::to_string);
        assert_eq!(from(0).as_deref(), Some("10.0.0.0/8, ::1/128"));
        assert_eq!(from(1).as_deref(), Some("10.0.0.0/8"));
        assert!(matches!(plan.listeners[1].kind, Kind::Passthrough(_)));
        assert_eq!(from(2), None);
        let told: Vec<_> = plan.services.iter().map(|service| service.proxy_protocol).collect();
        assert_eq!(told, [Some(ProxyVersion::V1), Some(ProxyVersion::V2), None]);
    }

    #[test]
    fn a_filter_without_ranges_believes_everybody() {
        let mut resources = resources();
        resources.listeners[0].filter_chains[0].filter_chain_match = None;
        let plan = compile(&resources, None, 1, &World::default()).unwrap();
        let everybody = plan.listeners[0].proxy_protocol.as_ref().map(ToString::to_string);
        assert_eq!(everybody.as_deref(), Some("0.0.0.0/0, ::/0"));
    }

    #[test]
    fn what_would_believe_others_is_refused() {
        let told = refused(|resources| resources.listeners[0].listener_filters.clear());
        assert!(
            told.contains("direct_source_prefix_ranges: is supported with a proxy_protocol filter alone"),
            "{told}"
        );
        let told = refused(|resources| {
            let second = resources.listeners[1].filter_chains[0].clone();
            resources.listeners[1].filter_chains.push(second);
            let asks = resources.listeners[1].filter_chains[1].filter_chain_match.as_mut().unwrap();
            asks.server_names = vec!["a.test".to_owned()];
            asks.direct_source_prefix_ranges.clear();
        });
        assert!(told.contains("must be that of the first chain"), "{told}");
        let told = refused(|resources| resources.listeners[1].listener_filters.reverse());
        assert!(told.contains("must be the first"), "{told}");
        let told = refused(|resources| {
            let optional = ProxyProtocol { allow_requests_without_proxy_protocol: true, ..Default::default() };
            let config = listener_filter::ConfigType::TypedConfig(xds::any(xds::PROXY_PROTOCOL, &optional));
            resources.listeners[0].listener_filters =
                vec![ListenerFilter { config_type: Some(config), ..Default::default() }];
        });
        assert!(told.contains("allow_requests_without_proxy_protocol: is not supported"), "{told}");
    }
}
