//! kill -9 at random moments, while operators push and proxies join: what was acknowledged is there afterwards.

use crate::program::{Daemon, apply, csr, document, joining, token};
use api::pb;
use api::pb::agent_client::AgentClient;
use api::pb::operator_client::OperatorClient;
use rcgen::KeyPair;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tonic::Code;
use tonic::transport::Channel;

/// What was acknowledged so far.
#[derive(Default)]
struct Acknowledged {
    /// Versions and the numbers of their documents.
    versions: Vec<(u64, u64)>,
    proxies: Vec<Joined>,
    /// The number of the next document.
    next: u64,
}

struct Joined {
    token: String,
    key: KeyPair,
    issued: pb::Issued,
}

impl Acknowledged {
    /// Pushes and joins until the daemon is gone; tells when the first push of this life is acknowledged.
    async fn work(&mut self, daemon: &Daemon, folder: &Path, pushed: &Notify) {
        let mut operator = daemon.operator(folder).await;
        let mut stranger = daemon.stranger(folder).await;
        loop {
            self.next += 1;
            let Some(version) = apply(&mut operator, document(self.next)).await else { return };
            self.versions.push((version, self.next));
            pushed.notify_one();
            let Some(token) = token(&mut operator).await else { return };
            let key = KeyPair::generate().unwrap();
            let Ok(answer) = stranger.join(joining(&token, &key)).await else { return };
            self.proxies.push(Joined { token, key, issued: answer.into_inner() });
        }
    }

    async fn is_all_there(&self, daemon: &Daemon, folder: &Path) {
        let mut operator = daemon.operator(folder).await;
        for (version, number) in &self.versions {
            let shown = operator.show(pb::ShowRequest { number: *version }).await.unwrap().into_inner();
            assert_eq!(shown.document, document(*number), "version {version}");
        }
        let last = self.versions.last().map_or(0, |(version, _)| *version);
        let in_force = in_force(&mut operator).await;
        assert!(in_force == last || in_force == last + 1, "{last} was acknowledged, {in_force} is in force");
        let Some(joined) = self.proxies.last() else { return };
        // The proxy is known, and its token is still spent.
        let own = Some((joined.issued.chain.as_slice(), joined.key.serialize_pem()));
        let own = own.as_ref().map(|(chain, key)| (*chain, key.as_str()));
        let mut client = AgentClient::new(daemon.channel(folder, own).await.unwrap());
        let renewed = client.renew(pb::RenewRequest { csr: csr(&joined.key), clock_ms: 0 }).await.unwrap().into_inner();
        assert_eq!(renewed.proxy, joined.issued.proxy);
        let mut stranger = daemon.stranger(folder).await;
        let again = stranger.join(joining(&joined.token, &joined.key)).await.unwrap().into_inner();
        assert_eq!(again.proxy, joined.issued.proxy);
        let other = stranger.join(joining(&joined.token, &KeyPair::generate().unwrap())).await.unwrap_err();
        assert_eq!(other.code(), Code::PermissionDenied, "{other}");
    }
}

async fn in_force(operator: &mut OperatorClient<Channel>) -> u64 {
    operator.show(pb::ShowRequest { number: 0 }).await.unwrap().into_inner().number
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    for round in 0..12_u64 {
        let mut daemon = Daemon::start(folder.path());
        let pid = daemon.child.id().to_string();
        let pushed = Arc::new(Notify::new());
        let seen = pushed.clone();
        let killer = tokio::spawn(async move {
            seen.notified().await;
            tokio::time::sleep(Duration::from_millis(round * 17)).await;
            tokio::process::Command::new("kill").args(["-9", &pid]).status().await.unwrap();
        });
        acknowledged.work(&daemon, folder.path(), &pushed).await;
        pushed.notify_one();
        killer.await.unwrap();
        daemon.child.wait().unwrap();

        let daemon = Daemon::start(folder.path());
        acknowledged.is_all_there(&daemon, folder.path()).await;
        // A version whose acknowledgement got lost is a version all the same.
        let in_force = in_force(&mut daemon.operator(folder.path()).await).await;
        if acknowledged.versions.last().is_some_and(|(version, _)| *version < in_force) {
            acknowledged.versions.push((in_force, acknowledged.next));
        }
    }
    assert!(acknowledged.versions.len() >= 12 && acknowledged.proxies.len() >= 6);
}
