//! Every message, with its position: a change to one is a change that people see.

use super::bad;

/// A document with one http listener whose route is `route`.
fn with_route(route: &str) -> String {
    format!(
        "listeners:\n  a:\n    address: 127.0.0.1:1\n    routes:\n      - {route}\nservices: {{ cart: {{ endpoints: [127.0.0.1:2] }} }}\n"
    )
}

/// A document with one service `s` of this form.
fn with_service(service: &str) -> String {
    format!("listeners: {{ a: {{ address: 127.0.0.1:1, protocol: tcp, to: s }} }}\nservices:\n  s: {service}\n")
}

/// A good document with one more line, the third.
fn with_line(line: &str) -> String {
    format!(
        "{}{line}\n",
        "listeners: { a: { address: 127.0.0.1:1, protocol: tcp, to: s } }\nservices: { s: { endpoints: [127.0.0.1:2] } }\n"
    )
}

/// A document with this one listener.
fn with_listener(listener: &str) -> String {
    format!("listeners:\n  a: {listener}\nservices: {{ s: {{ endpoints: [127.0.0.1:2] }} }}\n")
}

/// All findings of all cases, as a page that a person can read.
fn page(cases: &[&str], frame: impl Fn(&str) -> String) -> String {
    let mut page = String::new();
    for case in cases {
        page.push_str(case);
        page.push('\n');
        for line in bad(&frame(case)) {
            page.push_str(&format!("    {line}\n"));
        }
    }
    page
}

#[test]
fn documents() {
    let cases = [
        "",
        "# nothing",
        "[]",
        "listeners: {}",
        "listeners: [a]",
        "listeners:",
        "a: b\n---\nc: d",
        "a: [1",
        "a: b: c",
        "\tx: 1",
        "a: *b",
        "listeners: !x {}",
        "{ [a]: b }",
    ];
    insta::assert_snapshot!(page(&cases, str::to_owned));
}

#[test]
fn top_level() {
    let cases = [
        "listners: {}",
        "tls: {}",
        "identity: {}",
        "daemon: {}",
        "groups: {}",
        "trust-domain: x",
        "zebra: 1",
        "cores: 0",
        "cores: many",
        "cores: [0, 0]",
        "cores: []",
        "cores: { a: 1 }",
        "cores: 2000",
        "admin: { address: 127.0.0.1:1 }",
        "admin: {}",
        "admin: 127.0.0.1:9901",
        "access-log: { path: '' }",
        "access-log: { format: xml, path: a }",
        "access-log: { format: json }",
        "limits: { head: 33000 }",
        "limits: { head: 1MiB }",
        "limits: { head: 100KiB }",
        "limits: { body: 10 }",
        "limits: { body: 0MiB }",
        "limits: { body: 1025GiB }",
        "limits: { body: -1KiB }",
        "limits: { headers: 0 }",
        "limits: { connections: -1 }",
        "limits: { request-timeout: 15 }",
        "limits: { idle-timeout: 0s }",
        "limits: { idle-timeout: 25h }",
        "limits: { idle-timeout: fast }",
        "limits: { drain-timeout: 99999999999999999999h }",
        "limits: { drain-timeot: 1s }",
        "limits: 5",
        "limits: { headers: }",
    ];
    insta::assert_snapshot!(page(&cases, with_line));
}

#[test]
fn daemon() {
    let cases = [
        "daemon: {}",
        "daemon: []",
        "daemon: { state: '', token: [], adresses: [a] }",
        "daemon: { state: s, addresses: [] }",
        "daemon: { state: s, addresses: ['ctl:9443', 'ctl:9443', 'ctl', '10.0.0.1:0', 'unix:/run/d'] }",
        "daemon: { state: s }\nlisteners: {}\nservices: {}\nidentity: { certificate: a, key: b, trust: c }",
        "daemon: { state: s }\nlimits: { connections: 1, drain-timeout: 1s, head: 64KiB }",
        "groups: {}\ntrust-domain: shop",
    ];
    insta::assert_snapshot!(page(&cases, str::to_owned));
    let text = "daemon: { state: run/state, token: /run/join, addresses: ['Ctl:9443', '[::1]:9443'] }\ncores: 1\n";
    let document = crate::load(text, "/etc/ringway.yaml").unwrap();
    let daemon = document.daemon.clone().unwrap();
    assert_eq!(daemon.addresses, ["ctl:9443", "[::1]:9443"]);
    assert_eq!((daemon.token.as_deref(), daemon.state.as_str()), (Some("/run/join"), "/etc/run/state"));
    let process = crate::process(&crate::translate(&document).bootstrap).unwrap();
    assert_eq!(process.daemon, Some(daemon));
    let least = crate::load("daemon: { state: s }", "f").unwrap();
    assert_eq!(crate::process(&crate::translate(&least).bootstrap).unwrap(), crate::Process::from(&least));
}

