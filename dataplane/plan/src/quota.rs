//! How many requests a client may make: who counts as one client, and what a request takes.

use crate::decide::Request;
use crate::policy::Asked;
use crate::siphash::SipHash;
use crate::{Action, Decision, Kind, Plan, RuleId};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The `list` of a quota's `RuleKey`.
pub const QUOTA: &str = "quota";

const SECOND_NS: u64 = 1_000_000_000;

/// One quota of a listener or a route.
#[derive(Debug)]
pub(crate) struct Quota {
    /// Under what its refusals are counted, and it is carried over from plan to plan.
    pub(crate) rule: RuleId,
    pub(crate) settings: Settings,
    /// Shared with earlier and later plans that have the same quota.
    pub(crate) buckets: Arc<balance::Quota>,
}

/// Which quota: an index into the plan's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QuotaId(pub(crate) u32);

/// What a quota says; with the same settings it keeps its state in the next plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) requests: u32,
    pub(crate) per_ns: u64,
    pub(crate) burst: u32,
    /// How many are told apart.
    pub(crate) clients: u32,
    pub(crate) per: Per,
}

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Per {
    /// Everybody's.
    All,
    /// Those of one SPIFFE ID; of all without one.
    Identity,
    /// Those of one IPv4 address, or of one /64 of IPv6 addresses, of which a single client has its choice.
    Source,
    /// Those with one value of this field; all without it.
    Header(Box<str>),
}

/// A quota is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Which quota; its key has the list `quota`.
    pub rule: RuleId,
    /// When the next request may be made, seconds from now, rounded up, at least 1.
    pub retry_after_s: u64,
    /// How many requests may be made at once: the burst.
    pub limit: u32,
    /// How many may be made now.
    pub remaining: u32,
    /// When all of them may be made again, seconds from now, rounded up.
    pub reset_s: u64,
    /// How long a bucket that is empty takes to fill, seconds, rounded up.
    pub window_s: u64,
}

impl Plan {
    /// Takes what a request costs of each quota that concerns it. To be called once for each decision, before anything else
    /// is done for the request. What policy refuses and preflights cost nothing; what no route takes costs of the listener's.
    ///
    /// # Errors
    /// The first quota that is used up. What was taken of those before it stays taken.
    #[inline]
    pub fn take_quotas(&self, decision: &Decision, request: &Request<'_>, now_ns: u64) -> Result<(), Limited> {
        let quotas = self.quotas_of(decision);
        if quotas.is_empty() || matches!(decision.action, Action::Denied | Action::Preflight) {
            return Ok(());
        }
        self.take_each(quotas, decision, request, now_ns)
    }

    /// The quotas of a decision's listener and route.
    #[inline]
    pub(crate) fn quotas_of(&self, decision: &Decision) -> &[QuotaId] {
        match (decision.route, &self.listener(decision.listener).kind) {
            (Some(route), _) => &self.route(route).quotas,
            (None, Kind::Http(http)) => &http.quotas,
            (None, _) => &[],
        }
    }

    fn take_each(
        &self,
        quotas: &[QuotaId],
        decision: &Decision,
        request: &Request<'_>,
        now_ns: u64,
    ) -> Result<(), Limited> {
        let trusted_hops = match &self.listener(decision.listener).kind {
            Kind::Http(http) => http.forwarded.trusted_hops,
            _ => 0,
        };
        let mut asked = Asked::new(request, trusted_hops);
        for id in quotas {
            let quota = &self.quotas[id.0 as usize];
            let taken = quota.buckets.take(quota.settings.per.client(&mut asked, self.seed), now_ns);
            if !taken.allowed {
                let seconds = |ns: u64| ns.div_ceil(SECOND_NS);
                return Err(Limited {
                    rule: quota.rule,
                    retry_after_s: seconds(taken.retry_after_ns).max(1),
                    limit: taken.limit,
                    remaining: taken.remaining,
                    reset_s: seconds(taken.reset_ns),
                    window_s: quota.settings.window_s(),
                });
            }
        }
        Ok(())
    }
}

impl Settings {
    /// How long an empty bucket takes to fill, seconds, rounded up.
    fn window_s(&self) -> u64 {
        let ns = u128::from(self.burst) * u128::from(self.per_ns) / u128::from(self.requests.max(1));
        u64::try_from(ns.div_ceil(u128::from(SECOND_NS))).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.per_ns / SECOND_NS {
            1 => write!(f, "{}/s", self.requests)?,
            60 => write!(f, "{}/m", self.requests)?,
            3600 => write!(f, "{}/h", self.requests)?,
            seconds => write!(f, "{} in {seconds} s", self.requests)?,
        }
        write!(f, ", burst {}", self.burst)?;
        match &self.per {
            Per::All => Ok(()),
            Per::Identity => write!(f, ", per identity"),
            Per::Source => write!(f, ", per source"),
            Per::Header(name) => write!(f, ", per header {name}"),
        }
    }
}

