//! A workshop for certificates: authorities, leaves good and bad, revocation lists, as PEM. Alternative names are written in DER
//! here, so that what no sound tool would write can be written too.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CustomExtension,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber,
};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A day in seconds.
pub const DAY_S: i64 = 86_400;

/// The object identifier of subjectAltName (RFC 5280 section 4.2.1.6).
const ALTERNATIVE_NAMES: &[u64] = &[2, 5, 29, 17];

/// What kind of key a certificate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// Its signatures are all of one length.
    Ed25519,
    /// RSA of 2048 bits; always the same key.
    Rsa,
}

impl Key {
    /// All of them.
    pub const ALL: [Key; 4] = [Key::P256, Key::P384, Key::Ed25519, Key::Rsa];

    /// The TLS 1.2 suite of this name, which is written as for ECDSA, that goes with such a key.
    pub fn suite(self, name: &'static str) -> &'static str {
        match (self, name) {
            (Key::Rsa, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256") => "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            (Key::Rsa, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384") => "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            (Key::Rsa, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256") => {
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"
            }
            _ => name,
        }
    }
}

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Clients and servers.
    Both,
    /// Clients only.
    Client,
    /// Servers only.
    Server,
    /// Neither: code signing.
    Other,
    /// The extension is left out: any.
    Unsaid,
}

/// A certificate before it is issued.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Tag and content of each GeneralName.
    names: Vec<(u8, Vec<u8>)>,
    begins_s: i64,
    ends_s: i64,
    usage: Usage,
    key: Key,
}

/// Who issues certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// What stands between a leaf and the root, in PEM.
    between: String,
    next: AtomicU64,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate and what stands between it and the root, in PEM.
    pub chain: String,
    /// The key in PEM (PKCS #8).
    pub key: String,
    /// The certificate alone.
    pub der: Vec<u8>,
    /// Its serial number.
    pub serial: u64,
}

impl Leaf {
    /// With these names: DNS names, addresses, and URIs, which have `://` in them. Valid from yesterday for thirty days, for clients
    /// and servers, with a P-256 key.
    pub fn of(names: &[&str]) -> Leaf {
        let leaf = Leaf { names: Vec::new(), begins_s: -DAY_S, ends_s: 30 * DAY_S, usage: Usage::Both, key: Key::P256 };
        names.iter().fold(leaf, |leaf, name| leaf.named(name))
    }

    fn named(mut self, name: &str) -> Leaf {
        let name = match name.parse() {
            Ok(IpAddr::V4(address)) => (0x87, address.octets().to_vec()),
            Ok(IpAddr::V6(address)) => (0x87, address.octets().to_vec()),
            Err(_) if name.contains("://") => (0x86, name.as_bytes().to_vec()),
            Err(_) => (0x82, name.as_bytes().to_vec()),
        };
        self.names.push(name);
        self
    }

    /// With one more URI, byte for byte: nothing of it is checked.
    pub fn raw_uri(mut self, bytes: &[u8]) -> Leaf {
        self.names.push((0x86, bytes.to_vec()));
        self
    }

    /// With one more DNS name, byte for byte.
    pub fn raw_name(mut self, bytes: &[u8]) -> Leaf {
        self.names.push((0x82, bytes.to_vec()));
        self
    }

    /// Valid from and until so many seconds from now.
    pub fn valid(mut self, begins_s: i64, ends_s: i64) -> Leaf {
        (self.begins_s, self.ends_s) = (begins_s, ends_s);
        self
    }

    /// Valid until an hour ago.
    pub fn expired(self) -> Leaf {
        self.valid(-2 * DAY_S, -3600)
    }

    /// Valid from tomorrow on.
    pub fn not_yet(self) -> Leaf {
        self.valid(DAY_S, 30 * DAY_S)
    }

    /// For these only.
    pub fn usage(mut self, usage: Usage) -> Leaf {
        self.usage = usage;
        self
    }

    /// With a key of this kind.
    pub fn key(mut self, key: Key) -> Leaf {
        self.key = key;
        self
    }

    fn parameters(&self, serial: u64) -> CertificateParams {
        let mut of = CertificateParams::default();
        of.distinguished_name = DistinguishedName::new();
        of.distinguished_name.push(DnType::CommonName, format!("leaf {serial}"));
        (of.not_before, of.not_after) = (at(self.begins_s), at(self.ends_s));
        of.serial_number = Some(SerialNumber::from_slice(&serial.to_be_bytes()));
        of.use_authority_key_identifier_extension = true;
        of.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let (client, server) = (ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth);
        of.extended_key_usages = match self.usage {
            Usage::Both => vec![client, server],
            Usage::Client => vec![client],
            Usage::Server => vec![server],
            Usage::Other => vec![ExtendedKeyUsagePurpose::CodeSigning],
            Usage::Unsaid => Vec::new(),
        };
        if !self.names.is_empty() {
            let names: Vec<u8> = self.names.iter().flat_map(|(tag, name)| der(*tag, name)).collect();
            of.custom_extensions = vec![CustomExtension::from_oid_content(ALTERNATIVE_NAMES, der(0x30, &names))];
        }
        of
    }
}

impl Authority {
    /// A root with a P-256 key.
    pub fn new(name: &str) -> Authority {
        Authority::of(name, Key::P256)
    }

    /// A root.
    ///
    /// # Panics
    /// There is no randomness.
    pub fn of(name: &str, key: Key) -> Authority {
        let issuer = CertifiedIssuer::self_signed(authority(name), key.pair()).expect("a root");
        Authority { issuer, between: String::new(), next: AtomicU64::new(1000) }
    }

