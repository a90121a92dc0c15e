//! The admin pages: readiness and metrics.

use crate::metrics;
use crate::state::Daemon;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const INDEX: &str = "ringwayd's admin pages\n\
    GET  /ready    200 when the store can be read, etcd is there and proxies are answered\n\
    GET  /metrics  counters, as OpenMetrics text\n";

/// Answers at this address from now on; the one that was bound.
///
/// # Errors
/// It cannot be bound.
pub(crate) async fn start(address: SocketAddr, daemon: Arc<Daemon>) -> Result<(SocketAddr, JoinHandle<()>), String> {
    let cannot = |error| format!("admin: cannot listen on {address}: {error}");
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let bound = listener.local_addr().map_err(cannot)?;
    let pages = Router::new()
        .route("/", get(INDEX))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics_page))
        .with_state(daemon);
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, pages).await {
            crate::tell::tell(format_args!("the admin pages are gone: {error}"));
        }
    });
    Ok((bound, task))
}

async fn ready(State(daemon): State<Arc<Daemon>>) -> (StatusCode, String) {
    if let Some(away) = daemon.store.cut_off() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{away}\n"));
    }
    match daemon.store.head().await {
        Ok(_) => (StatusCode::OK, "ready\n".to_owned()),
        Err(failure) => (StatusCode::SERVICE_UNAVAILABLE, format!("{failure}\n")),
    }
}

async fn metrics_page(State(daemon): State<Arc<Daemon>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], daemon.metrics.page(&daemon))
}
