//! `endpoints`: those that come from operators, at once and without a version.

use crate::Common;
use crate::daemon::refusal;
use crate::exit::{Exit, Failure};
use api::pb::{Done, SetEndpointsRequest};
use clap::Subcommand;
use std::collections::HashSet;
use std::path::PathBuf;
use tokio::task::JoinSet;

/// Changes under way at once: the daemon writes those that wait together, with one sync of its disk.
const TOGETHER: usize = 128;

#[derive(Subcommand)]
pub(crate) enum Endpoints {
    /// Set all endpoints of a service, in place of those it had
    Set {
        /// A service under top-level `services` whose document says `endpoints: set`
        #[arg(required_unless_present = "file")]
        service: Option<String>,
        /// IP:PORT or unix:/PATH, each
        #[arg(required_unless_present_any = ["none", "file"])]
        addresses: Vec<String>,
        /// It has none
        #[arg(long, conflicts_with = "addresses")]
        none: bool,
        /// Many services, one a line: its name, then its addresses; `-` is standard input. A name alone has none; what stands
        /// behind `#` is a remark. Each is a change of its own: those before one that is refused may stand
        #[arg(long, conflicts_with_all = ["service", "addresses", "none"])]
        file: Option<PathBuf>,
    },
}

impl Endpoints {
    pub(super) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        let Endpoints::Set { service, addresses, none: _, file } = self;
        if let Some(file) = file {
            let (text, name) = super::document(&file)?;
            return many(common, read(&text, &name)?).await;
        }
        let mut daemon = common.connect().await?;
        let request = SetEndpointsRequest { service: service.unwrap_or_default(), addresses };
        let answer = daemon.operator().set_endpoints(request).await.map_err(refusal)?;
        super::done(common, answer.into_inner())
    }
}

/// The lines of a file, each with its place; nothing is sent when one is wrong.
fn read(text: &str, name: &str) -> Result<Vec<(String, SetEndpointsRequest)>, Failure> {
    let (mut list, mut known) = (Vec::new(), HashSet::new());
    for (at, line) in text.lines().enumerate() {
        let place = format!("{name}:{}:1", at + 1);
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace().map(str::to_owned);
        let Some(service) = words.next() else { continue };
        if !known.insert(service.clone()) {
            return Err(Failure::refused(format!(
                "{place}: service `{service}` stands there twice; write one line of both"
            )));
        }
        list.push((place, SetEndpointsRequest { service, addresses: words.collect() }));
    }
    Ok(list)
}

async fn many(common: &Common, list: Vec<(String, SetEndpointsRequest)>) -> Result<Exit, Failure> {
    let mut daemon = common.connect().await?;
    let (count, mut left) = (list.len(), list.into_iter());
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() < TOGETHER
            && let Some((place, request)) = left.next()
        {
            let mut operator = daemon.operator().clone();
            under_way.spawn(async move { operator.set_endpoints(request).await.map_err(|status| (place, status)) });
        }
        match under_way.join_next().await {
            None => break,
            Some(Ok(Ok(_))) => {}
            Some(Ok(Err((place, status)))) => {
                let Failure { exit, message } = refusal(status);
                let exit = if exit == Exit::Refused && count > 1 { Exit::Partly } else { exit };
                let message = format!("{place}: {message}; other lines may be done: mend it, and send all again");
                return Err(Failure { exit, message });
            }
            Some(Err(_)) => return Err(Failure::refused("a change was not sent".to_owned())),
        }
    }
    super::done(common, Done { line: format!("{count} services have the endpoints of their lines") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_service_a_line() {
        let lines = read("a 10.0.0.1:1  unix:/a\n\n# none\nb # gone\n", "f").unwrap();
        let told: Vec<_> =
            lines.iter().map(|(at, one)| (at.as_str(), one.service.as_str(), one.addresses.len())).collect();
        assert_eq!(told, [("f:1:1", "a", 2), ("f:4:1", "b", 0)]);
        assert!(read("a 1\nb\na 2", "f").is_err());
    }
}
