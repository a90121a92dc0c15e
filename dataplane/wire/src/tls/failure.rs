//! Why a handshake or a connection failed, in few words: for counters, logs and alerts.

use rustls::{CertificateError, Error, OtherError, PeerIncompatible};

macro_rules! failures {
    ($($(#[$doc:meta])* $variant:ident = $label:literal, $text:literal;)*) => {
        /// Why a session failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Failure {
            $($(#[$doc])* $variant,)*
        }

        impl Failure {
            /// All of them, in the order of [`Failure::index`].
            pub const ALL: &[Failure] = &[$(Failure::$variant,)*];

            /// Its name in metrics and logs.
            pub fn label(self) -> &'static str {
                match self { $(Failure::$variant => $label,)* }
            }

            /// What it means, for people.
            pub fn text(self) -> &'static str {
                match self { $(Failure::$variant => $text,)* }
            }
        }
    };
}

failures! {
    /// The first bytes are no TLS record.
    NotTls = "not_tls", "no TLS: plaintext on a TLS port?";
    /// A certificate is wanted and was not sent.
    NoCertificate = "no_certificate", "the peer sent no certificate";
    /// The peer's certificate has expired.
    Expired = "expired", "the peer's certificate, or one above it, has expired";
    /// The peer's certificate is not valid yet.
    NotYetValid = "not_yet_valid", "the peer's certificate is not valid yet";
    /// Nobody trusted has issued the peer's certificate.
    UnknownIssuer = "unknown_issuer", "the peer's certificate is from nobody who is trusted";
    /// The certificate is not for this side of a connection.
    WrongUsage = "wrong_usage", "the peer's certificate is for another usage";
    /// No identity, more than one, or one that is not expected.
    WrongIdentity = "wrong_identity", "the peer's identity is not one that is expected";
    /// Another name than expected.
    WrongName = "wrong_name", "the peer's certificate is for another name";
    /// The peer's certificate was revoked.
    Revoked = "revoked", "the peer's certificate is revoked";
    /// Its issuer's list of what is revoked is out of date or cannot be used.
    RevocationUnknown = "revocation_unknown", "the list of revoked certificates of the peer's issuer is out of date or of no use";
    /// The peer did not prove that the certificate is its own, or it is malformed.
    BadCertificate = "bad_certificate", "the peer's certificate is malformed or not its own";
    /// No version of TLS that both have.
    NoCommonVersion = "no_common_version", "no version of TLS in common";
    /// No cipher suite or group that both have.
    NoCommonCipher = "no_common_cipher", "no cipher suite in common";
    /// No application protocol that both have.
    NoCommonAlpn = "no_common_alpn", "no application protocol in common";
    /// A record or message that breaks the protocol.
    BadRecord = "bad_record", "a message that breaks the protocol";
    /// A record that was not sealed with the session's key.
    Decrypt = "decrypt", "a record that does not open";
    /// More than a handshake or a record may have.
    TooLarge = "too_large", "more bytes than a message may have";
    /// The peer gave up, with an alert.
    PeerAlert = "peer_alert", "the peer gave up";
    /// Time ran out.
    Timeout = "timeout", "time ran out";
    /// The connection ended or broke.
    PeerGone = "peer_gone", "the connection ended";
    /// A limit of ours.
    Limit = "limit", "a limit is reached";
    /// Anything else.
    Other = "other", "the session failed";
}

/// What our own checks of a certificate say through rustls.
#[derive(Debug)]
pub(super) struct NotExpected;

impl std::fmt::Display for NotExpected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(Failure::WrongIdentity.text())
    }
}

impl std::error::Error for NotExpected {}

impl Failure {
    /// Its place in [`Failure::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    pub(super) fn of(error: &Error) -> Failure {
        match error {
            Error::InvalidCertificate(error) => of_certificate(error),
            Error::NoCertificatesPresented => Failure::NoCertificate,
            Error::NoApplicationProtocol => Failure::NoCommonAlpn,
            Error::AlertReceived(_) => Failure::PeerAlert,
            Error::DecryptError => Failure::Decrypt,
            Error::PeerSentOversizedRecord => Failure::TooLarge,
            Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled,
            ) => Failure::NoCommonVersion,
            Error::PeerIncompatible(_) => Failure::NoCommonCipher,
            Error::InvalidMessage(_)
            | Error::PeerMisbehaved(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. } => Failure::BadRecord,
            _ => Failure::Other,
        }
    }

    /// The alert that tells the peer (RFC 8446 section 6.2).
    pub(super) fn alert(self) -> u8 {
        match self {
            Failure::Decrypt => 20,
            Failure::TooLarge => 22,
            Failure::Limit | Failure::Other => 80,
            _ => 10,
        }
    }
}

fn of_certificate(error: &CertificateError) -> Failure {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Failure::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Failure::NotYetValid,
        CertificateError::UnknownIssuer => Failure::UnknownIssuer,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Failure::WrongUsage,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Failure::WrongName,
        CertificateError::Revoked => Failure::Revoked,
        CertificateError::UnknownRevocationStatus
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => Failure::RevocationUnknown,
        CertificateError::Other(OtherError(error)) if error.is::<NotExpected>() => Failure::WrongIdentity,
        CertificateError::ApplicationVerificationFailure => Failure::WrongIdentity,
        _ => Failure::BadCertificate,
    }
}
