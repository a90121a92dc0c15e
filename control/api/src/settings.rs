//! The daemon's own file: where `ringwayd` listens, keeps its data, and what it is called. All of it is optional.

use std::net::SocketAddr;

use crate::{
    finding::{At, Finding, Findings, quoted},
    keys::{self, Keys, Words},
    model::Address,
    tree::{self, Node, Value},
    values,
};

/// What the daemon's file says; what it leaves out is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where proxies and operators are answered (gRPC over TLS).
    pub address: Option<SocketAddr>,
    /// Where `/ready` and `/metrics` are answered.
    pub admin: Option<SocketAddr>,
    /// The folder of the store and of the local operator's credential.
    pub data_dir: Option<String>,
    /// Host names and IP addresses in the daemon's own certificate.
    pub names: Vec<String>,
    /// `host:port` where proxies find this daemon; stands in tokens.
    pub advertise: Vec<String>,
    /// The trust domain of the identities that it issues, before a document has one.
    pub trust_domain: Option<String>,
    /// A root that somebody brings; absent: the daemon makes one.
    pub root: Option<Root>,
    /// The file of the key that seals what is secret in the store.
    pub store_key: Option<String>,
}

/// The files of a root that somebody brings, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The root.
    pub certificate: String,
    /// What signs.
    pub signer: Signer,
}

/// What is brought beside a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The file of the root's key.
    Key(String),
    /// Files of an intermediate and of its key: the root's key stays elsewhere.
    Intermediate {
        /// The intermediate.
        certificate: String,
        /// Its key.
        key: String,
    },
}

const ROOT: Words =
    Words { what: "`root`", known: &["certificate", "key", "intermediate", "intermediate-key"], later: &[] };

const SETTINGS: Words = Words {
    what: "the daemon's file",
    known: &["address", "admin", "data-dir", "names", "advertise", "trust-domain", "store", "store-key", "root"],
    later: &[],
};

/// More addresses than a token can carry.
const MOST_ADVERTISED: usize = 16;
const MOST_NAMES: usize = 100;

/// Reads and checks the daemon's file. `file` is only the name that findings carry, and the place that relative paths
/// start from; nothing is opened.
///
/// # Errors
/// Everything that is wrong, sorted by position.
pub fn load(text: &str, file: &str) -> Result<Settings, Vec<Finding>> {
    let is_empty = text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#'));
    if is_empty {
        return Ok(Settings::default());
    }
    let mut findings = Findings::default();
    let root = tree::parse(text, &mut findings);
    let settings = root.and_then(|root| settings(&root, file, &mut findings));
    match settings {
        Some(settings) if findings.is_empty() => Ok(settings),
        _ => Err(findings.finish(file)),
    }
}

fn settings(root: &Node, file: &str, findings: &mut Findings) -> Option<Settings> {
    let keys = Keys::open(root, &SETTINGS, findings)?;
    keys.read("store", findings, store);
    let settings = Settings {
        address: keys.read("address", findings, |n, f| socket(n, file, f)),
        admin: keys.read("admin", findings, |n, f| socket(n, file, f)),
        data_dir: keys.read("data-dir", findings, |n, f| values::file_path(n, file, f)),
        names: keys.read("names", findings, names).unwrap_or_default(),
        advertise: keys.read("advertise", findings, |n, f| advertise(n, file, f)).unwrap_or_default(),
        trust_domain: keys.read("trust-domain", findings, trust_domain),
        root: keys.read("root", findings, |n, f| root_of(n, file, f)),
        store_key: keys.read("store-key", findings, |n, f| values::file_path(n, file, f)),
    };
    if let (Some(at), true) = (keys.at("admin"), settings.admin.is_some() && settings.admin == settings.address) {
        findings.add(at, "`admin` has the address of `address`; it needs its own");
    }
    Some(settings)
}

