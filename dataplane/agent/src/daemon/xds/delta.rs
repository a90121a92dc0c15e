//! A delta stream (`DeltaAggregatedResources`): what has changed, by name.

use super::{
    Heard, Incoming, Kind, NO_NONCE, Names, Speak, Update, Versions, error_detail, not_asked_for, rejection, version_in,
};
use api::envoy_types::pb::envoy::config::core::v3::Node;
use api::envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use plan::Rejection;
use std::collections::{BTreeMap, BTreeSet};

/// One stream, from its opening to its end.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    /// What was subscribed to, of the kinds that were asked for at all.
    asked: Names,
}

impl Delta {
    /// A new stream, and what is said first: who asks, what is wanted, and which versions are here already.
    pub(crate) fn open(node: Node, wanted: &Names, held: &Versions) -> (Delta, Vec<DeltaDiscoveryRequest>) {
        let mut delta = Delta::default();
        let mut requests: Vec<_> =
            Kind::ALL.into_iter().filter_map(|kind| delta.first(kind, wanted.get(&kind), held)).collect();
        if let Some(first) = requests.first_mut() {
            first.node = Some(node);
        }
        (delta, requests)
    }

    /// The first request of a kind. Without a name it would ask for everything, so where nothing is wanted nothing is said.
    fn first(
        &mut self,
        kind: Kind,
        wanted: Option<&BTreeSet<String>>,
        held: &Versions,
    ) -> Option<DeltaDiscoveryRequest> {
        let names = wanted.filter(|_| !kind.is_wildcard()).cloned().unwrap_or_default();
        if names.is_empty() && !kind.is_wildcard() {
            return None;
        }
        let is_wanted = |name: &String| kind.is_wildcard() || names.contains(name);
        let held = held.get(&kind).into_iter().flatten().filter(|(name, _)| is_wanted(name));
        let initial_resource_versions = held.map(|(name, version)| (name.clone(), version.clone())).collect();
        let resource_names_subscribe = names.iter().cloned().collect();
        self.asked.insert(kind, names);
        let type_url = kind.type_url().to_owned();
        Some(DeltaDiscoveryRequest { type_url, resource_names_subscribe, initial_resource_versions, ..blank() })
    }
}

impl Speak for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    /// The difference alone is said.
    fn want(&mut self, kind: Kind, names: &BTreeSet<String>) -> Option<DeltaDiscoveryRequest> {
        if kind.is_wildcard() {
            return None;
        }
        let Some(asked) = self.asked.get_mut(&kind) else {
            return self.first(kind, Some(names), &Versions::new());
        };
        let resource_names_subscribe: Vec<String> = names.difference(asked).cloned().collect();
        let resource_names_unsubscribe: Vec<String> = asked.difference(names).cloned().collect();
        if resource_names_subscribe.is_empty() && resource_names_unsubscribe.is_empty() {
            return None;
        }
        asked.clone_from(names);
        let type_url = kind.type_url().to_owned();
        Some(DeltaDiscoveryRequest { type_url, resource_names_subscribe, resource_names_unsubscribe, ..blank() })
    }

    fn hear(&mut self, response: DeltaDiscoveryResponse) -> Heard<DeltaDiscoveryRequest> {
        let DeltaDiscoveryResponse { type_url, nonce, system_version_info, resources, removed_resources, .. } =
            response;
        if nonce.is_empty() {
            return Heard::Fault(NO_NONCE);
        }
        let asked = Kind::of(&type_url).and_then(|kind| Some((kind, self.asked.get(&kind)?)));
        let Some((kind, asked)) = asked else {
            let error_detail = Some(not_asked_for(&type_url));
            return Heard::Refuse(DeltaDiscoveryRequest { type_url, response_nonce: nonce, error_detail, ..blank() });
        };
        // More than was asked for may come (the specification lets servers do so) and is of no interest.
        let is_wanted = |name: &str| kind.is_wildcard() || asked.contains(name);
        let mut update = Update {
            kind,
            nonce,
            version: system_version_info,
            resources: Vec::with_capacity(resources.len()),
            removed: removed_resources.into_iter().filter(|name| is_wanted(name)).collect(),
            complete: false,
            refused: Vec::new(),
        };
        let mut times: BTreeMap<String, u32> = BTreeMap::new();
        resources.iter().for_each(|one| *times.entry(one.name.clone()).or_default() += 1);
        for one in resources.into_iter().filter(|one| is_wanted(&one.name)) {
            match incoming(one, &times) {
                Ok(Some(one)) => update.resources.push(one),
                Ok(None) => {}
                Err((name, reason)) => update.refused.push(rejection(kind, &name, reason)),
            }
        }
        update.refused.dedup();
        Heard::Update(update)
    }

    fn answer(&mut self, update: &Update, rejections: &[Rejection]) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: update.kind.type_url().to_owned(),
            response_nonce: update.nonce.clone(),
            error_detail: error_detail(rejections, version_in(update)),
            ..blank()
        }
    }
}

