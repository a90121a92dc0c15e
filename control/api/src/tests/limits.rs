//! Each bound of a document: what is at it is taken, one more is told, with the number that is allowed.

use crate::mesh;

const ROUTE: &str = "{ respond: { status: 200 } }";

/// A document with so many of something.
type Written = fn(usize) -> String;

/// A mesh whose group has this in its listener and in its service.
fn document(listener: &str, endpoints: &str) -> String {
    format!(
        "trust-domain: shop\ngroups:\n  g:\n    listeners:\n      l: {{ address: 127.0.0.1:1, {listener} }}\n    \
         services:\n      s: {{ endpoints: [{endpoints}] }}\n"
    )
}

fn list(count: usize, one: impl Fn(usize) -> String) -> String {
    (0..count).map(one).collect::<Vec<_>>().join(", ")
}

fn groups(count: usize) -> String {
    let group = |n| format!("  g{n}: {{ listeners: {{ l: {{ address: 127.0.0.1:1, routes: [{ROUTE}] }} }} }}\n");
    format!("trust-domain: shop\ngroups:\n{}", (0..count).map(group).collect::<String>())
}

fn hosts(count: usize) -> String {
    let host = |n| format!("{{ names: [h{n}.test], routes: [{ROUTE}] }}");
    document(&format!("hosts: [{}]", list(count, host)), "127.0.0.1:2")
}

fn names(count: usize) -> String {
    let names = list(count, |n| format!("h{n}.test"));
    document(&format!("hosts: [{{ names: [{names}], routes: [{ROUTE}] }}]"), "127.0.0.1:2")
}

fn routes(count: usize) -> String {
    let route = |n| format!("{{ name: r{n}, match: {{ path: /{n} }}, respond: {{ status: 200 }} }}");
    document(&format!("routes: [{}]", list(count, route)), "127.0.0.1:2")
}

fn rules(count: usize) -> String {
    let rules = list(count, |n| format!("{{ name: r{n}, source: 10.0.0.1 }}"));
    document(&format!("allow: [{rules}], routes: [{ROUTE}]"), "127.0.0.1:2")
}

fn endpoints(count: usize) -> String {
    let address = |n: usize| format!("10.0.{}.{}:80", n / 250, n % 250);
    document(&format!("routes: [{ROUTE}]"), &list(count, address))
}

#[test]
fn what_is_at_a_bound_is_taken_and_one_more_is_told() {
    let bounds: [(&str, Written, usize); 6] = [
        ("groups", groups, 10_000),
        ("hosts", hosts, 10_000),
        ("names", names, 10_000),
        ("routes", routes, 10_000),
        ("allow", rules, 1000),
        ("endpoints", endpoints, 4000),
    ];
    for (what, text, most) in bounds {
        let found = mesh::load(&text(most), "mesh.yaml").err();
        assert!(found.is_none(), "{most} {what}: {:?}", found.map(|found| found[0].to_string()));
        let found = mesh::load(&text(most + 1), "mesh.yaml").expect_err(what);
        assert_eq!(found.len(), 1, "{what}: {}", found[0]);
        let message = &found[0].message;
        assert!(message.contains(what) && message.contains(&format!("at most {most}")), "{what}: {message}");
    }
}

#[test]
fn a_document_may_have_8_mib_and_not_a_byte_more() {
    let text = routes(1);
    let fill = |bytes: usize| format!("{text}#{}", "x".repeat(bytes - text.len() - 1));
    const MOST: usize = crate::tree::MAX_BYTES;
    assert!(mesh::load(&fill(MOST), "mesh.yaml").is_ok());
    let found = mesh::load(&fill(MOST + 1), "mesh.yaml").expect_err("one more");
    assert_eq!(found.len(), 1, "{found:?}");
}
