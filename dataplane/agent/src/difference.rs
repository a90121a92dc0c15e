//! What a new configuration changed, in a few words.

use crate::files::Contents;
use api::envoy_types::pb::envoy::config::cluster::v3::Cluster;
use api::envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use api::envoy_types::pb::envoy::config::listener::v3::{Listener, filter};
use api::envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use api::envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_filter,
};
use api::envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use api::envoy_types::pb::google::protobuf::Any;
use api::{Resources, xds};
use std::collections::BTreeMap;

/// What a line says when there is nothing to say.
pub(crate) const NOTHING: &str = "nothing changed";
/// Files and secrets that a line names at most.
const MOST_FILES: usize = 8;
/// Listeners and services that it does.
const MOST_NAMES: usize = 32;

/// Names with `+` for new, `-` for gone, `~` for changed ones, and behind these what has changed:
/// `listeners ~web (TLS, policy); services +cart -old; files ~certs/a.pem`.
pub(crate) fn between(old: &Resources, new: &Resources, files: (&Contents, &Contents)) -> String {
    let listeners = changes(&listeners(old), &listeners(new), of_listener);
    let services = changes(&services(old), &services(new), of_service);
    let secrets = changes(&secrets(old), &secrets(new), |_, _| Vec::new());
    let of_files = changes(&named_files(files.0), &named_files(files.1), |_, _| Vec::new());
    let mut parts = Vec::new();
    for (what, mut changes, most) in [
        ("listeners", listeners, MOST_NAMES),
        ("services", services, MOST_NAMES),
        ("secrets", secrets, MOST_FILES),
        ("files", of_files, MOST_FILES),
    ] {
        if changes.len() > most {
            let more = changes.split_off(most).len();
            changes.push(format!("and {more} more"));
        }
        if !changes.is_empty() {
            parts.push(format!("{what} {}", changes.join(" ")));
        }
    }
    if old.bootstrap != new.bootstrap {
        parts.push("process settings".to_owned());
    }
    if parts.is_empty() { NOTHING.to_owned() } else { parts.join("; ") }
}

type Named<'a, T> = BTreeMap<&'a str, T>;
type OfListener<'a> = (&'a Listener, Option<&'a RouteConfiguration>);
type OfService<'a> = (&'a Cluster, Option<&'a ClusterLoadAssignment>);
type OfFile<'a> = &'a Result<std::sync::Arc<[u8]>, Box<str>>;

fn listeners(of: &Resources) -> Named<'_, OfListener<'_>> {
    let routes: Named<'_, _> = of.routes.iter().map(|routes| (routes.name.as_str(), routes)).collect();
    of.listeners.iter().map(|one| (one.name.as_str(), (one, routes.get(one.name.as_str()).copied()))).collect()
}

fn services(of: &Resources) -> Named<'_, OfService<'_>> {
    let endpoints: Named<'_, _> = of.endpoints.iter().map(|one| (one.cluster_name.as_str(), one)).collect();
    of.clusters.iter().map(|one| (one.name.as_str(), (one, endpoints.get(one.name.as_str()).copied()))).collect()
}

fn secrets(of: &Resources) -> Named<'_, &Secret> {
    of.secrets.iter().map(|secret| (secret.name.as_str(), secret)).collect()
}

fn named_files(of: &Contents) -> Named<'_, OfFile<'_>> {
    of.iter().map(|(name, content)| (&**name, content)).collect()
}

fn changes<T: PartialEq>(
    old: &Named<'_, T>,
    new: &Named<'_, T>,
    what: impl Fn(&T, &T) -> Vec<&'static str>,
) -> Vec<String> {
    let fresh = new.iter().filter_map(|(name, one)| match old.get(name) {
        None => Some(format!("+{name}")),
        Some(before) if before != one => match what(before, one) {
            what if what.is_empty() => Some(format!("~{name}")),
            what => Some(format!("~{name} ({})", what.join(", "))),
        },
        Some(_) => None,
    });
    let gone = old.keys().filter(|name| !new.contains_key(*name)).map(|name| format!("-{name}"));
    fresh.chain(gone).collect()
}

/// What of a listener has changed, where a word says it: the rest is routes and settings.
fn of_listener(old: &OfListener<'_>, new: &OfListener<'_>) -> Vec<&'static str> {
    let tls =
        |of: &OfListener<'_>| of.0.filter_chains.iter().map(|chain| chain.transport_socket.clone()).collect::<Vec<_>>();
    let parts = |of: &OfListener<'_>| filters(of.0, of.1);
    let of_kind = |of: &BTreeMap<String, Any>, kind: &str| -> Vec<(String, Any)> {
        let is = |config: &Any| config.type_url.contains(kind);
        of.iter().filter(|(_, config)| is(config)).map(|(place, config)| (place.clone(), config.clone())).collect()
    };
    let (before, now) = (parts(old), parts(new));
    let mut words = Vec::new();
    if tls(old) != tls(new) {
        words.push("TLS");
    }
    for (word, kind) in [("policy", ".rbac."), ("quotas", "ratelimit"), ("CORS", ".cors.")] {
        if of_kind(&before, kind) != of_kind(&now, kind) {
            words.push(word);
        }
    }
    words
}

