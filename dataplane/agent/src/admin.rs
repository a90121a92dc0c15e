//! The admin pages: readiness, metrics, the plan, and draining.

use crate::metrics;
use crate::state::State as Shared;
use crate::tell::tell;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

const INDEX: &str = "ringway's admin pages\n\
    GET  /ready    200 when every core works with a plan, 503 before and while draining\n\
    GET  /metrics  counters, as OpenMetrics text\n\
    GET  /plan     the configuration as it is compiled, as JSON\n\
    POST /drain    stop accepting, let requests under way end, exit\n";

/// The admin pages at one address; dropped, they are gone.
#[derive(Debug)]
pub(crate) struct Admin {
    address: api::Address,
    task: JoinHandle<()>,
}

impl Admin {
    /// Answers at this address from now on.
    ///
    /// # Errors
    /// It cannot be bound.
    pub(crate) async fn start(address: &api::Address, state: Arc<Shared>) -> Result<Admin, String> {
        let pages = pages(state);
        let cannot = |error: std::io::Error| format!("admin: cannot listen on {}: {error}", text(address));
        let task = match address {
            api::Address::Socket(socket) => {
                let listener = TcpListener::bind(socket).await.map_err(cannot)?;
                tokio::spawn(async move { ended(axum::serve(listener, pages).await) })
            }
            api::Address::Unix(path) => {
                remove_stale(path);
                let listener = UnixListener::bind(path).map_err(cannot)?;
                tokio::spawn(async move { ended(axum::serve(listener, pages).await) })
            }
        };
        Ok(Admin { address: address.clone(), task })
    }

    /// Where it answers.
    pub(crate) fn address(&self) -> &api::Address {
        &self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.task.abort();
        if let api::Address::Unix(path) = &self.address {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// An address as configurations write it.
pub(crate) fn text(address: &api::Address) -> String {
    match address {
        api::Address::Socket(socket) => socket.to_string(),
        api::Address::Unix(path) => format!("unix:{path}"),
    }
}

fn pages(state: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(INDEX))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics_page))
        .route("/plan", get(plan))
        .route("/drain", post(drain))
        .with_state(state)
}

async fn ready(State(state): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    if state.draining.load(Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else if !state.ready.load(Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "no plan yet\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

async fn metrics_page(State(state): State<Arc<Shared>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::page(&state))
}

async fn plan(State(state): State<Arc<Shared>>) -> axum::response::Response {
    match state.plan() {
        Some(plan) => ([(header::CONTENT_TYPE, "application/json")], plan.to_json()).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "no plan yet\n").into_response(),
    }
}

async fn drain(State(state): State<Arc<Shared>>) -> &'static str {
    // The agent hears it next; until then this process is not ready either.
    state.draining.store(true, Relaxed);
    state.drain.notify_one();
    "draining\n"
}

fn ended(result: std::io::Result<()>) {
    if let Err(error) = result {
        tell(format_args!("the admin pages are gone: {error}"));
    }
}

/// Removes the file of a unix socket that nobody listens on any more.
fn remove_stale(path: &str) {
    use std::os::unix::fs::FileTypeExt;
    use std::os::unix::net::UnixStream;
    let path = PathBuf::from(path);
    let is_socket = std::fs::symlink_metadata(&path).is_ok_and(|data| data.file_type().is_socket());
    let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
    if is_socket && UnixStream::connect(&path).err().is_some_and(refused) {
        let _ = std::fs::remove_file(&path);
    }
}