#[test]
fn listeners() {
    let cases = [
        "{}",
        "5",
        "{ address: 127.0.0.1, protocol: tcp, to: s }",
        "{ address: '::1', protocol: tcp, to: s }",
        "{ address: ':80', protocol: tcp, to: s }",
        "{ address: 'http://127.0.0.1:80', protocol: tcp, to: s }",
        "{ address: localhost:80, protocol: tcp, to: s }",
        "{ address: 127.0.0.1:0, protocol: tcp, to: s }",
        "{ address: 127.0.0.1:65536, protocol: tcp, to: s }",
        "{ address: 'unix:', protocol: tcp, to: s }",
        "{ address: [1], protocol: tcp, to: s }",
        "{ adress: 127.0.0.1:1, protocol: tcp, to: s }",
        "{ address: 127.0.0.1:1, protocol: htpp }",
        "{ address: 127.0.0.1:1, protocol: tls-passthru, to: s }",
        "{ address: 127.0.0.1:1, protocol: http, to: s }",
        "{ address: 127.0.0.1:1, protocol: http }",
        "{ address: 127.0.0.1:1, protocol: tcp }",
        "{ address: 127.0.0.1:1, protocol: tcp, to: s, routes: [], forwarded: {} }",
        "{ address: 127.0.0.1:1, protocol: tcp, to: [s] }",
        "{ address: 127.0.0.1:1, protocol: tcp, to: { s: 0 } }",
        "{ address: 127.0.0.1:1, protocol: tcp, to: {} }",
        "{ address: 127.0.0.1:1, protocol: tcp, to: { s: 1, t: x } }",
        "{ address: 127.0.0.1:1, protocol: http, tls: {}, deny: [], routes: [{ to: s }] }",
        "{ address: 127.0.0.1:1, protocol: http, hosts: [], routes: [{ to: s }] }",
        "{ address: 127.0.0.1:1, routes: [] }",
        "{ address: 127.0.0.1:1, routes: { to: s } }",
        "{ address: 127.0.0.1:1, routes: [{ to: s }], forwarded: { trusted-hops: 1.5, mode: add } }",
        "{ address: 127.0.0.1:1, hosts: [{ names: [], routes: [{ to: s }] }] }",
        "{ address: 127.0.0.1:1, hosts: [{ routes: [{ to: s }] }] }",
        "{ address: 127.0.0.1:1, hosts: [{ names: [a] }] }",
        "{ address: 127.0.0.1:1, hosts: [{ names: [a, A], routes: [{ to: s }] }] }",
        "{ address: 127.0.0.1:1, hosts: [{ names: ['a:80', 'a.', 'x*', '*.*', '[::1', 'a b'], routes: [{ to: s }] }] }",
        "{ address: 127.0.0.1:1, protocol: tcp, to: s, proxy-protocol: v1 }",
        "{ address: 127.0.0.1:1, protocol: tcp, to: s, proxy-protocol: { form: 10.0.0.0/8 } }",
        "{ address: 127.0.0.1:1, protocol: tcp, to: s, proxy-protocol: { from: [] } }",
        "{ address: 127.0.0.1:1, protocol: tcp, to: s, proxy-protocol: { from: [10.0.0.1/8, all] } }",
        "{ address: 'unix:a', protocol: tcp, to: s, proxy-protocol: { from: 10.0.0.0/8 } }",
        "{ address: 127.0.0.1:1, protocol: tcp, to: s, address: 127.0.0.1:2 }",
        "{ address: 127.0.0.1:1, protocol: tcp, to: s }\n  b: { address: 127.0.0.1:1, protocol: tcp, to: s }",
        "{ address: 127.0.0.1:1, protocol: tcp, to: s }\n  'b c': { address: 127.0.0.1:2, protocol: tcp, to: s }",
    ];
    insta::assert_snapshot!(page(&cases, with_listener));
}

