//! What operators ask for about certificates: tokens, edge certificates, other operators, roots. Each looks at the
//! caller's role first.

#[cfg(test)]
mod tests;

use crate::authority::{Credential, NewToken, Refusal, Role, SecretInfo, Stage, Step, TokenInfo};
use crate::collect::Member;
use crate::snapshot::Kind;
use crate::state::{Daemon, now_ms};
use crate::tell;
use api::mesh::KeyPair;
use api::pb;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;

/// A token for a group of the document in force. Admin.
///
/// # Errors
/// As the authority says; there is no such group.
pub async fn create_token(daemon: &Daemon, request: Request<pb::CreateTokenRequest>) -> Answer<pb::Token> {
    let author = daemon.caller(&request).await?.operator(Role::Admin)?.name;
    let pb::CreateTokenRequest { group, uses, ttl_s } = request.into_inner();
    let identity = identity_of(daemon, &group)?;
    let daemons = daemon.daemons();
    let new = NewToken { group, identity, uses, ttl_s, author, daemons };
    let (info, token) = daemon.authority.create_token(new, now_ms()).await?;
    tell::tell(format_args!("operator `{}` made token `{}` for group `{}`", info.author, info.id, info.group));
    Ok(Response::new(pb::Token { token, ..shown(info) }))
}

/// All tokens, without their texts. Admin.
///
/// # Errors
/// As the authority says.
pub async fn list_tokens(daemon: &Daemon, request: Request<pb::ListTokensRequest>) -> Answer<pb::Tokens> {
    daemon.caller(&request).await?.operator(Role::Admin)?;
    let tokens = daemon.authority.tokens(now_ms()).await?;
    Ok(Response::new(pb::Tokens { tokens: tokens.into_iter().map(shown).collect() }))
}

/// Makes a token useless. Admin.
///
/// # Errors
/// As the authority says.
pub async fn revoke_token(daemon: &Daemon, request: Request<pb::RevokeTokenRequest>) -> Answer<pb::Done> {
    let author = daemon.caller(&request).await?.operator(Role::Admin)?.name;
    let id = request.into_inner().id;
    daemon.authority.revoke_token(&id).await?;
    done(&author, format!("token `{id}` is worth nothing any more"))
}

/// Puts an edge certificate for a group. Admin.
///
/// # Errors
/// As the authority says.
pub async fn put_secret(daemon: &Daemon, request: Request<pb::PutSecretRequest>) -> Answer<pb::Done> {
    let author = daemon.caller(&request).await?.operator(Role::Admin)?.name;
    let pb::PutSecretRequest { name, group, chain, key } = request.into_inner();
    let pair = KeyPair { chain, key };
    let info = daemon.authority.put_secret(&group, &name, &pair, &author, now_ms()).await?;
    let known = daemon
        .in_force()
        .borrow()
        .as_ref()
        .and_then(|now| now.mesh.clone())
        .is_some_and(|mesh| mesh.group(&group).is_some());
    let note = if known { "" } else { "; no such group is in force yet" };
    done(&author, format!("secret `{name}` of group `{group}` is the certificate of {}{note}", info.subject))
}

/// All edge certificates, without their keys. Read.
///
/// # Errors
/// As the authority says.
pub async fn list_secrets(daemon: &Daemon, request: Request<pb::ListSecretsRequest>) -> Answer<pb::Secrets> {
    daemon.caller(&request).await?.operator(Role::Read)?;
    let secrets = daemon.authority.secret_infos().await?.into_iter();
    let secrets = secrets.map(|SecretInfo { name, group, subject, not_after_ms, .. }| pb::Secret {
        name,
        group,
        subject,
        not_after_ms,
    });
    Ok(Response::new(pb::Secrets { secrets: secrets.collect() }))
}

/// Takes an edge certificate away. Admin.
///
/// # Errors
/// As the authority says.
pub async fn remove_secret(daemon: &Daemon, request: Request<pb::RemoveSecretRequest>) -> Answer<pb::Done> {
    let author = daemon.caller(&request).await?.operator(Role::Admin)?.name;
    let pb::RemoveSecretRequest { name, group } = request.into_inner();
    daemon.authority.remove_secret(&group, &name).await?;
    let line = format!("secret `{name}` of group `{group}` is gone; proxies that show it keep it until a document");
    done(&author, format!("{line} names it no more, or until it ends"))
}

