//! Decisions, on plans compiled from configuration text; and against a matcher that tries every route in turn.

use crate::*;
use wire::h1::head::{Field, Method, Span};
use wire::h1::{FieldName, head};

/// The plan of a configuration.
pub(crate) fn plan_of(text: &str) -> Plan {
    plan_in(text, &World::default())
}

/// A plan that finds its files and names in this world.
pub(crate) fn plan_in(text: &str, world: &World) -> Plan {
    let document = api::load(text, "test.yaml").unwrap_or_else(|findings| panic!("{findings:#?}"));
    compile(&api::translate(&document), None, 1, world).unwrap_or_else(|found| panic!("{found:#?}"))
}

/// A plan with one listener `web` whose routes these are, and services a, b and c.
fn routed(routes: &str) -> Plan {
    plan_of(&format!(
        "listeners:\n  web:\n    address: 127.0.0.1:80\n    protocol: http\n    routes:\n{routes}\nservices:\n\
         \x20 a: {{ endpoints: [10.0.0.1:80] }}\n  b: {{ endpoints: [10.0.0.2:80] }}\n  c: {{ endpoints: [10.0.0.3:80] }}\n"
    ))
}

/// A request that owns its bytes.
struct Asked {
    head: Vec<u8>,
    fields: Vec<Field>,
    method: &'static str,
    authority: String,
    path: String,
    query: String,
}

impl Asked {
    fn new(method: &'static str, target: &str, headers: &[(&str, &str)]) -> Asked {
        let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
        let mut asked = Asked {
            head: Vec::new(),
            fields: Vec::new(),
            method,
            authority: "shop.com".into(),
            path: path.into(),
            query: query.into(),
        };
        for (name, value) in headers {
            let (name, value) = (asked.push(name), asked.push(value));
            let id = FieldName::of(name.of(&asked.head));
            asked.fields.push(Field { name, value, id, hop_by_hop: false });
        }
        asked
    }

    fn push(&mut self, text: &str) -> Span {
        let start = self.head.len() as u32;
        self.head.extend_from_slice(text.as_bytes());
        Span { start, end: self.head.len() as u32 }
    }

    fn request(&self) -> Request<'_> {
        let method = match self.method {
            "GET" => Method::Get,
            "POST" => Method::Post,
            "DELETE" => Method::Delete,
            _ => head::Method::Other,
        };
        Request {
            method,
            method_bytes: self.method.as_bytes(),
            authority: self.authority.as_bytes(),
            path: self.path.as_bytes(),
            query: self.query.as_bytes(),
            fields: &self.fields,
            head: &self.head,
            peer: Peer::default(),
        }
    }
}

const WEB: ListenerId = ListenerId(0);

/// The decision, printed.
fn shown(plan: &Plan, asked: &Asked, cache: &mut Cache) -> String {
    let decision = plan.decide(WEB, &asked.request(), 0, cache);
    decision.show(plan, &cache.text).to_string()
}

/// The name of the route that a request takes.
fn taken<'a>(plan: &'a Plan, asked: &Asked) -> Option<&'a str> {
    plan.decide(WEB, &asked.request(), 0, &mut Cache::default()).route.map(|id| &*plan.route(id).name)
}

fn get(target: &str) -> Asked {
    Asked::new("GET", target, &[])
}

#[test]
fn a_prefix_takes_whole_segments() {
    let plan = routed("      - { name: cart, match: { path: /cart/* }, to: a }\n");
    for target in ["/cart", "/cart/", "/cart/x", "/cart/x/y", "/cart?x", "/cart/?x"] {
        assert_eq!(taken(&plan, &get(target)), Some("cart"), "{target}");
    }
    for target in ["/", "/car", "/cartx", "/cartx/cart", "/Cart", "/x/cart", "*", "", "/cart.", "/cart%2fx"] {
        assert_eq!(taken(&plan, &get(target)), None, "{target}");
    }
}

#[test]
fn an_exact_path_is_only_itself() {
    let plan = routed("      - { name: ping, match: { path: /ping }, to: a }\n");
    assert_eq!(taken(&plan, &get("/ping")), Some("ping"));
    assert_eq!(taken(&plan, &get("/ping?a=/b")), Some("ping"));
    for target in ["/ping/", "/pin", "/pingg", "/", "/PING", "/ping/x"] {
        assert_eq!(taken(&plan, &get(target)), None, "{target}");
    }
}

