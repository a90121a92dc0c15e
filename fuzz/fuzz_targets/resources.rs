//! xDS resources as a server may send them: any bytes that decode are compiled or refused with reasons. The first byte says which
//! kind of resource the bytes are; the others come from a configuration that is good.
#![no_main]

use api::envoy_types::pb::google::protobuf::Any;
use api::{Resources, xds};
use libfuzzer_sys::fuzz_target;
use plan::{Cache, ListenerId, Peer, Request, World};
use std::sync::LazyLock;

const GOOD: &str = include_str!("../corpus/config/tour");

static RESOURCES: LazyLock<Resources> = LazyLock::new(|| match api::load(GOOD, "good.yaml") {
    Ok(document) => api::translate(&document),
    Err(findings) => panic!("{findings:#?}"),
});

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    let mut resources = RESOURCES.clone();
    if replace(&mut resources, kind, bytes).is_none() {
        return;
    }
    match plan::compile(&resources, None, 1, &World::default()) {
        Err(rejections) => {
            assert!(!rejections.is_empty());
            assert!(rejections.iter().all(|one| one.to_string().lines().count() == 1));
        }
        Ok(plan) => {
            let request = Request {
                method: Default::default(),
                method_bytes: b"GET",
                authority: b"shop.example.com",
                path: b"/cart/x",
                query: b"",
                fields: &[],
                head: b"",
                peer: Peer::default(),
            };
            let mut cache = Cache::default();
            for number in 0..plan.listeners.len() {
                plan.decide(ListenerId(number as u16), &request, 7, &mut cache);
                assert!(!cache.text.iter().any(u8::is_ascii_control));
            }
            assert!(!plan.to_json().is_empty());
        }
    }
});

/// Puts what the bytes say in the place of the first resource of its kind.
fn replace(resources: &mut Resources, kind: u8, bytes: &[u8]) -> Option<()> {
    let packed = |url: &str| Any { type_url: url.to_owned(), value: bytes.to_vec() };
    match kind % 5 {
        0 => resources.listeners[0] = xds::decode(&packed(xds::LISTENER), xds::LISTENER).ok()?,
        1 => resources.routes[0] = xds::decode(&packed(xds::ROUTE_CONFIGURATION), xds::ROUTE_CONFIGURATION).ok()?,
        2 => resources.clusters[0] = xds::decode(&packed(xds::CLUSTER), xds::CLUSTER).ok()?,
        3 => {
            let url = xds::CLUSTER_LOAD_ASSIGNMENT;
            resources.endpoints[0] = xds::decode(&packed(url), url).ok()?;
        }
        // Names keep their listener's, so that they are found.
        _ => {
            let url = xds::ROUTE_CONFIGURATION;
            let name = std::mem::take(&mut resources.routes[0].name);
            resources.routes[0] = xds::decode(&packed(url), url).ok()?;
            resources.routes[0].name = name;
        }
    }
    Some(())
}
