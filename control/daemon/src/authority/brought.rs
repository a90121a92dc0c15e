//! A root that somebody brings: with its key, which the store then keeps sealed; or without it, and with an intermediate
//! that was made where the root's key is.

use super::Refusal;
use super::issue::{Above, Root, milliseconds_of};
use super::seal::Seal;
use crate::encode::{hex, sha256};
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::parse_x509_certificate;
use zeroize::Zeroizing;

/// The files that `root` of the daemon's file names.
#[derive(Clone, Debug)]
pub(crate) struct RootFiles {
    /// The root, PEM.
    pub(crate) certificate: PathBuf,
    /// Who signs.
    pub(crate) signer: Signer,
}

/// What is brought beside the root.
#[derive(Clone, Debug)]
pub(crate) enum Signer {
    /// The root's own key.
    Key(PathBuf),
    /// An intermediate below it, and its key: the root's key stays where it is.
    Intermediate {
        /// PEM.
        certificate: PathBuf,
        /// PEM, PKCS #8.
        key: PathBuf,
    },
}

impl RootFiles {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// One cannot be read, has expired, or does not belong to the others.
    pub(crate) fn read(&self, seal: &Seal, now_ms: u64) -> Result<Root, Refusal> {
        let text = text(&self.certificate)?;
        let der = authority_in(&self.certificate, &text)?;
        let certificate = parsed(&self.certificate, &der, now_ms)?;
        let spki = hex(&sha256(certificate.public_key().raw));
        let id = spki.chars().take(8).collect::<String>();
        let (key, intermediate) = match &self.signer {
            Signer::Key(path) => {
                let key = key_of(path, &certificate, &self.certificate)?;
                (Some(seal.seal(&Root::place(&id), &key)), None)
            }
            Signer::Intermediate { certificate: path, key } => {
                (None, Some(intermediate(path, key, &certificate, &id, seal, now_ms)?))
            }
        };
        Ok(Root {
            subject: certificate.subject().to_string(),
            not_after_ms: milliseconds_of(&certificate),
            certificate: pem(&der),
            spki,
            key,
            intermediate,
            id,
        })
    }
}

fn intermediate(
    path: &Path,
    key: &Path,
    root: &X509Certificate<'_>,
    id: &str,
    seal: &Seal,
    now_ms: u64,
) -> Result<Above, Refusal> {
    let text = text(path)?;
    let der = authority_in(path, &text)?;
    let certificate = parsed(path, &der, now_ms)?;
    if certificate.verify_signature(Some(root.public_key())).is_err() {
        return Err(wrong(path, "is not signed by the root"));
    }
    let key = key_of(key, &certificate, path)?;
    let not_before = certificate.validity().not_before.timestamp();
    Ok(Above {
        certificate: pem(&der),
        key: seal.seal(&Above::place(id), &key),
        not_before_ms: u64::try_from(not_before).unwrap_or(0) * 1000,
        not_after_ms: milliseconds_of(&certificate),
    })
}

fn wrong(path: &Path, why: &str) -> Refusal {
    Refusal::Broken(format!("{} {why}", path.display()))
}

fn text(path: &Path) -> Result<Zeroizing<String>, Refusal> {
    let text = std::fs::read_to_string(path);
    text.map(Zeroizing::new).map_err(|error| Refusal::Broken(format!("cannot read {}: {error}", path.display())))
}

/// The first certificate of a file.
fn authority_in(path: &Path, text: &str) -> Result<CertificateDer<'static>, Refusal> {
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| wrong(path, "has no certificate in PEM"))
}

/// A certificate that may sign others, and is valid now.
fn parsed<'d>(path: &Path, der: &'d CertificateDer<'_>, now_ms: u64) -> Result<X509Certificate<'d>, Refusal> {
    let (_, certificate) =
        parse_x509_certificate(der).map_err(|_| wrong(path, "has a certificate that cannot be read"))?;
    if !certificate.is_ca() {
        return Err(wrong(path, "is no certificate of an authority (basicConstraints CA:TRUE)"));
    }
    let signs = certificate.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
    if !signs {
        return Err(wrong(path, "may not sign certificates (keyUsage keyCertSign)"));
    }
    if milliseconds_of(&certificate) <= now_ms {
        return Err(wrong(path, "has expired"));
    }
    Ok(certificate)
}

/// The key of this certificate, PKCS #8.
fn key_of(path: &Path, certificate: &X509Certificate<'_>, of: &Path) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let form = "has no key in PKCS #8; `openssl pkcs8 -topk8 -nocrypt` makes one of another form";
    let key = KeyPair::from_pem(&text(path)?).map_err(|_| wrong(path, form))?;
    if key.subject_public_key_info() != certificate.public_key().raw {
        return Err(wrong(path, &format!("is not the key of {}", of.display())));
    }
    Ok(Zeroizing::new(key.serialize_der()))
}

/// As all PEM of ours looks.
fn pem(der: &CertificateDer<'_>) -> String {
    let lines = crate::encode::base64(der);
    let lines: Vec<_> = lines.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
