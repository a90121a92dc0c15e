//! Pushes, as operators see them: checked, compared, refused, taken by proxies, rolled back; and what nobody may do.

mod canary;

use super::difference::between;
use crate::server::tests::{Running, session, within};
use crate::snapshot::Kind;
use crate::state::{Daemon, InForce, now_ms};
use crate::store::documents::About;
use api::envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use api::envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use api::envoy_types::pb::google::rpc::Status as Detail;
use api::mesh::Mesh;
use api::pb::operator_client::OperatorClient;
use api::pb::{self, Outcome};
use rcgen::KeyPair;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

const MESH: &str = "
trust-domain: mesh
groups:
  cart:
    listeners:
      in: { address: 127.0.0.1:80, tls: {}, allow: [ { name: all, source: 127.0.0.1 } ], routes: [ { name: app, to: app } ] }
    services:
      app: { endpoints: [127.0.0.1:81] }
  edge:
    listeners:
      web: { address: 127.0.0.1:82, routes: [ { name: cart, match: { path: /cart/* }, to: cart }, { name: rest, to: legacy } ] }
services:
  cart: { endpoints: { group: cart, listener: in }, tls: { expect: group } }
  legacy: { endpoints: set }
";

fn good(text: &str) -> Mesh {
    api::mesh::load(text, "mesh.yaml").unwrap_or_else(|findings| panic!("{findings:#?}"))
}

/// The local administrator, who may do everything.
async fn admin(running: &Running) -> OperatorClient<Channel> {
    let folder = running.folder.path().join("operator");
    let file = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let channel = running.channel(Some((file("admin.pem").as_bytes(), &file("admin.key")))).await;
    OperatorClient::new(channel)
}

fn push(document: &str) -> pb::ApplyRequest {
    pb::ApplyRequest { document: document.to_owned(), file: "mesh.yaml".to_owned(), ..pb::ApplyRequest::default() }
}

/// All messages of a push; the last has the outcome.
async fn applied(client: &mut OperatorClient<Channel>, request: pb::ApplyRequest) -> Vec<pb::Progress> {
    let mut stream = client.apply(request).await.unwrap().into_inner();
    let mut list = Vec::new();
    while let Some(progress) = within(stream.message()).await.unwrap() {
        list.push(progress);
    }
    list
}

async fn outcome(client: &mut OperatorClient<Channel>, request: pb::ApplyRequest) -> (Outcome, u64, String) {
    let last = applied(client, request).await.pop().unwrap();
    (last.outcome(), last.version, last.line)
}

/// A joined proxy that takes what it is sent, but for what a test refuses.
struct Proxy {
    id: String,
    reports: mpsc::Sender<pb::Report>,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: tonic::Streaming<api::envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse>,
    _orders: tonic::Streaming<pb::Order>,
}

impl Proxy {
    async fn join(running: &Running) -> Proxy {
        Proxy::join_as(running, "cart").await
    }

    async fn join_as(running: &Running, group: &str) -> Proxy {
        let key = KeyPair::generate().unwrap();
        let joined = running.join_as(&key, group).await;
        let own = (joined.chain.clone(), key.serialize_pem());
        let mut client = running.client(Some((&own.0, &own.1))).await;
        let (reports, orders) = session(&mut client).await.unwrap();
        let channel = running.channel(Some((&own.0, &own.1))).await;
        let (requests, stream) = mpsc::channel(8);
        for kind in [Kind::Cluster, Kind::Listener] {
            requests.send(blank(kind)).await.unwrap();
        }
        let stream = ReceiverStream::new(stream);
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses = client.delta_aggregated_resources(stream).await.unwrap().into_inner();
        Proxy { id: joined.proxy, reports, requests, responses, _orders: orders }
    }

    /// The next response: its kind, the document's number and the names in it. It is taken, or refused.
    async fn take(&mut self, refuse: bool) -> (Kind, u64, Vec<String>) {
        let response = within(self.responses.message()).await.unwrap().unwrap();
        let kind = Kind::of(&response.type_url).unwrap();
        let error_detail = refuse.then(|| Detail { code: 3, message: "is bad".to_owned(), details: Vec::new() });
        let answer = DeltaDiscoveryRequest { response_nonce: response.nonce, error_detail, ..blank(kind) };
        self.requests.send(answer).await.unwrap();
        let names = response.resources.into_iter().map(|one| one.name).collect();
        (kind, response.system_version_info.parse().unwrap(), names)
    }

    async fn report(&self, version: u64, listeners: &[(&str, &str)]) {
        let listeners = listeners.iter().map(|(name, address)| pb::OwnListener {
            name: (*name).to_owned(),
            address: (*address).to_owned(),
            ready: true,
        });
        let report = pb::Report {
            applied: Some(pb::Applied { version: version.to_string(), ..pb::Applied::default() }),
            listeners: listeners.collect(),
            ready: true,
            clock_ms: now_ms() + 90_000,
            ..pb::Report::default()
        };
        self.reports.send(report).await.unwrap();
    }
}

fn blank(kind: Kind) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: kind.type_url().to_owned(), ..DeltaDiscoveryRequest::default() }
}

async fn until(daemon: &Daemon, what: &str, is_so: impl Fn(&Daemon) -> bool) {
    for _ in 0..1000 {
        if is_so(daemon) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn a_push_is_checked_compared_and_kept() {
    let running = Running::start().await;
    let mut client = admin(&running).await;
    let bad = pb::ApplyRequest { file: "a.yaml".to_owned(), ..push("groups: {}") };
    let last = applied(&mut client, bad).await.pop().unwrap();
    assert_eq!((last.outcome(), last.version), (Outcome::Refused, 0));
    assert_eq!(last.findings, ["a.yaml:1:1: a mesh document needs `trust-domain`"]);

    let plan = pb::PlanRequest { document: MESH.to_owned(), file: String::new() };
    let planned = client.plan(plan.clone()).await.unwrap().into_inner();
    assert_eq!((planned.base, planned.changes, planned.affected.len()), (0, true, 2));
    assert!(planned.needs_force.is_empty(), "{planned:?}");
    assert_eq!(outcome(&mut client, push(MESH)).await, (Outcome::Applied, 1, "version 1 is in force".to_owned()));
    assert_eq!(outcome(&mut client, push(MESH)).await.0, Outcome::Unchanged);
    let planned = client.plan(plan).await.unwrap().into_inner();
    assert_eq!((planned.base, planned.changes, planned.affected.len()), (1, false, 0));
    assert_eq!(planned.base_document, MESH);

    let other = MESH.replace("/cart/*", "/carts/*");
    let second = pb::ApplyRequest { base: Some(1), comment: "more carts".to_owned(), ..push(&other) };
    assert_eq!(outcome(&mut client, second.clone()).await.0, Outcome::Applied);
    let history = client.history(pb::HistoryRequest::default()).await.unwrap().into_inner().versions;
    let told: Vec<_> = history.iter().map(|v| (v.number, v.state.as_str(), v.comment.as_str())).collect();
    assert_eq!(told, [(2, "in force", "more carts"), (1, "replaced", "")]);
    assert_eq!(history[0].author, "admin");
    assert_eq!(client.show(pb::ShowRequest { number: 1 }).await.unwrap().into_inner().document, MESH);
    assert_eq!(client.show(pb::ShowRequest { number: 0 }).await.unwrap().into_inner().document, other);
    let none = client.show(pb::ShowRequest { number: 9 }).await.unwrap_err();
    assert_eq!(
        (none.code(), none.message()),
        (Code::NotFound, "there is no version 9; `ringwayctl history` shows all")
    );

    // Who saw something older is told, and nothing is lost.
    let third = pb::ApplyRequest { document: MESH.replace("/cart/*", "/lost/*"), ..second };
    let (outcome_of_third, number, line) = outcome(&mut client, third).await;
    assert_eq!((outcome_of_third, number), (Outcome::Conflict, 2));
    assert!(line.starts_with("version 2 by `admin` is in force, and you saw version 1"), "{line}");

    let back = pb::RollbackRequest { version: 1, ..pb::RollbackRequest::default() };
    let mut stream = client.rollback(back).await.unwrap().into_inner();
    let last = stream.message().await.unwrap().unwrap();
    assert_eq!((last.outcome(), last.version), (Outcome::Applied, 3));
    let shown = client.show(pb::ShowRequest { number: 0 }).await.unwrap().into_inner();
    assert_eq!((shown.number, shown.comment.as_str(), shown.document.as_str()), (3, "back to version 1", MESH));
}

/// Another version of the program was less strict.
#[tokio::test]
async fn a_document_in_force_that_cannot_be_read_can_be_replaced() {
    let running = Running::start().await;
    let text = "trust-domain: 'shop' # ours\ngroups: { cart: { colour: blue } }\n";
    running.daemon.store.push(None, text, About::default()).await.unwrap();
    within(running.daemon.in_force().wait_for(Option::is_some)).await.unwrap();
    assert_eq!(running.daemon.trust_domain(), "shop", "or no proxy would know it");
    let held = running.daemon.in_force().borrow().clone().unwrap();
    let mut changes = running.daemon.in_force();
    changes.mark_unchanged();
    for _ in 0..5 {
        running.daemon.read_document().await.unwrap();
    }
    assert!(!changes.has_changed().unwrap() && held.mesh.is_none(), "it is read, and told, once");

    let mut client = admin(&running).await;
    let request = pb::CreateTokenRequest { group: "cart".to_owned(), ..pb::CreateTokenRequest::default() };
    let refused = client.create_token(request).await.unwrap_err();
    assert!(refused.message().contains("version 1 is in force, and this ringwayd cannot read it"), "{refused}");
    let mesh = MESH.replace("trust-domain: mesh", "trust-domain: shop");
    let plan = pb::PlanRequest { document: mesh.clone(), file: String::new() };
    let planned = client.plan(plan).await.unwrap().into_inner();
    assert_eq!((planned.base, planned.base_document.as_str(), planned.affected.len()), (1, text, 2));
    let seen = pb::ApplyRequest { base: Some(1), ..push(&mesh) };
    assert_eq!(outcome(&mut client, seen).await, (Outcome::Applied, 2, "version 2 is in force".to_owned()));
    assert!(running.daemon.in_force().borrow().clone().unwrap().mesh.is_some());

    // One that does not even say whose it is changes nobody's name.
    running.daemon.store.push(Some(2), "nonsense", About::default()).await.unwrap();
    let is_third = |now: &Option<_>| now.as_ref().is_some_and(|now: &Arc<InForce>| now.version.number == 3);
    assert!(within(running.daemon.in_force().wait_for(is_third)).await.unwrap().as_ref().unwrap().mesh.is_none());
    assert_eq!(running.daemon.trust_domain(), "shop");
}

#[tokio::test]
async fn of_two_operators_at_once_one_is_told() {
    let running = Running::start().await;
    let mut client = admin(&running).await;
    assert_eq!(outcome(&mut client, push(MESH)).await.0, Outcome::Applied);
    let pushes = (0..4).map(|n| {
        let mut client = client.clone();
        let document = MESH.replace("/cart/*", &format!("/cart{n}/*"));
        tokio::spawn(async move { outcome(&mut client, pb::ApplyRequest { base: Some(1), ..push(&document) }).await.0 })
    });
    let mut outcomes = Vec::new();
    for push in pushes.collect::<Vec<_>>() {
        outcomes.push(push.await.unwrap());
    }
    outcomes.sort();
    assert_eq!(outcomes, [Outcome::Applied, Outcome::Conflict, Outcome::Conflict, Outcome::Conflict]);
    assert_eq!(client.history(pb::HistoryRequest::default()).await.unwrap().into_inner().versions.len(), 2);
}

#[tokio::test]
async fn a_push_is_followed_until_all_have_it_or_refuse_it() {
    let running = Running::start().await;
    let mut client = admin(&running).await;
    assert_eq!(outcome(&mut client, push(MESH)).await.0, Outcome::Applied);
    let mut proxy = Proxy::join(&running).await;
    assert_eq!(proxy.take(false).await, (Kind::Cluster, 1, vec!["app".to_owned()]));
    assert_eq!(proxy.take(false).await, (Kind::Listener, 1, vec!["in".to_owned()]));
    proxy.report(1, &[("in", "0.0.0.0:8080"), ("other", "10.0.0.9:1")]).await;
    let at = ("cart".to_owned(), "in".to_owned());
    until(&running.daemon, "an endpoint", |daemon| daemon.snapshots.state().endpoints.contains_key(&at)).await;
    let endpoints = running.daemon.snapshots.state().endpoints[&at].clone();
    assert_eq!(endpoints, ["127.0.0.1:8080".parse().unwrap()].into(), "where it calls from, not `0.0.0.0`");

    // What has nothing for the proxy is applied at once.
    let other_group = pb::ApplyRequest { wait: true, ..push(&MESH.replace("/cart/*", "/carts/*")) };
    let said = applied(&mut client, other_group).await;
    let last = said.last().unwrap();
    assert_eq!((last.outcome(), last.version, last.done, last.of), (Outcome::Applied, 2, 1, 1), "{said:?}");

    // Acknowledged is not applied.
    let changed = MESH.replace("127.0.0.1:81]", "127.0.0.1:81], balance: random");
    let mut stream = client.apply(pb::ApplyRequest { wait: true, ..push(&changed) }).await.unwrap().into_inner();
    assert_eq!(within(stream.message()).await.unwrap().unwrap().line, "version 3 is in force");
    assert_eq!(proxy.take(false).await, (Kind::Cluster, 3, vec!["app".to_owned()]));
    until(&running.daemon, "settled", |daemon| {
        daemon
            .fleet
            .own_member(&proxy.id)
            .and_then(|member| member.resources)
            .is_some_and(|progress| progress.settled == 3)
    })
    .await;
    let line = within(stream.message()).await.unwrap().unwrap().line;
    assert_eq!(line, "0 of 1 proxies have version 3");
    proxy.report(3, &[("in", "0.0.0.0:8080")]).await;
    let last = within(stream.message()).await.unwrap().unwrap();
    assert_eq!((last.outcome(), last.done, last.of), (Outcome::Applied, 1, 1), "{last:?}");

    // A refusal is told with its reason.
    let refused = changed.replace("balance: random", "balance: round-robin");
    let mut stream = client.apply(pb::ApplyRequest { wait: true, ..push(&refused) }).await.unwrap().into_inner();
    assert_eq!(proxy.take(true).await.1, 4);
    let last = loop {
        let progress = within(stream.message()).await.unwrap().unwrap();
        if progress.outcome() != Outcome::Running {
            break progress;
        }
    };
    assert_eq!(last.outcome(), Outcome::Rejected, "{last:?}");
    assert_eq!(last.findings, [format!("{}: cluster/app: is bad", proxy.id)]);

    let status = client.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.version, status.proxies.len()), (4, 1));
    let shown = &status.proxies[0];
    assert!(shown.connected && shown.ready && shown.certificate_not_after_ms > now_ms());
    assert_eq!((shown.group.as_str(), shown.address.as_str(), shown.sent_version.as_str()), ("cart", "127.0.0.1", "4"));
    assert_eq!(shown.applied.as_ref().unwrap().version, "3");
    assert_eq!((shown.rejected.len(), shown.rejected[0].reason.as_str()), (1, "is bad"));
    assert!((80_000..100_000).contains(&shown.clock_skew_ms), "{}", shown.clock_skew_ms);

    // It drains when it is told, and is no endpoint from then on.
    let drained = client.drain(pb::DrainRequest { proxy: proxy.id.clone() }).await.unwrap().into_inner();
    assert_eq!(drained.line, format!("proxy `{}` drains", proxy.id));
    assert!(within(proxy._orders.message()).await.unwrap().unwrap().drain);
    let leaving = pb::Report { draining: true, ready: false, ..pb::Report::default() };
    proxy.reports.send(leaving).await.unwrap();
    until(&running.daemon, "no endpoint", |daemon| !daemon.snapshots.state().endpoints.contains_key(&at)).await;
}

/// Nobody knows who has had it.
#[tokio::test]
async fn a_push_whose_place_another_one_took_is_not_said_to_be_applied() {
    let running = Running::start().await;
    let mut client = admin(&running).await;
    assert_eq!(outcome(&mut client, push(MESH)).await.0, Outcome::Applied);
    let mut proxy = Proxy::join(&running).await;
    proxy.take(false).await;
    proxy.take(false).await;
    proxy.report(1, &[]).await;
    let second = MESH.replace("127.0.0.1:81]", "127.0.0.1:81], balance: random");
    let mut stream = client.apply(pb::ApplyRequest { wait: true, ..push(&second) }).await.unwrap().into_inner();
    assert_eq!(within(stream.message()).await.unwrap().unwrap().line, "version 2 is in force");
    let third = MESH.replace("127.0.0.1:81]", "127.0.0.1:81], balance: round-robin");
    assert_eq!(outcome(&mut client, push(&third)).await.1, 3);
    let last = loop {
        let progress = within(stream.message()).await.unwrap().unwrap();
        if progress.outcome() != Outcome::Running {
            break progress;
        }
    };
    let told = (last.outcome(), last.line.as_str());
    assert_eq!(told, (Outcome::TimedOut, "version 3 took its place before all had version 2"));
}

#[tokio::test]
async fn endpoints_are_set_where_the_document_leaves_them_to_operators() {
    let running = Running::start().await;
    let mut client = admin(&running).await;
    let set = |service: &str, addresses: &[&str]| pb::SetEndpointsRequest {
        service: service.to_owned(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
    };
    let early = client.set_endpoints(set("legacy", &["10.0.0.7:80"])).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition);
    assert_eq!(outcome(&mut client, push(MESH)).await.0, Outcome::Applied);
    let line = client.set_endpoints(set("legacy", &["10.0.0.7:80", "10.0.0.8:80"])).await.unwrap().into_inner().line;
    assert_eq!(line, "service `legacy` has 2 endpoints");
    assert_eq!(running.daemon.snapshots.state().set["legacy"].len(), 2);
    for (service, address, code) in [
        ("cart", "10.0.0.7:80", Code::InvalidArgument),
        ("none", "10.0.0.7:80", Code::NotFound),
        ("app", "10.0.0.7:80", Code::NotFound),
        ("legacy", "host:80", Code::InvalidArgument),
    ] {
        let refused = client.set_endpoints(set(service, &[address])).await.unwrap_err();
        assert_eq!(refused.code(), code, "{service} {address}: {refused}");
    }
    assert_eq!(running.daemon.snapshots.state().set["legacy"].len(), 2);
    // They are there after a restart.
    let store = &running.daemon.store;
    let mut seen = super::Seen::default();
    assert_eq!(super::read_set(store, &mut seen).await.unwrap(), running.daemon.snapshots.state().set);
    assert!(super::read_set(store, &mut seen).await.unwrap().is_empty(), "they were seen");
    client.set_endpoints(set("legacy", &[])).await.unwrap();
    assert!(running.daemon.snapshots.state().set.is_empty());
    assert_eq!(super::read_set(store, &mut seen).await.unwrap(), [("legacy".to_owned(), vec![])].into());
    // An answer that comes late is older than what is known.
    let list = api::mesh::read_addresses(&["10.0.0.7:80".to_owned()]).unwrap();
    running.daemon.endpoints_set("legacy", 1, list).await;
    assert!(running.daemon.snapshots.state().set.is_empty());
}

#[tokio::test]
async fn who_may_only_look_changes_nothing() {
    let running = Running::start().await;
    let mut admin = admin(&running).await;
    let key = KeyPair::generate().unwrap();
    let csr = crate::server::tests::csr(&key);
    let request = pb::CreateOperatorRequest { name: "ann".to_owned(), role: "read".to_owned(), csr };
    let made = admin.create_operator(request).await.unwrap().into_inner();
    let channel = running.channel(Some((&made.chain, &key.serialize_pem()))).await;
    let mut client = OperatorClient::new(channel);
    assert!(client.status(pb::StatusRequest {}).await.is_ok());
    assert_eq!(client.apply(push(MESH)).await.unwrap_err().code(), Code::PermissionDenied);
    let back = pb::RollbackRequest { version: 1, ..pb::RollbackRequest::default() };
    assert_eq!(client.rollback(back).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(client.drain(pb::DrainRequest::default()).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(
        client.set_endpoints(pb::SetEndpointsRequest::default()).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    // A proxy is no operator, and nobody is none either.
    let key = KeyPair::generate().unwrap();
    let joined = running.join(&key).await;
    let channel = running.channel(Some((&joined.chain, &key.serialize_pem()))).await;
    assert_eq!(
        OperatorClient::new(channel).status(pb::StatusRequest {}).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let channel = running.channel(None).await;
    assert_eq!(
        OperatorClient::new(channel).status(pb::StatusRequest {}).await.unwrap_err().code(),
        Code::Unauthenticated
    );
}

#[tokio::test]
async fn what_a_proxy_would_do_is_explained() {
    let running = Running::start().await;
    let mut client = admin(&running).await;
    let ask = |group: &str, url: &str, identity: &str| pb::ExplainRequest {
        group: group.to_owned(),
        url: url.to_owned(),
        identity: identity.to_owned(),
        source: "10.0.0.1".to_owned(),
        ..pb::ExplainRequest::default()
    };
    let early = client.explain(ask("edge", "http://a:82/cart/1", "")).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition);
    let rule = "allow: [ { name: edge, identity: 'spiffe://mesh/group/edge' } ]";
    let document = MESH.replace("allow: [ { name: all, source: 127.0.0.1 } ]", rule);
    assert_eq!(outcome(&mut client, push(&document)).await.0, Outcome::Applied);
    let text = client.explain(ask("edge", "http://a:82/cart/1", "")).await.unwrap().into_inner().text;
    assert!(text.contains("route cart") && text.contains("forward to cart"), "{text}");
    let mut explained =
        async |identity: &str| client.explain(ask("cart", "https://a:80/", identity)).await.unwrap().into_inner().text;
    assert!(explained("spiffe://mesh/group/edge").await.contains("forward to app"));
    assert!(explained("spiffe://mesh/group/other").await.contains("403"));
    for (group, url, code) in
        [("none", "http://a/", Code::NotFound), ("edge", "a", Code::InvalidArgument), ("edge", "http://a:9/", Code::Ok)]
    {
        let answer = client.explain(ask(group, url, "")).await;
        assert_eq!(answer.map_or_else(|status| status.code(), |_| Code::Ok), code, "{group} {url}");
    }
}

fn joined(group: &str, identity: &str) -> crate::authority::Proxy {
    crate::authority::Proxy {
        id: format!("{group}-1"),
        name: String::new(),
        group: group.to_owned(),
        identity: identity.to_owned(),
        token: String::new(),
        joined_ms: 0,
        certificates: Vec::new(),
        seen: None,
    }
}

/// What a change of the document above changes, and what of it needs a force.
fn changed(from: &str, to: &str) -> (Vec<String>, Vec<String>) {
    let new = MESH.replace(from, to);
    assert!(new != MESH, "{from}");
    let proxies = [joined("cart", "spiffe://mesh/group/cart"), joined("edge", "spiffe://mesh/group/edge")];
    let difference = between(Some(&good(MESH)), &good(&new), &proxies);
    let needs_force = difference.needs_force(false);
    let affected = difference.affected.into_iter();
    let affected = affected.flat_map(|one| one.changes.into_iter().map(move |line| format!("{}: {line}", one.group)));
    (affected.collect(), needs_force)
}

#[test]
fn changes_are_told_in_words() {
    let lines = |from: &str, to: &str| {
        let (affected, force) = changed(from, to);
        assert!(force.is_empty(), "{force:?}");
        affected
    };
    assert_eq!(lines("/cart/*", "/carts/*"), ["edge: route web/cart changed"]);
    assert_eq!(lines("address: 127.0.0.1:82", "address: 127.0.0.1:83"), ["edge: listener web changed"]);
    assert_eq!(lines("127.0.0.1:81]", "127.0.0.1:89]"), ["cart: service app changed"]);
    assert_eq!(
        lines("legacy: { endpoints: set }", "legacy: { endpoints: set, balance: random }"),
        ["edge: service legacy changed"]
    );
    assert_eq!(
        lines(
            "  edge:",
            "  new:\n    listeners: { in: { address: 127.0.0.1:9, routes: [ { respond: {} } ] } }\n  edge:"
        ),
        ["new: group added"]
    );
    assert_eq!(
        lines("{ name: rest, to: legacy } ]", "{ name: rest, to: cart } ]"),
        ["edge: route web/rest changed", "edge: service legacy removed"]
    );
    assert_eq!(lines("\nservices:", "\n# a remark\nservices:"), Vec::<String>::new());
}

#[test]
fn what_nobody_does_by_accident_needs_a_force() {
    let force = |from: &str, to: &str| changed(from, to).1;
    let rule = "allow: [ { name: all, source: 127.0.0.1 } ], ";
    assert_eq!(force(rule, ""), ["removes every `allow` of listener `in` of group `cart`: everybody could come"]);
    assert_eq!(
        force("  cart:\n    listeners", "  cart:\n    identity: 'spiffe://mesh/other'\n    listeners"),
        ["changes the identity of group `cart` to spiffe://mesh/other: 1 proxy keep theirs until they join again"]
    );
    let domain = force("trust-domain: mesh", "trust-domain: other");
    assert!(domain[0].starts_with("changes the trust domain from `mesh` to `other`: 2 proxies keep"), "{domain:?}");
    let without_edge = MESH.split_once("  edge:").unwrap().0.to_owned()
        + "services:\n  cart: { endpoints: { group: cart, listener: in }, tls: { expect: group } }\n";
    let difference = between(Some(&good(MESH)), &good(&without_edge), &[]);
    assert_eq!(
        difference.needs_force(false),
        [
            "removes group `edge`: 0 proxies would have nothing",
            "removes service `legacy`, which is in use",
            "removes 1 of 2 services",
            "removes 1 of 2 groups"
        ]
    );
    // To go back is to take away what came since: of that, only what leaves somebody with nothing.
    let back = difference.needs_force(true);
    assert_eq!(
        back,
        ["removes group `edge`: 0 proxies would have nothing", "removes service `legacy`, which is in use"]
    );
    let many = |count: usize| {
        let routes: Vec<String> =
            (0..count).map(|n| format!("{{ name: r{n}, match: {{ path: /{n} }}, to: cart }}")).collect();
        MESH.replace("{ name: cart, match: { path: /cart/* }, to: cart }", &routes.join(", "))
    };
    let halved =
        |before: usize, after: usize| between(Some(&good(&many(before))), &good(&many(after)), &[]).needs_force(false);
    assert_eq!(halved(9, 4), ["removes 5 of 10 routes of listener `web` of group `edge`"]);
    assert!(halved(9, 5).is_empty() && halved(2, 1).is_empty());
    assert_eq!(halved(3, 1), ["removes 2 of 4 routes of listener `web` of group `edge`"]);
}

/// A group whose list of something is what a test says.
fn group(listeners: &str, services: &str) -> Mesh {
    good(&format!(
        "trust-domain: mesh\ngroups:\n  g:\n    listeners:\n      {}\n    services: {{ {services} }}\n",
        listeners.replace("; ", "\n      ")
    ))
}

#[test]
fn half_of_anything_and_every_allow_need_a_force() {
    const APP: &str = "app: { endpoints: [10.0.0.1:1, 10.0.0.2:1] }";
    const TWO: &str = "app: { endpoints: [10.0.0.1:1, 10.0.0.2:1] }, more: { endpoints: [10.0.0.3:1] }";
    const BOTH: &str = "to: { app: 1, more: 1 }";
    const A: &str = "{ name: a, source: 10.0.0.1 }";
    const B: &str = "{ name: b, source: 10.0.0.2 }";
    let own = |rules: &str, to: &str| format!("in: {{ address: 127.0.0.1:1, {rules}routes: [ {{ name: x, {to} }} ] }}");
    let needs = |(before, services): (&str, &str), (after, left): (&str, &str)| {
        between(Some(&group(before, services)), &group(after, left), &[]).needs_force(false)
    };
    let of = "of listener `in` of group `g`";
    let plain = own("", "to: app");
    let everybody = format!("removes every `allow` {of}: everybody could come");

    // What is a group's own.
    assert_eq!(
        needs((&own("", BOTH), TWO), (&plain, APP)),
        ["removes service `more` of group `g`, which is in use", "removes 1 of 2 services of group `g`"]
    );
    let one = APP.replace(", 10.0.0.2:1", "");
    assert_eq!(needs((&plain, APP), (&plain, &one)), ["removes 1 of 2 endpoints of service `app` of group `g`"]);
    let other = APP.replace("10.0.0.2:1", "10.0.0.9:1");
    assert!(needs((&plain, APP), (&plain, &other)).is_empty(), "an edit");

    // The listener's `allow`, while its route keeps one; a route's; one that only tries from now on.
    let allow = format!("allow: [ {A} ], ");
    let route = format!("{allow}to: app");
    assert_eq!(needs((&own(&allow, &route), APP), (&own("", &route), APP)), [everybody.as_str()]);
    assert_eq!(
        needs((&own(&allow, &route), APP), (&own(&allow, "to: app"), APP)),
        [format!("removes 1 of 1 rules of `allow` of route `x` {of}")]
    );
    let tries = allow.replace("name: a", "name: a, dry-run: true");
    assert_eq!(needs((&own(&allow, "to: app"), APP), (&own(&tries, "to: app"), APP)), [everybody.as_str()]);
    assert!(needs((&own(&tries, "to: app"), APP), (&plain, APP)).is_empty(), "it held nobody off");

    // A listener under another name, or another one to the same service.
    let before = own(&allow, "to: app");
    for after in [plain.replace("in:", "new:"), plain.replace("in:", "new:").replace("127.0.0.1:1", "127.0.0.1:2")] {
        let why = format!("puts listener `new`, without `allow`, in the place {of}: everybody could come");
        assert_eq!(needs((&before, APP), (&after, APP)), [why], "{after}");
    }
    assert!(needs((&before, APP), (&before.replace("in:", "new:"), APP)).is_empty(), "it has its `allow`");

    // Half of two.
    for word in ["allow", "deny"] {
        let rules = |list: &str| own(&format!("{word}: [ {list} ], "), "to: app");
        let why = format!("removes 1 of 2 rules of `{word}` {of}");
        assert_eq!(needs((&rules(&format!("{A}, {B}")), APP), (&rules(A), APP)), [why]);
    }
    let second = format!("{plain}; two: {{ address: 127.0.0.1:2, to: app, protocol: tcp }}");
    assert_eq!(needs((&second, APP), (&plain, APP)), ["removes 1 of 2 listeners of group `g`"]);
    let routes = plain.replace("to: app } ]", "match: { path: /y }, to: app }, { name: y, to: app } ]");
    let left = plain.replace("to: app } ]", "match: { path: /y }, to: app } ]");
    assert_eq!(needs((&routes, APP), (&left, APP)), [format!("removes 1 of 2 routes {of}")]);
    let hosts = |names: &str| {
        plain.replace("routes: [", &format!("hosts: [ {{ names: [{names}], routes: [")).replace("} ] }", "} ] } ] }")
    };
    assert_eq!(
        needs((&hosts("a.example, b.example"), APP), (&hosts("a.example"), APP))[0],
        format!("removes 1 of 2 hosts {of}")
    );
}

#[tokio::test]
async fn traffic_is_told_by_route_and_by_who_asked() {
    let running = Running::start().await;
    let mut client = admin(&running).await;
    let proxy = Proxy::join(&running).await;
    let series = |source: &str, route: &str, count: u64| pb::Series {
        source: source.to_owned(),
        listener: "in".to_owned(),
        route: route.to_owned(),
        service: "app".to_owned(),
        classes: vec![0, 0, count, 0, count, 0],
        denied: count,
        ..pb::Series::default()
    };
    let report = |count: u64| {
        let series = vec![series("", "app", count), series("spiffe://mesh/group/edge", "", count)];
        pb::Report { counters: Some(pb::Counters { series, ..pb::Counters::default() }), ..pb::Report::default() }
    };
    proxy.reports.send(report(0)).await.unwrap();
    // A sample is taken every two seconds.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    proxy.reports.send(report(50)).await.unwrap();
    let mut rates = client.top(pb::TopRequest { interval_ms: 200, once: false }).await.unwrap().into_inner();
    let rate = loop {
        if let Some(rate) = within(rates.message()).await.unwrap().unwrap().rates.pop() {
            break rate;
        }
    };
    assert_eq!((rate.group.as_str(), rate.route.as_str(), rate.service.as_str()), ("cart", "in/app", "app"));
    assert!(rate.requests_per_s > 1.0 && rate.denied_per_s > 0.5 && rate.success == 1.0, "{rate:?}");
    let once = client.top(pb::TopRequest { interval_ms: 0, once: true }).await.unwrap().into_inner();
    assert_eq!(tokio_stream::StreamExt::collect::<Vec<_>>(once).await.len(), 1);

    let edges = client.edges(pb::EdgesRequest {}).await.unwrap().into_inner().edges;
    let told: Vec<_> =
        edges.iter().map(|edge| (edge.source.as_str(), edge.group.as_str(), edge.allowed, edge.denied)).collect();
    assert_eq!(told, [("spiffe://mesh/group/edge", "cart", 50, 50)]);
    // It was asked for.
    let order = within(async {
        let mut orders = proxy._orders;
        orders.message().await
    });
    assert!(order.await.unwrap().unwrap().detail_until_ms > now_ms());
}
