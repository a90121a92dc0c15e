//! The plan as JSON for people: everything that decides about requests, by name.

use crate::hosts::Host;
use crate::matcher::{FieldMatch, Match, Part, Path, Test};
use crate::quota::QuotaId;
use crate::rewrite::{Location, PathRewrite};
use crate::{Destination, Edits, FOREVER_NS, Http, Kind, Listener, Plan, Route, RouteAction, Service, Tcp};
use std::fmt::Write;

/// The whole plan.
pub(crate) fn plan(plan: &Plan) -> String {
    let mut json = Json::default();
    json.object(|json| {
        json.key("generation").number(plan.generation);
        process(json.key("process"), plan);
        json.key("listeners").list(plan.listeners.iter(), |json, one| listener(json, plan, one));
        json.key("services").list(&plan.services, service);
        json.key("names").list(plan.names(), |json, name| json.text(&format!("{}:{}", name.host, name.port)));
        json.key("ignored").list(plan.ignored.iter(), |json, field| json.text(field));
    });
    json.out.push('\n');
    json.out
}

fn process(json: &mut Json, plan: &Plan) {
    let process = &plan.process;
    json.object(|json| {
        json.key("cores").text(&format!("{:?}", process.cores));
        json.key("connections").number(process.connections.into());
        json.key("drain_timeout_ms").number(process.drain_timeout.as_millis() as u64);
        if let Some(admin) = &process.admin {
            json.key("admin").text(&match admin {
                api::Address::Socket(socket) => socket.to_string(),
                api::Address::Unix(path) => format!("unix:{path}"),
            });
        }
        if let Some(log) = &process.access_log {
            json.key("access_log").text(&log.path);
        }
    });
}

fn listener(json: &mut Json, plan: &Plan, listener: &Listener) {
    json.object(|json| {
        json.key("name").text(&listener.name);
        json.key("address").text(&listener.address.to_string());
        if let Some(from) = &listener.proxy_protocol {
            json.key("proxy_protocol").text(&from.to_string());
        }
        match &listener.kind {
            Kind::Http(http) => self::http(json, plan, http),
            Kind::Tcp(of) => {
                json.key("protocol").text("tcp");
                tcp(json, plan, of);
            }
            Kind::Passthrough(passthrough) => {
                json.key("protocol").text("tls-passthrough");
                json.limit("opening_timeout_ms", listener.opening_timeout_ns);
                json.key("hosts").list(passthrough.hosts.iter(), |json, passage| {
                    json.object(|json| {
                        json.key("names").list(&passage.names, |json, name| json.text(name));
                        tcp(json, plan, &passage.tcp);
                    });
                });
            }
        }
    });
}

fn tcp(json: &mut Json, plan: &Plan, tcp: &Tcp) {
    json.limit("idle_timeout_ms", tcp.idle_timeout_ns);
    json.key("access_log").boolean(tcp.access_log);
    json.key("retries").number(tcp.retries.into());
    destination(json.key("to"), plan, &tcp.to);
}

fn http(json: &mut Json, plan: &Plan, http: &Http) {
    json.key("protocol").text("http");
    json.key("head_bytes").number(http.head.head_bytes as u64);
    json.key("fields").number(http.head.fields as u64);
    json.key("target_bytes").number(http.head.target_bytes as u64);
    if http.body_bytes != u64::MAX {
        json.key("body_bytes").number(http.body_bytes);
    }
    json.limit("request_timeout_ms", http.request_timeout_ns);
    json.limit("idle_timeout_ms", http.idle_timeout_ns);
    json.key("access_log").boolean(http.access_log);
    json.key("forwarded").object(|json| {
        json.key("mode").text(&format!("{:?}", http.forwarded.mode).to_lowercase());
        json.key("trusted_hops").number(http.forwarded.trusted_hops.into());
    });
    quotas(json, plan, &http.quotas);
    json.key("hosts").list(http.hosts.iter(), |json, one| host(json, plan, one));
}

fn host(json: &mut Json, plan: &Plan, host: &Host) {
    json.object(|json| {
        json.key("name").text(&host.name);
        json.key("names").list(&host.names, |json, name| json.text(name));
        let routes = plan.routes.get(host.routes.start as usize..host.routes.end as usize).unwrap_or_default();
        json.key("routes").list(routes, |json, one| route(json, plan, one));
    });
}