/// `redb`, which is what it is without a word.
fn store(node: &Node, findings: &mut Findings) -> Option<()> {
    if let Value::Map(entries) = &node.value {
        let etcd = entries.iter().find(|entry| entry.key == "etcd");
        let at = etcd.map_or(node.at, |entry| entry.at);
        let message = if etcd.is_some() { "`etcd` is not supported yet; write" } else { "`store` is no map; write" };
        findings.add(at, format!("{message} `redb`, or leave `store` out"));
        return None;
    }
    keys::word(node, &[("redb", ())], &["etcd"], findings)
}

/// `root`: with its key, or with an intermediate and that one's key.
fn root_of(node: &Node, file: &str, findings: &mut Findings) -> Option<Root> {
    let keys = Keys::open(node, &ROOT, findings)?;
    keys.need(&["certificate"], "`root`", findings);
    let mut path = |key: &str| keys.read(key, findings, |n, f| values::file_path(n, file, f));
    let (certificate, key) = (path("certificate"), path("key"));
    let (intermediate, intermediate_key) = (path("intermediate"), path("intermediate-key"));
    let beside = "stands beside `key`; with the root's key here, the daemon makes intermediates itself";
    if keys.at("key").is_some() {
        keys.refuse(&["intermediate", "intermediate-key"], beside, findings);
    } else {
        keys.need(&["key", "intermediate"], "`root`", findings);
        if keys.at("intermediate").is_some() || keys.at("intermediate-key").is_some() {
            keys.need(&["intermediate"], "`root` without `key`", findings);
            keys.need(&["intermediate-key"], "`root` without `key`", findings);
        }
    }
    let signer = match (key, intermediate, intermediate_key) {
        (Some(key), None, None) => Signer::Key(key),
        (None, Some(certificate), Some(key)) => Signer::Intermediate { certificate, key },
        _ => return None,
    };
    Some(Root { certificate: certificate?, signer })
}

fn socket(node: &Node, file: &str, findings: &mut Findings) -> Option<SocketAddr> {
    match values::listen_address(node, file, findings)? {
        Address::Socket(socket) => Some(socket),
        Address::Unix(_) => {
            findings.add(node.at, "the daemon listens at `ip:port` or `[ipv6]:port`, not at a unix socket");
            None
        }
    }
}

fn names(node: &Node, findings: &mut Findings) -> Option<Vec<String>> {
    let items = keys::some_items(node, "`names`", MOST_NAMES, findings);
    let one = |item: &Node| {
        let text = values::text(item, findings)?;
        if text.parse::<std::net::IpAddr>().is_ok() || values::is_dns_name(text) {
            return Some(text.to_ascii_lowercase());
        }
        findings.add(item.at, format!("a name is a host name or an IP address, without a port, not {}", quoted(text)));
        None
    };
    Some(items.iter().filter_map(one).collect())
}

fn advertise(node: &Node, file: &str, findings: &mut Findings) -> Option<Vec<String>> {
    let mut list = Vec::new();
    for item in keys::some_items(node, "`advertise`", MOST_ADVERTISED, findings) {
        let text = match values::endpoint(item, file, findings) {
            Some(values::EndpointAddress::Address(Address::Socket(socket))) if socket.ip().is_unspecified() => {
                findings
                    .add(item.at, format!("proxies cannot reach {}; write an address of this machine", socket.ip()));
                continue;
            }
            Some(values::EndpointAddress::Address(Address::Socket(socket))) => socket.to_string(),
            Some(values::EndpointAddress::Address(Address::Unix(_))) => {
                findings.add(item.at, "proxies reach the daemon at `host:port`, not at a unix socket");
                continue;
            }
            Some(values::EndpointAddress::Name(name)) => format!("{}:{}", name.name, name.port),
            None => continue,
        };
        list.push(text);
    }
    Some(list)
}

/// A trust domain: lower-case letters, digits, `.`, `-` and `_` (SPIFFE-ID, section 2.1).
fn trust_domain(node: &Node, findings: &mut Findings) -> Option<String> {
    let text = values::text(node, findings)?;
    trust_domain_of(text, node.at, findings).map(str::to_owned)
}