#[test]
fn a_pattern_matches_the_whole_path() {
    let plan = routed("      - { name: v, match: { path: { regex: '/v[0-9]+/.*' } }, to: a }\n");
    assert_eq!(taken(&plan, &get("/v12/x?/y")), Some("v"));
    for target in ["/v/x", "/v1", "/x/v1/x", "/v1\n"] {
        assert_eq!(taken(&plan, &get(target)), None, "{target}");
    }
}

#[test]
fn the_first_route_that_matches_wins_however_it_is_found() {
    let plan = routed(
        "      - { name: one, match: { path: /a/b, methods: [POST] }, to: a }\n\
         \x20     - { name: two, match: { path: { regex: '/a/[bc]' }, query: { x: '1' } }, to: a }\n\
         \x20     - { name: three, match: { path: /a/* , headers: { x-beta: '1' } }, to: a }\n\
         \x20     - { name: four, match: { path: /a/b }, to: a }\n\
         \x20     - { name: five, match: { path: /* , methods: [GET] }, to: a }\n\
         \x20     - { name: six, match: { path: /a/b/* }, to: a }\n",
    );
    for (asked, name) in [
        (Asked::new("POST", "/a/b?x=1", &[("X-Beta", "1")]), Some("one")),
        (Asked::new("GET", "/a/b?x=1", &[("X-Beta", "1")]), Some("two")),
        (Asked::new("GET", "/a/b?x=2", &[("X-Beta", "1")]), Some("three")),
        (Asked::new("GET", "/a/b?y&x=1&x=2", &[]), Some("two")),
        (Asked::new("GET", "/a/b?x=2&x=1", &[]), Some("four")),
        (Asked::new("GET", "/a/b", &[("x-beta", "1"), ("x-beta", "1")]), Some("four")),
        (Asked::new("GET", "/a/b/c", &[]), Some("five")),
        (Asked::new("DELETE", "/a/b/c", &[]), Some("six")),
        (Asked::new("DELETE", "/a", &[]), None),
    ] {
        assert_eq!(taken(&plan, &asked), name, "{} {}{}", asked.method, asked.path, asked.query);
    }
}

#[test]
fn methods_fields_and_query() {
    let plan = routed(
        "      - { name: methods, match: { path: /m, methods: [GET, PURGE] }, to: a }\n\
         \x20     - { name: present, match: { path: /p, headers: { x-debug: { present: true } } }, to: a }\n\
         \x20     - { name: absent, match: { path: /p, headers: { x-debug: { present: false } } }, to: a }\n\
         \x20     - { name: pattern, match: { path: /r, headers: { x-v: { regex: '2\\..*' } } }, to: a }\n\
         \x20     - { name: q-present, match: { path: /q, query: { a: { present: true } } }, to: a }\n\
         \x20     - { name: q-absent, match: { path: /q, query: { b: { present: false } } }, to: a }\n",
    );
    for (asked, name) in [
        (Asked::new("GET", "/m", &[]), Some("methods")),
        (Asked::new("PURGE", "/m", &[]), Some("methods")),
        (Asked::new("purge", "/m", &[]), None),
        (Asked::new("POST", "/m", &[]), None),
        (Asked::new("GET", "/p", &[("X-DEBUG", "")]), Some("present")),
        (Asked::new("GET", "/p", &[("x-debu", "1")]), Some("absent")),
        (Asked::new("GET", "/r", &[("x-v", "2.1")]), Some("pattern")),
        (Asked::new("GET", "/r", &[("x-v", "12.1")]), None),
        (Asked::new("GET", "/r", &[("x-v", "2.1"), ("X-V", "3")]), Some("pattern")),
        (Asked::new("GET", "/r", &[("x-v", "3"), ("x-v", "2.1")]), None),
        (Asked::new("GET", "/q?a", &[]), Some("q-present")),
        (Asked::new("GET", "/q?b&a=", &[]), Some("q-present")),
        (Asked::new("GET", "/q?aa=1", &[]), Some("q-absent")),
        (Asked::new("GET", "/q?b=1", &[]), None),
        (Asked::new("GET", "/q", &[]), Some("q-absent")),
    ] {
        assert_eq!(taken(&plan, &asked), name, "{} {}{} {:?}", asked.method, asked.path, asked.query, asked.head);
    }
}

