//! What rules mean, as plainly as it can be said: no compiling, no indexes, nothing of the proxy's code.

use std::net::IpAddr;

/// A rule as the language has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rule {
    pub(crate) named: bool,
    pub(crate) identity: Vec<&'static str>,
    pub(crate) source: Vec<&'static str>,
    pub(crate) peer: Vec<&'static str>,
    pub(crate) methods: Vec<&'static str>,
    pub(crate) path: Vec<PathPattern>,
    pub(crate) hosts: Vec<&'static str>,
    pub(crate) headers: Vec<(&'static str, HeaderTest)>,
    pub(crate) dry_run: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum PathPattern {
    /// Exact, or with `/*` behind it.
    Text(&'static str),
    /// A pattern, and what it means.
    Regex(&'static str, fn(&str) -> bool),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum HeaderTest {
    Exact(&'static str),
    Present(bool),
    Regex(&'static str, fn(&str) -> bool),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Lists {
    pub(crate) deny: Vec<Rule>,
    pub(crate) allow: Vec<Rule>,
}

/// A request as it is meant, whatever it looks like on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Meant {
    pub(crate) method: &'static str,
    pub(crate) host: &'static str,
    /// In its one normal form.
    pub(crate) path: String,
    /// Names in lower case, values trimmed, in order.
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    pub(crate) identity: Option<&'static str>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) peer: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Deny,
    Allow,
}

/// What comes of it: refused or not, by which rules, and what else would have refused it.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// The list, and the rules of it that may have decided; no name is what an allow list does with those it does not name.
    pub(crate) refused: Option<(usize, Vec<String>)>,
    pub(crate) would_refuse: Option<(usize, Vec<String>)>,
}

impl Rule {
    /// Its name, as the number `at` of its list.
    pub(crate) fn name(&self, at: usize) -> String {
        if self.named { format!("name-{at}") } else { (at + 1).to_string() }
    }

    fn holds(&self, kind: Kind, of: &Meant) -> bool {
        let any = |list: &[&str], test: &dyn Fn(&str) -> bool| list.is_empty() || list.iter().any(|one| test(one));
        any(&self.identity, &|pattern| of.identity.is_some_and(|id| is_identity(pattern, id)))
            && any(&self.source, &|network| of.source.is_some_and(|address| is_in(network, address)))
            && any(&self.peer, &|network| of.peer.is_some_and(|address| is_in(network, address)))
            && any(&self.methods, &|method| method == of.method)
            && any(&self.hosts, &|host| is_host(host, of.host))
            && (self.path.is_empty() || self.path.iter().any(|path| path.holds(&of.path)))
            && self.headers.iter().all(|(name, test)| holds_of_header(*test, kind, name, &of.headers))
    }
}

/// Asks the lists one after the other.
pub(crate) fn judge(lists: &[(Kind, &[Rule])], of: &Meant) -> Verdict {
    let mut verdict = Verdict::default();
    for (at, (kind, rules)) in lists.iter().enumerate() {
        let named = |wanted: &dyn Fn(&Rule) -> bool| {
            let all = rules.iter().enumerate().filter(|(_, rule)| wanted(rule) && rule.holds(*kind, of));
            all.map(|(number, rule)| rule.name(number)).collect::<Vec<String>>()
        };
        let (enforced, tried) = (named(&|rule| !rule.dry_run), named(&|rule| rule.dry_run));
        let (enforces, tries) = (rules.iter().any(|rule| !rule.dry_run), rules.iter().any(|rule| rule.dry_run));
        let nobody = || vec![String::new()];
        let refused = match kind {
            Kind::Deny => Some(enforced.clone()).filter(|rules| !rules.is_empty()),
            Kind::Allow => (enforces && enforced.is_empty()).then(nobody),
        };
        if let Some(rules) = refused {
            verdict.refused = Some((at, rules));
            return verdict;
        }
        let would = match kind {
            Kind::Deny => Some(tried).filter(|rules| !rules.is_empty()),
            Kind::Allow => (tries && enforced.is_empty() && tried.is_empty()).then(nobody),
        };
        if verdict.would_refuse.is_none() {
            verdict.would_refuse = would.map(|rules| (at, rules));
        }
    }
    verdict
}

impl PathPattern {
    pub(crate) fn holds(self, path: &str) -> bool {
        match self {
            PathPattern::Regex(_, means) => means(path),
            PathPattern::Text(text) => match text.strip_suffix("/*") {
                Some(above) => {
                    let parts: Vec<&str> = above.split('/').collect();
                    let all: Vec<&str> = path.split('/').collect();
                    all.len() >= parts.len() && all[..parts.len()] == parts[..]
                }
                None => path == text,
            },
        }
    }
}

/// `*` is one segment, a final `**` one or more.
fn is_identity(pattern: &str, id: &str) -> bool {
    let (pattern, id): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), id.split('/').collect());
    let (fixed, open) = match pattern.split_last() {
        Some((&"**", fixed)) => (fixed, true),
        _ => (&pattern[..], false),
    };
    let lengths = if open { id.len() > fixed.len() } else { id.len() == fixed.len() };
    lengths && fixed.iter().zip(&id).all(|(pattern, segment)| *pattern == "*" || pattern == segment)
}

/// The leading bits are the same, and it is the same kind of address. One of IPv4 that is written in IPv6 is one of IPv4.
pub(crate) fn is_in(network: &str, address: IpAddr) -> bool {
    let (text, bits) = network.split_once('/').unwrap_or((network, "128"));
    let (within, mut bits): (IpAddr, usize) = (text.parse().expect("an address"), bits.parse().expect("bits"));
    if within.is_ipv6() && within.to_canonical().is_ipv4() {
        bits -= 96;
    }
    let (within, address) = (digits(within.to_canonical()), digits(address.to_canonical()));
    within.len() == address.len() && within.iter().zip(&address).take(bits).all(|(a, b)| a == b)
}

fn digits(address: IpAddr) -> Vec<bool> {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    octets.iter().flat_map(|octet| (0..8).map(move |bit| octet & (128 >> bit) > 0)).collect()
}

fn is_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => host == pattern,
    }
}

/// Of several lines one may be read, or all as one: who lets pass must be sure, who refuses need not.
fn holds_of_header(test: HeaderTest, kind: Kind, name: &str, headers: &[(&str, &str)]) -> bool {
    let lines: Vec<&str> = headers.iter().filter(|(other, _)| *other == name).map(|(_, value)| *value).collect();
    let joined = lines.join(",");
    let readings: Vec<Option<&str>> = match lines.len() {
        0 => vec![None],
        1 => vec![Some(lines[0])],
        _ => lines.iter().copied().chain([&*joined]).map(Some).collect(),
    };
    let holds = |reading: &Option<&str>| match (test, reading) {
        (HeaderTest::Present(wanted), reading) => reading.is_some() == wanted,
        (_, None) => false,
        (HeaderTest::Exact(text), Some(value)) => *value == text,
        (HeaderTest::Regex(_, means), Some(value)) => means(value),
    };
    if kind == Kind::Allow { readings.iter().all(holds) } else { readings.iter().any(holds) }
}
