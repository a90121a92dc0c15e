//! The authority, at a time that tests choose.

mod bringing;
mod joining;
mod operating;
mod rotating;
mod sharing;
mod stealing;

use super::*;
use api::mesh::KeyPair as Pair;
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// A moment in 2027; whole seconds, as certificates know them.
pub(super) const NOW_MS: u64 = 1_800_000_000_000;
pub(super) const HOUR_MS: u64 = 3_600_000;

/// An authority with a store of its own.
pub(super) struct Place {
    pub(super) folder: TempDir,
    pub(super) store: Store,
    pub(super) authority: Authority,
}

impl Place {
    pub(super) async fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let authority = Authority::open(store.clone(), &source(folder.path()), None, NOW_MS).await.unwrap();
        Place { folder, store, authority }
    }

    /// The text of a token for group `cart`.
    pub(super) async fn token(&self, uses: u32) -> String {
        self.authority.create_token(token_for("cart", uses), NOW_MS).await.unwrap().1
    }

    /// A proxy of group `cart`, and its key.
    pub(super) async fn proxy(&self) -> (Issued, KeyPair) {
        let (key, csr) = request(&[]);
        let token = self.token(1).await;
        (self.authority.join(&token, &csr, "host", NOW_MS).await.unwrap(), key)
    }
}

pub(super) fn source(folder: &Path) -> Source {
    Source { default: folder.join("store.key"), ..Source::default() }
}

pub(super) fn token_for(group: &str, uses: u32) -> NewToken {
    NewToken {
        group: group.to_owned(),
        identity: format!("spiffe://shop/group/{group}"),
        uses,
        ttl_s: 3600,
        author: "ann".to_owned(),
        daemons: vec!["127.0.0.1:9443".to_owned()],
    }
}

/// A key, and a request with it that asks for these names.
pub(super) fn request(names: &[SanType]) -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let csr = request_of(&key, names);
    (key, csr)
}

pub(super) fn request_of(key: &KeyPair, names: &[SanType]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.to_vec();
    params.serialize_request(key).unwrap().der().to_vec()
}

/// The connection of somebody who shows this chain.
pub(super) fn peer(chain: &str) -> Peer {
    let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
    let certificate = PeerCertificate::read(&leaf).map(Arc::new);
    assert!(certificate.is_some());
    Peer { address: "127.0.0.1:1".parse().unwrap(), certificate }
}

/// What openssl says about a chain, at this time, for this purpose.
pub(super) fn verified(chain: &str, roots: &str, at_ms: u64, purpose: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("chain"), chain).unwrap();
    std::fs::write(path("roots"), roots).unwrap();
    let output = Command::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", purpose, "-attime", &(at_ms / 1000).to_string()])
        .arg("-CAfile")
        .arg(path("roots"))
        .arg("-untrusted")
        .arg(path("chain"))
        .arg(path("chain"))
        .output()
        .expect("openssl");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[tokio::test]
async fn openssl_verifies_what_is_issued() {
    let place = Place::new().await;
    let roots = place.authority.bundle();
    let (proxy, _) = place.proxy().await;
    let names = ["ctl".to_owned(), "10.0.0.1".to_owned()];
    let (own, _) = place.authority.own_certificate("shop", &names, NOW_MS).unwrap();
    let (_, csr) = request(&[]);
    let operator = place.authority.create_operator("bob", Role::Read, &csr, "ann", "shop", NOW_MS).await.unwrap();
    for (chain, server) in [(&proxy.chain, true), (&own, true), (&operator.chain, false)] {
        assert_eq!(verified(chain, &roots, NOW_MS, "sslclient"), Ok(()));
        assert_eq!(verified(chain, &roots, NOW_MS, "sslserver").is_ok(), server);
        // Another mesh does not.
        let other = Place::new().await;
        assert!(verified(chain, &other.authority.bundle(), NOW_MS, "sslclient").is_err());
    }
}

#[tokio::test]
async fn the_daemon_shows_the_root_that_tokens_name_by_its_key_alone() {
    let place = Place::new().await;
    let (own, _) = place.authority.own_certificate("shop", &[], NOW_MS).unwrap();
    let shown = wire::tls::root_keys(own.as_bytes()).unwrap();
    let token = api::token::Token::decode(&place.token(1).await).unwrap();
    assert_eq!(shown.last(), token.roots.first());
}

#[tokio::test]
async fn a_leaf_is_valid_for_a_day_and_for_clocks_that_are_behind() {
    let place = Place::new().await;
    let roots = place.authority.bundle();
    let (issued, _) = place.proxy().await;
    assert_eq!(issued.not_after_ms - NOW_MS, 24 * HOUR_MS);
    assert_eq!(NOW_MS - issued.not_before_ms, 5 * 60_000);
    let at = |ms: u64| verified(&issued.chain, &roots, ms, "sslclient").is_ok();
    assert!(at(NOW_MS - 4 * 60_000 - 59_000), "behind");
    assert!(!at(NOW_MS - 5 * 60_000 - 1000), "too far behind");
    assert!(at(NOW_MS + 24 * HOUR_MS - 1000));
    assert!(!at(NOW_MS + 24 * HOUR_MS + 1000), "expired");
}

#[tokio::test]
async fn no_leaf_outlives_what_is_above_it_and_intermediates_are_made_in_time() {
    const DAY_MS: u64 = 24 * HOUR_MS;
    let place = Place::new().await;
    assert_eq!(place.authority.refresh(NOW_MS + 44 * DAY_MS).await, Ok(0));
    // Without a new one, a leaf of the last hours ends with its intermediate.
    let late_ms = NOW_MS + 90 * DAY_MS - HOUR_MS;
    let (own, _) = place.authority.own_certificate("shop", &[], late_ms).unwrap();
    assert_eq!(peer(&own).certificate.unwrap().not_after_ms, NOW_MS + 90 * DAY_MS);
    assert_eq!(place.authority.refresh(NOW_MS + 46 * DAY_MS).await, Ok(1));
    assert_eq!(place.authority.refresh(NOW_MS + 46 * DAY_MS).await, Ok(1));
    let (own, _) = place.authority.own_certificate("shop", &[], late_ms).unwrap();
    assert_eq!(peer(&own).certificate.unwrap().not_after_ms, late_ms + DAY_MS);
    assert_eq!(verified(&own, &place.authority.bundle(), late_ms, "sslserver"), Ok(()));
}