#[test]
fn passthrough() {
    let cases = [
        "{ address: 127.0.0.1:1, protocol: tls-passthrough }",
        "{ address: 127.0.0.1:1, protocol: tls-passthrough, to: t, tls: { clients: none }, routes: [], forwarded: {} }",
        "{ address: 127.0.0.1:1, protocol: tls-passthrough, to: s, hosts: [] }",
        "{ address: 127.0.0.1:1, protocol: tls-passthrough, hosts: [ { names: [a], routes: [] } ] }",
        "{ address: 127.0.0.1:1, protocol: tls-passthrough, hosts: [ { names: [a], to: s }, { names: [A, 'x*'], to: s } ] }",
        "{ address: 127.0.0.1:1, protocol: tls-passthrough, hosts: [ { names: ['192.0.2.1', '[::1]'], to: s } ] }",
        "{ address: 127.0.0.1:1, protocol: tls-passthrough, hosts: [ { to: s } ] }",
        "{ address: 127.0.0.1:1, protocol: tls-passthrough, to: s, allow: [ { identity: 'spiffe://a/b', path: /a } ] }",
        "{ address: 127.0.0.1:1, protocol: tls-passthrough, to: { s: 1, secure: 1 } }",
        "{ address: 127.0.0.1:1, protocol: tls-passthrough, to: s, quota: { name: q, requests: 1/s } }",
    ];
    let secure = "  secure: { endpoints: [127.0.0.1:3], tls: { expect: a.b } }\n";
    let frame =
        |case: &str| format!("listeners:\n  a: {case}\nservices:\n  s: {{ endpoints: [127.0.0.1:2] }}\n{secure}");
    insta::assert_snapshot!(page(&cases, frame));
}

#[test]
fn routes() {
    let cases = [
        "{}",
        "x",
        "{ to: carts }",
        "{ to: xyzzy }",
        "{ name: 'a b', to: cart }",
        "{ to: cart, respond: {}, redirect: { path: /x } }",
        "{ respond: {}, timeout: 1s, retry: {}, rewrite: {}, request-headers: {} }",
        "{ to: cart, timeout: 5 }",
        "{ to: cart, allow: [], quota: {} }",
        "{ to: cart, mach: {} }",
        "{ to: cart, match: { path: cart } }",
        "{ to: cart, match: { path: /a*b } }",
        "{ to: cart, match: { path: '/a?b=1' } }",
        "{ to: cart, match: { path: /a//b } }",
        "{ to: cart, match: { path: //* } }",
        "{ to: cart, match: { path: /a/../b } }",
        "{ to: cart, match: { path: /a%2Fb } }",
        "{ to: cart, match: { path: /%41 } }",
        "{ to: cart, match: { path: /a%4 } }",
        "{ to: cart, match: { path: '/a b' } }",
        "{ to: cart, match: { path: { regex: '(' } } }",
        "{ to: cart, match: { path: { regex: 'a(?=b)' } } }",
        "{ to: cart, match: { path: { prefix: /a } } }",
        "{ to: cart, match: { path: [] } }",
        "{ to: cart, match: { methods: [] } }",
        "{ to: cart, match: { methods: [get, GET, GET, CONNECT] } }",
        "{ to: cart, match: { methods: GET } }",
        "{ to: cart, match: { headers: { 'a b': x, x-a: \"a\\nb\", x-b: ' a', x-c: , X-A: b } } }",
        "{ to: cart, match: { headers: { a: { present: maybe }, b: {}, c: { present: true, regex: a } } } }",
        "{ to: cart, match: { query: { '': a, b: [] } } }",
        "{ match: { path: /a }, redirect: { path: /b/* } }",
        "{ match: { path: /a/* }, redirect: { path: /a/* } }",
        "{ redirect: { path: /b, status: 304 } }",
        "{ redirect: { path: /b, host: x } }",
        "{ redirect: {} }",
        "{ respond: { status: 100 } }",
        "{ respond: { status: 204, body: x } }",
        "{ respond: { status: 205, body: x } }",
        "{ match: { path: /a }, to: cart, rewrite: { path: /b/* } }",
        "{ match: { path: { regex: /a } }, to: cart, rewrite: { path: /b/* } }",
        "{ to: cart, rewrite: { host: 'a/b' } }",
        "{ to: cart, rewrite: {} }",
        "{ to: cart, retry: { retries: 0, on: [reset, 502, connect-falure], per-try-timeout: 1s } }",
        "{ to: cart, retry: { on: [] } }",
        "{ to: cart, timeout: 1s, retry: { on: [connect-failure], per-try-timeout: 2s } }",
        "{ to: cart, request-headers: { set: { host: a, x: 1 }, add: { X: 2, Content-Length: 3 }, remove: [Connection, x] } }",
        "{ to: cart, response-headers: { set: { x: \"a\\rb\" }, delete: [] } }",
        "{ name: a, to: cart }\n      - { name: a, match: { path: /b }, to: cart }",
        "{ to: cart }\n      - { match: { path: /* }, to: cart }",
        "{ match: { methods: [GET, PUT] }, to: cart }\n      - { match: { methods: [PUT, GET] }, to: cart }",
    ];
    insta::assert_snapshot!(page(&cases, with_route));
}

