//! Certificates for one run, as files: an authority, and what it issued. ECDSA on P-256, as issuers in a mesh have it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rcgen::{KeyUsagePurpose, SanType};

/// Who issues certificates. Its own is `NAME.pem`.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one, and writes its certificate into `dir`.
    pub(crate) fn new(dir: &Path, name: &str) -> io::Result<Authority> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let own = params.self_signed(&key).map_err(io::Error::other)?;
        std::fs::write(dir.join(format!("{name}.pem")), own.pem())?;
        Ok(Authority { issuer: Issuer::new(params, key) })
    }

    /// Issues a certificate for both sides of a connection, and writes `ROLE.pem`, `ROLE.key` and, both in one file, `ROLE.both`. It is
    /// for `ROLE.test`, for 127.0.0.1, and has the identity `spiffe://bench/ROLE`.
    pub(crate) fn issue(&self, dir: &Path, role: &str) -> io::Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, role);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let name = |text: String| text.try_into().map_err(io::Error::other);
        params.subject_alt_names = vec![
            SanType::DnsName(name(format!("{role}.test"))?),
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::URI(name(format!("spiffe://bench/{role}"))?),
        ];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?.pem();
        let key = key.serialize_pem();
        write_secret(&dir.join(format!("{role}.both")), &format!("{certificate}{key}"))?;
        write_secret(&dir.join(format!("{role}.key")), &key)?;
        std::fs::write(dir.join(format!("{role}.pem")), certificate)
    }
}

/// For its owner's eyes, as whoever reads keys wants it.
fn write_secret(file: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    file.write_all(text.as_bytes())
}
