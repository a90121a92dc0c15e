//! The language as a whole: every word once, every message, the translation, and that no input panics.

mod envoy;
mod findings;
mod hostile;
mod limits;
mod mesh;
mod translation;

/// Every supported word of the language.
const FULL: &str = include_str!("full.yaml");

/// Loads a document that must be good.
fn good(text: &str) -> crate::Document {
    crate::load(text, "ringway.yaml").unwrap_or_else(|findings| {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        panic!("refused:\n{}\n{text}", lines.join("\n"))
    })
}

/// The findings of a document that must be bad, without the file's name.
fn bad(text: &str) -> Vec<String> {
    let findings = crate::load(text, "f").expect_err(text);
    findings.iter().map(|f| format!("{}:{}: {}", f.line, f.column, f.message)).collect()
}

mod model {
    use std::time::Duration;

    use super::{FULL, good};
    use crate::{
        AccessLog, Action, Address, Balance, Cores, DnsName, Endpoint, Endpoints, ForwardedMode, LogFormat, PathMatch,
        PathTarget, Protocol, Retry, Route, ServiceLimits, Target, ValueMatch,
    };

    fn routes(text: &str) -> Vec<Route> {
        let document = good(text);
        let Protocol::Http(http) = &document.listeners[0].protocol else { panic!("{document:?}") };
        http.hosts.iter().flat_map(|h| h.routes.clone()).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn listeners_have_what_is_written() {
        let document = good(FULL);
        let web = &document.listeners[0];
        assert_eq!((web.name.as_str(), web.idle_timeout), ("web", Some(Duration::from_secs(90))));
        assert_eq!(web.address, Address::Socket("0.0.0.0:8080".parse().expect("an address")));
        let Protocol::Http(http) = &web.protocol else { panic!("{web:?}") };
        assert_eq!((http.forwarded.trusted_hops, http.forwarded.mode), (1, ForwardedMode::Append));
        assert_eq!(http.hosts[0].names, ["shop.example.com", "*.shop.example.com"]);
        assert_eq!(http.hosts[1].names, ["*"]);
        assert_eq!(document.listeners[2].address, Address::Unix("/run/ringway.sock".to_owned()));
        let Protocol::Tcp(to) = &document.listeners[4].protocol else { panic!("{document:?}") };
        assert_eq!(to[1], Target { service: "pg-old".to_owned(), weight: 3 });
    }

    #[test]
    fn a_route_has_what_is_written() {
        let route = &routes(FULL)[0];
        assert_eq!(route.matches.path, Some(PathMatch::Prefix("/cart".to_owned())));
        assert_eq!(route.matches.methods, ["GET", "POST"]);
        let header = |i: usize| &route.matches.headers[i];
        assert_eq!(header(0), &("x-beta".to_owned(), ValueMatch::Exact("1".to_owned())));
        assert_eq!(header(1), &("x-debug".to_owned(), ValueMatch::Present(true)));
        assert_eq!(header(2), &("x-v".to_owned(), ValueMatch::Regex(r"2\..*".to_owned())));
        assert_eq!(route.matches.query[0], ("page".to_owned(), ValueMatch::Exact("1".to_owned())));
        assert_eq!(route.matches.query[1].1, ValueMatch::Present(false));
        let Action::Forward(to) = &route.action else { panic!("{route:?}") };
        let retry = Retry { retries: 1, per_try_timeout: Some(Duration::from_secs(1)) };
        assert_eq!((to.timeout, to.retry), (Some(Duration::from_secs(2)), Some(retry)));
        assert_eq!(to.rewrite_path, Some(PathTarget::Prefix("/basket".to_owned())));
        assert_eq!(to.rewrite_host.as_deref(), Some("basket.internal"));
        assert_eq!(to.to.iter().map(|t| t.weight).collect::<Vec<_>>(), [10, 90]);
        assert_eq!(to.request_headers.set, [pair("x-route", "beta")]);
        assert_eq!(to.request_headers.add, [pair("x-share", "100%")]);
        assert_eq!(to.request_headers.remove, ["x-internal"]);
        assert_eq!(route.response_headers.set, [pair("x-from", "ringway")]);
    }

    #[test]
    fn a_route_without_a_name_has_its_position_in_the_listener() {
        let names: Vec<String> = routes(FULL).into_iter().map(|r| r.name).collect();
        assert_eq!(names, ["cart-beta", "old", "3", "ping", "versions", "pages", "rest", "8"]);
    }

    #[test]
    fn services_have_what_is_written_and_defaults_elsewhere() {
        let document = good(FULL);
        let cart = &document.services[0];
        assert_eq!(cart.limits, ServiceLimits { connections: 100, pending: 0, requests: 200 });
        assert_eq!(cart.connect_timeout, Duration::from_millis(250));
        let Endpoints::Addresses(list) = &cart.endpoints else { panic!("{cart:?}") };
        assert_eq!((list[1].weight, list[1].zone.as_str(), list[2].weight), (2, "a", 1));
        let v2 = &document.services[1];
        assert_eq!((v2.limits, v2.connect_timeout), (ServiceLimits::default(), Duration::from_secs(1)));
        let names = DnsName { name: "web.example.com".to_owned(), port: 80 };
        let Endpoints::Names(list) = &document.services[2].endpoints else { panic!("{document:?}") };
        assert_eq!(list[0], Endpoint { address: names, weight: 1, zone: String::new() });
        let balance: Vec<Balance> = document.services.iter().map(|s| s.balance).collect();
        use Balance::{LeastRequest, PeakEwma, Random, RoundRobin};
        assert_eq!(balance, [PeakEwma, RoundRobin, Random, LeastRequest, PeakEwma]);
    }

    #[test]
    fn the_process_has_what_is_written_and_defaults_elsewhere() {
        let document = good(FULL);
        assert_eq!(document.cores, Cores::List(vec![0, 1]));
        let log = AccessLog { path: "/dev/stdout".to_owned(), format: LogFormat::Json };
        assert_eq!(document.access_log, Some(log));
        assert_eq!(document.limits, crate::Limits::default());
        let small = "listeners: { a: { address: 127.0.0.1:1, protocol: tcp, to: s } }\nservices: { s: { endpoints: [127.0.0.1:2] } }\n";
        let document = good(small);
        assert_eq!((document.admin, document.access_log, document.cores), (None, None, Cores::All));
        assert_eq!(good(&format!("{small}cores: 3\n")).cores, Cores::Count(3));
        assert_eq!(good(&format!("{small}cores: all\n")).cores, Cores::All);
    }

    #[test]
    fn relative_paths_are_relative_to_the_file() {
        let text = "listeners: { a: { address: 'unix:a.sock', protocol: tcp, to: s } }\nservices: { s: { endpoints: [127.0.0.1:2] } }\naccess-log: { path: log/a.json }\n";
        let document = crate::load(text, "/etc/ringway/ringway.yaml").expect("good");
        assert_eq!(document.listeners[0].address, Address::Unix("/etc/ringway/a.sock".to_owned()));
        assert_eq!(document.access_log.map(|l| l.path).as_deref(), Some("/etc/ringway/log/a.json"));
    }
}

/// What old programs sent must be read by new ones: numbers of fields are for ever.
#[test]
fn messages_keep_their_numbers() {
    use crate::{pb, prost::Message};

    let rejected = pb::Rejected { type_url: "t".into(), name: "n".into(), version: "v".into(), ..Default::default() };
    assert_eq!(rejected.encode_to_vec(), b"\x0a\x01t\x12\x01n\x2a\x01v");
    let report = pb::Report { rejected: vec![rejected], ready: true, clock_ms: 1, ..Default::default() };
    assert_eq!(report.encode_to_vec(), b"\x32\x09\x0a\x01t\x12\x01n\x2a\x01v\x48\x01\x58\x01");
    let hello = pb::Hello { epoch: 1, ..Default::default() };
    assert_eq!(hello.encode_to_vec(), b"\x09\x01\0\0\0\0\0\0\0");
}