#[test]
fn quotas() {
    let cases = [
        "quota: {}",
        "quota: []",
        "quota: 100/s",
        "quota: { requests: 100 }",
        "quota: { requests: 100/d }",
        "quota: { requests: 0/s }",
        "quota: { requests: -1/s }",
        "quota: { requests: 99999999999/s }",
        "quota: { requests: 1/h, burst: 10000 }",
        "quota: { requests: 1/s, burst: 0 }",
        "quota: { requests: 1/s, clients: 10 }",
        "quota: { requests: 1/s, per: source, clients: 2000000 }",
        "quota: { requests: 1/s, per: header }",
        "quota: { requests: 1/s, per: { header: 'a b' } }",
        "quota: { requests: 1/s, per: { heder: a } }",
        "quota: { requests: 1/s, per: client }",
        "quota: { requests: 1/s, per: identity }",
        "quota: [ { requests: 1/s, name: a }, { requests: 2/s, name: a } ]",
        "quota: [ { requests: 1/s }, { requests: 2/s }, { requests: 3/s } ]",
    ];
    insta::assert_snapshot!(page(&cases, |word| with_route(&format!("{{ to: cart, {word} }}"))));
    let cases = [
        "{ address: 127.0.0.1:1, routes: [{ to: s }], quota: { requests: 1/s, per: identity } }",
        "{ address: 127.0.0.1:1, tls: { certificates: [ { certificate: a, key: b } ] }, routes: [{ to: s }], quota: { requests: 1/s, per: identity } }",
        "{ address: 127.0.0.1:1, protocol: tcp, to: s, quota: { requests: 1/s } }",
        "{ address: 127.0.0.1:1, protocol: tls-passthrough, to: s, quota: { requests: 1/s }, cors: {} }",
    ];
    insta::assert_snapshot!("quotas_where_they_cannot_count", page(&cases, with_listener));
}

#[test]
fn what_all_quotas_remember_is_bounded() {
    let routes: Vec<String> = (0..20)
        .map(|i| {
            format!("{{ match: {{ path: /{i} }}, quota: {{ requests: 1/s, per: source, clients: 1000000 }}, to: s }}")
        })
        .collect();
    let told = bad(&with_listener(&format!("{{ address: 127.0.0.1:1, routes: [ {} ] }}", routes.join(", "))));
    assert_eq!(told.len(), 4, "{told:#?}");
    assert!(told[0].contains("remember 17000000 clients; 16777216 are allowed"), "{told:#?}");
}

