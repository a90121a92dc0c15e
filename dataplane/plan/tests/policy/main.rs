//! Rules of any kind, from the language through xDS to the plan, against a naive reading of what they mean: who is refused,
//! by what, and what dry runs would have refused. Requests come as bytes, under every spelling of one path, host and field
//! that means the same.
#![forbid(unsafe_code)]

mod reference;
mod write;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use reference::{HeaderTest, Kind, Lists, Meant, PathPattern, Rule, Verdict, judge};
use ringway_plan::{Action, Cache, Decision, ListenerId, Peer, Plan, Request};
use std::net::IpAddr;
use wire::h1::{Head, Limits, Parsed};
use write::{Spelling, configuration, plan_of, spell};

const IDENTITY_PATTERNS: &[&str] = &[
    "spiffe://shop/ns/web/sa/web",
    "spiffe://shop/ns/web/**",
    "spiffe://shop/ns/*/sa/web",
    "spiffe://shop/*/web/**",
    "spiffe://shop/**",
    "spiffe://bank/ns/web/sa/web",
];
const IDENTITIES: &[Option<&str>] = &[
    None,
    Some("spiffe://shop/ns/web/sa/web"),
    Some("spiffe://shop/ns/web/sa/other"),
    Some("spiffe://shop/ns/webx/sa/web"),
    Some("spiffe://shop/ns/web/more/sa/web"),
    Some("spiffe://shop/ns/web"),
    Some("spiffe://shop/x"),
    Some("spiffe://bank/ns/web/sa/web"),
];
const NETWORKS: &[&str] = &[
    "10.0.0.0/8",
    "10.1.2.0/24",
    "10.1.2.3",
    "0.0.0.0/0",
    "192.0.2.0/25",
    "::/0",
    "2001:db8::/33",
    "2001:db8::1",
    "::ffff:10.1.0.0/112",
];
const ADDRESSES: &[&str] = &[
    "10.1.2.3",
    "10.1.2.4",
    "10.9.0.1",
    "192.0.2.1",
    "192.0.2.200",
    "2001:db8::1",
    "2001:db8:8000::1",
    "2001:db9::1",
    "::ffff:10.1.2.3",
];
const METHODS: &[&str] = &["GET", "POST", "DELETE", "BREW"];
const PATH_PATTERNS: &[PathPattern] = &[
    PathPattern::Text("/"),
    PathPattern::Text("/a"),
    PathPattern::Text("/a/b"),
    PathPattern::Text("/a/*"),
    PathPattern::Text("/a/b/*"),
    PathPattern::Text("/*"),
    PathPattern::Regex("/v[0-9]+/.*", |path| {
        let below = path.strip_prefix("/v").map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
        below.is_some_and(|below| below.starts_with('/') && !path.starts_with("/v/"))
    }),
    PathPattern::Regex("/a|/c.*", |path| path == "/a" || path.starts_with("/c")),
];
const SEGMENTS: &[&str] = &["a", "b", "ab", "v1", "v", "c", "A", "a.b", "..."];
const HOST_PATTERNS: &[&str] = &["shop.test", "*.shop.test", "a.shop.test", "*"];
const HOSTS: &[&str] = &["shop.test", "a.shop.test", "a.b.shop.test", "xshop.test", "other.test"];
const FIELDS: &[&str] = &["x-role", "x-key"];
const HEADER_TESTS: &[HeaderTest] = &[
    HeaderTest::Exact("admin"),
    HeaderTest::Exact("admin,guest"),
    HeaderTest::Exact(""),
    HeaderTest::Present(true),
    HeaderTest::Present(false),
    HeaderTest::Regex("[a-z]+", |value| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_lowercase())),
    HeaderTest::Regex(".*guest.*", |value| value.contains("guest")),
];
const VALUES: &[&str] = &["admin", "guest", "Admin", "1", ""];
/// Elements of X-Forwarded-For, and the addresses that they are.
const FORWARDED: &[(&str, Option<&str>)] = &[
    ("10.1.2.3", Some("10.1.2.3")),
    ("192.0.2.1", Some("192.0.2.1")),
    ("10.1.2.4:99", Some("10.1.2.4")),
    ("2001:db8::1", Some("2001:db8::1")),
    ("[2001:db8::1]:80", Some("2001:db8::1")),
    ("::ffff:10.1.2.3", Some("10.1.2.3")),
    ("unknown", None),
    ("", None),
];

/// A listener's configuration.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    own: Lists,
    routes: Vec<Lists>,
    /// There is a route for what the others do not take.
    rest: bool,
    hops: usize,
}

/// The paths that the routes take, in order, before the one that takes the rest.
pub(crate) const ROUTES: [PathPattern; 2] = [PathPattern::Text("/a/*"), PathPattern::Text("/v1/*")];

/// A request, and how it looks.
#[derive(Clone, Debug)]
struct Asked {
    meant: Meant,
    forwarded: Vec<Vec<(&'static str, Option<&'static str>)>>,
    address: Option<IpAddr>,
    spelling: Spelling,
}