/// The filters of a listener and of its routes, by place and name.
fn filters(listener: &Listener, routes: Option<&RouteConfiguration>) -> BTreeMap<String, Any> {
    let mut found = BTreeMap::new();
    for (at, chain) in listener.filter_chains.iter().enumerate() {
        for of in &chain.filters {
            let Some(filter::ConfigType::TypedConfig(config)) = &of.config_type else { continue };
            let http = xds::decode::<HttpConnectionManager>(config, xds::HTTP_CONNECTION_MANAGER).unwrap_or_default();
            for inner in http.http_filters {
                if let Some(http_filter::ConfigType::TypedConfig(config)) = inner.config_type {
                    found.insert(format!("{at} {}", inner.name), config);
                }
            }
            found.insert(format!("{at} {}", of.name), config.clone());
        }
    }
    for host in routes.iter().flat_map(|routes| &routes.virtual_hosts) {
        for route in &host.routes {
            let own = route.typed_per_filter_config.iter();
            found.extend(own.map(|(name, config)| (format!("{} {} {name}", host.name, route.name), config.clone())));
        }
    }
    found
}

/// What of a service has changed, where a word says it.
fn of_service(old: &OfService<'_>, new: &OfService<'_>) -> Vec<&'static str> {
    let mut words = Vec::new();
    if old.0.transport_socket != new.0.transport_socket {
        words.push("TLS");
    }
    if old.1 != new.1 || old.0.load_assignment != new.0.load_assignment {
        words.push("endpoints");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(text: &str) -> Resources {
        api::translate(&api::load(text, "f").unwrap())
    }

    fn difference(old: &str, new: &str) -> String {
        let none = Contents::new();
        between(&resources(old), &resources(new), (&none, &none))
    }

    #[test]
    fn changes_are_named() {
        let old = "listeners:\n  web: { address: '127.0.0.1:1', protocol: http, routes: [ { name: all, to: a } ] }\n\
             services:\n  a: { endpoints: ['10.0.0.1:80'] }\n  b: { endpoints: ['10.0.0.1:80'] }\n";
        let new = "listeners:\n  web: { address: '127.0.0.1:1', protocol: http, routes: [ { name: other, to: a } ] }\n\
             services:\n  a: { endpoints: ['10.0.0.2:80'] }\n  c: { endpoints: ['10.0.0.1:80'] }\ncores: 1\n";
        let expected = "listeners ~web; services ~a (endpoints) +c -b; process settings";
        assert_eq!(difference(old, new), expected);
        assert_eq!(difference(old, old), "nothing changed");
    }

    #[test]
    fn tls_and_policy_have_words() {
        let file = |tls: &str, listener: &str, route: &str, service: &str| {
            format!(
                "listeners:\n  web:\n    address: '127.0.0.1:1'\n    protocol: http\n    tls: {{ {tls} }}\n{listener}\n    \
                 routes: [ {{ name: all, to: a{route} }} ]\nservices:\n  a: {{ endpoints: ['10.0.0.1:80']{service} }}\n"
            )
        };
        let pair = "certificates: [ { certificate: a.pem, key: a.key } ]";
        let old = file(pair, "", "", "");
        let differs = |new: String| difference(&old, &new);
        let asks = format!("{pair}, clients: required, trust: ca.pem");
        assert_eq!(differs(file(&asks, "", "", "")), "listeners ~web (TLS)");
        let deny = "    deny: [ { name: old-net, source: [192.0.2.0/24] } ]";
        assert_eq!(differs(file(pair, deny, "", "")), "listeners ~web (policy)");
        let allow = ", allow: [ { name: get, methods: [GET] } ]";
        assert_eq!(differs(file(pair, "", allow, "")), "listeners ~web (policy)");
        let tls = ", tls: { expect: a.example.com }";
        assert_eq!(differs(file(pair, "", "", tls)), "services ~a (TLS)");
    }

    #[test]
    fn files_are_named_and_many_are_counted() {
        let none = Resources::default();
        let files = |names: std::ops::Range<usize>, text: &str| -> Contents {
            names.map(|name| (name.to_string().into(), Ok(text.as_bytes().into()))).collect()
        };
        let told = |old: &Contents, new: &Contents| between(&none, &none, (old, new));
        assert_eq!(told(&files(0..2, "a"), &files(1..3, "b")), "files ~1 +2 -0");
        assert_eq!(told(&files(0..0, ""), &files(0..10, "a")), "files +0 +1 +2 +3 +4 +5 +6 +7 and 2 more");
    }
}
