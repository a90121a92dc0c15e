//! A certificate authority as a daemon has one: a root, an intermediate, certificates for requests.

use api::pb::Issued;
use crypto::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use std::time::{Duration, SystemTime};

/// What daemons backdate certificates by.
const BACKDATED: Duration = Duration::from_secs(300);

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    intermediate: String,
    pub(crate) root: String,
    root_key: Vec<u8>,
}

/// A certificate chain and its key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let ca = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            (params, KeyPair::generate().unwrap())
        };
        let ((root, root_key), (params, key)) = (ca("root"), ca("intermediate"));
        let pem = root.self_signed(&root_key).unwrap().pem();
        let spki = root_key.subject_public_key_info();
        let intermediate = params.signed_by(&key, &Issuer::new(root, &root_key)).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), intermediate, root: pem, root_key: spki }
    }

    /// SHA-256 of the root's public key.
    pub(crate) fn pin(&self) -> [u8; 32] {
        digest(&SHA256, &self.root_key).as_ref().try_into().unwrap()
    }

    fn leaf(identity: &str, life: Duration, now: SystemTime, params: &mut CertificateParams) {
        params.subject_alt_names = vec![SanType::URI(identity.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        // Short lives are not backdated by more than they last: half of one must be left.
        params.not_before = (now - BACKDATED.min(life / 100)).into();
        params.not_after = (now + life).into();
    }

    /// For a key made here.
    pub(crate) fn pair(&self, identity: &str) -> Pair {
        let mut params = CertificateParams::default();
        Authority::leaf(identity, Duration::from_secs(86_400), SystemTime::now(), &mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { chain: format!("{leaf}{}", self.intermediate), key: key.serialize_pem() }
    }

    /// For somebody else's key, at a time.
    pub(crate) fn sign(&self, csr: &[u8], identity: &str, life: Duration, now: SystemTime) -> Issued {
        let mut request = CertificateSigningRequestParams::from_der(&csr.to_vec().into()).unwrap();
        Authority::leaf(identity, life, now, &mut request.params);
        let leaf = request.signed_by(&self.issuer).unwrap().pem();
        Issued {
            chain: format!("{leaf}{}", self.intermediate).into_bytes(),
            bundle: self.root.clone().into_bytes(),
            proxy: "proxy-1".into(),
            group: "edge".into(),
            identity: identity.into(),
            ..Issued::default()
        }
    }
}

/// The public key in a request.
pub(crate) fn key_of(csr: &[u8]) -> Vec<u8> {
    CertificateSigningRequestParams::from_der(&csr.to_vec().into()).unwrap().public_key.der_bytes().to_vec()
}
