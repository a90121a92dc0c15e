//! What a new configuration changed, in a few words.

use api::Resources;
use std::collections::BTreeMap;

/// Names with `+` for new, `-` for gone, `~` for changed ones: `listeners ~web; services +cart -old`.
pub(crate) fn between(old: &Resources, new: &Resources) -> String {
    let listeners = changes(&listeners(old), &listeners(new));
    let services = changes(&services(old), &services(new));
    let mut parts = Vec::new();
    for (what, changes) in [("listeners", listeners), ("services", services)] {
        if !changes.is_empty() {
            parts.push(format!("{what} {}", changes.join(" ")));
        }
    }
    if old.bootstrap != new.bootstrap {
        parts.push("process settings".to_owned());
    }
    if parts.is_empty() { "nothing changed".to_owned() } else { parts.join("; ") }
}

type Named<'a, T> = BTreeMap<&'a str, T>;

fn listeners(of: &Resources) -> Named<'_, (&impl PartialEq, Option<&impl PartialEq>)> {
    let routes: Named<'_, _> = of.routes.iter().map(|routes| (routes.name.as_str(), routes)).collect();
    of.listeners.iter().map(|one| (one.name.as_str(), (one, routes.get(one.name.as_str()).copied()))).collect()
}

fn services(of: &Resources) -> Named<'_, (&impl PartialEq, Option<&impl PartialEq>)> {
    let endpoints: Named<'_, _> = of.endpoints.iter().map(|one| (one.cluster_name.as_str(), one)).collect();
    of.clusters.iter().map(|one| (one.name.as_str(), (one, endpoints.get(one.name.as_str()).copied()))).collect()
}

fn changes<T: PartialEq>(old: &Named<'_, T>, new: &Named<'_, T>) -> Vec<String> {
    let fresh = new.iter().filter_map(|(name, one)| match old.get(name) {
        None => Some(format!("+{name}")),
        Some(before) if before != one => Some(format!("~{name}")),
        Some(_) => None,
    });
    let gone = old.keys().filter(|name| !new.contains_key(*name)).map(|name| format!("-{name}"));
    fresh.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(text: &str) -> Resources {
        api::translate(&api::load(text, "f").unwrap())
    }

    #[test]
    fn changes_are_named() {
        let old = resources(
            "listeners:\n  web: { address: '127.0.0.1:1', protocol: http, routes: [ { name: all, to: a } ] }\n\
             services:\n  a: { endpoints: ['10.0.0.1:80'] }\n  b: { endpoints: ['10.0.0.1:80'] }\n",
        );
        let new = resources(
            "listeners:\n  web: { address: '127.0.0.1:1', protocol: http, routes: [ { name: other, to: a } ] }\n\
             services:\n  a: { endpoints: ['10.0.0.2:80'] }\n  c: { endpoints: ['10.0.0.1:80'] }\ncores: 1\n",
        );
        assert_eq!(between(&old, &new), "listeners ~web; services ~a +c -b; process settings");
        assert_eq!(between(&old, &old), "nothing changed");
    }
}
