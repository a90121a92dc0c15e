//! Delta (`DeltaAggregatedResources`): what has changed, by name.

use super::offer::{Message, Offer, Progress, TooMuch};
use super::refusal::Refusal;
use super::{Protocol, node_of};
use crate::snapshot::{Kind, Snapshot};
use api::envoy_types::pb::envoy::config::core::v3::Node;
use api::envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use std::sync::Arc;
use std::time::Instant;

/// The name that stands for all there are.
const ALL: &str = "*";

/// One delta stream.
#[derive(Debug)]
pub(super) struct Delta(Offer);

impl Protocol for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn new(snapshot: Arc<Snapshot>) -> Delta {
        Delta(Offer::new(snapshot, false))
    }

    fn node(request: &DeltaDiscoveryRequest) -> Option<&Node> {
        node_of(request.node.as_ref())
    }

    /// Changes of what is wanted ride on any request, answers too.
    fn hear(&mut self, request: DeltaDiscoveryRequest) -> Result<(), TooMuch> {
        let Some(kind) = Kind::of(&request.type_url) else { return Ok(()) };
        let is_named = |names: &[String]| names.iter().any(|name| name == ALL);
        let mut wanted = request.resource_names_subscribe;
        let mut unwanted = request.resource_names_unsubscribe;
        let (all, not_all) = (is_named(&wanted), is_named(&unwanted));
        wanted.retain(|name| name != ALL);
        unwanted.retain(|name| name != ALL);
        let is_first = !self.0.is_open(kind);
        if is_first {
            // Without a name the first request is for all there are.
            self.0.open(kind, all || wanted.is_empty(), request.initial_resource_versions)?;
        } else if all {
            self.0.set_wildcard(kind, true);
        }
        if !request.response_nonce.is_empty() {
            let refusal = request.error_detail.map(Refusal::read);
            self.0.answered(kind, &request.response_nonce, refusal.as_ref());
        }
        self.0.unsubscribe(kind, &unwanted);
        if not_all && !all {
            self.0.set_wildcard(kind, false);
        }
        self.0.subscribe(kind, &wanted, !is_first)
    }

    fn take(&mut self, snapshot: Arc<Snapshot>) {
        self.0.take(snapshot);
    }

    fn next(&mut self, now: Instant) -> Option<DeltaDiscoveryResponse> {
        self.0.next(now).map(response)
    }

    fn look_again(&self, now: Instant) -> Option<Instant> {
        self.0.look_again(now)
    }

    fn waits_since(&self) -> Option<Instant> {
        self.0.waits_since()
    }

    fn progress(&self) -> Progress {
        self.0.progress()
    }
}

fn response(message: Message) -> DeltaDiscoveryResponse {
    let Message { kind, nonce, number, resources, removed } = message;
    let resource = |one: &api::Packed| Resource {
        name: one.name.to_string(),
        version: one.version.to_string(),
        resource: Some(one.body.clone()),
        ..Resource::default()
    };
    DeltaDiscoveryResponse {
        system_version_info: number.to_string(),
        resources: resources.iter().map(|one| resource(one)).collect(),
        type_url: kind.type_url().to_owned(),
        removed_resources: removed.iter().map(|name| name.to_string()).collect(),
        nonce: nonce.to_string(),
        ..DeltaDiscoveryResponse::default()
    }
}
