//! Ends that are narrowed down to one suite, so that like is compared with like. The product narrows nothing.

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite;
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};
use std::sync::Arc;

/// A suite of TLS 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// AES-128-GCM
    Aes128Gcm,
    /// AES-256-GCM
    Aes256Gcm,
    /// ChaCha20-Poly1305
    Chacha20Poly1305,
}

/// What an end is narrowed down to. The default: to nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Narrow {
    /// TLS 1.3 with this suite and X25519 alone.
    pub suite: Option<Suite>,
    /// Every handshake of a client is a full one.
    pub never_resumes: bool,
}

impl Suite {
    /// All of them.
    pub const ALL: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::Chacha20Poly1305];

    /// Its name, as [`super::Peer::suite`] says it.
    pub fn name(self) -> &'static str {
        self.rustls().suite().as_str().unwrap_or_default()
    }

    fn rustls(self) -> SupportedCipherSuite {
        match self {
            Suite::Aes128Gcm => cipher_suite::TLS13_AES_128_GCM_SHA256,
            Suite::Aes256Gcm => cipher_suite::TLS13_AES_256_GCM_SHA384,
            Suite::Chacha20Poly1305 => cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        }
    }
}

impl Narrow {
    pub(super) fn provider(self) -> Arc<CryptoProvider> {
        let Some(suite) = self.suite else { return super::provider() };
        let all = super::provider();
        let (cipher_suites, kx_groups) = (vec![suite.rustls()], all.kx_groups[..1].to_vec());
        Arc::new(CryptoProvider { cipher_suites, kx_groups, ..(*all).clone() })
    }

    pub(super) fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
        let count = if self.suite.is_some() { 1 } else { VERSIONS.len() };
        &VERSIONS[..count]
    }
}