/// Drops a proxy. Admin.
///
/// # Errors
/// As the authority says.
pub async fn forget(daemon: &Daemon, request: Request<pb::ForgetRequest>) -> Answer<pb::Done> {
    let author = daemon.caller(&request).await?.operator(Role::Admin)?.name;
    let proxy = request.into_inner().proxy;
    let note = if daemon.connected.has(&proxy) { "; it was connected" } else { "" };
    daemon.authority.forget(&proxy).await?;
    done(&author, format!("proxy `{proxy}` is forgotten{note}"))
}

/// Makes an operator. Admin.
///
/// # Errors
/// As the authority says.
pub async fn create_operator(
    daemon: &Daemon,
    request: Request<pb::CreateOperatorRequest>,
) -> Answer<pb::OperatorCertificate> {
    let author = daemon.caller(&request).await?.operator(Role::Admin)?.name;
    let pb::CreateOperatorRequest { name, role, csr } = request.into_inner();
    let role = role.parse()?;
    let trust_domain = daemon.trust_domain();
    let made = daemon.authority.create_operator(&name, role, &csr, &author, &trust_domain, now_ms()).await?;
    tell::tell(format_args!("operator `{author}` made operator `{name}`, whose role is {role}"));
    Ok(Response::new(certificate(made)))
}

/// Another certificate for the operator who calls.
///
/// # Errors
/// As the authority says.
pub async fn renew_operator(daemon: &Daemon, request: Request<pb::RenewRequest>) -> Answer<pb::OperatorCertificate> {
    let name = daemon.caller(&request).await?.operator(Role::Read)?.name;
    let csr = request.into_inner().csr;
    let renewed = daemon.authority.renew_operator(&name, &csr, &daemon.trust_domain(), now_ms()).await?;
    Ok(Response::new(certificate(renewed)))
}

/// Takes an operator's rights. Admin.
///
/// # Errors
/// As the authority says.
pub async fn remove_operator(daemon: &Daemon, request: Request<pb::RemoveOperatorRequest>) -> Answer<pb::Done> {
    let author = daemon.caller(&request).await?.operator(Role::Admin)?.name;
    let name = request.into_inner().name;
    daemon.authority.remove_operator(&name).await?;
    done(&author, format!("operator `{name}` is removed"))
}

/// Who holds which certificate, and how far a change of roots is. Read.
///
/// # Errors
/// As the authority says.
pub async fn certificates(
    daemon: &Daemon,
    request: Request<pb::CertificatesRequest>,
) -> Answer<pb::CertificatesAnswer> {
    daemon.caller(&request).await?.operator(Role::Read)?;
    let line = |holder: &str, kind: &str, subject: &str, not_after_ms, chains_to: &str| pb::CertificateLine {
        holder: holder.to_owned(),
        kind: kind.to_owned(),
        subject: subject.to_owned(),
        not_after_ms,
        chains_to: chains_to.to_owned(),
    };
    let mut lines = Vec::new();
    for (id, subject, not_after_ms) in daemon.authority.roots() {
        lines.push(line("mesh", "root", &subject, not_after_ms, &id));
    }
    let (host, authority) = (crate::settings::host_name(), &daemon.authority);
    let (ends_ms, root) = (authority.issuing_not_after_ms(), authority.issuing_root());
    lines.push(line(&host, "issuer", "all that is issued here", ends_ms, &root));
    if let Some(own) = authority.own() {
        let subject = format!("spiffe://{}/ringwayd", daemon.trust_domain());
        lines.push(line(&host, "daemon", &subject, own.not_after_ms, &own.root));
    }
    for proxy in daemon.authority.proxies().await? {
        let Some(certificate) = proxy.in_use() else { continue };
        lines.push(line(&proxy.id, "proxy", &proxy.identity, certificate.not_after_ms, &certificate.root));
    }
    for operator in daemon.authority.operators().await? {
        let Some(certificate) = operator.in_use() else { continue };
        let subject = operator.role.to_string();
        lines.push(line(&operator.name, "operator", &subject, certificate.not_after_ms, &certificate.root));
    }
    for SecretInfo { group, name, subject, not_after_ms, .. } in daemon.authority.secret_infos().await? {
        lines.push(line(&format!("{group}:{name}"), "secret", &subject, not_after_ms, ""));
    }
    Ok(Response::new(pb::CertificatesAnswer { lines, rotation: daemon.authority.stage().to_string() }))
}

