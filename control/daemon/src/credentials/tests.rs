//! What operators may ask for, each with the role that it needs.

use super::*;
use crate::authority::{Peer, PeerCertificate};
use crate::server::tests::{Running, csr, renew_request, session, told_to_renew, within};
use crate::store::documents::About;
use rcgen::{CertificateParams, KeyPair as Key};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_stream::StreamExt as _;
use tonic::Code;

/// A request on the connection of somebody who shows this chain, or nothing.
fn request<T>(chain: Option<&[u8]>, message: T) -> Request<T> {
    let certificate = chain.map(|chain| {
        let leaf = CertificateDer::from_pem_slice(chain).unwrap();
        Arc::new(PeerCertificate::read(&leaf).unwrap())
    });
    let mut request = Request::new(message);
    request.extensions_mut().insert(Peer { address: "127.0.0.1:1".parse().unwrap(), certificate });
    request
}

/// A daemon, its local administrator, and a document with group `cart`.
async fn running() -> (Running, Vec<u8>) {
    let running = Running::start().await;
    let text = "trust-domain: shop\ngroups:\n  cart:\n    listeners: { in: { address: 127.0.0.1:8080, routes: [ { to: app } ] } }\n\
        \x20   services: { app: { endpoints: [127.0.0.1:1] } }\n";
    running.daemon.store.push(None, text, About::default()).await.unwrap();
    let mut in_force = running.daemon.in_force();
    within(in_force.wait_for(Option::is_some)).await.unwrap();
    let admin = std::fs::read(running.folder.path().join("operator/admin.pem")).unwrap();
    (running, admin)
}

async fn operator(running: &Running, admin: &[u8], name: &str, role: &str) -> Vec<u8> {
    let csr = csr(&Key::generate().unwrap());
    let message = pb::CreateOperatorRequest { name: name.to_owned(), role: role.to_owned(), csr };
    let made = create_operator(&running.daemon, request(Some(admin), message)).await.unwrap().into_inner();
    assert_eq!((made.name.as_str(), made.role.as_str()), (name, role));
    made.chain
}

#[tokio::test]
async fn a_token_is_for_a_group_that_is_in_force() {
    let running = Running::start().await;
    let admin = std::fs::read(running.folder.path().join("operator/admin.pem")).unwrap();
    let ask = |group: &str| {
        let message = pb::CreateTokenRequest { group: group.to_owned(), uses: 2, ttl_s: 60 };
        request(Some(&admin), message)
    };
    let early = create_token(&running.daemon, ask("cart")).await.unwrap_err();
    assert!(early.message().starts_with("no document is in force yet"), "{early}");

    let (running, admin) = self::running().await;
    let ask = |group: &str| {
        let message = pb::CreateTokenRequest { group: group.to_owned(), uses: 2, ttl_s: 60 };
        request(Some(&admin), message)
    };
    let other = create_token(&running.daemon, ask("cat")).await.unwrap_err();
    assert_eq!((other.code(), other.message()), (Code::NotFound, "version 1 has no group `cat`; it has cart"));
    let made = create_token(&running.daemon, ask("cart")).await.unwrap().into_inner();
    let contents = api::token::Token::decode(&made.token).unwrap();
    assert_eq!(contents.daemons, running.daemon.daemons());
    assert_eq!((made.uses_left, contents.id), (2, made.id.clone()));
    // The identity is the document's.
    let key = Key::generate().unwrap();
    let issued = running.daemon.authority.join(&made.token, &csr(&key), "", now_ms()).await.unwrap();
    assert_eq!(issued.proxy.identity, "spiffe://shop/group/cart");

    let list = list_tokens(&running.daemon, request(Some(&admin), pb::ListTokensRequest {})).await.unwrap();
    let list = list.into_inner().tokens;
    assert_eq!((list.len(), list[0].uses_left, list[0].token.as_str()), (1, 1, ""));
    let message = pb::RevokeTokenRequest { id: made.id };
    assert!(revoke_token(&running.daemon, request(Some(&admin), message)).await.is_ok());
}

