//! The model as xDS v3 messages. One file a resource, one function a word of the language; notes on the
//! carriers stand where the choice is not obvious. Nothing here can fail: the model is checked.

pub(crate) mod address;
mod chain;
mod cluster;
mod cors;
mod listener;
mod policy;
mod quota;
mod route;
mod tls;

pub(crate) use cors::PREFLIGHT;

use std::time::Duration;

use envoy_types::pb::{
    envoy::config::{
        core::v3::{
            AggregatedConfigSource, ApiVersion, ConfigSource, DataSource, config_source::ConfigSourceSpecifier,
            data_source,
        },
        endpoint::v3::ClusterLoadAssignment,
    },
    google::protobuf::{self, BoolValue, UInt32Value},
};

use crate::{
    Resources,
    model::{Address, Document, Endpoint, Endpoints, Listener, Protocol},
    process::{self, Process},
};

/// Translates a document. Equal documents give equal resources, in the document's order.
pub fn translate(document: &Document) -> Resources {
    let mut resources = Resources {
        bootstrap: process::bootstrap(&Process::from(document)),
        files: tls::files(document),
        ..Resources::default()
    };
    for one in &document.listeners {
        resources.listeners.push(listener::listener(one, document));
        if let Protocol::Http(http) = &one.protocol {
            resources.routes.push(route::configuration(&one.name, http));
        }
    }
    for service in &document.services {
        let bytes = |listener: &Listener| match &listener.protocol {
            Protocol::Tcp(to) => to.iter().any(|target| target.service == service.name),
            // What goes there is TLS already: no service of it has TLS of ours.
            Protocol::Http(_) | Protocol::Passthrough(_) => false,
        };
        resources.clusters.push(cluster::cluster(service, !document.listeners.iter().any(bytes)));
        // EDS carries addresses only; names stand inside their cluster.
        if let Endpoints::Addresses(list) = &service.endpoints {
            resources.endpoints.push(load_assignment(&service.name, list));
        }
    }
    resources
}

/// Endpoints by address, as EDS carries them.
pub(crate) fn load_assignment(service: &str, endpoints: &[Endpoint<Address>]) -> ClusterLoadAssignment {
    cluster::load_assignment(service, endpoints, address::write)
}

/// "Ask the server that this came from."
fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3 as i32,
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

fn duration(of: Duration) -> protobuf::Duration {
    protobuf::Duration { seconds: of.as_secs() as i64, nanos: of.subsec_nanos() as i32 }
}

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

fn yes() -> Option<BoolValue> {
    Some(BoolValue { value: true })
}

fn inline(text: &str) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::InlineString(text.to_owned())), ..DataSource::default() }
}
