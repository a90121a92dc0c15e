//! Documents as proxies will judge them, before anybody is sent anything: refused, or asked what becomes of a request.

use crate::authority::Refusal;
use crate::state::{Daemon, now_ms};
use api::mesh::KeyPair;
use api::pb;
use plan::{Question, StandIn};

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
    let stand_in = stand_in().ok_or_else(|| Refusal::Broken("no key could be made".to_owned()))?;
    let compiled = stand_in.compile(mesh, found.ok_or_else(none)?);
    let (plan, resources) = compiled.map_err(|found| {
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        Refusal::Broken(format!("proxies refuse this configuration: {}", lines.join("; ")))
    })?;
    plan::ask(&plan, &resources, &asked).map_err(Refusal::Wrong)
}

/// A certificate that is made up. None: no key could be made.
pub(super) fn stand_in() -> Option<StandIn> {
    let key = rcgen::KeyPair::generate().ok()?;
    let parameters = rcgen::CertificateParams::new(vec!["made.up.invalid".to_owned()]).ok()?;
    let chain = parameters.self_signed(&key).ok()?.pem().into_bytes();
    Some(StandIn::new(KeyPair { chain, key: key.serialize_pem().into_bytes() }, now_ms() / 1000))
}