#[test]
fn the_most_specific_host_wins_and_nothing_falls_through() {
    let plan = plan_of(
        "listeners:\n  web:\n    address: 127.0.0.1:80\n    protocol: http\n    hosts:\n\
         \x20     - { names: ['*'], routes: [ { name: any, to: a } ] }\n\
         \x20     - { names: ['*.shop.com'], routes: [ { name: below, to: a } ] }\n\
         \x20     - { names: [shop.com], routes: [ { name: shop, match: { path: /x }, to: a } ] }\n\
         services:\n  a: { endpoints: [10.0.0.1:80] }\n",
    );
    for (authority, path, name) in [
        ("shop.com", "/x", Some("shop")),
        ("SHOP.com.:8080", "/x", Some("shop")),
        ("shop.com", "/y", None),
        ("a.b.shop.com", "/y", Some("below")),
        ("other.org", "/y", Some("any")),
        ("", "/y", Some("any")),
    ] {
        let asked = Asked { authority: authority.into(), ..get(path) };
        assert_eq!(taken(&plan, &asked), name, "{authority}{path}");
    }
}

#[test]
fn decisions_print_themselves() {
    let plan = routed(
        "      - { name: cart, match: { path: /cart/* }, rewrite: { path: /basket/*, host: in.shop }, timeout: 2s, \
         retry: { retries: 1, on: [connect-failure], per-try-timeout: 250ms }, to: a }\n\
         \x20     - { name: root, match: { path: /root/* }, rewrite: { path: /* }, to: a }\n\
         \x20     - { name: one, match: { path: /one/* }, rewrite: { path: /two }, to: a }\n\
         \x20     - { name: old, match: { path: /old/* }, redirect: { path: /new/*, status: 308 } }\n\
         \x20     - { name: bare, match: { path: /bare/* }, redirect: { path: /*, status: 302 } }\n\
         \x20     - { name: ping, match: { path: /ping }, respond: { status: 200, body: pong } }\n",
    );
    let mut cache = Cache::default();
    for (target, expected) in [
        (
            "/cart",
            "listener web, route cart: forward to a, path /basket, host in.shop, timeout 2000ms, 1 retries on connect-failure, timeout of a try 250ms",
        ),
        ("/root/x?y", "listener web, route root: forward to a, path /x"),
        ("/root", "listener web, route root: forward to a, path /"),
        ("/one/x", "listener web, route one: forward to a, path /two"),
        ("/old/x?y=1", "listener web, route old: redirect 308 to http://shop.com/new/x?y=1"),
        ("/bare", "listener web, route bare: redirect 302 to http://shop.com/"),
        ("/ping", "listener web, route ping: respond 200"),
        ("/none", "listener web: no route, 404"),
    ] {
        assert_eq!(shown(&plan, &get(target), &mut cache), expected, "{target}");
    }
    let ping = plan.decide(WEB, &get("/ping").request(), 0, &mut cache);
    assert_eq!(&*plan.route(ping.route.unwrap()).body, b"pong");
}

#[test]
fn the_scheme_of_a_redirect_is_what_a_trusted_proxy_says() {
    let redirect = "[ { name: r, redirect: { path: /new } } ]";
    let listener = |hops: u32| {
        plan_of(&format!(
            "listeners:\n  web: {{ address: 127.0.0.1:80, protocol: http, forwarded: {{ trusted-hops: {hops} }}, routes: {redirect} }}\n"
        ))
    };
    let asked = Asked::new("GET", "/x", &[("x-forwarded-proto", "https")]);
    let mut cache = Cache::default();
    listener(0).decide(WEB, &asked.request(), 0, &mut cache);
    assert_eq!(cache.text, b"http://shop.com/new");
    listener(1).decide(WEB, &asked.request(), 0, &mut cache);
    assert_eq!(cache.text, b"https://shop.com/new");
}

