//! `certs`: who holds which certificate; and another root.

use crate::daemon::refusal;
use crate::exit::{Exit, Failure};
use crate::{Common, progress, show};
use api::pb::{CertificatesAnswer, CertificatesRequest, Outcome, RotateRootRequest};
use clap::{Args, Subcommand};

/// So many times our own credential is renewed on the way: more would go round in a circle.
const ROUNDS: usize = 8;

#[derive(Args)]
pub(crate) struct Certs {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Change what all certificates rest on, without a restart or a failed request
    ///
    /// A new root is trusted everywhere, then issues, then vouches for the daemon; then the old one goes. It waits for
    /// proxies that are connected. Where one is absent it stops, exit 4: call it again when that one is back, or
    /// `ringwayctl proxy forget` it.
    Rotate {
        /// The mesh's root
        #[arg(long, required = true)]
        root: bool,
        /// Wait for nobody: who is left behind must join again
        #[arg(long)]
        force: bool,
        /// Only say how far it is
        #[arg(long, conflicts_with = "force")]
        status: bool,
    },
}

impl Certs {
    pub(super) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        match self.verb {
            None => list(common).await,
            Some(Verb::Rotate { root: _, force, status }) => rotate(common, force, status).await,
        }
    }
}

async fn list(common: &Common) -> Result<Exit, Failure> {
    let mut daemon = common.connect().await?;
    let answer = daemon.operator().certificates(CertificatesRequest {}).await.map_err(refusal)?.into_inner();
    show::answer(common.output, &answer, |answer| people(answer, show::now_ms()))?;
    Ok(Exit::Done)
}

async fn rotate(common: &Common, force: bool, status_only: bool) -> Result<Exit, Failure> {
    let mut daemon = common.connect().await?;
    for _ in 0..ROUNDS {
        let request = RotateRootRequest { status_only, force };
        let stream = daemon.operator().rotate_root(request).await.map_err(refusal)?.into_inner();
        let last = progress::follow(stream, common.output).await?;
        match last.map(|last| last.outcome()) {
            _ if status_only => return Ok(Exit::Done),
            // It waits for us.
            Some(Outcome::Running) => daemon.renew().await?,
            // What is done stays done.
            Some(Outcome::Refused) => return Ok(Exit::Partly),
            Some(outcome) => return progress::exit(outcome).ok_or_else(broken_off),
            None => return Err(broken_off()),
        }
    }
    Err(broken_off())
}

fn broken_off() -> Failure {
    Failure::new(Exit::Unreached, "the daemon said no more; call it again, it goes on where it was")
}

fn people(answer: &CertificatesAnswer, now_ms: u64) -> String {
    let rows = answer.lines.iter().map(|line| {
        let root = line.chains_to.chars().take(12).collect();
        vec![line.kind.clone(), line.holder.clone(), line.subject.clone(), show::ends(line.not_after_ms, now_ms), root]
    });
    let table = show::table(&["kind", "holder", "for", "ends", "root"], rows.collect(), "no certificate");
    format!("{}\n\n{table}", show::clean(&answer.rotation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::pb::CertificateLine;

    #[test]
    fn certificates_say_when_they_end_and_what_they_rest_on() {
        let line = CertificateLine {
            holder: "p1".to_owned(),
            kind: "proxy".to_owned(),
            subject: "spiffe://shop/group/cart".to_owned(),
            not_after_ms: 10 * 3_600_000,
            chains_to: "0123456789abcdef".to_owned(),
        };
        let shown = people(&CertificatesAnswer { lines: vec![line], rotation: "one root is trusted".to_owned() }, 0);
        let wanted = "one root is trusted\n\nKIND   HOLDER  FOR                       ENDS     ROOT\nproxy  p1      \
                      spiffe://shop/group/cart  in 10 h  0123456789ab\n";
        assert_eq!(shown, wanted);
    }
}
