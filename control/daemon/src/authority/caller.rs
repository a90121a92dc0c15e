//! Who calls: the certificate that TLS verified, and the record that still names it.

use super::proxies::is_newer;
use super::{Authority, Certificate, GRACE_MS, Operator, Proxy, Refusal, Role, issue};
use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use x509_parser::extensions::GeneralName;

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it connects from.
    pub address: SocketAddr,
    /// What it showed, if anything; it chains to a root and its key was proven.
    pub certificate: Option<Arc<PeerCertificate>>,
}

/// What matters of a peer's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// SHA-256 of the certificate (DER), hexadecimal.
    pub fingerprint: String,
    /// Written by the daemon: a proxy's id.
    pub common_name: String,
    /// The SPIFFE ID.
    pub uri: String,
    /// Milliseconds since 1970.
    pub not_after_ms: u64,
}

/// Who calls.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Somebody without a certificate.
    Nobody,
    /// A proxy, with a certificate that is valid.
    Proxy(Proxy),
    /// A proxy whose certificate expired not long ago: it may renew it, and nothing else.
    Expired(Proxy),
    /// An operator.
    Operator(Operator),
}

impl PeerCertificate {
    /// Reads a certificate that TLS has verified. None if it is not one of ours: no name, no SPIFFE ID.
    pub fn read(der: &CertificateDer<'_>) -> Option<PeerCertificate> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let common_name = certificate.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
        let names = certificate.subject_alternative_name().ok()??;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
        let (uri, None) = (uris.next()?, uris.next()) else { return None };
        let not_after = certificate.validity().not_after.timestamp();
        let not_after_ms = u64::try_from(not_after).unwrap_or(0) * 1000;
        Some(PeerCertificate { fingerprint: issue::fingerprint(der), common_name, uri, not_after_ms })
    }

    /// Who holds it: the id of a proxy, or an operator's name behind `operator `.
    pub(crate) fn holder(&self) -> String {
        self.operator().map_or_else(|| self.common_name.clone(), operator_holder)
    }

    /// The operator that it names; proxies cannot have such an identity.
    fn operator(&self) -> Option<&str> {
        let (_, path) = self.uri.strip_prefix("spiffe://")?.split_once('/')?;
        path.strip_prefix("ringway-operator/")
    }
}

impl Authority {
    /// Who this is. That it was seen is noted the first time.
    ///
    /// # Errors
    /// The certificate is none that counts (any more), or the store cannot be read.
    pub async fn caller(&self, peer: &Peer, now_ms: u64) -> Result<Caller, Refusal> {
        let Some(shown) = peer.certificate.as_deref() else { return Ok(Caller::Nobody) };
        match shown.operator() {
            Some(name) => self.calling_operator(name, shown, now_ms).await.map(Caller::Operator),
            None => self.calling_proxy(shown, now_ms).await,
        }
    }

    async fn calling_operator(&self, name: &str, shown: &PeerCertificate, now_ms: u64) -> Result<Operator, Refusal> {
        let gone = || Refusal::Unknown(format!("the credential of operator `{name}` was replaced or taken back"));
        let operator = self.operator(name).await?.ok_or_else(gone)?;
        find(&operator.certificates, shown).ok_or_else(gone)?;
        if shown.not_after_ms <= now_ms {
            let again = "ask an administrator for a new one";
            return Err(Refusal::Unknown(format!("the credential of operator `{name}` expired; {again}")));
        }
        if is_newer(&operator.certificates, operator.seen.as_deref(), &shown.fingerprint) {
            self.saw_operator(name, &shown.fingerprint).await?;
        }
        Ok(operator)
    }

    async fn calling_proxy(&self, shown: &PeerCertificate, now_ms: u64) -> Result<Caller, Refusal> {
        let id = &shown.common_name;
        let gone = || Refusal::Unknown(format!("the proxy `{id}` was forgotten; join with a new token and a new key"));
        let proxy = self.proxy(id).await?.ok_or_else(gone)?;
        // A daemon that was cut off from the store it shares renews without the record.
        let is_renewed = self.store.is_shared() && shown.uri == proxy.identity;
        if find(&proxy.certificates, shown).is_none() && !is_renewed {
            return Err(gone());
        }
        if shown.not_after_ms + GRACE_MS <= now_ms {
            let days = GRACE_MS / 86_400_000;
            let why =
                format!("the certificate of proxy `{id}` expired more than {days} days ago; join with a new token");
            return Err(Refusal::Unknown(why));
        }
        if is_newer(&proxy.certificates, proxy.seen.as_deref(), &shown.fingerprint) {
            self.saw(id, &shown.fingerprint).await?;
        }
        Ok(if shown.not_after_ms <= now_ms { Caller::Expired(proxy) } else { Caller::Proxy(proxy) })
    }
}

impl Caller {
    /// The proxy that calls.
    ///
    /// # Errors
    /// It is none, or its certificate expired.
    pub fn proxy(self) -> Result<Proxy, Refusal> {
        match self {
            Caller::Proxy(proxy) => Ok(proxy),
            Caller::Expired(proxy) => {
                Err(Refusal::Unknown(format!("the certificate of proxy `{}` expired; renew it", proxy.id)))
            }
            Caller::Operator(_) => Err(Refusal::Denied("this is for proxies, not for operators".to_owned())),
            Caller::Nobody => Err(Refusal::Unknown("this needs the certificate of a proxy; join first".to_owned())),
        }
    }

    /// The proxy that calls to renew its certificate, which may have expired.
    ///
    /// # Errors
    /// It is none.
    pub fn renewing(self) -> Result<Proxy, Refusal> {
        match self {
            Caller::Expired(proxy) => Ok(proxy),
            other => other.proxy(),
        }
    }

    /// The operator that calls, who may do what needs this role.
    ///
    /// # Errors
    /// It is none, or has less.
    pub fn operator(self, role: Role) -> Result<Operator, Refusal> {
        match self {
            Caller::Operator(operator) if operator.role >= role => Ok(operator),
            Caller::Operator(Operator { name, role: own, .. }) => {
                Err(Refusal::Denied(format!("operator `{name}` has the role {own}; this needs {role}")))
            }
            Caller::Proxy(_) | Caller::Expired(_) => {
                Err(Refusal::Denied("this is for operators, not for proxies".to_owned()))
            }
            Caller::Nobody => {
                let why =
                    "this needs an operator's credential; on the daemon's machine there is one in its data directory";
                Err(Refusal::Unknown(why.to_owned()))
            }
        }
    }
}

/// As [`PeerCertificate::holder`] says it; no proxy's id has a space.
pub(super) fn operator_holder(name: &str) -> String {
    format!("operator {name}")
}

fn find<'c>(certificates: &'c [Certificate], shown: &PeerCertificate) -> Option<&'c Certificate> {
    certificates.iter().find(|one| one.fingerprint == shown.fingerprint)
}