#[test]
fn weights_share_requests() {
    let plan = routed("      - { name: all, to: { a: 90, b: 10, c: 0 } }\n");
    let (mut shares, mut random) = ([0u32; 3], Random(7));
    let mut cache = Cache::default();
    for _ in 0..20_000 {
        let decision = plan.decide(WEB, &get("/").request(), random.next(), &mut cache);
        let service = decision.service().unwrap();
        shares[service.0 as usize] += 1;
        assert_eq!(plan.series[decision.series.0 as usize].service, plan.service(service).name);
    }
    assert!((17_700..18_300).contains(&shares[0]), "{shares:?}");
    assert_eq!(shares[2], 0);
}

#[test]
fn tcp_listeners_choose_too() {
    let plan = plan_of(
        "listeners:\n  db: { address: 127.0.0.1:5432, protocol: tcp, to: pg, idle-timeout: 1h }\n\
         services:\n  pg: { endpoints: [10.0.0.9:5432] }\n",
    );
    let decision = plan.decide_tcp(WEB, None, &Peer::default(), 1);
    assert_eq!(decision.show(&plan, b"").to_string(), "listener db: forward to pg");
    let Kind::Tcp(tcp) = &plan.listener(WEB).kind else { panic!("{:?}", plan.listeners) };
    assert_eq!(tcp.idle_timeout_ns, 3_600_000_000_000);
    assert_eq!(plan.decide(WEB, &get("/").request(), 0, &mut Cache::default()).action, Action::NotFound);
}

#[test]
fn a_decision_stays_small() {
    assert!(size_of::<Decision>() <= 160, "{}", size_of::<Decision>());
}

/// xorshift64*: the tests' source of chance, the same every time.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[(self.next() >> 33) as usize % choices.len()]
    }
}

/// What a random route asks for, as the naive matcher understands it.
#[derive(Debug, PartialEq)]
struct Asks {
    path: &'static str,
    regex: bool,
    method: Option<&'static str>,
    field: Option<&'static str>,
    query: Option<&'static str>,
}

impl Asks {
    fn random(random: &mut Random) -> Asks {
        let path = random.of(&[
            "/",
            "/*",
            "/a",
            "/a/*",
            "/a/",
            "/a/b",
            "/a/b/*",
            "/a/b/c",
            "/ab",
            "/ab/*",
            "/b/*",
            "/b/a/*",
            "/b/a/b/c/*",
            "/[ab]",
            "/a/[bc]/?",
            ".*b",
        ]);
        Asks {
            path,
            regex: path.contains(['[']) || path.starts_with('.'),
            method: random.of(&[None, None, Some("GET"), Some("POST")]),
            field: random.of(&[None, None, None, Some("1"), Some("2")]),
            query: random.of(&[None, None, None, Some("1"), Some("")]),
        }
    }

    fn yaml(&self, name: usize) -> String {
        let path = match self.regex {
            true => format!("{{ regex: '{}' }}", self.path),
            false => format!("'{}'", self.path),
        };
        let method = self.method.map_or(String::new(), |method| format!(", methods: [{method}]"));
        let field = self.field.map_or(String::new(), |value| format!(", headers: {{ x-f: '{value}' }}"));
        let query = self.query.map_or(String::new(), |value| format!(", query: {{ q: '{value}' }}"));
        format!("      - {{ name: '{name}', match: {{ path: {path}{method}{field}{query} }}, to: a }}\n")
    }

    /// Straight from the language's description, without index, tables or engine.
    fn take(&self, path: &str, method: &str, field: Option<&str>, query: Option<&str>) -> bool {
        let path = match (self.path, self.path.strip_suffix("/*")) {
            ("/[ab]", _) => path == "/a" || path == "/b",
            ("/a/[bc]/?", _) => ["/a/b", "/a/c", "/a/b/", "/a/c/"].contains(&path),
            (".*b", _) => path.ends_with('b'),
            (_, Some(prefix)) => path == prefix || path.starts_with(&format!("{prefix}/")),
            (exact, None) => path == exact,
        };
        path && self.method.is_none_or(|wanted| wanted == method)
            && self.field.is_none_or(|wanted| Some(wanted) == field)
            && self.query.is_none_or(|wanted| Some(wanted) == query)
    }
}

