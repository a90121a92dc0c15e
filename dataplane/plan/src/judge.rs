//! A mesh document as proxies will judge it: compiled, group by group, before anybody is sent anything. What compiling needs
//! and nobody but a proxy has (its key, files of its machine) is stood in for.

use crate::{Plan, Rejection, World, compile};
use api::mesh::{Group, KeyPair, Mesh, Places, State};
use api::{Finding, Resources, xds};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A reader wants no more findings at once.
const MOST: usize = 1000;

/// A certificate and its key that stand for all that are not here.
#[derive(Debug)]
pub struct StandIn {
    pair: KeyPair,
    world: World,
}

impl StandIn {
    /// Any certificate that signed itself and is good now, in PEM. `now_s`: seconds since 1970.
    pub fn new(pair: KeyPair, now_s: u64) -> StandIn {
        let mut world = World::default();
        world.clock.set(now_s);
        world.files.insert(xds::SYSTEM_ROOTS.into(), Ok(Arc::from(pair.chain.as_slice())));
        StandIn { pair, world }
    }

    /// Reads, checks and compiles a document. `file` is only the name that findings carry.
    ///
    /// # Errors
    /// Everything that is wrong with it, sorted by position; what proxies would refuse, when nothing else is wrong.
    pub fn check(&self, text: &str, file: &str) -> Result<Mesh, Vec<Finding>> {
        let mesh = api::mesh::load(text, file)?;
        let mut refused = BTreeSet::new();
        let mut places = None;
        for group in &mesh.groups {
            let resources = self.resources(&mesh, group);
            let Err(rejections) = compile(&resources, None, 1, &self.world) else { continue };
            let places = places.get_or_insert_with(|| Places::of(text, file));
            for rejection in rejections {
                let message = format!("proxies refuse {rejection}; change it, or leave it out");
                let Finding { line, column, message, .. } =
                    places.finding(&paths(group, &rejection, &resources), message);
                // What groups share is refused by each.
                refused.insert((line, column, message));
            }
        }
        let finding = |(line, column, message)| Finding { file: file.to_owned(), line, column, message };
        let findings: Vec<_> = refused.into_iter().take(MOST).map(finding).collect();
        if findings.is_empty() { Ok(mesh) } else { Err(findings) }
    }

    /// What a group's proxies make of a document, and of what.
    ///
    /// # Errors
    /// Everything that they would refuse.
    pub fn compile(&self, mesh: &Mesh, group: &Group) -> Result<(Plan, Resources), Vec<Rejection>> {
        let resources = self.resources(mesh, group);
        compile(&resources, None, 1, &self.world).map(|plan| (plan, resources))
    }

    fn resources(&self, mesh: &Mesh, group: &Group) -> Resources {
        let mut state = State { trust: self.pair.chain.clone(), ..State::default() };
        for name in group.secret_names() {
            state.secrets.insert((group.name.clone(), name.to_owned()), self.pair.clone());
        }
        let mut resources = mesh.resources(group, &state);
        resources.secrets.push(api::mesh::identity(&self.pair));
        resources
    }
}

/// Where in the document what is refused may stand, the nearest first.
fn paths(group: &Group, of: &Rejection, resources: &Resources) -> Vec<Vec<String>> {
    let path = |steps: &[&str]| steps.iter().map(|&step| step.to_owned()).collect::<Vec<_>>();
    let own = ["groups", &group.name];
    let all = match of.kind {
        "cluster" | "endpoints" => {
            let own = path(&[own[0], own[1], "services", &of.name]);
            let shared = path(&["services", &of.name]);
            let endpoints = [&own, &shared].map(|service| [service.as_slice(), &path(&["endpoints"])].concat());
            let is_endpoints = of.kind == "endpoints" || of.field.starts_with("endpoints");
            let endpoints = endpoints.into_iter().filter(|_| is_endpoints);
            endpoints.chain([own, shared]).collect()
        }
        "listener" | "route" => {
            let listener = path(&[own[0], own[1], "listeners", &of.name]);
            let route = Step::of(&of.field, resources, &of.name);
            let routes = route.iter().flat_map(|step| step.paths());
            let mut all: Vec<_> = routes.map(|steps| [listener.as_slice(), &steps].concat()).collect();
            all.push(listener);
            all
        }
        _ => Vec::new(),
    };
    all.into_iter().chain([path(&own)]).collect()
}

