//! State of the world (`StreamAggregatedResources`): each message of listeners and clusters has all of them, and what is
//! not there is no more; of the other kinds a message has what is new or changed.

use super::offer::{Message, Offer, Progress, TooMuch};
use super::refusal::Refusal;
use super::{Protocol, node_of};
use crate::encode::{hex, sha256};
use crate::snapshot::{Kind, Snapshot};
use api::envoy_types::pb::envoy::config::core::v3::Node;
use api::envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// The name that stands for all there are.
const ALL: &str = "*";

/// One state-of-the-world stream.
#[derive(Debug)]
pub(super) struct Whole {
    offer: Offer,
    /// Kinds of which names were asked for once: from then on no name means nothing, not everything.
    named: BTreeSet<Kind>,
    /// By kind, the nonce of the last message: what names another one was said before that came.
    last: [String; crate::snapshot::KINDS],
}

#[cfg(test)]
impl Whole {
    /// The nonce of the last message of a kind.
    pub(super) fn last_nonce(&self, kind: Kind) -> &str {
        &self.last[kind as usize]
    }
}

impl Protocol for Whole {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn new(snapshot: Arc<Snapshot>) -> Whole {
        Whole { offer: Offer::new(snapshot, true), named: BTreeSet::new(), last: Default::default() }
    }

    fn node(request: &DiscoveryRequest) -> Option<&Node> {
        node_of(request.node.as_ref())
    }

    /// Every request has all the names that are wanted.
    fn hear(&mut self, request: DiscoveryRequest) -> Result<(), TooMuch> {
        let Some(kind) = Kind::of(&request.type_url) else { return Ok(()) };
        let nonce = &request.response_nonce;
        if !nonce.is_empty() && *nonce != self.last[kind as usize] {
            // It answers a message before the last one; the answer to that has the same names, or newer ones.
            return Ok(());
        }
        let is_all = request.resource_names.iter().any(|name| name == ALL);
        let names: Vec<String> = request.resource_names.into_iter().filter(|name| name != ALL).collect();
        if !names.is_empty() || is_all {
            self.named.insert(kind);
        }
        // Only of listeners and clusters there is an "all".
        let has_all = matches!(kind, Kind::Listener | Kind::Cluster);
        let wildcard = has_all && (is_all || (names.is_empty() && !self.named.contains(&kind)));
        if self.offer.is_open(kind) {
            self.offer.set_wildcard(kind, wildcard);
        } else {
            self.offer.open(kind, wildcard, None)?;
        }
        if !nonce.is_empty() {
            let refusal = request.error_detail.map(Refusal::read);
            self.offer.answered(kind, nonce, refusal.as_ref());
        }
        let before = self.offer.names(kind);
        let wanted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let gone =
            before.iter().filter(|name| !wanted.contains(&***name)).map(|name| name.to_string()).collect::<Vec<_>>();
        let new: Vec<String> = names.iter().filter(|name| !before.contains(name.as_str())).cloned().collect();
        self.offer.unsubscribe(kind, &gone);
        self.offer.subscribe(kind, &new, false)
    }

    fn take(&mut self, snapshot: Arc<Snapshot>) {
        self.offer.take(snapshot);
    }

    fn next(&mut self, now: Instant) -> Option<DiscoveryResponse> {
        let message = self.offer.next(now)?;
        self.last[message.kind as usize] = message.nonce.to_string();
        Some(response(message))
    }

    fn look_again(&self, now: Instant) -> Option<Instant> {
        self.offer.look_again(now)
    }

    fn waits_since(&self) -> Option<Instant> {
        self.offer.waits_since()
    }

    fn progress(&self) -> Progress {
        self.offer.progress()
    }
}

/// Its version is a hash of the names and versions in it: equal on every daemon and after a restart.
fn response(message: Message) -> DiscoveryResponse {
    let Message { kind, nonce, number: _, resources, removed: _ } = message;
    let versions: Vec<String> = resources.iter().map(|one| format!("{} {}\n", one.name, one.version)).collect();
    DiscoveryResponse {
        version_info: hex(&sha256(versions.concat().as_bytes())[..16]),
        resources: resources.iter().map(|one| one.body.clone()).collect(),
        type_url: kind.type_url().to_owned(),
        nonce: nonce.to_string(),
        ..DiscoveryResponse::default()
    }
}
