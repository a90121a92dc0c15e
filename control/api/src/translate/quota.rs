//! `quota`: a local rate limit filter each, behind policy. A listener's stand before those of its routes, which are empty in
//! the listener and filled by the route.

use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use envoy_types::pb::google::protobuf::Any;

use crate::{
    model::{Http, Quota},
    xds,
};

/// The filters of an http listener: one for each of its quotas, and as many as the route with the most has.
pub(super) fn http_filters(http: &Http) -> Vec<HttpFilter> {
    let of_routes = http.hosts.iter().flat_map(|host| &host.routes).map(|route| route.quotas.len()).max().unwrap_or(0);
    let listener =
        http.quotas.iter().enumerate().map(|(at, quota)| (format!("ringway.listener-quota.{at}"), Some(quota)));
    let routes = (0..of_routes).map(|at| (of_route(at), None));
    let filter = |(name, quota): (String, Option<&Quota>)| HttpFilter {
        name,
        config_type: Some(http_filter::ConfigType::TypedConfig(limit(quota))),
        ..HttpFilter::default()
    };
    listener.chain(routes).map(filter).collect()
}

/// A route's own.
pub(super) fn per_route(quotas: &[Quota]) -> impl Iterator<Item = (String, Any)> {
    quotas.iter().enumerate().map(|(at, quota)| (of_route(at), limit(Some(quota))))
}

fn of_route(at: usize) -> String {
    format!("ringway.route-quota.{at}")
}

fn limit(quota: Option<&Quota>) -> Any {
    xds::any(xds::LOCAL_RATE_LIMIT, &xds::write_quota(quota))
}