#[test]
fn random_routes_agree_with_trying_every_one() {
    let mut random = Random(0x5eed);
    let (mut found, mut cache) = (0, Cache::default());
    for _ in 0..150 {
        let mut asks: Vec<Asks> = (0..random.of(&[1, 2, 5, 20, 40])).map(|_| Asks::random(&mut random)).collect();
        // The language refuses a route that an equal one hides.
        asks = asks.into_iter().fold(Vec::new(), |mut kept, one| {
            kept.extend((!kept.contains(&one)).then_some(one));
            kept
        });
        let plan = routed(&asks.iter().enumerate().map(|(name, asks)| asks.yaml(name)).collect::<String>());
        for _ in 0..200 {
            let path = random.of(&[
                "/",
                "/a",
                "/a/",
                "/a/b",
                "/a/b/",
                "/a/b/c",
                "/a/b/c/d/e/f",
                "/ab",
                "/ab/",
                "/ab/c",
                "/b",
                "/b/a",
                "/b/a/b/c",
                "/b/a/b/c/",
                "/c",
                "/abc",
            ]);
            let method = random.of(&["GET", "POST", "DELETE"]);
            let (field, query) = (random.of(&[None, Some("1"), Some("2")]), random.of(&[None, Some("1"), Some("")]));
            let target = query.map_or(path.to_owned(), |query| format!("{path}?q={query}"));
            let headers: Vec<(&str, &str)> = field.iter().map(|value| ("X-F", *value)).collect();
            let asked = Asked::new(method, &target, &headers);
            let expected = asks.iter().position(|asks| asks.take(path, method, field, query));
            let decided = plan.decide(WEB, &asked.request(), 0, &mut cache).route;
            assert_eq!(decided.map(|id| id.0 as usize), expected, "{method} {target} {headers:?} of {asks:#?}");
            found += usize::from(expected.is_some());
        }
    }
    assert!(found > 5_000, "{found} requests had a route");
}

/// How many routes are tried for a request among `count` routes.
fn tried(count: usize, path: &str) -> usize {
    let routes = (0..count)
        .map(|number| format!("      - {{ name: '{number}', match: {{ path: /service-{number}/* }}, to: a }}\n"));
    let plan = routed(&routes.collect::<String>());
    let Kind::Http(http) = &plan.listener(WEB).kind else { panic!("{:?}", plan.listeners) };
    let host = http.hosts.find(b"shop.com", &mut Vec::new()).unwrap();
    let mut tried = 0;
    host.index.lowest(path.as_bytes(), |_| {
        tried += 1;
        false
    });
    tried
}

#[test]
fn a_thousand_routes_cost_no_more_tries_than_one() {
    assert_eq!(tried(1, "/service-0/x/y"), 1);
    assert_eq!(tried(1000, "/service-0/x/y"), 1);
    assert_eq!(tried(1000, "/service-999/x/y"), 1);
    assert_eq!(tried(1000, "/service-1000/x/y"), 0);
    assert_eq!(tried(1000, &"/x".repeat(10_000)), 0);
}

#[test]
fn the_plan_prints_as_json() {
    let plan = routed(
        "      - { name: cart, match: { path: /cart/*, methods: [GET], headers: { x-b: { regex: 'a\\.b' } } }, \
         response-headers: { set: { x-r: 'a \"quoted\" 100%' } }, rewrite: { path: /* }, to: { a: 1, b: 2 } }\n",
    );
    let json = plan.to_json();
    for part in [
        r#""generation": 1"#,
        r#""name": "cart""#,
        r#""path": "/cart/*""#,
        r#""regex": "a\\.b""#,
        r#""value": "a \"quoted\" 100%""#,
        r#""address": "10.0.0.1:80""#,
        r#""weight": 2"#,
    ] {
        assert!(json.contains(part), "{part} in {json}");
    }
    let (open, close) = (json.matches(['{', '[']).count(), json.matches(['}', ']']).count());
    assert_eq!(open, close);
    assert!(!json.contains(",\n}") && !json.contains(",,"));
}