/// A route of a listener's document, by its numbers.
struct Step {
    host: usize,
    route: usize,
    /// What of its match.
    word: Option<&'static str>,
}

impl Step {
    /// From `virtual_hosts[1].routes[2].match...`. Routes that answer preflights stand beside those of the document; their
    /// names have a `:`.
    fn of(field: &str, resources: &Resources, configuration: &str) -> Option<Step> {
        let (host, rest) = field.strip_prefix("virtual_hosts[")?.split_once(']')?;
        let (route, rest) = rest.strip_prefix(".routes[")?.split_once(']')?;
        let (host, route) = (host.parse::<usize>().ok()?, route.parse::<usize>().ok()?);
        let all = resources.routes.iter().find(|one| one.name == configuration)?;
        let before = all.virtual_hosts.get(host)?.routes.get(..=route)?;
        let route = before.iter().filter(|one| !one.name.contains(':')).count().checked_sub(1)?;
        let word = match rest.strip_prefix(".match.") {
            Some(rest) if rest.starts_with("headers") => Some("headers"),
            Some(rest) if rest.starts_with("query") => Some("query"),
            Some(_) => Some("path"),
            None => None,
        };
        Some(Step { host, route, word })
    }

    /// With the word of the match and without; a listener has hosts, or routes for any.
    fn paths(&self) -> impl Iterator<Item = Vec<String>> + use<> {
        let route = vec!["routes".to_owned(), self.route.to_string()];
        let of_host = [vec!["hosts".to_owned(), self.host.to_string()], route.clone()].concat();
        let word = self.word;
        [of_host, route].into_iter().flat_map(move |route| {
            let near = word.map(|word| [route.as_slice(), &["match".to_owned(), word.to_owned()]].concat());
            near.into_iter().chain([route])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESH: &str = r#"trust-domain: shop
services:
  cart: { endpoints: [10.0.0.1:80], tls: { expect: cart.example } }
groups:
  edge:
    listeners:
      one:
        address: 127.0.0.1:1
        routes: [ { to: cart } ]
      web:
        address: 127.0.0.1:2
        cors: { origins: ["https://a.example"] }
        hosts:
          - names: [a.example]
            routes: [ { to: cart } ]
          - names: ["*"]
            routes:
              - { match: { path: /a/* }, to: cart }
              - { match: { path: /b/*, headers: { x: PATTERN } }, to: cart }
"#;

    fn stand_in() -> StandIn {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["made.up.invalid".to_owned()]).unwrap();
        let chain = parameters.self_signed(&key).unwrap().pem().into_bytes();
        StandIn::new(KeyPair { chain, key: key.serialize_pem().into_bytes() }, 1_767_225_600)
    }

    fn lines(text: &str) -> Vec<String> {
        stand_in().check(text, "mesh.yaml").err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_proxies_would_refuse_is_told_where_it_stands() {
        assert_eq!(lines(&MESH.replace("PATTERN", "y")), Vec::<String>::new());
        // Small to read, large to compile.
        let large = "[02468ACEGIKMOQSUWYacegikmoqsuwy]{1000}".repeat(9);
        let large = MESH.replace("PATTERN", &format!("{{ regex: '{large}' }}"));
        let mesh = api::mesh::load(&large, "mesh.yaml").unwrap_or_else(|found| panic!("{found:#?}"));
        let found = lines(&large);
        let [line] = &found[..] else { panic!("{found:?}") };
        assert!(line.starts_with("mesh.yaml:19:40: proxies refuse route/web: virtual_hosts[1].routes["), "{line}");
        assert!(line.ends_with("; change it, or leave it out"), "{line}");

        let shared = Rejection { kind: "cluster", name: "cart".into(), field: "endpoints".into(), reason: "".into() };
        let places = Places::of(&large, "mesh.yaml");
        let at = |of: &Rejection| {
            let Finding { line, column, .. } =
                places.finding(&paths(&mesh.groups[0], of, &Resources::default()), "".into());
            (line, column)
        };
        assert_eq!(at(&shared), (3, 11));
        assert_eq!(at(&Rejection { field: "".into(), ..shared.clone() }), (3, 3));
        assert_eq!(at(&Rejection { kind: "listener", name: "web".into(), ..shared.clone() }), (10, 7));
        assert_eq!(at(&Rejection { kind: "secret", ..shared }), (5, 3));
    }
}
