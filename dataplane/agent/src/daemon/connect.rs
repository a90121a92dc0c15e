//! A connection to a daemon: gRPC over TLS, with the proxy's certificate, to somebody who is proven to be the daemon.

use super::joined::{DAEMON_PATH, Joined};
use std::error::Error;
use std::time::Duration;
use tonic::Status;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Identity};

/// How long a connection may take, and the handshake on it.
const CONNECT: Duration = Duration::from_secs(5);
/// How often a connection is tried with a ping, and how long the answer may take: a daemon whose machine is gone says nothing.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The largest message that is taken, bytes.
pub(super) const MOST_BYTES: usize = 256 << 20;

/// Connects with the proxy's certificate.
///
/// # Errors
/// Why it could not be done.
pub(super) async fn connect(address: &str, joined: &Joined) -> Result<Channel, String> {
    let identity = Identity::from_pem(&joined.chain, &joined.key.0);
    let tls = tls().identity(identity);
    let verifier = wire::tls::verifier(joined.trust.clone(), joined.expected_daemon());
    let endpoint = endpoint(address)?.tls_config_with_verifier(tls, verifier);
    open(endpoint).await
}

/// Connects without one, to somebody who is known by the hashes of roots' keys.
///
/// # Errors
/// As [`connect`].
pub(super) async fn connect_pinned(address: &str, roots: Vec<[u8; 32]>) -> Result<Channel, String> {
    let verifier = wire::tls::pinned(roots, DAEMON_PATH);
    open(endpoint(address)?.tls_config_with_verifier(tls(), verifier)).await
}

async fn open(endpoint: Result<Endpoint, tonic::transport::Error>) -> Result<Channel, String> {
    endpoint.map_err(|error| reasons(&error))?.connect().await.map_err(|error| reasons(&error))
}

fn endpoint(address: &str) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(format!("https://{address}"));
    let endpoint = endpoint.map_err(|error| format!("{address:?} is no address: {}", reasons(&error)))?;
    Ok(endpoint
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}

fn tls() -> ClientTlsConfig {
    ClientTlsConfig::new().timeout(CONNECT)
}

/// An error and what is behind it, as one text.
fn reasons(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(failure) = wire::tls::failure(error) {
            return failure.text().to_owned();
        }
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof) {
            return "the connection ended".to_owned();
        }
        let text = error.to_string();
        // HTTP/2 keeps the error of the connection to itself, but for its text.
        if text.contains("close_notify") {
            return "the connection ended".to_owned();
        }
        if texts.last().is_none_or(|last| !last.ends_with(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.retain(|text| text != "transport error");
    texts.join(": ")
}

/// What a call was answered with, as one text.
pub(super) fn status_text(status: &Status) -> String {
    match status.source() {
        Some(source) if status.message().is_empty() || status.code() == tonic::Code::Unknown => reasons(source),
        _ if status.message().is_empty() => status.code().description().to_owned(),
        _ => status.message().to_owned(),
    }
}
