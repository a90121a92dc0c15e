//! The words of a mesh document that an Envoy does not honour as a proxy of ours does, each with its position. What is said
//! of an Envoy was seen of one (tests/tests/mesh/envoy).

use std::collections::BTreeSet;

use crate::{
    finding::{At, Finding, Findings},
    mesh::{self, Group, Mesh},
    model::{Action, Balance, Clients, Endpoints, Http, Listener, Protocol, Quota, Rule, Service},
    tree::{self, Entry, Node, Value},
};

use super::MOST_BODY;

/// A word, and what an Envoy does with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Where it stands, and what an Envoy does in the place of what it says.
    pub finding: Finding,
    /// An Envoy gets the listener or service in which it stands, all the same; if not, there is none.
    pub sent: bool,
}

/// Lists the words of a document that an Envoy would not honour, or would honour otherwise, sorted by position.
///
/// # Errors
/// What is wrong with the document, as [`mesh::load`] says it.
pub fn words(text: &str, file: &str) -> Result<Vec<Word>, Vec<Finding>> {
    let mesh = mesh::load(text, file)?;
    let mut findings = Findings::default();
    let Some(root) = tree::parse(text, &mut findings) else { return Err(findings.finish(file)) };
    let mut list = List::default();
    list.mesh(&mesh, &root);
    let word = |(at, message, sent): (At, String, bool)| Word {
        finding: Finding { file: file.to_owned(), line: at.line, column: at.column, message },
        sent,
    };
    Ok(list.0.into_iter().map(word).collect())
}

/// Each once, though an alias repeats it.
#[derive(Default)]
struct List(BTreeSet<(At, String, bool)>);

impl List {
    fn differs(&mut self, at: At, message: impl Into<String>) {
        self.0.insert((at, message.into(), true));
    }

    fn is_left_out(&mut self, at: At, message: impl Into<String>) {
        self.0.insert((at, message.into(), false));
    }

    fn mesh(&mut self, mesh: &Mesh, root: &Node) {
        self.services(&mesh.services, root);
        for group in &mesh.groups {
            if let Some(node) = find(root, &["groups", &group.name]).map(|entry| &entry.node) {
                self.services(&group.services, node);
                self.group(group, node);
            }
        }
    }

    fn group(&mut self, group: &Group, node: &Node) {
        let listeners = || group.listeners.iter().filter(|one| matches!(one.protocol, Protocol::Http(_)));
        if let (Some(bytes), Some(entry)) = (group.limits.body_bytes, find(node, &["limits", "body"])) {
            if bytes == 0 || bytes > MOST_BODY {
                let names: Vec<String> = listeners().map(|one| format!("`{}`", one.name)).collect();
                let names = names.join(", ");
                let why = format!("an Envoy can only be told 1 byte to 4 GiB less one; {names} will not be there");
                self.is_left_out(entry.at, format!("`body`: {why}"));
            } else {
                let why = "an Envoy holds each body back until it is whole, in memory, to know its length";
                self.differs(entry.at, format!("`body`: {why}"));
            }
        }
        for listener in &group.listeners {
            if let Some(entry) = find(node, &["listeners", &listener.name]) {
                self.listener(listener, entry);
            }
        }
    }

    fn listener(&mut self, of: &Listener, entry: &Entry) {
        let at = |path: &[&str]| find(&entry.node, path).map_or(entry.at, |entry| entry.at);
        if of.tls.as_ref().is_some_and(|tls| tls.clients == Clients::Optional) {
            let why = "an Envoy wants a certificate of every client: its check of trust domains has no `optional`";
            self.differs(at(&["tls", "clients"]), format!("`clients: optional`: {why}"));
        }
        for (key, rules) in [("deny", &of.policy.deny), ("allow", &of.policy.allow)] {
            self.rules(rules, key, &entry.node);
            let enforced = rules.iter().any(|rule| !rule.dry_run);
            if matches!(of.protocol, Protocol::Tcp(_)) && enforced {
                let why = "an Envoy asks its rules when the client has sent something, and connects to the service no \
                           earlier: a service that speaks first is not heard before";
                self.differs(at(&[key]), format!("`{key}` of tcp: {why}"));
            }
        }
        let Protocol::Http(http) = &of.protocol else { return };
        self.forwarded(http, entry);
        self.quotas(&http.quotas, &entry.node);
        if http.cors.is_some() {
            self.cors(at(&["cors"]));
        }
        let hosts = find(&entry.node, &["hosts"]).map_or(&[][..], |hosts| items(&hosts.node));
        let routes = |node: &'_ Node| find(node, &["routes"]).map(|routes| routes.node.clone());
        let nodes: Vec<Node> = match hosts {
            [] => routes(&entry.node).into_iter().collect(),
            hosts => hosts.iter().filter_map(routes).collect(),
        };
        for (host, node) in http.hosts.iter().zip(&nodes) {
            for (route, node) in host.routes.iter().zip(items(node)) {
                self.rules(&route.policy.deny, "deny", node);
                self.rules(&route.policy.allow, "allow", node);
                self.quotas(&route.quotas, node);
                let own = find(node, &["cors"]);
                if let Some(own) = own {
                    self.cors(own.at);
                }
                let word = match &route.action {
                    Action::Redirect(_) => "redirect",
                    Action::Respond(_) => "respond",
                    Action::Forward(_) => continue,
                };
                if own.is_some() || http.cors.is_some() {
                    let at = find(node, &[word]).map_or(node.at, |entry| entry.at);
                    let why = "an Envoy's `cors` holds for routes that forward alone: neither this answer nor that to a \
                               preflight says who may read it";
                    self.differs(at, format!("`{word}` under `cors`: {why}"));
                }
            }
        }
    }

