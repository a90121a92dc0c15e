//! Certificates: roots, intermediates, leaves. Nothing here decides who may have one.

use super::Refusal;
use super::seal::Seal;
use crate::encode::{hex, random, sha256};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData, SanType,
    SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a leaf lives; its holder renews it at half of that.
pub(crate) const LEAF_LIFE: Duration = DAY;
/// How long an operator's certificate lives; `ringwayctl` renews it at half of that when it is used.
pub(crate) const OPERATOR_LIFE: Duration = Duration::from_secs(30 * DAY.as_secs());
/// How long an intermediate lives; another is made at half of that, and at each start.
const INTERMEDIATE_LIFE: Duration = Duration::from_secs(90 * DAY.as_secs());
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * DAY.as_secs());
/// Certificates are valid from so long before they are made: clocks differ.
pub(crate) const BACKDATED: Duration = Duration::from_secs(5 * 60);
/// The longest request for a certificate, bytes.
const MAX_REQUEST: usize = 16 * 1024;

/// A root that is trusted, and its key.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Root {
    /// Eight hexadecimal digits.
    pub(crate) id: String,
    /// For people.
    pub(crate) subject: String,
    /// PEM.
    pub(crate) certificate: String,
    /// SHA-256 of the public key (SubjectPublicKeyInfo), hexadecimal.
    pub(crate) spki: String,
    /// PKCS #8, sealed for [`Root::place`]; none: it is elsewhere.
    pub(crate) key: Option<String>,
    /// What signs where the root's key is elsewhere.
    pub(crate) intermediate: Option<Above>,
    pub(crate) not_after_ms: u64,
}

/// An intermediate that somebody brought.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Above {
    /// PEM.
    pub(crate) certificate: String,
    /// PKCS #8, sealed for [`Above::place`].
    pub(crate) key: String,
    pub(crate) not_before_ms: u64,
    pub(crate) not_after_ms: u64,
}

impl Above {
    /// What the sealed key of the one below this root is bound to.
    pub(crate) fn place(root: &str) -> String {
        format!("authority/intermediate/{root}")
    }
}

/// Without the key, though it is sealed.
impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Root").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Root {
    /// A new one.
    pub(crate) fn make(seal: &Seal, now_ms: u64) -> Result<Root, Refusal> {
        let id = hex(&random::<4>());
        let key = KeyPair::generate().map_err(broken)?;
        let subject = format!("Ringway root {id}");
        let params = authority_params(&subject, 1, now_ms, ROOT_LIFE);
        let certificate = params.self_signed(&key).map_err(broken)?.pem();
        Ok(Root {
            certificate,
            spki: hex(&sha256(&key.subject_public_key_info())),
            key: Some(seal.seal(&Root::place(&id), key.serialized_der())),
            intermediate: None,
            not_after_ms: milliseconds(params.not_after),
            subject,
            id,
        })
    }

    /// What its sealed key is bound to.
    pub(crate) fn place(id: &str) -> String {
        format!("authority/root/{id}")
    }
}

/// An authority below a root, with its key, which never leaves this process.
pub(crate) struct Intermediate {
    /// The root's id.
    pub(crate) root: String,
    /// PEM.
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    /// The middle of its life.
    half_ms: u64,
    not_after_ms: u64,
    brought: bool,
}

impl std::fmt::Debug for Intermediate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intermediate").field("root", &self.root).finish_non_exhaustive()
    }
}

/// What a leaf says.
pub(crate) struct Subject<'s> {
    pub(crate) common_name: &'s str,
    /// The SPIFFE ID.
    pub(crate) uri: &'s str,
    /// Host names and IP addresses.
    pub(crate) names: &'s [String],
    /// Servers may use it; clients may always.
    pub(crate) server: bool,
}

/// A leaf that was made.
pub(crate) struct Leaf {
    /// PEM, the leaf first.
    pub(crate) chain: String,
    pub(crate) not_before_ms: u64,
    pub(crate) certificate: Certificate,
}

/// What is kept of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate (DER), hexadecimal.
    pub fingerprint: String,
    /// The id of the root that it chains to.
    pub root: String,
    /// Milliseconds since 1970.
    pub not_after_ms: u64,
    /// The ids of the roots that its holder got with it.
    pub bundle: Vec<String>,
}

impl Intermediate {
    /// A new one below this root; or the one that was brought, where the root's key is elsewhere.
    pub(crate) fn of(root: &Root, seal: &Seal, now_ms: u64) -> Result<Intermediate, Refusal> {
        match (&root.key, &root.intermediate) {
            (Some(key), _) => Intermediate::make(root, &opened(seal, &Root::place(&root.id), key)?, now_ms),
            (None, Some(above)) => {
                let key = opened(seal, &Above::place(&root.id), &above.key)?;
                Ok(Intermediate {
                    root: root.id.clone(),
                    certificate: above.certificate.clone(),
                    issuer: Issuer::from_ca_cert_pem(&above.certificate, pair(&key)?).map_err(broken)?,
                    half_ms: above.not_before_ms.midpoint(above.not_after_ms),
                    not_after_ms: above.not_after_ms,
                    brought: true,
                })
            }
            (None, None) => Err(Refusal::Broken(format!("root {} has nothing to sign with", root.id))),
        }
    }

