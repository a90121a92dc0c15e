//! Why a request is decided as it is, in words. Nothing is sent, taken or changed.

mod met;

use crate::decide::{Cache, Request};
use crate::matcher::Part;
use crate::policy::{Asked, Condition, List, ListId, ListKind, Rule, Scratch};
use crate::{Action, Decision, Destination, Kind, ListenerId, Peer, Plan, RouteAction, RuleKey, Target, cors, peer};
use met::{Met, where_it_listens};
use std::fmt;

/// What the plan does with a request, and why. Prints as lines, the decision first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    lines: Vec<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Plan {
    /// What would be done with a request that came through `listener`, and why: who asks, which listener, host and route,
    /// each rule of policy and whether it holds, and the endpoints that may get the request. Of a listener that reads no
    /// requests it is the connection that is explained.
    pub fn explain(&self, listener: ListenerId, request: &Request<'_>) -> Explanation {
        let through = self.listener(listener);
        let Kind::Http(http) = &through.kind else { return self.explain_bytes(listener, None, &request.peer) };
        let met = match Met::by(through, request.peer) {
            Ok(met) => met,
            Err(refused) => return refused,
        };
        let request = &Request { peer: met.peer, ..*request };
        let mut cache = Cache::default();
        let decision = self.decide(listener, request, 0, &mut cache);
        let mut lines = vec![decision.show(self, &cache.text).to_string()];
        met.tell(peer::source(request, http.forwarded.trusted_hops), &mut lines);
        lines.push(format!("path: {}", request.path.escape_ascii()));
        self.through(listener, &mut lines);
        let host = http.hosts.find(request.authority, &mut Vec::new());
        lines.push(format!("host: {}", host.map_or("none".to_owned(), |host| host.names.join(" "))));
        let route = decision.route.map(|id| self.route(id));
        lines.push(format!("route: {}", route.map_or("none", |route| &route.name)));
        let policy = route.map_or(&http.policy, |route| &route.policy);
        let mut asked = Asked::new(request, http.forwarded.trusted_hops);
        self.cors(&decision, request, &mut lines);
        if decision.action == Action::Preflight {
            lines.push("policy and quotas: not asked about a preflight".to_owned());
            return Explanation { lines };
        }
        self.rules(policy, &mut asked, &mut lines);
        self.quotas(&decision, &mut lines);
        if let Some(RouteAction::Forward(forward)) = route.map(|route| &route.action) {
            self.candidates(&forward.to, &mut lines);
        }
        Explanation { lines }
    }

    /// What would be done with a connection of which no request is read, and why. `name` is what its TLS asks for, where that is
    /// passed on.
    pub fn explain_bytes(&self, listener: ListenerId, name: Option<&str>, peer: &Peer<'_>) -> Explanation {
        let met = match Met::by(self.listener(listener), *peer) {
            Ok(met) => met,
            Err(refused) => return refused,
        };
        let peer = &met.peer;
        let decision = self.decide_tcp(listener, name, peer, 0);
        let mut lines = vec![decision.show(self, b"").to_string()];
        met.tell(peer.address, &mut lines);
        self.through(listener, &mut lines);
        if let Kind::Passthrough(_) = self.listener(listener).kind {
            lines.push(format!("name: {}", name.unwrap_or("none")));
        }
        if let Some(tcp) = self.tcp(listener, name) {
            let request = Request::of_bytes(peer);
            self.rules(&tcp.policy, &mut Asked::new(&request, 0), &mut lines);
            self.candidates(&tcp.to, &mut lines);
        }
        Explanation { lines }
    }

    fn through(&self, listener: ListenerId, lines: &mut Vec<String>) {
        let through = self.listener(listener);
        lines.push(where_it_listens(through));
        if let Some(from) = &through.proxy_protocol {
            lines.push(format!("proxy-protocol: from {from}"));
        }
    }

    /// Each list in the order in which it is asked, with each of its rules; also those behind the one that decides.
    fn rules(&self, policy: &[ListId], asked: &mut Asked<'_>, lines: &mut Vec<String>) {
        if policy.is_empty() {
            lines.push("policy: none".to_owned());
        }
        let mut scratch = Scratch::default();
        for id in policy {
            let list = &self.lists[id.0 as usize];
            let key = &self.rules[list.nobody.0 as usize];
            lines.push(format!(
                "{} of {}:{}",
                key.list,
                whose(key),
                if list.rules.is_empty() { " no rule" } else { "" }
            ));
            let mut holds = false;
            for rule in &list.rules {
                let found = self.rule(list, rule, asked, &mut scratch);
                holds |= rule.enforced && found.is_none();
                let mode = if rule.enforced { "" } else { " (dry-run)" };
                let found = found.map_or("holds".to_owned(), |word| format!("does not hold: {word}"));
                lines.push(format!("  {}{mode}: {found}", self.rules[rule.id.0 as usize].name));
            }
            if list.kind == ListKind::Allow && list.enforced && !holds {
                lines.push("  no rule holds: refused".to_owned());
            }
        }
    }

    /// What pages of the request's origin may do.
    fn cors(&self, decision: &Decision, request: &Request<'_>, lines: &mut Vec<String>) {
        let Some(id) = decision.cors else { return };
        let origins: Vec<String> = cors::origins(request).map(|origin| origin.escape_ascii().to_string()).collect();
        lines.push(match (origins.is_empty(), id.allows()) {
            (true, _) => "cors: no origin is sent".to_owned(),
            (false, true) => format!("cors: {} is allowed", origins.join(", ")),
            (false, false) => format!("cors: {} is not allowed", origins.join(", ")),
        });
    }

    /// The quotas that the request would take of.
    fn quotas(&self, decision: &Decision, lines: &mut Vec<String>) {
        for id in self.quotas_of(decision) {
            let quota = &self.quotas[id.0 as usize];
            let key = &self.rules[quota.rule.0 as usize];
            lines.push(format!("quota {} of {}: {}", key.name, whose(key), quota.settings));
        }
    }

    /// The first word of a rule that does not hold, or none.
    fn rule(&self, list: &List, rule: &Rule, asked: &mut Asked<'_>, scratch: &mut Scratch) -> Option<&'static str> {
        let mut fails = |condition: &&Condition| !condition.holds(list.kind, self, asked, scratch);
        match &rule.when {
            Condition::All(all) => all.iter().find(fails).map(word),
            other => fails(&other).then(|| word(other)),
        }
    }

    /// The services that may be chosen, and their endpoints.
    fn candidates(&self, to: &Destination, lines: &mut Vec<String>) {
        match to {
            Destination::One(target) => self.candidate(target, None, lines),
            Destination::Weighted { targets, weights, .. } => {
                targets.iter().zip(weights).for_each(|(target, weight)| self.candidate(target, Some(*weight), lines));
            }
        }
    }

    fn candidate(&self, target: &Target, share: Option<u32>, lines: &mut Vec<String>) {
        let share = share.map_or(String::new(), |share| format!(", share {share}"));
        let name = &self.series[target.series.0 as usize].service;
        let Some(id) = target.service else {
            return lines.push(format!("service: {name}{share}: there is none of this name"));
        };
        let service = self.service(id);
        let tls = if service.tls.is_some() { ", TLS" } else { "" };
        let header =
            service.proxy_protocol.map_or(String::new(), |version| format!(", PROXY header {}", version.word()));
        lines.push(format!("service: {name}{share}{tls}{header}"));
        for (endpoint, weight) in service.balance.endpoints() {
            lines.push(format!("  {}, weight {weight}", endpoint.address()));
        }
        if service.balance.endpoints().len() == 0 {
            lines.push("  no endpoint is known: names are not resolved here".to_owned());
        }
    }
}