/// Changes the root, as far as it can be. Admin.
///
/// # Errors
/// As the authority says, on the stream.
pub async fn rotate_root(
    daemon: &Arc<Daemon>,
    request: Request<pb::RotateRootRequest>,
) -> Answer<ReceiverStream<Result<pb::Progress, Status>>> {
    let operator = daemon.caller(&request).await?.operator(Role::Admin)?.name;
    let pb::RotateRootRequest { status_only, force } = request.into_inner();
    let (progress, stream) = mpsc::channel(16);
    let daemon = daemon.clone();
    tokio::spawn(async move {
        let last = if status_only {
            Ok(pb::Progress { line: daemon.authority.stage().to_string(), ..pb::Progress::default() })
        } else {
            rotate(&daemon, &operator, force, PATIENCE, &progress).await
        };
        // Who asked may have gone; the next call goes on from here.
        let _ = progress.send(last.map_err(Status::from)).await;
    });
    Ok(Response::new(ReceiverStream::new(stream)))
}

/// How often it is looked whether those that a step waits for are there.
const LOOK: Duration = Duration::from_millis(200);
/// How long a step waits for proxies that are connected before it says who they are, and ends.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it waits, where daemons share a store, for what the others do by themselves.
const OTHERS: Duration = Duration::from_secs(5);

