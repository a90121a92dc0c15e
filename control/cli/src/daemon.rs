//! The connection to a daemon, who must prove to be one: a certificate of the mesh's roots with the daemon's identity,
//! wherever it was found. And what it refuses, in words.

use crate::credential::Credential;
use crate::exit::{Exit, Failure};
use crate::show;
use api::pb::StatusRequest;
use api::pb::agent_client::AgentClient;
use api::pb::operator_client::OperatorClient;
use std::error::Error;
use std::time::Duration;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

/// The path of a daemon's identity. Only the daemon's authority can give it to anybody, so that the trust domain, which a
/// document may change, need not be known.
const DAEMON_PATH: &str = "/ringwayd";
const CONNECT: Duration = Duration::from_secs(5);
/// Until an answer begins.
const ANSWER: Duration = Duration::from_secs(30);
/// A daemon whose machine is gone says nothing.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The largest answer, bytes.
const MOST_BYTES: usize = 256 << 20;

/// A daemon that proved to be one.
pub(crate) struct Daemon {
    client: OperatorClient<Channel>,
    /// HOST:PORT.
    pub(crate) address: String,
    credential: Option<Credential>,
}

impl Daemon {
    /// Connects, and renews the credential when it is due.
    ///
    /// # Errors
    /// Nobody answers, or who does is not the daemon.
    pub(crate) async fn connect(credential: Credential, address: Option<String>) -> Result<Daemon, Failure> {
        let address = address.unwrap_or_else(|| credential.daemon.clone());
        let client = open(&credential, &address).await?;
        let is_due = credential.is_due();
        let mut daemon = Daemon { client, address, credential: Some(credential) };
        if is_due && let Err(failure) = daemon.renew().await {
            show::tell(&format!("the credential could not be renewed, and goes on: {}", failure.message));
        }
        Ok(daemon)
    }

    /// Its methods.
    pub(crate) fn operator(&mut self) -> &mut OperatorClient<Channel> {
        &mut self.client
    }

    /// The others that share its store, where they are reached. Of those that are not it is told: what only they know will be missing.
    ///
    /// # Errors
    /// It does not say who they are.
    pub(crate) async fn others(&mut self) -> Result<Vec<Daemon>, Failure> {
        let status = self.client.status(StatusRequest {}).await.map_err(refusal)?.into_inner();
        let mut found = Vec::new();
        // The first is the one that was asked.
        for there in status.daemons.into_iter().skip(1) {
            match self.beside(&there.addresses).await {
                Ok(daemon) => found.push(daemon),
                Err(failure) => is_missing(&there.name, &failure),
            }
        }
        Ok(found)
    }

    /// Another daemon, at the first of its addresses that answers, with the same credential.
    async fn beside(&self, addresses: &[String]) -> Result<Daemon, Failure> {
        let Some(credential) = &self.credential else {
            return Err(Failure::refused("the credential is not to be had"));
        };
        let mut last = Failure::new(Exit::Unreached, "it has no address");
        for address in addresses {
            match open(credential, address).await {
                Ok(client) => return Ok(Daemon { client, address: address.clone(), credential: None }),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    /// Goes on with another certificate.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn renew(&mut self) -> Result<(), Failure> {
        let Some(credential) = self.credential.take() else { return Ok(()) };
        let credential = credential.renewed(self).await?;
        self.client = open(&credential, &self.address).await?;
        self.credential = Some(credential);
        Ok(())
    }
}

/// Another daemon that shares the store of the one that was asked does not answer.
pub(crate) fn is_missing(daemon: &str, why: &Failure) {
    show::tell(&format!("what the daemon at {daemon} knows is missing here: {}", why.message));
}

async fn open(credential: &Credential, address: &str) -> Result<OperatorClient<Channel>, Failure> {
    let roots = wire::tls::root_keys(&credential.roots);
    let roots = roots.map_err(|why| Failure::refused(format!("the credential's ca.pem {why}")))?;
    let identity = Identity::from_pem(&credential.chain, &credential.key);
    let channel = channel(address, roots, Some(identity)).await?;
    Ok(OperatorClient::new(channel).max_decoding_message_size(MOST_BYTES))
}

/// What proxies ask for, at the first daemon that answers; it proves to be one by these keys of roots.
///
/// # Errors
/// None does: what the last one said.
pub(crate) async fn open_agent(
    addresses: impl Iterator<Item = &String>,
    roots: Vec<[u8; 32]>,
    identity: Option<Identity>,
) -> Result<AgentClient<Channel>, Failure> {
    let mut last = Failure::new(Exit::Unreached, "no daemon's address is known; give `--daemon HOST:PORT`");
    for address in addresses {
        match channel(address, roots.clone(), identity.clone()).await {
            Ok(channel) => return Ok(AgentClient::new(channel)),
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

async fn channel(address: &str, roots: Vec<[u8; 32]>, identity: Option<Identity>) -> Result<Channel, Failure> {
    let tls = ClientTlsConfig::new().timeout(CONNECT);
    let tls = match identity {
        Some(identity) => tls.identity(identity),
        None => tls,
    };
    let unreached = |error: &tonic::transport::Error| {
        let why = reasons(error);
        let message = format!("no daemon at {address}: {why}; is `ringwayd` running, and is this its address?");
        Failure::new(Exit::Unreached, message)
    };
    let endpoint = Endpoint::from_shared(format!("https://{address}")).map_err(|error| unreached(&error))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT)
        .timeout(ANSWER)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .tcp_nodelay(true)
        .tls_config_with_verifier(tls, wire::tls::pinned(roots, DAEMON_PATH))
        .map_err(|error| unreached(&error))?;
    endpoint.connect().await.map_err(|error| unreached(&error))
}

/// What a call was refused with.
pub(crate) fn refusal(status: Status) -> Failure {
    let why = match status.source() {
        Some(source) if status.message().is_empty() || status.code() == Code::Unknown => reasons(source),
        _ if status.message().is_empty() => status.code().description().to_owned(),
        _ => status.message().to_owned(),
    };
    match status.code() {
        Code::Unimplemented => Failure::refused(format!("this daemon cannot do that: {why}")),
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => {
            Failure::new(Exit::Unreached, format!("the daemon does not answer: {why}; try again"))
        }
        Code::Unknown => {
            Failure::new(Exit::Unreached, format!("the connection to the daemon failed: {why}; try again"))
        }
        _ => Failure::refused(why),
    }
}

/// An error and what is behind it, as one text.
fn reasons(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(failure) = wire::tls::failure(error) {
            return failure.text().to_owned();
        }
        let text = error.to_string();
        if texts.last().is_none_or(|last| !last.ends_with(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.retain(|text| text != "transport error");
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_the_daemons_words_and_an_outage_is_another_exit() {
        let denied = refusal(Status::permission_denied("operator `ann` has the role read; this needs write"));
        assert_eq!(
            (denied.exit, denied.message.as_str()),
            (Exit::Refused, "operator `ann` has the role read; this needs write")
        );
        assert_eq!(refusal(Status::unavailable("gone")).exit, Exit::Unreached);
        assert!(refusal(Status::not_found("")).message.contains("not found"));
    }
}