/// A resource as it stands in a response; None: it only says that what is held is still good.
fn incoming(one: Resource, times: &BTreeMap<String, u32>) -> Result<Option<Incoming>, (String, &'static str)> {
    match one.resource {
        _ if one.name.is_empty() => Err((one.name, "has no name")),
        _ if times.get(&one.name).is_some_and(|times| *times > 1) => Err((one.name, "stands in the response twice")),
        // A heartbeat of a resource with a time to live, which is not counted down here.
        None if one.ttl.is_some() => Ok(None),
        None => Err((one.name, "has no content")),
        Some(resource) => Ok(Some(Incoming { name: Some(one.name), version: one.version, resource })),
    }
}

fn blank() -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest::default()
}

#[cfg(test)]
mod tests {
    use super::super::node;
    use super::*;
    use api::envoy_types::pb::google::protobuf::{Any, Duration};
    use api::xds;

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(ToString::to_string).collect()
    }

    fn wanted(kind: Kind, list: &[&str]) -> Names {
        Names::from([(kind, names(list))])
    }

    fn held(kind: Kind, list: &[(&str, &str)]) -> Versions {
        let of_kind = list.iter().map(|(name, version)| (name.to_string(), version.to_string())).collect();
        Versions::from([(kind, of_kind)])
    }

    fn resource(name: &str, version: &str) -> Resource {
        let any = Any { type_url: xds::LISTENER.into(), value: vec![1] };
        Resource { name: name.into(), version: version.into(), resource: Some(any), ..Resource::default() }
    }

    fn response(kind: Kind, resources: Vec<Resource>) -> DeltaDiscoveryResponse {
        DeltaDiscoveryResponse {
            type_url: kind.type_url().into(),
            nonce: "n1".into(),
            system_version_info: "7".into(),
            resources,
            ..DeltaDiscoveryResponse::default()
        }
    }

    fn update(heard: Heard<DeltaDiscoveryRequest>) -> Update {
        match heard {
            Heard::Update(update) => update,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_stream_begins_with_clusters_and_listeners_and_the_node_once() {
        let (_, requests) = Delta::open(node("p1", "edge", &["a"]), &Names::new(), &Versions::new());
        let urls: Vec<_> = requests.iter().map(|request| request.type_url.as_str()).collect();
        assert_eq!(urls, [xds::CLUSTER, xds::LISTENER], "without names, the others would ask for everything");
        assert_eq!(requests[0].node.as_ref().map(|node| (&*node.id, &*node.cluster)), Some(("p1", "edge")));
        assert!(requests[1].node.is_none());
        assert!(requests.iter().all(|request| request.resource_names_subscribe.is_empty()), "wildcards");
        assert!(requests.iter().all(|request| request.response_nonce.is_empty()));
    }

    #[test]
    fn after_a_reconnect_the_versions_that_are_held_are_told_of_what_is_wanted() {
        let mut have = held(Kind::Route, &[("web", "r1"), ("old", "r0")]);
        have.extend(held(Kind::Listener, &[("web", "l1")]));
        let (_, requests) = Delta::open(node("p1", "edge", &[]), &wanted(Kind::Route, &["web", "new"]), &have);
        let of = |kind: Kind| requests.iter().find(|request| request.type_url == kind.type_url()).unwrap();
        assert_eq!(of(Kind::Listener).initial_resource_versions, [("web".into(), "l1".into())].into());
        let routes = of(Kind::Route);
        assert_eq!(routes.resource_names_subscribe, ["new", "web"]);
        assert_eq!(routes.initial_resource_versions, [("web".into(), "r1".into())].into(), "not what nobody wants");
    }

    #[test]
    fn other_names_are_told_as_a_difference_without_a_nonce() {
        let (mut delta, _) = Delta::open(Node::default(), &wanted(Kind::Route, &["a", "b"]), &Versions::new());
        let request = delta.want(Kind::Route, &names(&["b", "c"])).unwrap();
        assert_eq!(
            (&request.resource_names_subscribe, &request.resource_names_unsubscribe),
            (&vec!["c".into()], &vec!["a".into()])
        );
        assert!(request.response_nonce.is_empty() && request.error_detail.is_none());
        assert!(delta.want(Kind::Route, &names(&["b", "c"])).is_none(), "once");
        assert!(delta.want(Kind::Listener, &names(&["x"])).is_none(), "a wildcard stays one");
    }

    #[test]
    fn a_kind_without_names_is_asked_for_when_it_has_some() {
        let (mut delta, _) = Delta::open(Node::default(), &Names::new(), &Versions::new());
        assert!(delta.want(Kind::Endpoints, &names(&[])).is_none());
        let request = delta.want(Kind::Endpoints, &names(&["cart"])).unwrap();
        assert_eq!(request.resource_names_subscribe, ["cart"]);
    }

    #[test]
    fn an_update_is_acknowledged_by_its_nonce() {
        let (mut delta, _) = Delta::open(Node::default(), &Names::new(), &Versions::new());
        let update = update(delta.hear(response(Kind::Listener, vec![resource("web", "l1")])));
        assert_eq!((&*update.nonce, &*update.version, update.complete), ("n1", "7", false));
        assert_eq!(update.resources[0].name.as_deref(), Some("web"));
        let ack = delta.answer(&update, &[]);
        assert_eq!((&*ack.type_url, &*ack.response_nonce), (xds::LISTENER, "n1"));
        assert!(ack.error_detail.is_none() && ack.resource_names_subscribe.is_empty());
    }

    #[test]
    fn a_refusal_names_each_resource_field_and_reason_in_text_and_as_messages() {
        let (mut delta, _) = Delta::open(Node::default(), &Names::new(), &Versions::new());
        let update = update(delta.hear(response(Kind::Listener, vec![resource("web", "l1")])));
        let why = Rejection { kind: "listener", name: "web".into(), field: "address".into(), reason: "is odd".into() };
        let nack = delta.answer(&update, &vec![why; 70]);
        assert_eq!(nack.response_nonce, "n1");
        let detail = nack.error_detail.unwrap();
        assert!(detail.message.starts_with("listener/web: address: is odd\nlistener/web"), "{}", detail.message);
        assert!(detail.message.ends_with("\nand 6 more"), "{}", detail.message);
        assert_eq!(detail.details.len(), 64);
        let told: api::pb::Rejected = xds::decode(&detail.details[0], xds::REJECTED).unwrap();
        assert_eq!((&*told.type_url, &*told.name, &*told.version), (xds::LISTENER, "web", "l1"));
        assert_eq!((&*told.field, &*told.reason), ("address", "is odd"));
    }

    #[test]
    fn what_nobody_asked_for_is_left_alone_or_refused() {
        let (mut delta, _) = Delta::open(Node::default(), &wanted(Kind::Route, &["web"]), &Versions::new());
        let mut more = response(Kind::Route, vec![resource("web", "1"), resource("other", "1")]);
        more.removed_resources = vec!["third".into()];
        let update = update(delta.hear(more));
        assert_eq!((update.resources.len(), update.removed.len(), update.refused.len()), (1, 0, 0));
        for strange in [
            response(Kind::Secret, vec![]),
            DeltaDiscoveryResponse { type_url: "x/y".into(), ..response(Kind::Route, vec![]) },
        ] {
            let Heard::Refuse(nack) = delta.hear(strange.clone()) else { panic!("{strange:?}") };
            assert_eq!((&nack.type_url, &*nack.response_nonce), (&strange.type_url, "n1"));
            assert!(nack.error_detail.unwrap().message.contains("was not asked for"));
        }
    }

    #[test]
    fn a_response_without_a_nonce_ends_the_stream() {
        let (mut delta, _) = Delta::open(Node::default(), &Names::new(), &Versions::new());
        let response = DeltaDiscoveryResponse { nonce: String::new(), ..response(Kind::Listener, vec![]) };
        assert_eq!(delta.hear(response), Heard::Fault(NO_NONCE));
    }

    #[test]
    fn half_resources_are_refused_by_name_and_the_others_taken() {
        let (mut delta, _) = Delta::open(Node::default(), &Names::new(), &Versions::new());
        let empty = Resource { resource: None, ..resource("empty", "1") };
        let beat = Resource {
            ttl: Some(Duration { seconds: 1, nanos: 0 }),
            ..Resource { name: "beat".into(), ..empty.clone() }
        };
        let all =
            vec![resource("good", "1"), resource("twice", "1"), resource("twice", "2"), empty, beat, resource("", "1")];
        let update = update(delta.hear(response(Kind::Listener, all)));
        assert_eq!(update.resources.len(), 1);
        let told: Vec<_> = update.refused.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            ["listener/twice: stands in the response twice", "listener/empty: has no content", "listener: has no name"]
        );
    }
}