impl Per {
    /// Who a request counts for. Absent is not empty: the first byte tells them apart.
    fn client(&self, asked: &mut Asked<'_>, seed: [u64; 2]) -> u64 {
        let mut hash = SipHash::new(seed);
        match self {
            Per::All => return 0,
            Per::Identity => {
                if let Some(identity) = asked.request.peer.identity {
                    hash.write(b"i");
                    hash.write(identity.as_bytes());
                }
            }
            Per::Source => match asked.source() {
                Some(IpAddr::V4(address)) => {
                    hash.write(b"4");
                    hash.write(&address.octets());
                }
                Some(IpAddr::V6(address)) => {
                    hash.write(b"6");
                    hash.write(&address.octets()[..8]);
                }
                None => {}
            },
            Per::Header(name) => {
                let request = asked.request;
                let named = request
                    .fields
                    .iter()
                    .filter(|field| field.name.of(request.head).eq_ignore_ascii_case(name.as_bytes()));
                for field in named {
                    // No value holds a line feed.
                    hash.write(b"\n");
                    hash.write(field.value.of(request.head));
                }
            }
        }
        hash.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::plan_of;
    use crate::{Cache, ListenerId, Peer, World, compile};
    use wire::h1::{Head, Limits, Parsed};

    const HOUR_NS: u64 = 3600 * SECOND_NS;

    fn text(listener: &str, route: &str) -> String {
        format!(
            "listeners:\n  web:\n    address: 127.0.0.1:80\n    forwarded: {{ trusted-hops: 1 }}\n    tls: {{ certificates: [ {{ certificate: a, key: b }} ], clients: optional, trust: c }}\n    {listener}\n    routes:\n      - {{ name: r, match: {{ path: /r }}, {route} respond: {{ status: 200 }} }}\n"
        )
    }

    /// As [`text`], without TLS, whose files are not there.
    fn plan(listener: &str, route: &str) -> Plan {
        let text = text(listener, route);
        let plain: Vec<&str> = text.lines().filter(|line| !line.contains("tls:")).collect();
        plan_of(&plain.join("\n"))
    }

    /// Whether a request is let through: what its head says, and who sends it.
    fn take(plan: &Plan, head: &str, identity: Option<&str>, now_ns: u64) -> Result<(), Limited> {
        let bytes = format!("{head}\r\n\r\n").into_bytes();
        let mut parsed = Head::default();
        let limits = Limits { head_bytes: 4096, fields: 20, target_bytes: 100 };
        assert!(matches!(parsed.parse_request(&bytes, &limits), Ok(Parsed::Complete { .. })), "{head}");
        let address = "192.0.2.1".parse().ok();
        let request = Request {
            method: parsed.method,
            method_bytes: parsed.method_span.of(&bytes),
            authority: parsed.authority.of(&bytes),
            path: parsed.path.of(&bytes),
            query: b"",
            fields: &parsed.fields,
            head: &bytes,
            peer: Peer { identity, address, direct: address },
        };
        let decision = plan.decide(ListenerId(0), &request, 0, &mut Cache::default());
        plan.take_quotas(&decision, &request, now_ns)
    }

    fn get(plan: &Plan, fields: &str) -> bool {
        take(plan, &format!("GET /r HTTP/1.1\r\nHost: a{fields}"), None, 1).is_ok()
    }

    #[test]
    fn who_is_one_client_and_who_is_another() {
        let by_header = plan("", "quota: { requests: 1/h, per: { header: X-Key } },");
        let same = ["\r\nX-Key: a", "\r\nx-key: a"];
        assert_eq!(same.map(|fields| get(&by_header, fields)), [true, false]);
        let others = ["", "\r\nX-Key: A", "\r\nX-Key:", "\r\nX-Key: a\r\nX-Key: b", "\r\nX-Key: ab"];
        assert_eq!(others.map(|fields| get(&by_header, fields)), [true; 5], "absent, empty and two are clients too");
        assert_eq!(others.map(|fields| get(&by_header, fields)), [false; 5]);

        let by_source = plan("quota: { requests: 1/h, per: source }", "");
        let from = |address: &str| get(&by_source, &format!("\r\nX-Forwarded-For: 10.0.0.1, {address}"));
        for (address, new) in [
            ("192.0.2.7", true),
            ("::ffff:192.0.2.7", false),
            ("2001:db8::1", true),
            ("2001:db8::ffff:1", false),
            ("2001:db8:0:1::1", true),
            ("192.0.2.8", true),
        ] {
            assert_eq!(from(address), new, "{address}");
        }
    }

    #[test]
    fn by_identity() {
        let resources =
            api::load(&text("quota: { requests: 1/h, per: identity }", ""), "").map(|it| api::translate(&it));
        let mut resources = resources.unwrap_or_else(|found| panic!("{found:#?}"));
        // What the quota sees is the peer; that there is no TLS here does not matter.
        resources.listeners[0].filter_chains[0].transport_socket = None;
        let plan = compile(&resources, None, 1, &World::default()).unwrap_or_else(|found| panic!("{found:#?}"));
        let from = |identity| take(&plan, "GET /r HTTP/1.1\r\nHost: a", identity, 1).is_ok();
        let asked = [Some("spiffe://shop/a"), Some("spiffe://shop/b"), None];
        assert_eq!(asked.map(from), [true; 3]);
        assert_eq!(asked.map(from), [false; 3]);
    }

    #[test]
    fn what_is_told_of_a_quota_that_is_used_up() {
        let plan = plan("", "quota: { name: few, requests: 60/h, burst: 2 },");
        let ask = |now_ns| take(&plan, "GET /r HTTP/1.1\r\nHost: a", None, now_ns);
        assert_eq!([ask(0), ask(0)], [Ok(()); 2]);
        let limited = ask(SECOND_NS / 2).unwrap_err();
        assert_eq!((limited.retry_after_s, limited.reset_s, limited.window_s), (60, 120, 120));
        assert_eq!((limited.limit, limited.remaining), (2, 0));
        assert_eq!(plan.rules[limited.rule.0 as usize].to_string(), "route quota few");
        assert_eq!(ask(60 * SECOND_NS), Ok(()));
    }

    #[test]
    fn the_listeners_hold_first_and_without_a_route_too() {
        let plan = plan(
            "quota: { name: all, requests: 3/h }\n    deny: [ { headers: { x-bad: '1' } } ]",
            "quota: { requests: 1/h },",
        );
        let ask = |head: &str| {
            take(&plan, head, None, HOUR_NS).err().map(|limited| plan.rules[limited.rule.0 as usize].clone())
        };
        let (routed, unrouted) = ("GET /r HTTP/1.1\r\nHost: a", "GET /x HTTP/1.1\r\nHost: a");
        for _ in 0..9 {
            assert_eq!(ask(&format!("{routed}\r\nX-Bad: 1")), None, "what policy refuses costs nothing");
        }
        assert_eq!(ask(routed), None);
        assert_eq!(ask(routed).map(|key| (key.route, key.name)), Some(("r".into(), "1".into())));
        assert_eq!(ask(unrouted), None);
        assert_eq!(ask(unrouted).map(|key| (key.route, key.name)), Some(("".into(), "all".into())));
        assert_eq!(ask(routed).map(|key| (key.route, key.name)), Some(("".into(), "all".into())));
    }

    #[test]
    fn state_lives_on_while_the_numbers_are_the_same() {
        let next = |quota: &str, before: Option<&Plan>| {
            let text = format!(
                "listeners: {{ web: {{ address: 127.0.0.1:80, quota: {quota}, routes: [ {{ respond: {{ status: 200 }} }} ] }} }}"
            );
            let resources = api::load(&text, "").map(|document| api::translate(&document)).unwrap();
            compile(&resources, before, 1, &World::default()).unwrap()
        };
        let kept = |a: &Plan, b: &Plan| Arc::ptr_eq(&a.quotas[0].buckets, &b.quotas[0].buckets);
        let first = next("{ name: q, requests: 3/h, per: source }", None);
        assert!(kept(&first, &next("{ name: q, requests: 3/h, per: source }", Some(&first))));
        for other in [
            "{ name: p, requests: 3/h, per: source }",
            "{ name: q, requests: 4/h, burst: 3, per: source }",
            "{ name: q, requests: 3/m, per: source }",
            "{ name: q, requests: 3/h, burst: 4, per: source }",
            "{ name: q, requests: 3/h, per: { header: a } }",
            "{ name: q, requests: 3/h, per: source, clients: 9 }",
        ] {
            assert!(!kept(&first, &next(other, Some(&first))), "{other}");
        }
    }
}
