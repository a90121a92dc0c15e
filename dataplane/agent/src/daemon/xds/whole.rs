//! A state-of-the-world stream (`StreamAggregatedResources`): each response has all listeners or clusters there are, or those
//! of the others that were asked for by name.

use super::{Heard, Incoming, Kind, NO_NONCE, Names, Speak, Update, error_detail, not_asked_for, version_in};
use api::envoy_types::pb::envoy::config::core::v3::Node;
use api::envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use plan::Rejection;
use std::collections::{BTreeMap, BTreeSet};

/// One stream, from its opening to its end.
#[derive(Debug)]
pub(crate) struct Whole<'a> {
    asked: BTreeMap<Kind, Asked>,
    /// The versions that were accepted last: the next stream begins with them.
    versions: &'a mut BTreeMap<Kind, String>,
}

/// What was asked for of one kind.
#[derive(Debug, Default)]
struct Asked {
    names: BTreeSet<String>,
    /// Of the last response.
    nonce: String,
}

impl<'a> Whole<'a> {
    /// A new stream, and what is said first. `versions` are those of the last stream.
    pub(crate) fn open(
        node: Node,
        wanted: &Names,
        versions: &'a mut BTreeMap<Kind, String>,
    ) -> (Whole<'a>, Vec<DiscoveryRequest>) {
        let mut whole = Whole { asked: BTreeMap::new(), versions };
        for kind in Kind::ALL {
            let names = wanted.get(&kind).filter(|_| !kind.is_wildcard()).cloned().unwrap_or_default();
            if kind.is_wildcard() || !names.is_empty() {
                whole.asked.insert(kind, Asked { names, nonce: String::new() });
            }
        }
        let mut requests: Vec<_> = whole.asked.keys().map(|kind| whole.request(*kind)).collect();
        if let Some(first) = requests.first_mut() {
            first.node = Some(node);
        }
        (whole, requests)
    }

    fn request(&self, kind: Kind) -> DiscoveryRequest {
        let asked = self.asked.get(&kind);
        DiscoveryRequest {
            version_info: self.versions.get(&kind).cloned().unwrap_or_default(),
            resource_names: asked.iter().flat_map(|asked| asked.names.iter().cloned()).collect(),
            type_url: kind.type_url().to_owned(),
            response_nonce: asked.map(|asked| asked.nonce.clone()).unwrap_or_default(),
            ..DiscoveryRequest::default()
        }
    }
}

