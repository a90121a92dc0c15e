//! The verifiers for other programs' TLS, asked as rustls asks them.

use super::super::{failure, pinned, verifier};
use super::support::*;
use super::*;
use crate::spiffe::Pattern;
use crypto::digest::{SHA256, digest};
use rustls::CertificateError;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use webpki::EndEntityCert;

const DAEMON: &str = "spiffe://shop/ringwayd";

fn ders(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(|der| der.unwrap()).collect()
}

/// SHA-256 of a root's key.
fn pin(ca: &Ca) -> [u8; 32] {
    let root = &ders(&ca.pem)[0];
    let key = EndEntityCert::try_from(root).unwrap().subject_public_key_info();
    digest(&SHA256, &key).as_ref().try_into().unwrap()
}

/// What is said about a server with this chain.
fn ask(verifier: &Arc<dyn ServerCertVerifier>, chain: &str) -> Result<(), rustls::Error> {
    let chain = ders(chain);
    let name = ServerName::try_from("anything.example").unwrap();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW_S));
    verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], now).map(drop)
}

fn refused(result: Result<(), rustls::Error>) -> CertificateError {
    match result.unwrap_err() {
        rustls::Error::InvalidCertificate(why) => why,
        other => panic!("{other}"),
    }
}

#[test]
fn a_daemon_is_known_by_the_hash_of_its_roots_key() {
    let (ca, other) = (Ca::new("ca"), Ca::new("ca"));
    let daemon = ca.identified(DAEMON);
    let whole = format!("{}{}", daemon.chain, ca.pem);
    let pinned = |roots: &[[u8; 32]]| pinned(roots.to_vec(), "/ringwayd");
    assert_eq!(ask(&pinned(&[pin(&ca)]), &whole), Ok(()));
    assert_eq!(ask(&pinned(&[pin(&other), pin(&ca)]), &whole), Ok(()), "any of several roots, while they change");
    assert_eq!(refused(ask(&pinned(&[pin(&other)]), &whole)), CertificateError::UnknownIssuer);
    assert_eq!(
        refused(ask(&pinned(&[pin(&ca)]), &daemon.chain)),
        CertificateError::UnknownIssuer,
        "the root must come"
    );
    // Whoever can show the root, but has no certificate of it.
    let liar = other.identified(DAEMON);
    let shown = format!("{}{}", liar.chain, ca.pem);
    assert_eq!(refused(ask(&pinned(&[pin(&ca)]), &shown)), CertificateError::UnknownIssuer);
    assert_eq!(refused(ask(&pinned(&[]), &whole)), CertificateError::UnknownIssuer);
}

#[test]
fn another_workload_of_the_same_root_is_no_daemon() {
    let ca = Ca::new("ca");
    let pinned = pinned(vec![pin(&ca)], "/ringwayd");
    for uri in ["spiffe://shop/ringwayd/more", "spiffe://shop/web", "spiffe://shop/x/ringwayd"] {
        let chain = format!("{}{}", ca.identified(uri).chain, ca.pem);
        assert!(matches!(refused(ask(&pinned, &chain)), CertificateError::Other(_)), "{uri}");
    }
    let named = format!("{}{}", ca.named(&["ringwayd.example"]).chain, ca.pem);
    assert!(matches!(refused(ask(&pinned, &named)), CertificateError::Other(_)));
    let expired = ca.issue(|params| {
        params.subject_alt_names = vec![rcgen::SanType::URI(DAEMON.try_into().unwrap())];
        params.not_after = rcgen::date_time_ymd(2024, 6, 1);
    });
    assert_eq!(refused(ask(&pinned, &format!("{}{}", expired.chain, ca.pem))), CertificateError::Expired);
}

#[test]
fn why_a_certificate_is_refused_is_found_behind_other_errors() {
    let ca = Ca::new("ca");
    let refused = ask(&pinned(vec![[0; 32]], "/ringwayd"), &ca.identified(DAEMON).chain).unwrap_err();
    let behind = std::io::Error::other(std::io::Error::other(refused.clone()));
    assert_eq!((failure(&refused), failure(&behind)), (Some(Failure::UnknownIssuer), Some(Failure::UnknownIssuer)));
    assert_eq!(failure(&std::io::Error::other("else")), None);
    assert_eq!(failure(&rustls::Error::DecryptError), None);
}

#[test]
fn a_bundle_and_an_identity_decide_once_a_proxy_has_joined() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let expect = vec![Expect::Identity(Pattern::parse(DAEMON).unwrap())];
    let verifier = verifier(ca.trust(&["shop"]), expect);
    assert_eq!(ask(&verifier, &ca.identified(DAEMON).chain), Ok(()));
    assert!(matches!(refused(ask(&verifier, &ca.identified("spiffe://shop/web").chain)), CertificateError::Other(_)));
    assert_eq!(refused(ask(&verifier, &other.identified(DAEMON).chain)), CertificateError::UnknownIssuer);
}
