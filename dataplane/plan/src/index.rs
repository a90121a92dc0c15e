//! Which routes of a host may match a path: looked up, so that a thousand routes cost about what one does.
//!
//! Routes stand in a table under the path, or the whole-segment prefix, that they need; one pass over the request's path
//! looks up the path itself and each of its prefixes. What needs no particular path (`/*`, regular expressions) stands in
//! a list of its own. Every list is in order, so the first route that matches is the lowest of the lists' first matches:
//! each list is read until its first match or until the best that another list gave.

use crate::matcher::Path;
use crate::table::{HASH_START, Table, hash_step};
use std::collections::BTreeMap;

/// The routes of one host by path.
#[derive(Debug)]
pub(crate) struct Index {
    /// By whole path, or by a prefix of whole segments without its last slash; never empty keys.
    nodes: Table<Node>,
    /// Routes that any path may take.
    everywhere: Box<[u32]>,
    /// The longest key that stands for an exact path; longer paths have no exact route.
    longest_exact: usize,
    /// The longest key that stands for a prefix.
    longest_prefix: usize,
}

/// The routes under one key, in order.
#[derive(Debug, Default)]
struct Node {
    exact: Vec<u32>,
    below: Vec<u32>,
}

impl Index {
    /// Of routes in order.
    pub(crate) fn new<'a>(routes: impl Iterator<Item = (u32, &'a Path)>) -> Index {
        let mut nodes: BTreeMap<&[u8], Node> = BTreeMap::new();
        let mut everywhere = Vec::new();
        for (route, path) in routes {
            match path.key() {
                Key::Exact(key) if !key.is_empty() => nodes.entry(key).or_default().exact.push(route),
                Key::Below(key) if !key.is_empty() => nodes.entry(key).or_default().below.push(route),
                _ => everywhere.push(route),
            }
        }
        let longest = |wanted: fn(&Node) -> bool| {
            nodes.iter().filter(|(_, node)| wanted(node)).map(|(key, _)| key.len()).max().unwrap_or(0)
        };
        Index {
            longest_exact: longest(|node| !node.exact.is_empty()),
            longest_prefix: longest(|node| !node.below.is_empty()),
            everywhere: everywhere.into(),
            nodes: Table::new(nodes.into_iter().map(|(key, node)| (key.into(), node)).collect()),
        }
    }

    /// The lowest route that `matches`, of those that the path admits; `matches` decides about the path too.
    #[inline]
    pub(crate) fn lowest(&self, path: &[u8], mut matches: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut best = u32::MAX;
        self.walk(path, |routes| {
            for &route in routes {
                if route >= best {
                    break;
                }
                if matches(route) {
                    best = route;
                    break;
                }
            }
        });
        (best != u32::MAX).then_some(best)
    }

    /// Hands over each list of routes that the path admits.
    #[inline]
    fn walk(&self, path: &[u8], mut visit: impl FnMut(&[u32])) {
        let whole = path.len() <= self.longest_exact.max(self.longest_prefix);
        let hashed = match whole {
            true => path,
            // One byte more: a prefix ends where a slash follows it.
            false => &path[..path.len().min(self.longest_prefix + 1)],
        };
        let mut hash = HASH_START;
        for (at, &byte) in hashed.iter().enumerate() {
            if byte == b'/'
                && at > 0
                && let Some(node) = self.nodes.at(hash, &path[..at])
            {
                visit(&node.below);
            }
            hash = hash_step(hash, byte);
        }
        if whole && let Some(node) = self.nodes.at(hash, path) {
            visit(&node.exact);
            visit(&node.below);
        }
        visit(&self.everywhere);
    }
}

/// What a route needs of a path, as far as the index knows.
pub(crate) enum Key<'a> {
    /// Just this path.
    Exact(&'a [u8]),
    /// This path, or what follows it after a slash.
    Below(&'a [u8]),
    /// Cannot be said.
    Any,
}