fn trust_domain_of<'t>(text: &'t str, at: At, findings: &mut Findings) -> Option<&'t str> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
    if (1..=255).contains(&text.len()) && text.bytes().all(fits) {
        return Some(text);
    }
    let form = "a trust domain is 1 to 255 lower-case letters, digits, `.`, `-` or `_`, without `spiffe://`";
    findings.add(at, format!("{form}, not {}", quoted(text)));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str) -> Vec<String> {
        load(text, "f").expect_err(text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_need_stand_in_the_file() {
        assert_eq!(load("", "f"), Ok(Settings::default()));
        assert_eq!(load("# nothing\n\n", "f"), Ok(Settings::default()));
        assert_eq!(load("store: redb", "f"), Ok(Settings::default()));
    }

    #[test]
    fn every_word_is_read() {
        let text = "address: 0.0.0.0:9443\nadmin: '[::1]:9902'\ndata-dir: data\nnames: [Ctl, 10.0.0.1]\n\
            advertise: ['ctl:9443', '10.0.0.1:9443']\ntrust-domain: shop\nstore: redb\nstore-key: /run/key\n\
            root: { certificate: ca.pem, key: /run/ca.key }\n";
        let settings = load(text, "/etc/ringwayd.yaml").unwrap();
        let wanted = Settings {
            address: "0.0.0.0:9443".parse().ok(),
            admin: "[::1]:9902".parse().ok(),
            data_dir: Some("/etc/data".to_owned()),
            names: vec!["ctl".to_owned(), "10.0.0.1".to_owned()],
            advertise: vec!["ctl:9443".to_owned(), "10.0.0.1:9443".to_owned()],
            trust_domain: Some("shop".to_owned()),
            root: Some(Root { certificate: "/etc/ca.pem".to_owned(), signer: Signer::Key("/run/ca.key".to_owned()) }),
            store_key: Some("/run/key".to_owned()),
        };
        assert_eq!(settings, wanted);
    }

    #[test]
    fn a_roots_key_may_be_elsewhere() {
        let text = "root: { certificate: c, intermediate: i, intermediate-key: k }";
        let signer = Signer::Intermediate { certificate: "i".to_owned(), key: "k".to_owned() };
        assert_eq!(load(text, "f").unwrap().root, Some(Root { certificate: "c".to_owned(), signer }));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let cases = [
            ("[]", "f:1:1: the daemon's file is a map with the keys"),
            ("adress: 127.0.0.1:1", "f:1:1: unknown key `adress` in the daemon's file; did you mean `address`?"),
            ("address: unix:/x", "f:1:10: the daemon listens at `ip:port`"),
            ("address: 127.0.0.1:0", "f:1:10: port 0"),
            ("address: 1.1.1.1:1\nadmin: 1.1.1.1:1", "f:2:1: `admin` has the address of `address`"),
            ("names: [ 'a:1' ]", "f:1:10: a name is a host name or an IP address, without a port, not `a:1`"),
            ("advertise: [ '0.0.0.0:1' ]", "f:1:14: proxies cannot reach 0.0.0.0"),
            ("trust-domain: spiffe://x", "f:1:15: a trust domain is"),
            ("store: { etcd: {} }", "f:1:10: `etcd` is not supported yet; write `redb`"),
            ("store: etcd", "f:1:8: `etcd` is not supported yet; write `redb`"),
            ("store: mysql", "f:1:8: `mysql` is not known here; write `redb`"),
            ("root: offline", "f:1:7: `root` is a map with the keys"),
            ("root: { key: k }", "f:1:7: `root` needs `certificate`"),
            ("root: { certificate: c }", "f:1:7: `root` needs `key` or `intermediate`"),
            ("root: { certificate: c, intermediate: i }", "f:1:7: `root` without `key` needs `intermediate-key`"),
            ("root: { certificate: c, key: k, intermediate: i }", "f:1:33: `intermediate` stands beside `key`"),
        ];
        for (text, wanted) in cases {
            let found = complaints(text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].starts_with(wanted), "{text}: {found:?}");
        }
    }
}