fn some<T: Clone + std::fmt::Debug + 'static>(of: &'static [T]) -> BoxedStrategy<Vec<T>> {
    prop_oneof![3 => Just(Vec::new()), 2 => prop::collection::vec(select(of), 1..3)].boxed()
}

/// At least one word, as the language wants it.
fn rule() -> impl Strategy<Value = Rule> {
    let headers = prop_oneof![
        3 => Just(Vec::new()),
        2 => prop::collection::btree_map(select(FIELDS), select(HEADER_TESTS), 1..3)
            .prop_map(|map| map.into_iter().collect::<Vec<_>>()),
    ];
    let words = (
        some(IDENTITY_PATTERNS),
        some(NETWORKS),
        some(NETWORKS),
        prop_oneof![3 => Just(Vec::new()), 2 => prop::sample::subsequence(METHODS, 1..3)],
        some(PATH_PATTERNS),
        some(HOST_PATTERNS),
        headers,
    );
    (words, any::<bool>(), prop::bool::weighted(0.25)).prop_map(|(words, named, dry_run)| {
        let (identity, source, peer, methods, mut path, hosts, headers) = words;
        let unsaid = identity.is_empty() && source.is_empty() && peer.is_empty() && methods.is_empty();
        if unsaid && path.is_empty() && hosts.is_empty() && headers.is_empty() {
            path = vec![PathPattern::Text("/a/*")];
        }
        Rule { named, identity, source, peer, methods, path, hosts, headers, dry_run }
    })
}

fn lists() -> impl Strategy<Value = Lists> {
    let list = || prop::collection::vec(rule(), 0..4);
    (list(), list()).prop_map(|(deny, allow)| Lists { deny, allow })
}

fn site() -> impl Strategy<Value = Site> {
    let routes = prop::collection::vec(prop_oneof![Just(Lists::default()), lists()], 3);
    (lists(), routes, any::<bool>(), 0..3_usize).prop_map(|(own, routes, rest, hops)| Site { own, routes, rest, hops })
}

fn address() -> impl Strategy<Value = Option<IpAddr>> {
    prop::option::weighted(0.9, select(ADDRESSES).prop_map(|text| text.parse().expect("an address")))
}

fn asked() -> impl Strategy<Value = Asked> {
    let path = (prop::collection::vec(select(SEGMENTS), 0..4), any::<bool>());
    let headers = prop::collection::vec((select(FIELDS), select(VALUES)), 0..4);
    let forwarded = prop::collection::vec(prop::collection::vec(select(FORWARDED), 1..3), 0..3);
    let words = (select(METHODS), select(HOSTS), path, headers, select(IDENTITIES));
    (words, forwarded, address(), address(), any::<Spelling>()).prop_map(
        |(words, forwarded, address, peer, spelling)| {
            let (method, host, (segments, ends), headers, identity) = words;
            let path = format!("/{}{}", segments.join("/"), if ends && !segments.is_empty() { "/" } else { "" });
            let meant = Meant { method, host, path, headers, identity, source: None, peer };
            Asked { meant, forwarded, address, spelling }
        },
    )
}

impl Asked {
    /// As a listener with so many trusted hops reads it.
    fn meant(&self, hops: usize) -> Meant {
        let elements: Vec<_> = self.forwarded.iter().flatten().collect();
        let trusted = if hops == 0 { None } else { elements.len().checked_sub(hops).map(|at| elements[at]) };
        let said = trusted.and_then(|(_, address)| address.map(|text| text.parse().expect("an address")));
        Meant { source: said.or(self.address), ..self.meant.clone() }
    }

    fn bytes(&self) -> Vec<u8> {
        let forwarded = self.forwarded.iter().map(|line| {
            let texts: Vec<&str> = line.iter().map(|(text, _)| *text).collect();
            texts.join(if self.spelling.spaces { " , " } else { "," })
        });
        spell(&self.meant, forwarded, &self.spelling)
    }

    /// What the plan says about it, as a core asks it.
    fn decide(&self, plan: &Plan) -> Decision {
        let bytes = self.bytes();
        let text = String::from_utf8_lossy(&bytes);
        let mut head = Head::default();
        let limits = Limits { head_bytes: 65_536, fields: 100, target_bytes: 8192 };
        let parsed = head.parse_request(&bytes, &limits).unwrap_or_else(|reject| panic!("{reject:?}: {text}"));
        assert!(matches!(parsed, Parsed::Complete { .. }), "{text}");
        let mut normal = Vec::new();
        let sent = head.path.of(&bytes);
        let changed = wire::path::normalise(sent, &mut normal).unwrap_or_else(|reject| panic!("{reject:?}: {text}"));
        let path = if changed { &normal[..] } else { sent };
        assert_eq!(String::from_utf8_lossy(path), self.meant.path, "{text}");
        let request = Request {
            method: head.method,
            method_bytes: head.method_span.of(&bytes),
            authority: head.authority.of(&bytes),
            path,
            query: head.query.of(&bytes),
            fields: &head.fields,
            head: &bytes,
            peer: Peer { identity: self.meant.identity, address: self.address, direct: self.meant.peer },
        };
        plan.decide(ListenerId(0), &request, 0, &mut Cache::default())
    }
}