/// Every method, called by somebody with this chain: whether it was let in.
async fn let_in(running: &Running, chain: Option<&[u8]>) -> Vec<(&'static str, bool)> {
    let daemon = &running.daemon;
    fn told<T>(answer: Answer<T>) -> bool {
        // What is asked for is wrong or not there; who asks is looked at first.
        answer.err().is_none_or(|status| !matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated))
    }
    macro_rules! ask {
        ($method:ident, $message:expr) => {
            (stringify!($method), told($method(daemon, request(chain, $message)).await))
        };
    }
    vec![
        ask!(list_secrets, pb::ListSecretsRequest {}),
        ask!(certificates, pb::CertificatesRequest {}),
        ask!(renew_operator, pb::RenewRequest::default()),
        ask!(create_token, pb::CreateTokenRequest::default()),
        ask!(list_tokens, pb::ListTokensRequest {}),
        ask!(revoke_token, pb::RevokeTokenRequest::default()),
        ask!(put_secret, pb::PutSecretRequest::default()),
        ask!(remove_secret, pb::RemoveSecretRequest::default()),
        ask!(forget, pb::ForgetRequest::default()),
        ask!(create_operator, pb::CreateOperatorRequest::default()),
        ask!(remove_operator, pb::RemoveOperatorRequest::default()),
        ask!(rotate_root, pb::RotateRootRequest { status_only: true, force: false }),
    ]
}

#[tokio::test]
async fn every_method_asks_for_its_role() {
    let (running, admin) = running().await;
    let reader = operator(&running, &admin, "reader", "read").await;
    let writer = operator(&running, &admin, "writer", "write").await;
    let proxy = running.join(&Key::generate().unwrap()).await.chain;
    let allowed = |list: Vec<(&'static str, bool)>| -> Vec<_> {
        list.into_iter().filter(|(_, is_in)| *is_in).map(|(method, _)| method).collect()
    };
    let reading = ["list_secrets", "certificates", "renew_operator"];
    assert_eq!(allowed(let_in(&running, Some(&reader)).await), reading);
    assert_eq!(allowed(let_in(&running, Some(&writer)).await), reading);
    assert_eq!(allowed(let_in(&running, Some(&admin)).await).len(), 12);
    assert!(allowed(let_in(&running, Some(&proxy)).await).is_empty());
    assert!(allowed(let_in(&running, None).await).is_empty());
}

