//! Configuration text, all the way: read, checked, translated, compiled, decided over, printed. What the checks let through the
//! compiler takes, because one text is one configuration everywhere.
#![no_main]

use api::Finding;
use libfuzzer_sys::fuzz_target;
use plan::{Action, Cache, Kind, ListenerId, Peer, Plan, Request, World};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let document = match api::load(text, "fuzz.yaml") {
        Ok(document) => document,
        Err(findings) => return assert!(findings.iter().all(one_line) && !findings.is_empty()),
    };
    let resources = api::translate(&document);
    let first = match plan::compile(&resources, None, 1, &World::default()) {
        Ok(plan) => plan,
        Err(rejections) => panic!("{rejections:#?}"),
    };
    assert!(first.ignored.is_empty(), "{:?}", first.ignored);
    let second = plan::compile(&resources, Some(&first), 1, &World::default());
    assert_eq!(second.map(|plan| plan.to_json()), Ok(first.to_json()));
    decide(&first);
});

fn one_line(finding: &Finding) -> bool {
    finding.to_string().lines().count() == 1
}

fn decide(plan: &Plan) {
    let mut cache = Cache::default();
    for (number, listener) in plan.listeners.iter().enumerate() {
        let id = ListenerId(number as u16);
        for path in [&b"/"[..], b"/cart/x", b"/a/b/c", b"*"] {
            let request = Request {
                method: Default::default(),
                method_bytes: b"GET",
                authority: b"shop.example.com:8080",
                path,
                query: b"?page=1",
                fields: &[],
                head: b"",
                peer: Peer::default(),
            };
            let decision = match listener.kind {
                Kind::Http(_) => plan.decide(id, &request, 7, &mut cache),
                _ => plan.decide_tcp(id, Some("shop.example.com"), &Peer::default(), 7),
            };
            assert!(!cache.text.iter().any(u8::is_ascii_control));
            // A file's routes name services that stand in it.
            assert!(!matches!(decision.action, Action::UnknownService(_)));
            assert_eq!(decision.show(plan, &cache.text).to_string().lines().count(), 1);
        }
    }
}