/// Compares what a plan decided with what the lists, in their order, mean.
fn compare(plan: &Plan, decision: &Decision, route: Option<&str>, verdict: &Verdict) -> Result<(), TestCaseError> {
    let refused = decision.action == Action::Denied;
    prop_assert_eq!(refused, verdict.refused.is_some(), "{:?} against {:?}", decision, verdict);
    // Lists 0 and 1 are the listener's, 2 and 3 the route's.
    let is_one_of = |rule: Option<ringway_plan::RuleId>, expected: &Option<(usize, Vec<String>)>| {
        let (Some(rule), Some((list, names))) = (rule, expected) else { return rule.is_some() == expected.is_some() };
        let key = &plan.rules[rule.0 as usize];
        let owner = if *list < 2 { "" } else { route.unwrap_or_default() };
        let word = if list % 2 == 0 { "deny" } else { "allow" };
        *key.route == *owner && key.list == word && names.iter().any(|name| **name == *key.name)
    };
    if refused {
        prop_assert!(is_one_of(decision.rule, &verdict.refused), "{:?}: {:?}", plan.rules, decision);
    }
    prop_assert!(is_one_of(decision.dry_run, &verdict.would_refuse), "{:?}, {:?}: {:?}", decision, verdict, plan.rules);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rules_of_requests(site in site(), asked in prop::collection::vec(asked(), 1..30)) {
        let plan = plan_of(&configuration(&site));
        for asked in &asked {
            let meant = asked.meant(site.hops);
            let taken = ROUTES.iter().position(|route| route.holds(&meant.path)).or(site.rest.then_some(2));
            let mut lists = vec![(Kind::Deny, &site.own.deny[..]), (Kind::Allow, &site.own.allow[..])];
            if let Some(route) = taken {
                lists.push((Kind::Deny, &site.routes[route].deny[..]));
                lists.push((Kind::Allow, &site.routes[route].allow[..]));
            }
            let verdict = judge(&lists, &meant);
            let decision = asked.decide(&plan);
            let name = taken.map(|route| format!("route-{route}"));
            prop_assert_eq!(decision.route.map(|id| plan.route(id).name.to_string()), name.clone(), "{:?}", asked);
            let compared = compare(&plan, &decision, name.as_deref(), &verdict);
            compared.map_err(|error| TestCaseError::fail(format!("{error}\n{}", String::from_utf8_lossy(&asked.bytes()))))?;
            if verdict.refused.is_none() {
                prop_assert_eq!(decision.action == Action::NotFound, taken.is_none(), "{:?}", decision);
            }
        }
    }

    #[test]
    fn rules_of_connections(own in lists(), asked in prop::collection::vec(asked(), 1..30)) {
        let bare = |rules: &[Rule]| -> Vec<Rule> {
            let only = |rule: &Rule| Rule {
                named: rule.named,
                identity: rule.identity.clone(),
                source: rule.source.clone(),
                peer: if rule.identity.is_empty() && rule.source.is_empty() { vec!["10.0.0.0/8"] } else { rule.peer.clone() },
                dry_run: rule.dry_run,
                ..Rule::default()
            };
            rules.iter().map(only).collect()
        };
        let own = Lists { deny: bare(&own.deny), allow: bare(&own.allow) };
        let plan = plan_of(&write::tcp(&own));
        for asked in &asked {
            let verdict = judge(&[(Kind::Deny, &own.deny), (Kind::Allow, &own.allow)], &asked.meant(0));
            let peer = Peer { identity: asked.meant.identity, address: asked.address, direct: asked.meant.peer };
            let decision = plan.decide_tcp(ListenerId(0), None, &peer, 0);
            compare(&plan, &decision, None, &verdict)?;
            prop_assert!(verdict.refused.is_some() || matches!(decision.action, Action::Forward(_)));
        }
    }
}

#[test]
fn both_outcomes_are_often_met() {
    // Else the properties would say little.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut refused, mut passed, mut tried) = (0, 0, 0);
    for _ in 0..400 {
        let (site, asked) =
            (site().new_tree(&mut runner).unwrap().current(), asked().new_tree(&mut runner).unwrap().current());
        let lists = [(Kind::Deny, &site.own.deny[..]), (Kind::Allow, &site.own.allow[..])];
        let verdict = judge(&lists, &asked.meant(site.hops));
        *(if verdict.refused.is_some() { &mut refused } else { &mut passed }) += 1;
        tried += u32::from(verdict.would_refuse.is_some());
    }
    assert!(refused > 60 && passed > 60 && tried > 20, "{refused} refused, {passed} passed, {tried} by dry runs");
}