impl Speak for Whole<'_> {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    /// All names are said again.
    fn want(&mut self, kind: Kind, names: &BTreeSet<String>) -> Option<DiscoveryRequest> {
        let asked_before = self.asked.contains_key(&kind);
        // Without a name a first request would ask for everything; a later one says that nothing is wanted any more.
        if kind.is_wildcard() || (!asked_before && names.is_empty()) {
            return None;
        }
        let asked = self.asked.entry(kind).or_default();
        if asked_before && asked.names == *names {
            return None;
        }
        asked.names.clone_from(names);
        Some(self.request(kind))
    }

    fn hear(&mut self, response: DiscoveryResponse) -> Heard<DiscoveryRequest> {
        let DiscoveryResponse { type_url, nonce, version_info, resources, .. } = response;
        if nonce.is_empty() {
            return Heard::Fault(NO_NONCE);
        }
        let asked = Kind::of(&type_url).and_then(|kind| Some((kind, self.asked.get_mut(&kind)?)));
        let Some((kind, asked)) = asked else {
            let error_detail = Some(not_asked_for(&type_url));
            let blank = DiscoveryRequest::default();
            return Heard::Refuse(DiscoveryRequest { type_url, response_nonce: nonce, error_detail, ..blank });
        };
        asked.nonce.clone_from(&nonce);
        let version = version_info.clone();
        let incoming = |resource| Incoming { name: None, version: version.clone(), resource };
        Heard::Update(Update {
            kind,
            nonce,
            resources: resources.into_iter().map(incoming).collect(),
            version: version_info,
            removed: Vec::new(),
            complete: kind.is_wildcard(),
            refused: Vec::new(),
        })
    }

    /// A refusal says again which version was the last good one.
    fn answer(&mut self, update: &Update, rejections: &[Rejection]) -> DiscoveryRequest {
        self.asked.entry(update.kind).or_default().nonce.clone_from(&update.nonce);
        if rejections.is_empty() {
            self.versions.insert(update.kind, update.version.clone());
        }
        let error_detail = error_detail(rejections, version_in(update));
        DiscoveryRequest { error_detail, ..self.request(update.kind) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::envoy_types::pb::google::protobuf::Any;
    use api::xds;

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(ToString::to_string).collect()
    }

    fn response(kind: Kind, version: &str, nonce: &str) -> DiscoveryResponse {
        DiscoveryResponse {
            type_url: kind.type_url().into(),
            version_info: version.into(),
            nonce: nonce.into(),
            resources: vec![Any { type_url: kind.type_url().into(), value: vec![1] }],
            ..DiscoveryResponse::default()
        }
    }

    fn update(heard: Heard<DiscoveryRequest>) -> Update {
        match heard {
            Heard::Update(update) => update,
            other => panic!("{other:?}"),
        }
    }

    fn opened<'a>(routes: &[&str], versions: &'a mut BTreeMap<Kind, String>) -> (Whole<'a>, Vec<DiscoveryRequest>) {
        Whole::open(Node::default(), &Names::from([(Kind::Route, names(routes))]), versions)
    }

    #[test]
    fn a_stream_begins_with_clusters_and_listeners_and_what_is_wanted_by_name() {
        let mut versions = BTreeMap::from([(Kind::Cluster, "3".to_owned())]);
        let (_, requests) = opened(&["web"], &mut versions);
        assert_eq!((&*requests[0].version_info, &*requests[1].version_info), ("3", ""), "those of the last stream");
        let said: Vec<_> = requests.iter().map(|request| (&*request.type_url, request.resource_names.len())).collect();
        assert_eq!(said, [(xds::CLUSTER, 0), (xds::LISTENER, 0), (xds::ROUTE_CONFIGURATION, 1)]);
        assert!(requests[0].node.is_some() && requests[1].node.is_none());
        assert_eq!(opened(&[], &mut BTreeMap::new()).1.len(), 2);
    }

    #[test]
    fn every_request_names_all_and_carries_the_last_nonce_and_version() {
        let mut versions = BTreeMap::new();
        let (mut whole, _) = opened(&["a"], &mut versions);
        let update = update(whole.hear(response(Kind::Route, "7", "n1")));
        assert!(!update.complete, "routes are not gone because they are absent");
        let ack = whole.answer(&update, &[]);
        assert_eq!((&*ack.version_info, &*ack.response_nonce, ack.resource_names.len()), ("7", "n1", 1));
        let more = whole.want(Kind::Route, &names(&["a", "b"])).unwrap();
        assert_eq!(more.resource_names, ["a", "b"]);
        assert_eq!((&*more.version_info, &*more.response_nonce), ("7", "n1"));
        assert!(whole.want(Kind::Route, &names(&["a", "b"])).is_none());
        assert_eq!(whole.want(Kind::Route, &names(&[])).unwrap().resource_names.len(), 0);
        assert_eq!(versions[&Kind::Route], "7");
    }

    #[test]
    fn a_refusal_keeps_the_version_that_was_good() {
        let mut versions = BTreeMap::new();
        let (mut whole, _) = opened(&[], &mut versions);
        let first = update(whole.hear(response(Kind::Listener, "1", "n1")));
        assert!(first.complete, "listeners are gone when they are absent");
        whole.answer(&first, &[]);
        let second = update(whole.hear(response(Kind::Listener, "2", "n2")));
        let nack = whole.answer(&second, &[super::super::rejection(Kind::Listener, "web", "is odd")]);
        assert_eq!((&*nack.version_info, &*nack.response_nonce), ("1", "n2"));
        assert_eq!(nack.error_detail.unwrap().message, "listener/web: is odd");
    }

    #[test]
    fn strangers_are_refused_and_a_missing_nonce_ends_the_stream() {
        let mut versions = BTreeMap::new();
        let (mut whole, _) = opened(&[], &mut versions);
        assert!(
            matches!(whole.hear(response(Kind::Route, "1", "n")), Heard::Refuse(nack) if nack.error_detail.is_some())
        );
        assert_eq!(whole.hear(response(Kind::Listener, "1", "")), Heard::Fault(NO_NONCE));
    }
}
