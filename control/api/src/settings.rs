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
    /// The etcd that several daemons share; absent: a store of its own in `data_dir`.
    pub etcd: Option<Etcd>,
}

/// An etcd, and where in it the mesh is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// `http://host:port` or `https://host:port`, all of one kind; at least one.
    pub endpoints: Vec<String>,
    /// What all keys begin with, without a `/` at its end.
    pub prefix: String,
    /// The file of the roots by which etcd is known, PEM; there exactly where endpoints are `https`.
    pub ca: Option<String>,
    /// Files of the daemon's certificate for etcd, and of its key, PEM.
    pub certificate: Option<(String, String)>,
    /// The user, and the file of the password.
    pub user: Option<(String, String)>,
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

const ETCD: Words = Words {
    what: "`etcd`",
    known: &["endpoints", "prefix", "ca", "certificate", "key", "user", "password-file"],
    later: &[],
};

const SETTINGS: Words = Words {
    what: "the daemon's file",
    known: &["address", "admin", "data-dir", "names", "advertise", "trust-domain", "store", "store-key", "root"],
    later: &[],
};

/// More addresses than a token can carry.
const MOST_ADVERTISED: usize = 16;
const MOST_NAMES: usize = 100;
/// An etcd has seven members at most, as its makers advise.
const MOST_ENDPOINTS: usize = 16;

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
    let etcd = keys.read("store", findings, |n, f| store(n, file, f)).flatten();
    let settings = Settings {
        address: keys.read("address", findings, |n, f| socket(n, file, f)),
        admin: keys.read("admin", findings, |n, f| socket(n, file, f)),
        data_dir: keys.read("data-dir", findings, |n, f| values::file_path(n, file, f)),
        names: keys.read("names", findings, names).unwrap_or_default(),
        advertise: keys.read("advertise", findings, |n, f| advertise(n, file, f)).unwrap_or_default(),
        trust_domain: keys.read("trust-domain", findings, trust_domain),
        root: keys.read("root", findings, |n, f| root_of(n, file, f)),
        store_key: keys.read("store-key", findings, |n, f| values::file_path(n, file, f)),
        etcd,
    };
    if let (Some(at), true) = (keys.at("admin"), settings.admin.is_some() && settings.admin == settings.address) {
        findings.add(at, "`admin` has the address of `address`; it needs its own");
    }
    Some(settings)
}

/// `redb`, which is what it is without a word, or `{ etcd: { ... } }`.
fn store(node: &Node, file: &str, findings: &mut Findings) -> Option<Option<Etcd>> {
    let Value::Map(_) = &node.value else {
        if matches!(&node.value, Value::Scalar { text, .. } if text == "etcd") {
            findings
                .add(node.at, "`etcd` needs to know where it is: `{ etcd: { endpoints: [\"http://host:2379\"] } }`");
            return None;
        }
        return keys::word(node, &[("redb", ())], &[], findings).map(|()| None);
    };
    let keys = Keys::open(node, &Words { what: "`store`", known: &["etcd"], later: &[] }, findings)?;
    keys.need(&["etcd"], "`store`, as a map,", findings);
    keys.read("etcd", findings, |n, f| etcd_of(n, file, f)).map(Some)
}

fn etcd_of(node: &Node, file: &str, findings: &mut Findings) -> Option<Etcd> {
    let keys = Keys::open(node, &ETCD, findings)?;
    keys.need(&["endpoints"], "`etcd`", findings);
    let endpoints = keys.read("endpoints", findings, endpoints)?;
    let prefix = keys.read("prefix", findings, prefix);
    let mut path = |key: &str| keys.read(key, findings, |n, f| values::file_path(n, file, f));
    let (ca, certificate, key, password) = (path("ca"), path("certificate"), path("key"), path("password-file"));
    let user = keys.read("user", findings, |n, f| values::text(n, f).map(str::to_owned));
    if endpoints.iter().all(|one| one.starts_with("https://")) {
        keys.need(&["ca"], "`etcd` at `https://`", findings);
    } else {
        let why = "needs endpoints with `https://`; with `http://` nothing is encrypted";
        keys.refuse(&["ca", "certificate", "key"], why, findings);
    }
    for (one, other) in
        [("certificate", "key"), ("key", "certificate"), ("user", "password-file"), ("password-file", "user")]
    {
        if keys.at(one).is_some() {
            keys.need(&[other], &format!("`etcd` with `{one}`"), findings);
        }
    }
    let prefix = prefix.unwrap_or_else(|| "/ringway".to_owned());
    Some(Etcd { endpoints, prefix, ca, certificate: certificate.zip(key), user: user.zip(password) })
}

