//! Documents as proxies will judge them: compiled, group by group, before anybody is sent anything. What compiling needs and
//! the daemon does not have (keys that never leave proxies, files of other machines) is made up.

use crate::authority::Refusal;
use crate::state::{Daemon, now_ms};
use api::mesh::{Group, KeyPair, Mesh, State};
use api::{Resources, pb, xds};
use plan::{Plan, Question, World};
use std::sync::Arc;

/// Everything that proxies would refuse, one line each.
pub(super) fn refused(mesh: &Mesh, file: &str) -> Vec<String> {
    let Some(made_up) = MadeUp::new() else { return Vec::new() };
    let lines = mesh.groups.iter().flat_map(|group| {
        let found = made_up.compile(mesh, group).err().unwrap_or_default();
        found.into_iter().map(|rejection| format!("{file}:1:1: group `{}`: {rejection}", group.name))
    });
    lines.collect()
}

/// What a group's proxies would do with a request.
pub(super) fn explain(daemon: &Daemon, request: pb::ExplainRequest) -> Result<String, Refusal> {
    let pb::ExplainRequest { group, method, url, identity, source, headers, listener } = request;
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let question = Question {
        method: given(method).unwrap_or_else(|| "GET".to_owned()),
        url,
        identity: given(identity),
        source: given(source),
        peer: None,
        headers,
        listener: given(listener),
    };
    let asked = question.check().map_err(Refusal::Wrong)?;
    let no_document = || Refusal::NotYet("no document is in force yet; `ringwayctl apply` one".to_owned());
    let now = daemon.in_force().borrow().clone().ok_or_else(no_document)?;
    let mesh = now.mesh()?;
    let found = mesh.group(&group);
    let names: Vec<_> = mesh.groups.iter().map(|group| group.name.as_str()).take(100).collect();
    let shown: String = group.escape_default().take(130).collect();
    let none = || Refusal::Missing(format!("there is no group `{shown}`; there are {}", names.join(", ")));
    let made_up = MadeUp::new().ok_or_else(|| Refusal::Broken("no key could be made".to_owned()))?;
    let compiled = made_up.compile(mesh, found.ok_or_else(none)?);
    let (plan, resources) = compiled.map_err(|found| {
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        Refusal::Broken(format!("proxies refuse this configuration: {}", lines.join("; ")))
    })?;
    plan::ask(&plan, &resources, &asked).map_err(Refusal::Wrong)
}

/// A certificate and its key that stand for all that are not here.
struct MadeUp {
    pair: KeyPair,
    world: World,
}

impl MadeUp {
    fn new() -> Option<MadeUp> {
        let key = rcgen::KeyPair::generate().ok()?;
        let parameters = rcgen::CertificateParams::new(vec!["made.up.invalid".to_owned()]).ok()?;
        let certificate = parameters.self_signed(&key).ok()?.pem().into_bytes();
        let mut world = World::default();
        world.clock.set(now_ms() / 1000);
        world.files.insert(xds::SYSTEM_ROOTS.into(), Ok(Arc::from(certificate.as_slice())));
        Some(MadeUp { pair: KeyPair { chain: certificate, key: key.serialize_pem().into_bytes() }, world })
    }

    fn compile(&self, mesh: &Mesh, group: &Group) -> Result<(Plan, Resources), Vec<plan::Rejection>> {
        let mut state = State { trust: self.pair.chain.clone(), ..State::default() };
        for name in group.secret_names() {
            state.secrets.insert((group.name.clone(), name.to_owned()), self.pair.clone());
        }
        let mut resources = mesh.resources(group, &state);
        resources.secrets.push(api::mesh::identity(&self.pair));
        let plan = plan::compile(&resources, None, 1, &self.world)?;
        Ok((plan, resources))
    }
}
