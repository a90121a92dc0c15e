//! Configurations and requests as text.

use crate::reference::{HeaderTest, Lists, Meant, PathPattern, Rule};
use crate::{ROUTES, Site};
use proptest::prelude::*;
use ringway_plan::{Plan, World, compile};
use std::sync::OnceLock;

/// How a request looks that means the same under each of these.
#[derive(Clone, Debug)]
pub(crate) struct Spelling {
    /// Chooses among the ways to write each letter and each segment.
    ways: Vec<u8>,
    pub(crate) spaces: bool,
    capitals: bool,
    absolute: bool,
    query: bool,
    host: u8,
}

impl Arbitrary for Spelling {
    type Parameters = ();
    type Strategy = BoxedStrategy<Spelling>;

    fn arbitrary_with((): ()) -> BoxedStrategy<Spelling> {
        let ways = prop_oneof![Just(vec![0]), prop::collection::vec(any::<u8>(), 1..12)];
        let bools = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.2), any::<bool>());
        (ways, bools, any::<u8>())
            .prop_map(|(ways, (spaces, capitals, absolute, query), host)| Spelling {
                ways,
                spaces,
                capitals,
                absolute,
                query,
                host,
            })
            .boxed()
    }
}

/// The bytes of a request.
pub(crate) fn spell(meant: &Meant, forwarded: impl Iterator<Item = String>, spelling: &Spelling) -> Vec<u8> {
    let host = match spelling.host % 5 {
        0 => meant.host.to_owned(),
        1 => meant.host.to_uppercase(),
        2 => format!("{}.", meant.host),
        3 => format!("{}:8443", meant.host),
        _ => format!("{}.:80", meant.host.replace('s', "S")),
    };
    let mut target = if spelling.absolute { format!("http://{host}") } else { String::new() };
    target += &path(&meant.path, &spelling.ways);
    if spelling.query {
        target += "?x=/a/b&../..";
    }
    let mut text = format!("{} {target} HTTP/1.1\r\nHost: {host}\r\n", meant.method);
    for (name, value) in &meant.headers {
        let name = if spelling.capitals { name.to_uppercase() } else { (*name).to_owned() };
        let space = if spelling.spaces { " \t " } else { "" };
        text += &format!("{name}:{space}{value}{space}\r\n");
    }
    for line in forwarded {
        text += &format!("X-Forwarded-For: {line}\r\n");
    }
    (text + "\r\n").into_bytes()
}

/// A path that is normalised to this one.
fn path(normal: &str, ways: &[u8]) -> String {
    let mut ways = ways.iter().copied().cycle();
    let mut way = move || ways.next().unwrap_or(0);
    let mut out = String::new();
    for segment in normal.split('/').skip(1) {
        out += match way() % 12 {
            0..6 => "/",
            6 => "//",
            7 => "/./",
            8 => "/%2e/",
            9 => "/zz/../",
            10 => "/zz/%2E%2e//",
            _ => "/x/y/.././%2e./",
        };
        for letter in segment.chars() {
            match way() % 6 {
                0 => out += &format!("%{:02x}", letter as u32),
                1 => out += &format!("%{:02X}", letter as u32),
                _ => out.push(letter),
            }
        }
    }
    out
}

/// A configuration with one listener.
pub(crate) fn configuration(site: &Site) -> String {
    let mut text = format!(
        "listeners:\n  web:\n    address: 127.0.0.1:80\n    tls: {{ certificates: [ {{ certificate: a.pem, key: a.key }} ], clients: optional, trust: a.pem }}\n    \
         forwarded: {{ trusted-hops: {} }}\n{}    routes:\n",
        site.hops,
        lists(&site.own, "    ")
    );
    let all = ROUTES.map(|route| format!("match: {{ path: {} }}, ", one_path(route)));
    let rest = site.rest.then(String::new);
    for (number, matching) in all.into_iter().chain(rest).enumerate() {
        // Answers of every kind need the same permit.
        let action = ["to: a", "respond: { status: 200 }", "redirect: { path: /x }"][number];
        text += &format!("      - name: route-{number}\n");
        if !matching.is_empty() {
            text += &format!("        {}\n", matching.trim_end_matches(", "));
        }
        text += &format!("        {action}\n{}", lists(&site.routes[number], "        "));
    }
    text + "services:\n  a: { endpoints: [10.0.0.1:80] }\n"
}