#[test]
fn cors() {
    let cases = [
        "cors: {}",
        "cors: { origins: [] }",
        "cors: { origins: '*', credentials: true }",
        "cors: { origins: [a.b, 'https://a.b/', 'https://a.b:443', 'HTTPS://a.b', 'https://*', 'https://a.*', 'https://', 'https://a.b:0', 'null'] }",
        "cors: { origins: ['https://a.b', 'https://a.b'] }",
        "cors: { origins: 'https://a.b', methods: [put, PUT, PUT], headers: ['a b'], expose: {} }",
        "cors: { origins: 'https://a.b', methods: '*', headers: ['*'], credentials: true }",
        "cors: { origins: 'https://a.b', max-age: 10 }",
        "cors: { origins: 'https://a.b', max-age: 1500ms }",
        "cors: { origin: 'https://a.b' }",
        "cors: { origins: '*' }, response-headers: { set: { Access-Control-Allow-Origin: x, x: y } }",
    ];
    insta::assert_snapshot!(page(&cases, |word| with_route(&format!("{{ to: cart, {word} }}"))));
    let cases = [
        "{ address: 127.0.0.1:1, protocol: tcp, to: s, cors: { origins: '*' } }",
        "{ address: 127.0.0.1:1, cors: { origins: '*' }, routes: [ { response-headers: { remove: [access-control-max-age] }, to: s } ] }",
    ];
    insta::assert_snapshot!("cors_where_it_cannot_stand", page(&cases, with_listener));
}

#[test]
fn services() {
    let cases = [
        "{}",
        "{ endpoints: [] }",
        "{ endpoints: { group: cart, listener: in } }",
        "{ endpoints: [127.0.0.1] }",
        "{ endpoints: [300.1.1.1:80] }",
        "{ endpoints: ['http://a:80'] }",
        "{ endpoints: [a:0, a:x, 'a b:1', '::1'] }",
        "{ endpoints: [127.0.0.1:1, a:1] }",
        "{ endpoints: [127.0.0.1:1, 127.0.0.1:1] }",
        "{ endpoints: [{ address: 127.0.0.1:1, weight: 0, zone: 'a b' }] }",
        "{ endpoints: [{ weight: 1 }] }",
        "{ endpoints: [127.0.0.1:1], protocol: http2 }",
        "{ endpoints: [127.0.0.1:1], protocol: http3 }",
        "{ endpoints: [127.0.0.1:1], balance: roundrobin }",
        "{ endpoints: [127.0.0.1:1], balance: { ring-hash: { header: x } } }",
        "{ endpoints: [127.0.0.1:1], balance: { x: 1 } }",
        "{ endpoints: [127.0.0.1:1], limits: { connections: 0, requests: 99999999999, retries: 3 } }",
        "{ endpoints: [127.0.0.1:1], connect-timeout: 1 }",
        "{ endpoints: [127.0.0.1:1], tls: {}, health: {}, outlier: {}, retry-budget: 20% }",
        "{ endpoints: [127.0.0.1:1], proxy-protocol: 2 }",
        "{ endpoint: [127.0.0.1:1] }",
    ];
    insta::assert_snapshot!(page(&cases, with_service));
}

#[test]
fn all_findings_come_at_once_in_order() {
    let text = "cores: 0\nlisteners:\n  a: { address: x, protocol: tcp, to: s }\n  b: { address: 127.0.0.1:1, protocol: tcp, to: t }\nservices:\n  s: { endpoints: [] }\n";
    let places: Vec<String> = bad(text).iter().filter_map(|l| l.split(": ").next().map(str::to_owned)).collect();
    assert_eq!(places, ["1:8", "3:17", "4:49", "6:19"]);
    let first = &crate::load(text, "dir/ringway.yaml").expect_err("bad")[0];
    let told = "dir/ringway.yaml:1:8: `cores` is a whole number from 1 to 256, not `0`";
    assert_eq!(first.to_string(), told);
}

#[test]
fn of_the_whole_language_only_later_words_are_refused() {
    let told = bad(include_str!("whole.yaml"));
    let later = |line: &String| line.contains("is not supported yet");
    assert!(told.iter().all(later), "{told:#?}");
    for word in ["reset", "502", "retry-budget", "health", "outlier"] {
        assert!(told.iter().any(|line| line.contains(&format!(": `{word}` is"))), "{word}: {told:#?}");
    }
}
