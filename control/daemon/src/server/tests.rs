//! The server, with real connections: who gets in, who is told what, and what ends when it must.

use crate::authority::{Authority, NewToken, PeerCertificate, Source, Stage, Step};
use crate::run::{keep, own_config};
use crate::settings::{Given, Settings};
use crate::state::{Daemon, now_ms};
use crate::store::Store;
use crate::store::documents::About;
use api::pb;
use api::pb::agent_client::AgentClient;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

const HOUR_MS: u64 = 3_600_000;

/// A daemon that answers.
pub(crate) struct Running {
    pub(crate) folder: TempDir,
    pub(crate) daemon: Arc<Daemon>,
    address: SocketAddr,
    configs: watch::Receiver<Arc<rustls::ServerConfig>>,
}

impl Running {
    pub(crate) async fn start() -> Running {
        Running::on(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn on(folder: TempDir) -> Running {
        let given = Given { data_dir: Some(folder.path().to_owned()), ..Given::default() };
        let settings = Settings::read(None, &given).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let daemon = Daemon::open(settings, address).await.unwrap();
        let (sender, configs) = watch::channel(own_config(&daemon).unwrap());
        tokio::spawn(keep(daemon.clone(), sender));
        tokio::spawn(super::serve(daemon.clone(), listener, configs.clone(), std::future::pending()));
        Running { folder, daemon, address, configs }
    }

    /// Another daemon on its folder, in its place.
    pub(crate) async fn again(self) -> Running {
        let Running { folder, daemon, .. } = self;
        let copy = tempfile::tempdir().unwrap();
        drop(daemon);
        for file in std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
            if file.file_type().unwrap().is_file() {
                std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
            }
        }
        Running::on(copy).await
    }

    /// A client with this chain and key, if any, that trusts these roots.
    async fn try_client(&self, own: Option<(&[u8], &str)>, roots: &str) -> Result<AgentClient<Channel>, String> {
        self.try_channel(own, roots).await.map(AgentClient::new)
    }

    /// A connection with this chain and key, if any.
    pub(crate) async fn channel(&self, own: Option<(&[u8], &str)>) -> Channel {
        self.try_channel(own, &self.daemon.authority.bundle()).await.unwrap()
    }

    async fn try_channel(&self, own: Option<(&[u8], &str)>, roots: &str) -> Result<Channel, String> {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(roots)).domain_name("localhost");
        if let Some((chain, key)) = own {
            tls = tls.identity(Identity::from_pem(chain, key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).unwrap();
        let endpoint = endpoint.tls_config(tls).unwrap().connect_timeout(Duration::from_secs(10));
        endpoint.connect().await.map_err(|error| format!("{error:?}"))
    }

    pub(crate) async fn client(&self, own: Option<(&[u8], &str)>) -> AgentClient<Channel> {
        self.try_client(own, &self.daemon.authority.bundle()).await.unwrap()
    }

    pub(crate) async fn join(&self, key: &KeyPair) -> pb::Issued {
        self.join_as(key, "cart").await
    }

    pub(crate) async fn join_as(&self, key: &KeyPair, group: &str) -> pb::Issued {
        let request = join_request(&token_of(&self.daemon.authority, group, now_ms()).await, key);
        self.client(None).await.join(request).await.unwrap().into_inner()
    }
}

async fn token_of(authority: &Authority, group: &str, now_ms: u64) -> String {
    let new = NewToken {
        group: group.to_owned(),
        identity: format!("spiffe://mesh/group/{group}"),
        daemons: vec!["127.0.0.1:1".to_owned()],
        ..NewToken::default()
    };
    authority.create_token(new, now_ms).await.unwrap().1
}

pub(crate) fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

fn join_request(token: &str, key: &KeyPair) -> pb::JoinRequest {
    pb::JoinRequest { token: token.to_owned(), csr: csr(key), name: "host".to_owned(), clock_ms: now_ms() }
}

pub(crate) fn renew_request(key: &KeyPair) -> pb::RenewRequest {
    pb::RenewRequest { csr: csr(key), clock_ms: now_ms() }
}

/// A session, and its end that reports are put in.
pub(crate) async fn session(
    client: &mut AgentClient<Channel>,
) -> Result<(mpsc::Sender<pb::Report>, tonic::Streaming<pb::Order>), Status> {
    let (reports, stream) = mpsc::channel(4);
    reports.send(pb::Report::default()).await.unwrap();
    let mut orders = client.session(ReceiverStream::new(stream)).await?.into_inner();
    // The first says how often to report.
    let first = orders.message().await?.ok_or_else(|| Status::internal("the session ended"))?;
    assert!(first.interval_ms > 0 && !first.renew, "{first:?}");
    Ok((reports, orders))
}

/// Waits until a proxy is told to renew; false: its stream ended.
pub(crate) async fn told_to_renew(orders: &mut tonic::Streaming<pb::Order>) -> bool {
    loop {
        match orders.message().await {
            Ok(Some(order)) if order.renew => return true,
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return false,
        }
    }
}

pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("in time")
}

#[tokio::test]
async fn a_proxy_joins_without_a_certificate_and_renews_with_it() {
    let running = Running::start().await;
    let key = KeyPair::generate().unwrap();
    let joined = running.join(&key).await;
    assert_eq!((joined.group.as_str(), joined.identity.as_str()), ("cart", "spiffe://mesh/group/cart"));
    assert_eq!(joined.bundle, running.daemon.authority.bundle().into_bytes());
    assert_eq!(joined.daemons, [running.address.to_string()]);
    assert!(joined.clock_ms.abs_diff(now_ms()) < 60_000 && joined.not_after_ms > now_ms() + 23 * HOUR_MS);

    let pem = key.serialize_pem();
    let mut client = running.client(Some((&joined.chain, &pem))).await;
    let renewed = client.renew(renew_request(&key)).await.unwrap().into_inner();
    assert_eq!(renewed.proxy, joined.proxy);
    assert_ne!(renewed.chain, joined.chain);
    assert!(session(&mut client).await.is_ok());
}

#[tokio::test]
async fn who_shows_nothing_may_join_and_nothing_else() {
    let running = Running::start().await;
    let key = KeyPair::generate().unwrap();
    let mut client = running.client(None).await;
    let refused = client.renew(renew_request(&key)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    assert_eq!(refused.message(), "this needs the certificate of a proxy; join first");
    assert_eq!(session(&mut client).await.unwrap_err().code(), Code::Unauthenticated);
    let request = pb::JoinRequest { token: "rw1.AAAA".to_owned(), ..join_request("", &key) };
    assert_eq!(client.join(request).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(running.daemon.metrics.refused_joins.get(), 1);
}

#[tokio::test]
async fn a_certificate_of_another_authority_fails_the_handshake() {
    let (running, other) = (Running::start().await, Running::start().await);
    let key = KeyPair::generate().unwrap();
    let foreign = other.join(&key).await;
    let pem = key.serialize_pem();
    // TLS 1.3: the client hears of it with its first request.
    let client = running.try_client(Some((&foreign.chain, &pem)), &running.daemon.authority.bundle()).await;
    let refused = match client {
        Ok(mut client) => client.renew(renew_request(&key)).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    within(async {
        while running.daemon.metrics.handshake_failures.get() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // And who trusts other roots does not talk to this daemon.
    assert!(running.try_client(None, &other.daemon.authority.bundle()).await.is_err());
}

#[tokio::test]
async fn the_daemons_certificate_is_not_a_proxys() {
    let running = Running::start().await;
    let (chain, key) = running.daemon.authority.own_certificate("mesh", &[], now_ms()).unwrap();
    let mut client = running.client(Some((chain.as_bytes(), &key.serialize_pem()))).await;
    let refused = client.renew(renew_request(&KeyPair::generate().unwrap())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
}

#[tokio::test]
async fn a_forgotten_proxys_connection_ends_and_others_stay() {
    let running = Running::start().await;
    let mut keep = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..2 {
        let key = KeyPair::generate().unwrap();
        let joined = running.join(&key).await;
        let mut client = running.client(Some((&joined.chain, &key.serialize_pem()))).await;
        let (reports, orders) = session(&mut client).await.unwrap();
        streams.push((joined.proxy.clone(), orders));
        keep.push((client, reports, key));
    }
    running.daemon.authority.forget(&streams[0].0).await.unwrap();
    assert!(!within(told_to_renew(&mut streams[0].1)).await);
    let (first, second) = (renew_request(&keep[0].2), renew_request(&keep[1].2));
    let again = keep[0].0.renew(first).await.unwrap_err();
    assert_eq!(again.code(), Code::Unauthenticated, "{again}");
    let stays = tokio::time::timeout(Duration::from_millis(300), told_to_renew(&mut streams[1].1)).await;
    assert!(stays.is_err(), "the other's stream ended too");
    assert!(keep[1].0.renew(second).await.is_ok());
}

/// A proxy that joined so long ago, in a store that its daemon opens only now.
async fn absent_since(folder: &Path, hours: u64) -> (KeyPair, String) {
    let then_ms = now_ms() - hours * HOUR_MS;
    let store = Store::open(folder).unwrap();
    let source = Source { default: folder.join("store.key"), ..Source::default() };
    let authority = Authority::open(store, &source, None, then_ms).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let token = token_of(&authority, "cart", then_ms).await;
    let issued = authority.join(&token, &csr(&key), "", then_ms).await.unwrap();
    drop(authority);
    // Its file is closed a moment later.
    while Store::open(folder).is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    (key, issued.chain)
}

#[tokio::test]
async fn who_was_away_longer_than_its_certificate_lives_renews_and_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (key, chain) = absent_since(folder.path(), 30).await;
    let running = Running::on(folder).await;
    let pem = key.serialize_pem();
    let mut client = running.client(Some((chain.as_bytes(), &pem))).await;
    let refused = session(&mut client).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("expired; renew it"), "{refused}");
    let renewed = client.renew(renew_request(&key)).await.unwrap().into_inner();
    let mut client = running.client(Some((&renewed.chain, &pem))).await;
    assert!(session(&mut client).await.is_ok());
}

#[tokio::test]
async fn who_was_away_longer_than_a_week_does_not_get_in() {
    let folder = tempfile::tempdir().unwrap();
    let (key, chain) = absent_since(folder.path(), 9 * 24).await;
    let running = Running::on(folder).await;
    let own = Some((chain.as_bytes(), key.serialize_pem()));
    let own = own.as_ref().map(|(chain, key)| (*chain, key.as_str()));
    if let Ok(mut client) = running.try_client(own, &running.daemon.authority.bundle()).await {
        assert!(client.renew(renew_request(&key)).await.is_err());
    }
}

#[tokio::test]
async fn roots_change_while_proxies_are_connected_and_nobody_reconnects() {
    let running = Running::start().await;
    let authority = &running.daemon.authority;
    let key = KeyPair::generate().unwrap();
    let joined = running.join(&key).await;
    let old = authority.bundle();
    let mut client = running.client(Some((&joined.chain, &key.serialize_pem()))).await;
    let (reports, mut orders) = session(&mut client).await.unwrap();
    let mut rotated = Vec::new();
    let mut configs = running.configs.clone();
    let mut newest = joined;
    for wanted in [Stage::Trusting, Stage::Issuing, Stage::Serving, Stage::Steady] {
        configs.mark_unchanged();
        within(async {
            // The steps that wait for the proxy go on once it has done what it was told.
            while authority.rotate(false, now_ms()).await.unwrap() != Step::Done(wanted) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        rotated.push(wanted);
        // The daemon takes new settings by itself.
        within(configs.changed()).await.unwrap();
        if wanted == Stage::Serving {
            // Its own certificate is of the new root: the old one alone does not verify it.
            assert!(running.try_client(None, &old).await.is_err());
            assert!(running.try_client(None, &String::from_utf8(newest.bundle.clone()).unwrap()).await.is_ok());
        }
        // On the connection that it has since the start, the proxy is told to renew, and reports what it then has.
        if wanted != Stage::Serving {
            assert!(within(told_to_renew(&mut orders)).await);
            newest = client.renew(renew_request(&key)).await.unwrap().into_inner();
            let own = pb::HeldCertificate {
                kind: "own".to_owned(),
                not_after_ms: newest.not_after_ms,
                ..pb::HeldCertificate::default()
            };
            reports.send(pb::Report { certificates: vec![own], ..pb::Report::default() }).await.unwrap();
        }
    }
    assert_eq!(rotated.len(), 4);
    let new = authority.bundle();
    assert_ne!(new, old);
    assert_eq!(newest.bundle, new.into_bytes());
    // A new connection with what it has now.
    let mut client = running.client(Some((&newest.chain, &key.serialize_pem()))).await;
    assert!(session(&mut client).await.is_ok());
}

/// The identity that the daemon shows to who connects now.
async fn shown(running: &Running) -> String {
    let mut roots = rustls::RootCertStore::empty();
    let bundle = running.daemon.authority.bundle();
    for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let socket = tokio::net::TcpStream::connect(running.address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    // Leaf, intermediate, and the root, which who joins knows by its key alone.
    assert_eq!(chain.len(), 3);
    PeerCertificate::read(&chain[0]).unwrap().uri
}

#[tokio::test]
async fn the_daemons_identity_is_in_the_documents_trust_domain() {
    let running = Running::start().await;
    assert_eq!(shown(&running).await, "spiffe://mesh/ringwayd");
    let text = "trust-domain: shop\ngroups: { a: { listeners: { x: { address: 127.0.0.1:1, protocol: tcp, to: s } } } }\n\
        services: { s: { endpoints: [127.0.0.1:2] } }\n";
    running.daemon.store.push(None, text, About::default()).await.unwrap();
    within(async {
        while shown(&running).await != "spiffe://shop/ringwayd" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[test]
fn strangers_have_room_of_their_own_and_each_address_a_part_of_it() {
    let strangers = super::connected::Connected::default();
    let enter = |ip: &str| super::entered(&strangers, ip.parse().unwrap(), (5, 3));
    let first: Vec<_> = (0..3).filter_map(|_| enter("10.0.0.1")).collect();
    assert_eq!(first.len(), 3);
    assert!(enter("10.0.0.1").is_none() && enter("::ffff:10.0.0.1").is_none(), "one address has its part");
    let second = [enter("2001:db8::1"), enter("2001:db8::2")];
    assert!(second.iter().all(Option::is_some));
    assert!(enter("10.0.0.3").is_none(), "there is no room");
    drop(first);
    assert!(enter("10.0.0.1").is_some());
    let third = enter("2001:db8::3");
    assert!(third.is_some() && enter("2001:db8::4").is_none(), "one network has the part of one");
}

/// Strangers who hold all the room that they have keep nobody out who is known; and nobody has more than a part of it.
#[tokio::test]
async fn one_holder_has_so_many_connections() {
    let running = Running::start().await;
    let key = KeyPair::generate().unwrap();
    let joined = running.join(&key).await;
    let pem = key.serialize_pem();
    let own = Some((&*joined.chain, pem.as_str()));
    let mut held = Vec::new();
    for _ in 0..super::connection::MOST_OF_HOLDER {
        held.push(running.channel(own).await);
    }
    let daemon = &running.daemon;
    within(async {
        while daemon.connected.count() < super::connection::MOST_OF_HOLDER {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let before = daemon.metrics.handshake_failures.get();
    let _one_more = running.try_channel(own, &daemon.authority.bundle()).await;
    within(async {
        while daemon.metrics.handshake_failures.get() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(daemon.connected.count(), super::connection::MOST_OF_HOLDER);
    assert!(running.client(None).await.join(pb::JoinRequest::default()).await.is_err(), "others come in");
}