/// Whose a rule or a quota is.
fn whose(key: &RuleKey) -> String {
    match &*key.route {
        "" => format!("listener {}", key.listener),
        route => format!("route {route}"),
    }
}

/// The word of the language that says a condition.
fn word(condition: &Condition) -> &'static str {
    match condition {
        Condition::Any => "any",
        Condition::All(inner) | Condition::One(inner) => inner.first().map_or("any", word),
        Condition::Not(inner) => word(inner),
        Condition::Methods(_) => "methods",
        Condition::Path(_) => "path",
        Condition::Identity(_) => "identity",
        Condition::Source(_) => "source",
        Condition::Peer(_) => "peer",
        Condition::Field(field) => match field.part {
            Part::Field(_) => "headers",
            Part::Authority => "hosts",
            Part::Method => "methods",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::met::tests::secure;
    use super::*;
    use crate::tests::plan_of;
    use wire::h1::Method;

    const FILE: &str = "
listeners:
  web:
    address: 127.0.0.1:80
    protocol: http
    tls: { certificates: [ { certificate: a.pem, key: a.key } ], clients: optional, trust: { roots: [a.pem], domains: [shop] } }
    deny: [ { name: old-net, source: [192.0.2.0/24] } ]
    hosts:
      - names: [shop.com]
        routes:
          - name: cart
            match: { path: /cart/* }
            allow:
              - { name: web, identity: 'spiffe://shop/ns/web/**', methods: [GET] }
              - { name: all-of-shop, identity: 'spiffe://shop/**', dry-run: true }
            to: { a: 10, b: 90 }
          - { name: ping, match: { path: /ping }, respond: { status: 200 } }
services:
  a: { endpoints: [10.0.0.1:80, { address: 10.0.0.2:80, weight: 3 }] }
  b: { endpoints: ['b.example.com:80'] }
";

    fn explained(peer: Peer<'_>, method: &[u8], authority: &[u8], path: &[u8]) -> Vec<String> {
        let request = Request {
            method: if method == b"GET" { Method::Get } else { Method::Post },
            method_bytes: method,
            authority,
            path,
            query: b"",
            fields: &[],
            head: b"",
            peer,
        };
        secure(FILE).explain(ListenerId(0), &request).lines
    }

    #[test]
    fn every_rule_is_told_with_the_word_that_fails() {
        let address = "10.1.1.1".parse().ok();
        let peer = Peer { identity: Some("spiffe://shop/ns/web/sa/x"), address, direct: address };
        let lines = explained(peer, b"GET", b"shop.com", b"/cart/1");
        assert!(lines[0].starts_with("listener web, route cart: forward to a"), "{lines:#?}");
        assert_eq!(
            lines[1..],
            [
                "identity: spiffe://shop/ns/web/sa/x",
                "source: 10.1.1.1",
                "peer: 10.1.1.1",
                "path: /cart/1",
                "listener: web at 127.0.0.1:80, TLS, clients: optional",
                "host: shop.com",
                "route: cart",
                "deny of listener web:",
                "  old-net: does not hold: source",
                "allow of route cart:",
                "  all-of-shop (dry-run): holds",
                "  web: holds",
                "service: a, share 10",
                "  10.0.0.1:80, weight 1",
                "  10.0.0.2:80, weight 3",
                "service: b, share 90",
                "  no endpoint is known: names are not resolved here",
            ]
        );
        let lines = explained(Peer { identity: None, ..peer }, b"GET", b"shop.com", b"/cart/1");
        assert!(lines[0].contains("denied, 403"), "{lines:#?}");
        assert!(lines.contains(&"  web: does not hold: identity".to_owned()), "{lines:#?}");
        assert!(lines.contains(&"  no rule holds: refused".to_owned()));
        let lines = explained(peer, b"POST", b"shop.com", b"/cart/1");
        assert!(lines.contains(&"  web: does not hold: methods".to_owned()), "{lines:#?}");
    }

    #[test]
    fn a_request_without_host_or_route_says_so() {
        let lines = explained(Peer::default(), b"GET", b"other.com", b"/ping");
        assert!(lines[0].contains("no route, 404") && lines.contains(&"host: none".to_owned()), "{lines:#?}");
        let lines = explained(Peer::default(), b"GET", b"shop.com", b"/nothing");
        assert!(lines.contains(&"host: shop.com".to_owned()) && lines.contains(&"route: none".to_owned()));
        assert!(lines.contains(&"deny of listener web:".to_owned()), "the listener's rules hold without a route too");
    }

    #[test]
    fn a_connection_is_told_by_the_name_that_it_asks_for() {
        let plan = plan_of(
            "
listeners:
  tls:
    address: 127.0.0.1:443
    protocol: tls-passthrough
    proxy-protocol: { from: 10.0.0.0/8 }
    deny: [ { name: old-net, source: 192.0.2.0/24 } ]
    hosts: [ { names: [a.test], to: a } ]
services: { a: { endpoints: [10.0.0.1:443], proxy-protocol: v2 } }
",
        );
        let peer =
            |source: &str| Peer { address: source.parse().ok(), direct: "10.0.0.9".parse().ok(), identity: None };
        let lines = plan.explain_bytes(ListenerId(0), Some("a.test"), &peer("198.51.100.1")).lines;
        assert_eq!(
            lines,
            [
                "listener tls: forward to a",
                "identity: none",
                "source: 198.51.100.1",
                "peer: 10.0.0.9",
                "listener: tls at 127.0.0.1:443, TLS passed through",
                "proxy-protocol: from 10.0.0.0/8",
                "name: a.test",
                "deny of listener tls:",
                "  old-net: does not hold: source",
                "service: a, PROXY header v2",
                "  10.0.0.1:443, weight 1",
            ]
        );
        let lines = plan.explain_bytes(ListenerId(0), Some("a.test"), &peer("192.0.2.1")).lines;
        assert_eq!(lines[0], "listener tls: denied, closed, by listener deny old-net");
        let lines = plan.explain_bytes(ListenerId(0), None, &peer("198.51.100.1")).lines;
        assert_eq!(lines[0], "listener tls: no host has the name, closed");
        assert_eq!(lines.last().unwrap(), "name: none");
    }
}