    fn make(root: &Root, key: &[u8], now_ms: u64) -> Result<Intermediate, Refusal> {
        let above = Issuer::from_ca_cert_pem(&root.certificate, pair(key)?).map_err(broken)?;
        let key = KeyPair::generate().map_err(broken)?;
        let name = format!("Ringway intermediate {}", hex(&random::<4>()));
        let mut params = authority_params(&name, 0, now_ms, INTERMEDIATE_LIFE);
        params.use_authority_key_identifier_extension = true;
        params.not_after = params.not_after.min(moment(root.not_after_ms));
        let certificate = params.signed_by(&key, &above).map_err(broken)?.pem();
        let not_after_ms = milliseconds(params.not_after);
        Ok(Intermediate {
            root: root.id.clone(),
            certificate,
            issuer: Issuer::new(params, key),
            half_ms: now_ms.midpoint(not_after_ms),
            not_after_ms,
            brought: false,
        })
    }

    /// It is time for another one.
    pub(crate) fn is_old(&self, now_ms: u64) -> bool {
        !self.brought && now_ms > self.half_ms
    }

    /// It is time that somebody brings another one.
    pub(crate) fn fades(&self, now_ms: u64) -> bool {
        self.brought && now_ms > self.half_ms
    }

    /// This one is what the root says: where one was brought, that one.
    pub(crate) fn fits(&self, root: &Root) -> bool {
        let same = root.intermediate.as_ref().is_none_or(|above| above.certificate == self.certificate);
        self.root == root.id && same
    }

    /// When it expires, milliseconds since 1970.
    pub(crate) fn not_after_ms(&self) -> u64 {
        self.not_after_ms
    }

    /// Makes a leaf for this key. It lives so long, and never longer than the intermediate.
    pub(crate) fn issue(
        &self,
        key: &impl PublicKeyData,
        subject: &Subject<'_>,
        life: Duration,
        now_ms: u64,
    ) -> Result<Leaf, Refusal> {
        let serial = serial();
        let mut params = CertificateParams::default();
        params.distinguished_name = named(subject.common_name);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        (params.not_before, params.not_after) = validity(now_ms, life);
        params.not_after = params.not_after.min(moment(self.not_after_ms));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.extended_key_usages.extend(subject.server.then_some(ExtendedKeyUsagePurpose::ServerAuth));
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = vec![SanType::URI(subject.uri.try_into().map_err(broken)?)];
        for name in subject.names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into().map_err(broken)?),
            });
        }
        let leaf = params.signed_by(key, &self.issuer).map_err(broken)?;
        let certificate = Certificate {
            serial: hex(&serial),
            fingerprint: fingerprint(leaf.der()),
            root: self.root.clone(),
            not_after_ms: milliseconds(params.not_after),
            bundle: Vec::new(),
        };
        let chain = format!("{}{}", leaf.pem(), self.certificate);
        Ok(Leaf { chain, not_before_ms: milliseconds(params.not_before), certificate })
    }
}

fn opened(seal: &Seal, place: &str, key: &str) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    seal.open_text(place, key).ok_or_else(|| Refusal::Broken(format!("the key at `{place}` in the store is damaged")))
}

fn pair(key: &[u8]) -> Result<KeyPair, Refusal> {
    KeyPair::try_from(&PrivatePkcs8KeyDer::from(key)).map_err(broken)
}

/// A key whose holder proved that it has the other half.
#[derive(Debug)]
pub(crate) struct ProvenKey {
    pub(crate) key: SubjectPublicKeyInfo,
    /// SHA-256 of the SubjectPublicKeyInfo, hexadecimal.
    pub(crate) spki: String,
}

impl ProvenKey {
    /// Reads a request (PKCS #10, DER): its key and its signature alone. Whatever else it asks for is not looked at.
    pub(crate) fn read(request: &[u8]) -> Result<ProvenKey, Refusal> {
        let wrong = |why: &str| Refusal::Wrong(format!("the certificate request {why}"));
        if request.len() > MAX_REQUEST {
            return Err(wrong("is longer than 16 KiB"));
        }
        let (rest, csr) = X509CertificationRequest::from_der(request).map_err(|_| wrong("is no PKCS #10 in DER"))?;
        if !rest.is_empty() {
            return Err(wrong("has something behind it"));
        }
        csr.verify_signature().map_err(|_| wrong("is not signed with its own key"))?;
        let spki = csr.certification_request_info.subject_pki.raw;
        let kind = || wrong("has a key of another kind than ECDSA P-256, ECDSA P-384 or Ed25519");
        let key = SubjectPublicKeyInfo::from_der(spki).map_err(|_| kind())?;
        let known = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519];
        if !known.contains(&key.algorithm()) {
            return Err(kind());
        }
        Ok(ProvenKey { key, spki: hex(&sha256(spki)) })
    }
}

/// SHA-256 of a certificate, hexadecimal.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex(&sha256(certificate))
}

/// A positive number of 16 bytes that begins with no zero (RFC 5280, section 4.1.2.2).
fn serial() -> [u8; 16] {
    let mut serial = random::<16>();
    serial[0] = serial[0] & 0x3f | 0x40;
    serial
}

fn authority_params(name: &str, below: u8, now_ms: u64, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.serial_number = Some(SerialNumber::from_slice(&serial()));
    (params.not_before, params.not_after) = validity(now_ms, life);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn validity(now_ms: u64, life: Duration) -> (OffsetDateTime, OffsetDateTime) {
    (moment(now_ms) - BACKDATED, moment(now_ms) + life)
}

/// Certificates know whole seconds.
fn moment(ms: u64) -> OffsetDateTime {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn milliseconds(moment: OffsetDateTime) -> u64 {
    u64::try_from(moment.unix_timestamp()).unwrap_or(0) * 1000
}

/// When a certificate expires, milliseconds since 1970.
pub(crate) fn milliseconds_of(certificate: &X509Certificate<'_>) -> u64 {
    u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0) * 1000
}

/// What the cryptography says no to is no one's fault but ours.
pub(crate) fn broken(error: impl std::fmt::Display) -> Refusal {
    Refusal::Broken(format!("cannot make a certificate: {error}"))
}