/// One with a tcp listener.
pub(crate) fn tcp(own: &Lists) -> String {
    format!(
        "listeners:\n  raw:\n    address: 127.0.0.1:80\n    protocol: tcp\n    tls: {{ certificates: [ {{ certificate: a.pem, key: a.key }} ], clients: optional, trust: a.pem }}\n\
         {}    to: a\nservices:\n  a: {{ endpoints: [10.0.0.1:80] }}\n",
        lists(own, "    ")
    )
}

fn lists(of: &Lists, indent: &str) -> String {
    let list = |key: &str, rules: &[Rule]| {
        let rules: Vec<String> = rules.iter().enumerate().map(|(at, rule)| self::rule(at, rule)).collect();
        if rules.is_empty() { String::new() } else { format!("{indent}{key}: [ {} ]\n", rules.join(", ")) }
    };
    list("deny", &of.deny) + &list("allow", &of.allow)
}

fn rule(at: usize, rule: &Rule) -> String {
    let quoted = |all: &[&str]| all.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>();
    let mut words = Vec::new();
    let mut word = |key: &str, values: Vec<String>| match &values[..] {
        [] => {}
        // One value needs no list.
        [one] if at.is_multiple_of(2) => words.push(format!("{key}: {one}")),
        all => words.push(format!("{key}: [{}]", all.join(", "))),
    };
    word("identity", quoted(&rule.identity));
    word("source", quoted(&rule.source));
    word("peer", quoted(&rule.peer));
    word("methods", quoted(&rule.methods));
    word("path", rule.path.iter().map(|path| one_path(*path)).collect());
    word("hosts", quoted(&rule.hosts));
    if rule.named {
        words.insert(0, format!("name: {}", rule.name(at)));
    }
    let headers: Vec<String> = rule.headers.iter().map(|(name, test)| format!("{name}: {}", header(*test))).collect();
    if !headers.is_empty() {
        words.push(format!("headers: {{ {} }}", headers.join(", ")));
    }
    if rule.dry_run {
        words.push("dry-run: true".to_owned());
    }
    format!("{{ {} }}", words.join(", "))
}

fn one_path(of: PathPattern) -> String {
    match of {
        PathPattern::Text(text) => format!("\"{text}\""),
        PathPattern::Regex(pattern, _) => format!("{{ regex: '{pattern}' }}"),
    }
}

fn header(test: HeaderTest) -> String {
    match test {
        HeaderTest::Exact(text) => format!("\"{text}\""),
        HeaderTest::Present(wanted) => format!("{{ present: {wanted} }}"),
        HeaderTest::Regex(pattern, _) => format!("{{ regex: '{pattern}' }}"),
    }
}

/// What a configuration comes to, by way of xDS.
pub(crate) fn plan_of(text: &str) -> Plan {
    static FILES: OnceLock<[(&str, String); 2]> = OnceLock::new();
    let files = FILES.get_or_init(|| {
        let key = rcgen::KeyPair::generate().expect("randomness");
        let made = rcgen::CertificateParams::new(vec!["shop.test".to_owned()]).expect("a name").self_signed(&key);
        [("a.pem", made.expect("a certificate").pem()), ("a.key", key.serialize_pem())]
    });
    let document = api::load(text, "test.yaml").unwrap_or_else(|findings| panic!("{findings:#?}\n{text}"));
    let mut world = World { clock: wire::tls::Clock::new(1_735_689_600), ..World::default() };
    for (name, text) in files {
        world.files.insert((*name).into(), Ok(text.as_bytes().into()));
    }
    compile(&api::translate(&document), None, 1, &world).unwrap_or_else(|found| panic!("{found:#?}\n{text}"))
}
