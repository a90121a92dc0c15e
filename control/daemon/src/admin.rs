//! The admin pages: readiness and metrics.

use axum::Router;
use axum::routing::get;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const INDEX: &str = "ringwayd's admin pages\n\
    GET  /ready    200 when the store is open and proxies are answered\n";

/// Answers at this address from now on; the one that was bound.
///
/// # Errors
/// It cannot be bound.
pub(crate) async fn start(address: SocketAddr) -> Result<(SocketAddr, JoinHandle<()>), String> {
    let cannot = |error| format!("admin: cannot listen on {address}: {error}");
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let bound = listener.local_addr().map_err(cannot)?;
    let pages = Router::new().route("/", get(INDEX)).route("/ready", get("ready\n"));
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, pages).await {
            crate::tell::tell(format_args!("the admin pages are gone: {error}"));
        }
    });
    Ok((bound, task))
}