    /// An authority that this one vouches for.
    ///
    /// # Panics
    /// There is no randomness.
    pub fn under(&self, name: &str) -> Authority {
        let issuer = CertifiedIssuer::signed_by(authority(name), Key::P256.pair(), &self.issuer).expect("an authority");
        let between = issuer.pem() + &self.between;
        Authority { issuer, between, next: AtomicU64::new(1000) }
    }

    /// Its certificate in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Its certificate.
    pub fn der(&self) -> Vec<u8> {
        self.issuer.der().to_vec()
    }

    /// Issues a certificate.
    ///
    /// # Panics
    /// There is no randomness.
    pub fn issue(&self, leaf: &Leaf) -> Issued {
        let serial = self.next.fetch_add(1, Ordering::Relaxed);
        let pair = leaf.key.pair();
        let certificate = leaf.parameters(serial).signed_by(&pair, &self.issuer).expect("a leaf");
        Issued {
            chain: certificate.pem() + &self.between,
            key: pair.serialize_pem(),
            der: certificate.der().to_vec(),
            serial,
        }
    }

    /// Its list of what it revoked, in PEM, valid from yesterday for thirty days.
    ///
    /// # Panics
    /// There is no randomness.
    pub fn revoke(&self, revoked: &[&Issued]) -> String {
        self.revoke_for(30 * DAY_S, revoked)
    }

    /// The same, with the next list due in so many seconds.
    ///
    /// # Panics
    /// There is no randomness.
    pub fn revoke_for(&self, seconds: i64, revoked: &[&Issued]) -> String {
        let revoked = revoked.iter().map(|issued| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&issued.serial.to_be_bytes()),
            revocation_time: at(-3600),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: at(-DAY_S),
            next_update: at(seconds),
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).and_then(|list| list.pem()).expect("a list")
    }
}

impl Issued {
    /// The same with its key as OpenSSL wrote them before PKCS #8: of PKCS #1 (RFC 8017 appendix A.1.2) or SEC 1.
    ///
    /// # Panics
    /// It is neither of RSA nor of ECDSA.
    pub fn with_bare_key(&self) -> Issued {
        let pem = self.key.lines().filter(|line| !line.starts_with("-----")).collect::<String>();
        // PrivateKeyInfo: version, algorithm, key (RFC 5208 section 5).
        let all = base64::decode(&pem);
        let (_, info, _) = element(&all);
        let (_, _version, rest) = element(info);
        let (_, algorithm, rest) = element(rest);
        let (_, key, _) = element(rest);
        const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
        const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
        let name = match element(algorithm).1 {
            RSA => "RSA",
            ECDSA => "EC",
            other => panic!("{other:x?}"),
        };
        let key =
            format!("-----BEGIN {name} PRIVATE KEY-----\n{}-----END {name} PRIVATE KEY-----\n", base64::encode(key));
        Issued { key, ..self.clone() }
    }

    /// Writes `NAME.pem` and `NAME.key`.
    ///
    /// # Panics
    /// They cannot be written.
    pub fn put(&self, folder: &Path, name: &str) -> &Issued {
        fs::write(folder.join(format!("{name}.pem")), &self.chain).expect("written");
        fs::write(folder.join(format!("{name}.key")), &self.key).expect("written");
        self
    }
}

impl Key {
    fn pair(self) -> KeyPair {
        let algorithm = match self {
            Key::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Key::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Key::Ed25519 => &rcgen::PKCS_ED25519,
            Key::Rsa => return KeyPair::from_pem(include_str!("rsa.pem")).expect("a key"),
        };
        KeyPair::generate_for(algorithm).expect("a key")
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut of = CertificateParams::default();
    of.distinguished_name = DistinguishedName::new();
    of.distinguished_name.push(DnType::CommonName, name);
    of.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    of.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (of.not_before, of.not_after) = (at(-10 * DAY_S), at(365 * DAY_S));
    of
}

/// So many seconds from now.
fn at<T: From<SystemTime>>(seconds: i64) -> T {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    T::from(UNIX_EPOCH + Duration::from_secs(now.saturating_add_signed(seconds)))
}

/// One element in DER: tag, length, content.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=127 => out.push(short as u8),
        long => {
            out.push(0x82);
            out.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(content);
    out
}

/// The first element in DER: tag, content, and what is behind it.
fn element(bytes: &[u8]) -> (u8, &[u8], &[u8]) {
    let (length, from) = match bytes[1] {
        short @ 0..=127 => (usize::from(short), 2),
        0x81 => (usize::from(bytes[2]), 3),
        _ => (usize::from(bytes[2]) << 8 | usize::from(bytes[3]), 4),
    };
    (bytes[0], &bytes[from..from + length], &bytes[from + length..])
}

/// The encoding of PEM (RFC 4648 section 4).
mod base64 {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    /// In lines of 64 digits.
    pub(super) fn encode(bytes: &[u8]) -> String {
        let mut text = String::new();
        for (at, group) in bytes.chunks(3).enumerate() {
            let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
            for digit in 0..4 {
                let value = bits >> (18 - 6 * digit) & 63;
                text.push(if digit <= group.len() { DIGITS[value as usize].into() } else { '=' });
            }
            if at % 16 == 15 {
                text.push('\n');
            }
        }
        text.trim_end().to_owned() + "\n"
    }

    pub(super) fn decode(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text
            .bytes()
            .filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte))
            .map(|at| at as u32)
            .collect();
        let group = |group: &[u32]| {
            let bits = group.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - group.len()));
            bits.to_be_bytes()[1..group.len()].to_vec()
        };
        digits.chunks(4).flat_map(group).collect()
    }
}
