//! What operators ask for and do: documents, proxies, endpoints. Each method looks at the caller's role first; those about
//! certificates stand in `credentials`.

mod apply;
mod canary;
mod difference;
mod documents;
mod endpoints;
mod judge;
mod status;
mod traffic;
pub(crate) mod trial;

#[cfg(test)]
mod tests;

pub(crate) use endpoints::{Seen, read_set};

use crate::authority::{Operator as Who, Refusal, Role};
use crate::collect::Member;
use crate::credentials;
use crate::peers;
use crate::state::Daemon;
use crate::tell;
use api::pb;
use api::pb::operator_server::Operator;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// A stream of what happens.
type Happens<T> = ReceiverStream<Result<T, Status>>;
type Answer<T> = Result<Response<T>, Status>;

/// Messages on their way to an operator.
const QUEUE: usize = 16;

/// `ringway.v1.Operator`.
#[derive(Debug)]
pub(crate) struct Service(Arc<Daemon>);

impl Service {
    pub(crate) fn new(daemon: Arc<Daemon>) -> Service {
        Service(daemon)
    }

    /// Who asks, if it may.
    async fn who<T>(&self, request: &Request<T>, role: Role) -> Result<Who, Refusal> {
        self.0.caller(request).await?.operator(role)
    }
}

#[tonic::async_trait]
impl Operator for Service {
    type ApplyStream = Happens<pb::Progress>;
    type RollbackStream = Happens<pb::Progress>;
    type TopStream = Happens<pb::Rates>;
    type RotateRootStream = Happens<pb::Progress>;

    async fn plan(&self, request: Request<pb::PlanRequest>) -> Answer<pb::Planned> {
        self.who(&request, Role::Read).await?;
        Ok(Response::new(documents::plan(&self.0, request.into_inner()).await?))
    }

