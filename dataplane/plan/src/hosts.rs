//! Which host of a listener a request is for. The most specific name wins: exact, then the longest `*.suffix`, then `*`;
//! nothing falls through to a less specific one. Ports are ignored; case and a trailing dot are normalised.

use crate::index::Index;
use crate::table::Table;

/// Something for each of several sets of names.
#[derive(Debug)]
pub(crate) struct Names<T> {
    exact: Table<u32>,
    /// By `.suffix`.
    suffixes: Table<u32>,
    longest_suffix: usize,
    any: Option<u32>,
    items: Vec<T>,
}

/// The hosts of one listener.
pub(crate) type Hosts = Names<Host>;

/// One host: routes that share names.
#[derive(Debug)]
pub(crate) struct Host {
    /// The name of the group, as the configuration gives it.
    pub(crate) name: Box<str>,
    /// The names that it stands for.
    pub(crate) names: Vec<Box<str>>,
    /// Its routes: numbers in the plan, from and up to.
    pub(crate) routes: std::ops::Range<u32>,
    /// Its routes by path.
    pub(crate) index: Index,
}

/// A name that a host may stand for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HostName {
    Exact(Box<[u8]>),
    /// With its leading dot.
    Suffix(Box<[u8]>),
    Any,
}

impl HostName {
    /// Reads a name as the configuration writes it; the error says what is wrong.
    pub(crate) fn read(name: &str) -> Result<HostName, &'static str> {
        if name == "*" {
            return Ok(HostName::Any);
        }
        let (suffix, host) = match name.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        if host.is_empty() {
            return Err("is empty");
        }
        if host.contains('*') {
            return Err("only a leading `*.` is supported");
        }
        let mut out = Vec::new();
        let host = match wire::host::normalise_host(host.as_bytes(), &mut out) {
            Ok(host) => host,
            Err(_) => return Err("is not a host name"),
        };
        Ok(match suffix {
            true => HostName::Suffix([b".", host].concat().into()),
            false => HostName::Exact(host.into()),
        })
    }
}

impl<T> Names<T> {
    /// Of things and the names that each stands for.
    pub(crate) fn new(items: Vec<(T, Vec<HostName>)>) -> Names<T> {
        let (mut exact, mut suffixes, mut any) = (Vec::new(), Vec::new(), None);
        for (number, (_, names)) in items.iter().enumerate() {
            for name in names {
                match name {
                    HostName::Exact(name) => exact.push((name.clone(), number as u32)),
                    HostName::Suffix(name) => suffixes.push((name.clone(), number as u32)),
                    HostName::Any => any = any.or(Some(number as u32)),
                }
            }
        }
        Names {
            exact: Table::new(exact),
            longest_suffix: suffixes.iter().map(|(name, _)| name.len()).max().unwrap_or(0),
            suffixes: Table::new(suffixes),
            any,
            items: items.into_iter().map(|(item, _)| item).collect(),
        }
    }

    /// What an authority is for. `scratch` is overwritten.
    #[inline]
    pub(crate) fn find(&self, authority: &[u8], scratch: &mut Vec<u8>) -> Option<&T> {
        let number = match self.exact.is_empty() && self.suffixes.is_empty() {
            true => self.any,
            false => self.named(authority, scratch),
        };
        self.items.get(number? as usize)
    }

    fn named(&self, authority: &[u8], scratch: &mut Vec<u8>) -> Option<u32> {
        if authority.is_empty() {
            return self.any;
        }
        // An authority that cannot be normalised is refused with 400 long before; here it belongs to nobody.
        let host = wire::host::normalise_host(authority, scratch).ok()?;
        let found = self.exact.find(host).or_else(|| self.longest_suffix_of(host));
        found.copied().or(self.any)
    }

    fn longest_suffix_of(&self, host: &[u8]) -> Option<&u32> {
        // A suffix has at least one byte before it, and none is longer than the longest of the table.
        let first = host.len().saturating_sub(self.longest_suffix).max(1);
        let dots = (first..host.len()).filter(|&at| host[at] == b'.');
        dots.into_iter().find_map(|at| self.suffixes.find(&host[at..]))
    }

    /// All things, in the order of the configuration.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(groups: &[&[&str]]) -> Hosts {
        let host = |names: &&[&str]| {
            let names: Vec<_> = names.iter().map(|name| HostName::read(name).unwrap()).collect();
            let index = Index::new(std::iter::empty());
            (Host { name: "".into(), names: Vec::new(), routes: 0..0, index }, names)
        };
        Hosts::new(groups.iter().map(host).collect())
    }

    fn number(hosts: &Hosts, authority: &str) -> Option<usize> {
        let found = hosts.find(authority.as_bytes(), &mut Vec::new())?;
        hosts.items.iter().position(|host| std::ptr::eq(host, found))
    }

    #[test]
    fn the_most_specific_name_wins() {
        let hosts = hosts(&[&["*"], &["*.com"], &["*.shop.com", "shop.com"], &["a.shop.com"]]);
        for (authority, host) in [
            ("a.shop.com", 3),
            ("b.shop.com", 2),
            ("b.a.shop.com", 2),
            ("shop.com", 2),
            ("x.com", 1),
            ("com", 0),
            ("", 0),
            ("example.org", 0),
            ("[::1]:80", 0),
        ] {
            assert_eq!(number(&hosts, authority), Some(host), "{authority}");
        }
    }

    #[test]
    fn port_case_and_last_dot_do_not_matter() {
        let hosts = hosts(&[&["*"], &["Shop.Example.com"], &["*.EXAMPLE.com"]]);
        for (authority, host) in [
            ("shop.example.com:8080", 1),
            ("SHOP.example.COM", 1),
            ("shop.example.com.", 1),
            ("shop.example.com.:80", 1),
            ("x.Example.com.:80", 2),
        ] {
            assert_eq!(number(&hosts, authority), Some(host), "{authority}");
        }
    }

    #[test]
    fn without_a_star_other_hosts_have_no_route() {
        let hosts = hosts(&[&["a.com"]]);
        assert_eq!(number(&hosts, "b.com"), None);
        assert_eq!(number(&hosts, ""), None);
    }

    #[test]
    fn names_that_are_not_understood_are_refused() {
        for name in ["", "*.", "a.*", "*-x.com", "**", "a b"] {
            assert!(HostName::read(name).is_err(), "{name}");
        }
    }
}