fn route(json: &mut Json, plan: &Plan, route: &Route) {
    json.object(|json| {
        json.key("name").text(&route.name);
        matches(json.key("match"), plan, &route.matcher);
        match &route.action {
            RouteAction::Forward(forward) => {
                destination(json.key("to"), plan, &forward.to);
                path(json, &forward.path);
                if let Some(host) = &route.host {
                    json.key("host").text(host);
                }
                json.limit("timeout_ms", forward.timeout_ns);
                json.limit("per_try_timeout_ms", forward.per_try_timeout_ns);
                json.key("retries").number(forward.retries.into());
            }
            RouteAction::Redirect { status, to } => json.key("redirect").object(|json| {
                json.key("status").number((*status).into());
                location(json, to);
            }),
            RouteAction::Respond { status } => json.key("respond").object(|json| {
                json.key("status").number((*status).into());
                json.key("body").bytes(&route.body);
            }),
        }
        quotas(json, plan, &route.quotas);
        edits(json, "request_headers", &route.request_edits);
        edits(json, "response_headers", &route.response_edits);
    });
}

fn quotas(json: &mut Json, plan: &Plan, quotas: &[QuotaId]) {
    if !quotas.is_empty() {
        json.key("quotas").list(quotas.iter().filter_map(|id| plan.quotas.get(id.0 as usize)), |json, quota| {
            let name = plan.rules.get(quota.rule.0 as usize).map_or("", |key| &key.name);
            json.text(&format!("{name}: {}", quota.settings));
        });
    }
}

fn matches(json: &mut Json, plan: &Plan, matcher: &Match) {
    json.object(|json| {
        match &matcher.path {
            Path::Exact(path) => json.key("path").bytes(path),
            Path::Segments(prefix) => json.key("path").bytes(&[prefix, &b"/*"[..]].concat()),
            Path::Prefix(prefix) if **prefix == *b"/" => json.key("path").text("/*"),
            Path::Prefix(prefix) => json.key("path_prefix").bytes(prefix),
            Path::Regex(regex) => json.key("path_regex").text(plan.regexes.pattern(*regex)),
        }
        if !matcher.methods.is_any() {
            json.key("methods").list(matcher.methods.names(), |json, name| json.text(&name));
        }
        if !matcher.fields.is_empty() {
            json.key("headers").list(&matcher.fields, |json, one| field(json, plan, one));
        }
        if !matcher.query.is_empty() {
            json.key("query").list(&matcher.query, |json, one| {
                json.object(|json| {
                    json.key("name").bytes(&one.name);
                    test(json, plan, &one.test);
                });
            });
        }
    });
}

fn field(json: &mut Json, plan: &Plan, field: &FieldMatch) {
    json.object(|json| {
        json.key("name").text(match &field.part {
            Part::Field(name) => name,
            Part::Authority => ":authority",
            Part::Method => ":method",
        });
        test(json, plan, &field.test);
        for (set, key) in [(field.invert, "invert"), (field.missing_is_empty, "missing_is_empty")] {
            if set {
                json.key(key).boolean(true);
            }
        }
    });
}

fn test(json: &mut Json, plan: &Plan, test: &Test) {
    match test {
        Test::Present => json.key("present").boolean(true),
        Test::Absent => json.key("present").boolean(false),
        Test::Exact(text) => json.key("exact").bytes(text),
        Test::ExactIgnoringCase(text) => json.key("exact_ignoring_case").bytes(text),
        Test::Prefix(text) => json.key("prefix").bytes(text),
        Test::Suffix(text) => json.key("suffix").bytes(text),
        Test::Contains(text) => json.key("contains").bytes(text),
        Test::Regex(regex) => json.key("regex").text(plan.regexes.pattern(*regex)),
    }
}

fn destination(json: &mut Json, plan: &Plan, to: &Destination) {
    let targets = match to {
        Destination::One(target) => std::slice::from_ref(target),
        Destination::Weighted { targets, .. } => targets,
    };
    json.list(targets.iter().zip(to.weights()), |json, (target, weight)| {
        json.object(|json| {
            json.key("service").text(plan.series.get(target.series.0 as usize).map_or("", |series| &series.service));
            json.key("weight").number((*weight).into());
            json.key("known").boolean(target.service.is_some());
        });
    });
}

