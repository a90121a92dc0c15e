//! Calls to etcd: over one connection to one of its members, and to the next one when that fails. Files are read at each
//! connection, so that certificates and passwords may be replaced under way.

use super::pb;
use super::pb::auth_client::AuthClient;
use super::pb::kv_client::KvClient;
use super::pb::lease_client::LeaseClient;
use super::pb::watch_client::WatchClient;
use api::settings::Etcd as Settings;
use std::path::Path;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;
use tokio_stream::StreamExt as _;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};

/// Until a connection is there.
const CONNECT: Duration = Duration::from_secs(3);
/// Until a call is answered: an election takes a second or two.
const CALL: Duration = Duration::from_secs(5);
/// A member that answers nothing is left after the two. etcd takes pings no more often than every 5 s.
const ALIVE: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(5);
/// The largest answer: what a page of the listing may have, and the largest transaction of somebody else's.
const MOST_BYTES: usize = 64 << 20;

/// The way to etcd.
pub(super) struct Wire {
    settings: Settings,
    current: RwLock<Current>,
}

#[derive(Clone)]
struct Current {
    /// Counts connections; names the endpoint too.
    turn: usize,
    channel: Option<Channel>,
    /// What `user` and `password-file` gave.
    token: Option<MetadataValue<Ascii>>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("endpoints", &self.settings.endpoints).finish_non_exhaustive()
    }
}

impl Wire {
    pub(super) fn new(settings: Settings) -> Wire {
        Wire { settings, current: RwLock::new(Current { turn: 0, channel: None, token: None }) }
    }

    /// For people: where it is.
    pub(super) fn place(&self) -> String {
        self.settings.endpoints.join(", ")
    }