    fn forwarded(&mut self, http: &Http, entry: &Entry) {
        use crate::model::ForwardedMode::{Append, Keep, Replace};
        let at = find(&entry.node, &["forwarded", "mode"]).map_or(entry.at, |entry| entry.at);
        match http.forwarded.mode {
            Replace if http.forwarded.trusted_hops > 0 => {
                let why = "an Envoy has no word for it beside `trusted-hops`";
                self.is_left_out(at, format!("`mode: replace`: {why}; listener `{}` will not be there", entry.key));
            }
            Keep => self.differs(at, "`mode: keep`: an Envoy writes `X-Forwarded-Proto` all the same"),
            Replace | Append => {}
        }
    }

    fn rules(&mut self, rules: &[Rule], key: &str, node: &Node) {
        let nodes = find(node, &[key]).map_or(&[][..], |entry| items(&entry.node));
        for (rule, node) in rules.iter().zip(nodes).filter(|(rule, _)| rule.dry_run) {
            let at = find(node, &["dry-run"]).map_or(node.at, |entry| entry.at);
            let why = "an Envoy counts what it would refuse in its own statistics (`shadow_denied`), and nowhere here";
            self.differs(at, format!("`dry-run` of rule `{}`: {why}", rule.name));
        }
    }

    fn quotas(&mut self, quotas: &[Quota], node: &Node) {
        let Some(entry) = find(node, &["quota"]) else { return };
        if !quotas.is_empty() {
            self.differs(entry.at, "`quota`: an Envoy's 429 has `Retry-After`, but no `RateLimit` fields");
        }
        let nodes = match &entry.node.value {
            Value::List(nodes) => nodes,
            _ => std::slice::from_ref(&entry.node),
        };
        for (quota, node) in quotas.iter().zip(nodes).filter(|(quota, _)| quota.per.is_some()) {
            let at = find(node, &["per"]).map_or(node.at, |entry| entry.at);
            let why = "an Envoy forgets whoever was not seen for longest, who then begins anew; nobody shares a count";
            self.differs(at, format!("`per`: beyond {} clients {why}", quota.clients));
        }
    }

    fn cors(&mut self, at: At) {
        let why =
            "an Envoy writes no `Vary: Origin`, so caches between may mix up answers, and answers preflights with 200";
        self.differs(at, format!("`cors`: {why}"));
    }

    fn services(&mut self, services: &[Service], node: &Node) {
        for service in services {
            let Some(entry) = find(node, &["services", &service.name]) else { continue };
            let at = |path: &[&str]| find(&entry.node, path).map_or(entry.at, |entry| entry.at);
            match service.balance {
                Balance::PeakEwma => {
                    let word = match find(&entry.node, &["balance"]) {
                        Some(_) => "`balance: peak-ewma`",
                        None => "no `balance`, which is peak-ewma",
                    };
                    self.differs(at(&["balance"]), format!("{word}: an Envoy takes least-request"));
                }
                Balance::Random if has_weights(&service.endpoints) => {
                    self.differs(at(&["balance"]), "`balance: random`: an Envoy does not look at weights then");
                }
                Balance::Random | Balance::RoundRobin | Balance::LeastRequest => {}
            }
            if service.limits.pending == 0 {
                let why = "an Envoy counts who opens a connection too, and is told 1";
                self.differs(at(&["limits", "pending"]), format!("`pending: 0`: {why}"));
            }
        }
    }
}

fn has_weights(of: &Endpoints) -> bool {
    let weights: BTreeSet<u32> = match of {
        Endpoints::Addresses(list) => list.iter().map(|one| one.weight).collect(),
        Endpoints::Names(list) => list.iter().map(|one| one.weight).collect(),
        Endpoints::Group { .. } | Endpoints::Set => BTreeSet::new(),
    };
    weights.len() > 1
}

/// The entry at a path of keys.
fn find<'t>(node: &'t Node, path: &[&str]) -> Option<&'t Entry> {
    let Value::Map(entries) = &node.value else { return None };
    let (first, rest) = path.split_first()?;
    let entry = entries.iter().find(|entry| entry.key == *first)?;
    if rest.is_empty() { Some(entry) } else { find(&entry.node, rest) }
}

fn items(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(nodes) => nodes,
        _ => &[],
    }
}
