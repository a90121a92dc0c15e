//! Where proxies and operators connect: gRPC over TLS at one port. A certificate is asked for and not required; each
//! method looks who calls (`Daemon::caller`).

mod agent;
pub(crate) mod connected;
mod connection;
mod tls;

#[cfg(test)]
pub(crate) mod tests;

use crate::state::Daemon;
use crate::{operator, xds};
use api::envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use api::pb::agent_server::AgentServer;
use api::pb::operator_server::OperatorServer;
use connected::{Connected, Present};
use connection::Connection;
use rustls::ServerConfig;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

/// More connections wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 16_384;
/// Of those, connections that have shown no certificate that holds: others than strangers always find room.
const MOST_STRANGERS: usize = 4_096;
/// And of them, connections from one address: many proxies may stand behind one.
const MOST_OF_ADDRESS: usize = 2_048;
/// Until the handshake is done.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that did their handshake and wait for the server.
const QUEUE: usize = 256;

/// The settings that new connections get.
pub(crate) type Configs = watch::Receiver<Arc<ServerConfig>>;

/// A peer that answers nothing is gone after [`ALIVE`] and [`ANSWER`].
const ALIVE: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(10);
/// The longest message of an operator, bytes: a document has 8 MiB at most.
const MOST_BYTES: usize = 9 << 20;
/// Streams of one connection.
const MOST_STREAMS: u32 = 64;

/// Answers proxies and operators until `end` is done.
///
/// # Errors
/// The server cannot go on.
pub(crate) async fn serve(
    daemon: Arc<Daemon>,
    listener: TcpListener,
    configs: Configs,
    end: impl Future<Output = ()>,
) -> Result<(), String> {
    let connections = ReceiverStream::new(accept(daemon.clone(), listener, configs)).map(Ok::<_, std::io::Error>);
    Server::builder()
        .http2_keepalive_interval(Some(ALIVE))
        .http2_keepalive_timeout(Some(ANSWER))
        .max_concurrent_streams(MOST_STREAMS)
        .add_service(AggregatedDiscoveryServiceServer::new(xds::Service::new(daemon.clone())))
        .add_service(OperatorServer::new(operator::Service::new(daemon.clone())).max_decoding_message_size(MOST_BYTES))
        .add_service(AgentServer::new(agent::Service::new(daemon)))
        .serve_with_incoming_shutdown(connections, end)
        .await
        .map_err(|error| format!("the server is gone: {error}"))
}

/// Accepts connections and does their handshakes; what comes out has shown who it is.
fn accept(daemon: Arc<Daemon>, listener: TcpListener, configs: Configs) -> mpsc::Receiver<Connection> {
    let (ready, connections) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let strangers = Connected::default();
        while let Ok(place) = room.clone().acquire_owned().await {
            let socket = tokio::select! {
                socket = listener.accept() => socket,
                () = ready.closed() => return,
            };
            let Ok((socket, address)) = socket else {
                // Out of descriptors, say: others end soon.
                daemon.metrics.accept_failures.inc();
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            // It may come again when there is room; who is known keeps a connection.
            let Some(stranger) = entered(&strangers, address.ip(), (MOST_STRANGERS, MOST_OF_ADDRESS)) else {
                daemon.metrics.turned_away.inc();
                continue;
            };
            let (daemon, ready, config) = (daemon.clone(), ready.clone(), configs.borrow().clone());
            tokio::spawn(async move {
                match tokio::time::timeout(HANDSHAKE, handshake(&daemon, (socket, address), config, (place, stranger)))
                    .await
                {
                    Ok(Some(connection)) => {
                        // The server may be gone.
                        let _ = ready.send(connection).await;
                    }
                    Ok(None) | Err(_) => {
                        daemon.metrics.handshake_failures.inc();
                    }
                }
            });
        }
    });
    connections
}

async fn handshake(
    daemon: &Daemon,
    (socket, address): (TcpStream, SocketAddr),
    config: Arc<ServerConfig>,
    (place, stranger): (OwnedSemaphorePermit, Present),
) -> Option<Connection> {
    socket.set_nodelay(true).ok()?;
    let stream = TlsAcceptor::from(config).accept(socket).await.ok()?;
    Connection::new(daemon, stream, address, place, stranger)
}

/// One stranger more, of so many and so many of one address; None: there is no room for it.
fn entered(strangers: &Connected, ip: IpAddr, (most, of_address): (usize, usize)) -> Option<Present> {
    if strangers.count() >= most {
        return None;
    }
    let from = match ip.to_canonical() {
        // One customer has a /64.
        IpAddr::V6(ip) => format!("{:x}", ip.to_bits() >> 64),
        ip => ip.to_string(),
    };
    strangers.enter(from, of_address)
}

pub(crate) use tls::config;