    async fn apply(&self, request: Request<pb::ApplyRequest>) -> Answer<Self::ApplyStream> {
        let author = self.who(&request, Role::Write).await?.name;
        let push = apply::Push::of(request.into_inner(), author)?;
        let (sender, stream) = mpsc::channel(QUEUE);
        tokio::spawn(apply::apply(self.0.clone(), push, sender));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn rollback(&self, request: Request<pb::RollbackRequest>) -> Answer<Self::RollbackStream> {
        let author = self.who(&request, Role::Write).await?.name;
        let push = apply::Push::again(&self.0, request.into_inner(), author).await?;
        let (sender, stream) = mpsc::channel(QUEUE);
        tokio::spawn(apply::apply(self.0.clone(), push, sender));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn history(&self, request: Request<pb::HistoryRequest>) -> Answer<pb::Versions> {
        self.who(&request, Role::Read).await?;
        Ok(Response::new(documents::history(&self.0, request.into_inner().last).await?))
    }

    async fn show(&self, request: Request<pb::ShowRequest>) -> Answer<pb::Version> {
        self.who(&request, Role::Read).await?;
        Ok(Response::new(documents::show(&self.0, request.into_inner().number).await?))
    }

    async fn status(&self, request: Request<pb::StatusRequest>) -> Answer<pb::StatusAnswer> {
        self.who(&request, Role::Read).await?;
        Ok(Response::new(status::status(&self.0).await?))
    }

    async fn explain(&self, request: Request<pb::ExplainRequest>) -> Answer<pb::Text> {
        self.who(&request, Role::Read).await?;
        let text = judge::explain(&self.0, request.into_inner())?;
        Ok(Response::new(pb::Text { text }))
    }

    async fn top(&self, request: Request<pb::TopRequest>) -> Answer<Self::TopStream> {
        self.who(&request, Role::Read).await?;
        let (sender, stream) = mpsc::channel(QUEUE);
        tokio::spawn(traffic::top(self.0.clone(), request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn edges(&self, request: Request<pb::EdgesRequest>) -> Answer<pb::EdgesAnswer> {
        self.who(&request, Role::Read).await?;
        Ok(Response::new(traffic::edges(&self.0).await))
    }

    async fn certificates(&self, request: Request<pb::CertificatesRequest>) -> Answer<pb::CertificatesAnswer> {
        credentials::certificates(&self.0, request).await
    }

    async fn create_token(&self, request: Request<pb::CreateTokenRequest>) -> Answer<pb::Token> {
        credentials::create_token(&self.0, request).await
    }

    async fn list_tokens(&self, request: Request<pb::ListTokensRequest>) -> Answer<pb::Tokens> {
        credentials::list_tokens(&self.0, request).await
    }

    async fn revoke_token(&self, request: Request<pb::RevokeTokenRequest>) -> Answer<pb::Done> {
        credentials::revoke_token(&self.0, request).await
    }

    async fn set_endpoints(&self, request: Request<pb::SetEndpointsRequest>) -> Answer<pb::Done> {
        let author = self.who(&request, Role::Write).await?.name;
        let line = endpoints::set(&self.0, request.into_inner()).await?;
        done(&author, line)
    }

    async fn put_secret(&self, request: Request<pb::PutSecretRequest>) -> Answer<pb::Done> {
        credentials::put_secret(&self.0, request).await
    }

    async fn list_secrets(&self, request: Request<pb::ListSecretsRequest>) -> Answer<pb::Secrets> {
        credentials::list_secrets(&self.0, request).await
    }

    async fn remove_secret(&self, request: Request<pb::RemoveSecretRequest>) -> Answer<pb::Done> {
        credentials::remove_secret(&self.0, request).await
    }

    async fn drain(&self, request: Request<pb::DrainRequest>) -> Answer<pb::Done> {
        let author = self.who(&request, Role::Write).await?.name;
        let id = request.into_inner().proxy;
        let proxy = self.0.authority.proxy(&id).await?.ok_or_else(|| status::no_proxy(&id))?;
        let is_here = self.0.fleet.own_member(&id).is_some_and(|member| member.is_connected());
        let is_elsewhere = || self.0.fleet.members().get(id.as_str()).is_some_and(Member::is_connected);
        if is_here && self.0.fleet.drain(&proxy.id) {
            return done(&author, format!("proxy `{id}` drains"));
        }
        if !self.0.store.is_shared() || !is_elsewhere() {
            let line = format!("proxy `{id}` is not connected: there is no process of it to drain that is known here");
            return Err(Refusal::NotYet(line).into());
        }
        // For the daemon that it is connected to.
        peers::drain(&self.0.store, &proxy.id).await.map_err(Refusal::from)?;
        done(&author, format!("proxy `{id}` drains"))
    }

    async fn forget(&self, request: Request<pb::ForgetRequest>) -> Answer<pb::Done> {
        let id = request.get_ref().proxy.clone();
        let answer = credentials::forget(&self.0, request).await?;
        self.0.fleet.forget(&id).await;
        Ok(answer)
    }

    async fn rotate_root(&self, request: Request<pb::RotateRootRequest>) -> Answer<Self::RotateRootStream> {
        credentials::rotate_root(&self.0, request).await
    }

    async fn create_operator(&self, request: Request<pb::CreateOperatorRequest>) -> Answer<pb::OperatorCertificate> {
        credentials::create_operator(&self.0, request).await
    }

    async fn renew_operator(&self, request: Request<pb::RenewRequest>) -> Answer<pb::OperatorCertificate> {
        credentials::renew_operator(&self.0, request).await
    }

    async fn remove_operator(&self, request: Request<pb::RemoveOperatorRequest>) -> Answer<pb::Done> {
        credentials::remove_operator(&self.0, request).await
    }
}

/// It is done, and the daemon's log says who did it.
fn done(author: &str, line: String) -> Answer<pb::Done> {
    tell::tell(format_args!("operator `{author}`: {line}"));
    Ok(Response::new(pb::Done { line }))
}