fn endpoints(node: &Node, findings: &mut Findings) -> Option<Vec<String>> {
    let items = keys::some_items(node, "`endpoints`", MOST_ENDPOINTS, findings);
    let mut list: Vec<String> = Vec::new();
    for item in items {
        let Some(text) = values::text(item, findings) else { continue };
        let scheme = ["http://", "https://"].into_iter().find(|scheme| text.starts_with(scheme));
        let place = scheme.and_then(|scheme| text[scheme.len()..].trim_end_matches('/').rsplit_once(':'));
        let is_place =
            place.is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0));
        let (Some(scheme), true) = (scheme, is_place) else {
            let form = "an endpoint of etcd is `http://host:port` or `https://host:port`";
            findings.add(item.at, format!("{form}, not {}", quoted(text)));
            continue;
        };
        if list.first().is_some_and(|first| !first.starts_with(scheme)) {
            findings.add(item.at, "some endpoints are `http://`, others `https://`; all are one or the other");
        }
        list.push(text.trim_end_matches('/').to_owned());
    }
    (!list.is_empty()).then_some(list)
}

fn is_host(host: &str) -> bool {
    let six = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    six.is_some_and(|six| six.parse::<std::net::Ipv6Addr>().is_ok())
        || host.parse::<std::net::Ipv4Addr>().is_ok()
        || values::is_dns_name(host)
}

/// What keys begin with: others may have theirs in the same etcd.
fn prefix(node: &Node, findings: &mut Findings) -> Option<String> {
    let text = values::text(node, findings)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
    if text.len() <= 128 && text.starts_with('/') && !text.ends_with('/') && text.chars().all(fits) {
        return Some(text.to_owned());
    }
    let form = "a prefix begins with `/`, ends without one, and has up to 128 letters, digits, `/`, `-`, `_` or `.`";
    findings.add(node.at, format!("{form}, not {}", quoted(text)));
    None
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
            etcd: None,
        };
        assert_eq!(settings, wanted);
    }

    #[test]
    fn several_daemons_share_an_etcd() {
        let short = "store: { etcd: { endpoints: [ 'http://127.0.0.1:2379/' ] } }";
        let wanted = Etcd {
            endpoints: vec!["http://127.0.0.1:2379".to_owned()],
            prefix: "/ringway".to_owned(),
            ca: None,
            certificate: None,
            user: None,
        };
        assert_eq!(load(short, "f").unwrap().etcd, Some(wanted));
        let long = "store: { etcd: { endpoints: [ 'https://[::1]:2379', 'https://etcd-2:2379' ], prefix: /mesh/a, ca: ca.pem, \
            certificate: me.pem, key: me.key, user: ringway, password-file: /run/password } }";
        let wanted = Etcd {
            endpoints: vec!["https://[::1]:2379".to_owned(), "https://etcd-2:2379".to_owned()],
            prefix: "/mesh/a".to_owned(),
            ca: Some("/etc/ca.pem".to_owned()),
            certificate: Some(("/etc/me.pem".to_owned(), "/etc/me.key".to_owned())),
            user: Some(("ringway".to_owned(), "/run/password".to_owned())),
        };
        assert_eq!(load(long, "/etc/ringwayd.yaml").unwrap().etcd, Some(wanted));
    }

    #[test]
    fn the_file_for_several_daemons_in_deploy_is_good() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/ringwayd-etcd.yaml");
        let settings = load(&std::fs::read_to_string(path).unwrap(), path).unwrap();
        assert_eq!(settings.etcd.unwrap().endpoints.len(), 3);
        assert!(settings.store_key.is_some());
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
            ("store: { etcd: {} }", "f:1:16: `etcd` needs `endpoints`"),
            ("store: etcd", "f:1:8: `etcd` needs to know where it is: `{ etcd: { endpoints: "),
            ("store: {}", "f:1:8: `store`, as a map, needs `etcd`"),
            ("store: { etcd: { endpoints: [ 'e:1' ] } }", "f:1:31: an endpoint of etcd is `http://host:port`"),
            ("store: { etcd: { endpoints: [ 'http://e:0' ] } }", "f:1:31: an endpoint of etcd is"),
            (
                "store: { etcd: { endpoints: [ 'http://e:1', 'https://e:1' ] } }",
                "f:1:45: some endpoints are `http://`, others `https://`",
            ),
            ("store: { etcd: { endpoints: [ 'https://e:1' ] } }", "f:1:16: `etcd` at `https://` needs `ca`"),
            ("store: { etcd: { endpoints: [ 'http://e:1' ], ca: c } }", "f:1:47: `ca` needs endpoints with `https://`"),
            (
                "store: { etcd: { endpoints: [ 'https://e:1' ], ca: c, key: k } }",
                "f:1:16: `etcd` with `key` needs `certificate`",
            ),
            (
                "store: { etcd: { endpoints: [ 'http://e:1' ], user: u } }",
                "f:1:16: `etcd` with `user` needs `password-file`",
            ),
            ("store: { etcd: { endpoints: [ 'http://e:1' ], prefix: x } }", "f:1:55: a prefix begins with `/`"),
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