#[tokio::test]
async fn secrets_and_certificates_are_shown_without_keys() {
    let (running, admin) = running().await;
    let key = Key::generate().unwrap();
    let chain = CertificateParams::new(["shop.example.com".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    let message = pb::PutSecretRequest {
        name: "edge".to_owned(),
        group: "cart".to_owned(),
        chain: chain.into_bytes(),
        key: key.serialize_pem().into_bytes(),
    };
    let done = put_secret(&running.daemon, request(Some(&admin), message)).await.unwrap().into_inner();
    assert_eq!(done.line, "secret `edge` of group `cart` is the certificate of shop.example.com");
    let list = list_secrets(&running.daemon, request(Some(&admin), pb::ListSecretsRequest {})).await.unwrap();
    assert_eq!(list.into_inner().secrets[0].subject, "shop.example.com");

    let proxy = running.join(&Key::generate().unwrap()).await;
    let answer = certificates(&running.daemon, request(Some(&admin), pb::CertificatesRequest {})).await.unwrap();
    let answer = answer.into_inner();
    let lines: Vec<_> = answer.lines.iter().map(|line| (line.kind.as_str(), line.holder.as_str())).collect();
    let host = crate::settings::host_name();
    let own = [("root", "mesh"), ("issuer", &host), ("daemon", &host)];
    let others = [("proxy", proxy.proxy.as_str()), ("operator", "admin"), ("secret", "cart:edge")];
    assert_eq!(lines, [own, others].concat());
    assert!(answer.lines[..5].iter().all(|line| line.chains_to == answer.lines[0].chains_to));
    let message = pb::RemoveSecretRequest { name: "edge".to_owned(), group: "cart".to_owned() };
    let done = remove_secret(&running.daemon, request(Some(&admin), message)).await.unwrap().into_inner();
    assert!(done.line.contains("is gone; proxies that show it keep it until"), "{}", done.line);
    let message = pb::ForgetRequest { proxy: proxy.proxy.clone() };
    let done = forget(&running.daemon, request(Some(&admin), message)).await.unwrap().into_inner();
    assert_eq!(done.line, format!("proxy `{}` is forgotten", proxy.proxy));
}

/// All that one call of `rotate_root` says.
async fn rotated(running: &Running, chain: &[u8], force: bool) -> Vec<pb::Progress> {
    let message = pb::RotateRootRequest { status_only: false, force };
    let stream = rotate_root(&running.daemon, request(Some(chain), message)).await.unwrap().into_inner();
    within(stream.map(Result::unwrap).collect()).await
}

#[tokio::test]
async fn who_is_connected_and_does_not_follow_is_named() {
    let (running, _) = running().await;
    let key = Key::generate().unwrap();
    let idle = running.join(&key).await;
    let mut client = running.client(Some((&idle.chain, &key.serialize_pem()))).await;
    let open = session(&mut client).await.unwrap();
    let (progress, mut heard) = mpsc::channel(16);
    let end = rotate(&running.daemon, "admin", false, LOOK, &progress).await.unwrap();
    assert_eq!((end.outcome(), end.findings.len()), (pb::Outcome::Refused, 1), "{end:?}");
    let why = format!("proxy `{}` is connected and has not renewed its certificate", idle.proxy);
    assert!(end.findings[0].starts_with(&why), "{end:?}");
    let mut lines = Vec::new();
    while let Ok(said) = heard.try_recv() {
        lines.push(said.unwrap().line);
    }
    let waits = format!("waiting for a renewal by 1 proxy (`{}`)", idle.proxy);
    assert_eq!(lines, ["a new root is trusted beside the old one", &waits]);
    drop(open);
}

/// What the agent of a proxy got is not yet what its cores verify their peers with.
#[tokio::test]
async fn a_root_waits_until_proxies_say_that_they_trust_it() {
    let (running, admin) = running().await;
    let text = "trust-domain: shop\ngroups:\n  cart:\n    listeners: { in: { address: 127.0.0.1:8080, tls: {}, \
        allow: [ { name: all, identity: 'spiffe://shop/group/*' } ], routes: [ { to: app } ] } }\n\
        \x20   services: { app: { endpoints: [127.0.0.1:1] } }\n";
    running.daemon.store.push(Some(1), text, About::default()).await.unwrap();
    let key = Key::generate().unwrap();
    let joined = running.join(&key).await;
    let mut client = running.client(Some((&joined.chain, &key.serialize_pem()))).await;
    let (reports, mut orders) = session(&mut client).await.unwrap();
    let trusts = |version: &str| pb::HeldCertificate {
        name: api::xds::TRUST_SECRET.to_owned(),
        kind: "trust".to_owned(),
        version: version.to_owned(),
        ..pb::HeldCertificate::default()
    };
    let snapshot = running.daemon.snapshots.subscribe("cart");
    let version = || snapshot.borrow().resources(Kind::Secret)[api::xds::TRUST_SECRET].version.to_string();
    within(async {
        while snapshot.borrow().resources(Kind::Secret).is_empty() {
            tokio::time::sleep(LOOK).await;
        }
    })
    .await;
    let old = version();
    reports.send(pb::Report { certificates: vec![trusts(&old)], ..pb::Report::default() }).await.unwrap();
    within(async {
        let told = || running.daemon.fleet.own_member(&joined.proxy).and_then(|member| member.report.clone());
        while told().is_none_or(|report| report.certificates.is_empty()) {
            tokio::time::sleep(LOOK).await;
        }
    })
    .await;
    let message = pb::RotateRootRequest { status_only: false, force: false };
    let mut stream = rotate_root(&running.daemon, request(Some(&admin), message)).await.unwrap().into_inner();
    let mut next = async || within(stream.next()).await.unwrap().unwrap().line;
    assert_eq!(next().await, "a new root is trusted beside the old one");
    // It renews at once, and goes on with the old roots.
    assert!(told_to_renew(&mut orders).await);
    let renewed = client.renew(renew_request(&key)).await.unwrap().into_inner();
    let own = pb::HeldCertificate {
        kind: "own".to_owned(),
        not_after_ms: renewed.not_after_ms,
        ..pb::HeldCertificate::default()
    };
    let report = async |certificates: Vec<pb::HeldCertificate>| {
        reports.send(pb::Report { certificates, ..pb::Report::default() }).await.unwrap();
    };
    report(vec![own.clone(), trusts(&old)]).await;
    assert_eq!(next().await, format!("waiting for 1 proxy (`{}`) to trust the new root", joined.proxy));
    tokio::time::sleep(3 * LOOK).await;
    assert_eq!(running.daemon.authority.stage(), Stage::Trusting);
    assert_ne!(version(), old);
    report(vec![own, trusts(&version())]).await;
    assert_eq!(next().await, "certificates are issued from the new root");
    assert_eq!(next().await, "the daemon's own certificate is of the new root");
    assert_eq!(next().await, format!("waiting for a renewal by 1 proxy (`{}`)", joined.proxy));
}

#[tokio::test]
async fn a_root_changes_as_far_as_those_who_are_there_follow() {
    let (running, admin) = running().await;
    let ann_key = Key::generate().unwrap();
    let message = pb::CreateOperatorRequest { name: "ann".to_owned(), role: "admin".to_owned(), csr: csr(&ann_key) };
    let ann = create_operator(&running.daemon, request(Some(&admin), message)).await.unwrap().into_inner().chain;
    // Two proxies: one is connected and does what it is told, one is away.
    let away = running.join(&Key::generate().unwrap()).await.proxy;
    let key = Key::generate().unwrap();
    let joined = running.join(&key).await;
    let mut client = running.client(Some((&joined.chain, &key.serialize_pem()))).await;
    let (reports, mut orders) = session(&mut client).await.unwrap();
    let following = tokio::spawn(async move {
        while told_to_renew(&mut orders).await {
            let renewed = client.renew(renew_request(&key)).await.unwrap().into_inner();
            let own = pb::HeldCertificate {
                kind: "own".to_owned(),
                not_after_ms: renewed.not_after_ms,
                ..pb::HeldCertificate::default()
            };
            reports.send(pb::Report { certificates: vec![own], ..pb::Report::default() }).await.unwrap();
        }
    });

    // An operator with a credential of her own must renew it to follow.
    let said = rotated(&running, &ann, false).await;
    let end = said.last().unwrap();
    assert_eq!(
        (said[0].line.as_str(), end.outcome()),
        ("a new root is trusted beside the old one", pb::Outcome::Running)
    );
    let renewed = renew_operator(&running.daemon, request(Some(&ann), renew_request(&ann_key))).await.unwrap();
    let ann = renewed.into_inner().chain;
    let seen = certificates(&running.daemon, request(Some(&ann), pb::CertificatesRequest {})).await.unwrap();
    assert_eq!(seen.into_inner().rotation, "a new root is trusted beside the old one");

    // The one that is connected follows; the one that is away holds the step.
    let said = rotated(&running, &ann, false).await;
    let end = said.last().unwrap();
    assert_eq!(end.outcome(), pb::Outcome::Refused, "{said:?}");
    assert_eq!(end.findings.len(), 1, "{said:?}");
    assert!(end.findings[0].starts_with(&format!("proxy `{away}` is not connected")), "{said:?}");
    running.daemon.authority.forget(&away).await.unwrap();

    let said = rotated(&running, &ann, false).await;
    let lines: Vec<_> = said.iter().map(|progress| progress.line.as_str()).collect();
    assert!(lines.contains(&"the daemon's own certificate is of the new root"), "{lines:?}");
    assert_eq!(said.last().unwrap().outcome(), pb::Outcome::Running, "her credential is of the old root: {said:?}");
    let renewed = renew_operator(&running.daemon, request(Some(&ann), renew_request(&ann_key))).await.unwrap();
    let ann = renewed.into_inner().chain;
    certificates(&running.daemon, request(Some(&ann), pb::CertificatesRequest {})).await.unwrap();
    let said = rotated(&running, &ann, false).await;
    assert_eq!(said.last().unwrap().outcome(), pb::Outcome::Applied, "{said:?}");
    assert_eq!(running.daemon.authority.roots().len(), 1);
    following.abort();
}