/// Step after step; the answer is the last message.
async fn rotate(
    daemon: &Daemon,
    operator: &str,
    force: bool,
    patience: Duration,
    progress: &mpsc::Sender<Result<pb::Progress, Status>>,
) -> Result<pb::Progress, Refusal> {
    let mut said = String::new();
    let mut tell = async |line: String, of: usize| {
        if line == said {
            return !progress.is_closed();
        }
        said.clone_from(&line);
        let of = u32::try_from(of).unwrap_or(u32::MAX);
        progress.send(Ok(pb::Progress { line, of, ..pb::Progress::default() })).await.is_ok()
    };
    let mut waits_since = Instant::now();
    loop {
        // Leaves of the new root are worth something when all who see them trust it, not when it was sent.
        let waits = daemon.authority.stage() == Stage::Trusting && !force;
        let behind = if waits { without_roots(daemon).await? } else { Vec::new() };
        if !behind.is_empty() {
            if waits_since.elapsed() > patience {
                let line = "some do not take the new root; nothing is lost, go on later";
                return Ok(last(pb::Outcome::Refused, line, stuck(&behind, "has not taken the new root")));
            }
            let line = format!("waiting for {} to trust the new root", named(&behind));
            if !tell(line, behind.len()).await {
                return Ok(pb::Progress::default());
            }
            tokio::time::sleep(LOOK).await;
            continue;
        }
        match daemon.authority.rotate(force, now_ms()).await? {
            Step::Done(stage) => {
                waits_since = Instant::now();
                tell::tell(format_args!("operator `{operator}` changes the root: {stage}"));
                daemon.keep_local_operator().await?;
                if stage == Stage::Steady {
                    return Ok(last(pb::Outcome::Applied, "the new root alone is trusted", Vec::new()));
                }
                if !tell(stage.to_string(), 0).await {
                    return Ok(pb::Progress::default());
                }
            }
            Step::Waits { operators, .. } if operators.iter().any(|name| name == operator) => {
                return Ok(last(pb::Outcome::Running, "renew your own credential, and go on", Vec::new()));
            }
            Step::Waits { proxies, operators } => {
                let members = daemon.fleet.members();
                let elsewhere = |id: &str| members.get(id).is_some_and(Member::is_connected);
                let (here, away): (Vec<_>, Vec<_>) =
                    proxies.into_iter().partition(|id| daemon.connected.has(id) || elsewhere(id));
                // Other daemons renew what their own operators have, and tell of proxies, within moments.
                let is_told = !daemon.store.is_shared() || waits_since.elapsed() > OTHERS;
                if (here.is_empty() && is_told) || waits_since.elapsed() > patience {
                    let mut findings = stuck(&here, "has not renewed its certificate");
                    findings.extend(absent(&away, &operators));
                    let line = "some cannot follow; nothing is lost, go on later";
                    return Ok(last(pb::Outcome::Refused, line, findings));
                }
                let line = match here.is_empty() {
                    true => "waiting for what other daemons know".to_owned(),
                    false => format!("waiting for a renewal by {}", named(&here)),
                };
                if !tell(line, here.len()).await {
                    return Ok(pb::Progress::default());
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// Proxies that report, and do not work with the roots of now yet: a renewal brings the roots to a proxy's agent, its cores
/// have them when it says so.
async fn without_roots(daemon: &Daemon) -> Result<Vec<String>, Refusal> {
    let secret = api::xds::TRUST_SECRET;
    daemon.read_trust().await?;
    let lacks = |member: &Member| {
        let Some(report) = &member.report else { return false };
        let snapshot = daemon.snapshots.subscribe(&member.group);
        let wanted = snapshot.borrow().resources(Kind::Secret).get(secret).map(|one| one.version.clone());
        let has = report.certificates.iter().find(|one| one.name == secret).map(|one| one.version.as_str());
        // Who has no roots in its configuration verifies nobody by them.
        has.is_some_and(|has| wanted.is_some_and(|wanted| *has != *wanted))
    };
    let members = daemon.fleet.members().into_iter();
    let mut behind: Vec<String> = members.filter(|(_, one)| lacks(one)).map(|(id, _)| id.to_string()).collect();
    behind.sort();
    Ok(behind)
}

/// Some of them by name.
fn named(proxies: &[String]) -> String {
    const FEW: usize = 5;
    let some = proxies.iter().take(FEW).map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ");
    let noun = if proxies.len() == 1 { "proxy" } else { "proxies" };
    match proxies.len().saturating_sub(FEW) {
        0 => format!("{} {noun} ({some})", proxies.len()),
        more => format!("{} {noun} ({some} and {more} more)", proxies.len()),
    }
}

/// Who is there and does not follow, and what to do about it.
fn stuck(proxies: &[String], why: &str) -> Vec<String> {
    let line = |id: &String| {
        format!("proxy `{id}` is connected and {why}; look at its log, or `ringwayctl proxy forget {id}`")
    };
    proxies.iter().map(line).collect()
}

fn last(outcome: pb::Outcome, line: &str, findings: Vec<String>) -> pb::Progress {
    pb::Progress { line: line.to_owned(), outcome: outcome.into(), findings, ..pb::Progress::default() }
}

/// Who is not there to follow, and what to do about it.
fn absent(proxies: &[String], operators: &[String]) -> Vec<String> {
    let proxies = proxies.iter().map(|id| {
        format!("proxy `{id}` is not connected and knows the old root alone; bring it back, or `ringwayctl proxy forget {id}`")
    });
    let operators = operators.iter().map(|name| {
        format!("operator `{name}` has a credential of the old root; let any command of that operator renew it, or remove the operator")
    });
    proxies.chain(operators).collect()
}

/// The identity of a group that stands in the document in force.
fn identity_of(daemon: &Daemon, group: &str) -> Result<String, Refusal> {
    let in_force = daemon.in_force().borrow().clone();
    let Some(now) = in_force else {
        return Err(Refusal::NotYet(
            "no document is in force yet; `ringwayctl apply` one that has the group".to_owned(),
        ));
    };
    let (version, mesh) = (now.version.number, now.mesh()?);
    let none = || {
        let names: Vec<_> = mesh.groups.iter().map(|group| group.name.as_str()).collect();
        let group = group.escape_default();
        Refusal::Missing(format!("version {version} has no group `{group}`; it has {}", names.join(", ")))
    };
    mesh.group(group).map(|group| group.identity.clone()).ok_or_else(none)
}

fn shown(info: TokenInfo) -> pb::Token {
    let TokenInfo { id, group, uses_left, expires_ms, .. } = info;
    pb::Token { id, token: String::new(), group, uses_left, expires_ms }
}

fn certificate(made: Credential) -> pb::OperatorCertificate {
    let Credential { chain, bundle, operator, not_after_ms } = made;
    pb::OperatorCertificate {
        chain: chain.into_bytes(),
        bundle: bundle.into_bytes(),
        name: operator.name,
        role: operator.role.to_string(),
        not_after_ms,
    }
}

fn done(author: &str, line: String) -> Answer<pb::Done> {
    tell::tell(format_args!("operator `{author}`: {line}"));
    Ok(Response::new(pb::Done { line }))
}