fn path(json: &mut Json, rewrite: &PathRewrite) {
    match rewrite {
        PathRewrite::Keep => {}
        PathRewrite::Whole(to) => json.key("path").bytes(to),
        PathRewrite::Prefix { to, .. } => {
            json.key("path").bytes(&[to.strip_suffix(b"/").unwrap_or(to), b"/*"].concat())
        }
    }
}

fn location(json: &mut Json, to: &Location) {
    for (key, part) in [("scheme", &to.scheme), ("host", &to.host), ("query", &to.query)] {
        if let Some(part) = part {
            json.key(key).text(part);
        }
    }
    if let Some(port) = to.port {
        json.key("port").number(port.into());
    }
    path(json, &to.path);
}

fn edits(json: &mut Json, key: &str, edits: &Edits) {
    if edits.is_empty() {
        return;
    }
    let line = |json: &mut Json, (name, value): &(Box<str>, Box<[u8]>)| {
        json.object(|json| {
            json.key("name").text(name);
            json.key("value").bytes(value);
        });
    };
    json.key(key).object(|json| {
        json.key("set").list(&edits.set, line);
        json.key("add").list(&edits.add, line);
        json.key("remove").list(&edits.remove, |json, name| json.text(name));
    });
}

fn service(json: &mut Json, service: &Service) {
    json.object(|json| {
        json.key("name").text(&service.name);
        json.key("balance").text(match service.balance.algorithm() {
            balance::Algorithm::RoundRobin => "round-robin",
            balance::Algorithm::Random => "random",
            balance::Algorithm::LeastRequest => "least-request",
            balance::Algorithm::PeakEwma => "peak-ewma",
        });
        json.limit("connect_timeout_ms", service.connect_timeout_ns);
        if let Some(version) = service.proxy_protocol {
            json.key("proxy_protocol").text(version.word());
        }
        let limits = service.balance.limits();
        json.key("limits").object(|json| {
            json.key("connections").number(limits.connections.into());
            json.key("pending").number(limits.pending.into());
            json.key("requests").number(limits.requests.into());
        });
        json.key("endpoints").list(service.balance.endpoints(), |json, (endpoint, weight)| {
            json.object(|json| {
                json.key("address").text(&endpoint.address().to_string());
                json.key("weight").number(weight.into());
            });
        });
    });
}

/// JSON being written, two spaces a level.
#[derive(Default)]
struct Json {
    out: String,
    depth: usize,
    /// Something stands already in the object or list that is open.
    inside: bool,
}

impl Json {
    fn key(&mut self, key: &str) -> &mut Json {
        self.next();
        self.text(key);
        self.out.push_str(": ");
        self
    }

    fn object(&mut self, fill: impl FnOnce(&mut Json)) {
        self.nest('{', fill, '}');
    }

    fn list<T>(&mut self, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Json, T)) {
        let fill = |json: &mut Json| {
            for item in items {
                json.next();
                write(json, item);
            }
        };
        self.nest('[', fill, ']');
    }

    fn nest(&mut self, open: char, fill: impl FnOnce(&mut Json), close: char) {
        self.out.push(open);
        self.depth += 1;
        let before = std::mem::take(&mut self.inside);
        fill(self);
        self.depth -= 1;
        if self.inside {
            self.line();
        }
        self.out.push(close);
        self.inside = before;
    }

    fn next(&mut self) {
        if std::mem::replace(&mut self.inside, true) {
            self.out.push(',');
        }
        self.line();
    }

    fn line(&mut self) {
        self.out.push('\n');
        self.out.extend(std::iter::repeat_n("  ", self.depth));
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            // RFC 8259 section 7. Writing to a String cannot fail.
            match character {
                '"' | '\\' => self.out.extend(['\\', character]),
                control if control < ' ' => _ = write!(self.out, "\\u{:04x}", control as u32),
                other => self.out.push(other),
            }
        }
        self.out.push('"');
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.text(&String::from_utf8_lossy(bytes));
    }

    fn number(&mut self, number: u64) {
        _ = write!(self.out, "{number}");
    }

    fn boolean(&mut self, value: bool) {
        self.out.push_str(if value { "true" } else { "false" });
    }

    /// A duration, unless it is endless.
    fn limit(&mut self, key: &str, duration_ns: u64) {
        if duration_ns != FOREVER_NS {
            self.key(key);
            match duration_ns % 1_000_000 {
                0 => self.number(duration_ns / 1_000_000),
                rest => _ = write!(self.out, "{}.{rest:06}", duration_ns / 1_000_000),
            }
        }
    }
}