    pub(super) async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        self.call(request, |channel, request| async move { kv(channel).range(request).await }).await
    }

    pub(super) async fn transact(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        self.call(request, |channel, request| async move { kv(channel).txn(request).await }).await
    }

    /// Opens a watch. It ends when its member has no leader any more.
    pub(super) async fn watch(&self, create: pb::WatchCreateRequest) -> Result<Streaming<pb::WatchResponse>, Status> {
        let create = pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
        self.call(create, |channel, request| async move {
            // The stream stays open to be answered on.
            let request = request.map(|one| tokio_stream::once(one).chain(tokio_stream::pending()));
            WatchClient::new(channel).max_decoding_message_size(MOST_BYTES).watch(request).await
        })
        .await
    }

    /// A lease, seconds: its id.
    pub(super) async fn grant(&self, seconds: i64) -> Result<i64, Status> {
        let request = pb::LeaseGrantRequest { ttl: seconds };
        let granted = self
            .call(request, |channel, request| async move { LeaseClient::new(channel).lease_grant(request).await })
            .await?;
        match granted.error.as_str() {
            "" => Ok(granted.id),
            error => Err(Status::unknown(error)),
        }
    }

    /// Keeps a lease. False: it is no more.
    pub(super) async fn keep(&self, lease: i64) -> Result<bool, Status> {
        let request = pb::LeaseKeepAliveRequest { id: lease };
        let mut answers = self
            .call(request, |channel, request| async move {
                LeaseClient::new(channel).lease_keep_alive(request.map(tokio_stream::once)).await
            })
            .await?;
        match tokio::time::timeout(CALL, answers.message()).await {
            Ok(answer) => Ok(answer?.is_some_and(|answer| answer.ttl > 0)),
            Err(_) => Err(late()),
        }
    }

    /// Ends a lease, and what stands under it.
    pub(super) async fn revoke(&self, lease: i64) -> Result<(), Status> {
        let request = pb::LeaseRevokeRequest { id: lease };
        self.call(request, |channel, request| async move { LeaseClient::new(channel).lease_revoke(request).await })
            .await?;
        Ok(())
    }

    /// The next call goes to the next member.
    pub(super) fn turn(&self) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Current { turn: current.turn + 1, channel: None, token: None };
    }

    async fn call<Q: Clone, A, F: Future<Output = Result<tonic::Response<A>, Status>>>(
        &self,
        request: Q,
        call: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<A, Status> {
        let mut again = true;
        loop {
            let Current { turn, channel, token } = self.current().await?;
            let channel = channel.ok_or_else(late)?;
            let mut request = Request::new(request.clone());
            if let Some(token) = token {
                request.metadata_mut().insert("token", token);
            }
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
            let answer = tokio::time::timeout(CALL, call(channel, request)).await.unwrap_or_else(|_| Err(late()));
            match answer {
                Ok(answer) => return Ok(answer.into_inner()),
                // A password's token ends after some minutes; what it came with was not done.
                Err(status) if self.settings.user.is_some() && again && is_old_token(&status) => {
                    again = false;
                    self.forget_token(turn);
                }
                Err(status) => return Err(status),
            }
        }
    }

    /// The connection, made when there is none.
    async fn current(&self) -> Result<Current, Status> {
        let mut current = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if current.channel.is_none() {
            current.channel = Some(self.connect(current.turn)?);
        } else if current.token.is_some() || self.settings.user.is_none() {
            return Ok(current);
        }
        if let (Some((user, file)), Some(channel)) = (&self.settings.user, &current.channel) {
            current.token = Some(authenticate(channel.clone(), user, file).await?);
        }
        let mut held = self.current.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have made one meanwhile, or turned.
        if held.turn == current.turn {
            match &held.channel {
                Some(channel) => current.channel = Some(channel.clone()),
                None => held.channel.clone_from(&current.channel),
            }
            held.token.clone_from(&current.token);
        }
        Ok(current)
    }

    fn forget_token(&self, turn: usize) {
        let mut held = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if held.turn == turn {
            held.token = None;
        }
    }

    fn connect(&self, turn: usize) -> Result<Channel, Status> {
        let Settings { endpoints, ca, certificate, .. } = &self.settings;
        let url = &endpoints[turn % endpoints.len()];
        let wrong = |error: tonic::transport::Error| Status::invalid_argument(format!("{url}: {}", reason(&error)));
        let mut endpoint = Endpoint::from_shared(url.clone()).map_err(wrong)?;
        endpoint = endpoint.connect_timeout(CONNECT).http2_keep_alive_interval(ALIVE).keep_alive_timeout(ANSWER);
        if let Some(ca) = ca {
            let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
            if let Some((certificate, key)) = certificate {
                tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
            }
            endpoint = endpoint.tls_config(tls).map_err(wrong)?;
        }
        Ok(endpoint.connect_lazy())
    }
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(MOST_BYTES)
}

async fn authenticate(channel: Channel, user: &str, file: &str) -> Result<MetadataValue<Ascii>, Status> {
    let password = String::from_utf8(read(file)?).map_err(|_| Status::unauthenticated(format!("{file} is no text")))?;
    let password = password.trim_end_matches(['\r', '\n']).to_owned();
    let request = pb::AuthenticateRequest { name: user.to_owned(), password };
    let mut client = AuthClient::new(channel);
    let answer = tokio::time::timeout(CALL, client.authenticate(request)).await.unwrap_or_else(|_| Err(late()))?;
    answer.into_inner().token.parse().map_err(|_| Status::unauthenticated("etcd gave a token that is none"))
}

fn is_old_token(status: &Status) -> bool {
    // etcd says it with one code or the other, by its version.
    status.code() == Code::Unauthenticated || status.message().contains("invalid auth token")
}

fn read(path: &str) -> Result<Vec<u8>, Status> {
    std::fs::read(Path::new(path)).map_err(|error| Status::failed_precondition(format!("cannot read {path}: {error}")))
}

fn late() -> Status {
    Status::deadline_exceeded(format!("no answer in {} s", CALL.as_secs()))
}

/// For people: what is behind an error, innermost.
pub(super) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    match inner.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => inner.to_string(),
    }
}
