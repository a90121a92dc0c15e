//! `status`: each proxy that has joined.

use crate::Common;
use crate::daemon::{Daemon, refusal};
use crate::exit::{Exit, Failure};
use crate::show;
use api::pb::{DaemonThere, Proxy, StatusAnswer, StatusRequest};

/// A clock that is wrong by more is told.
const SKEW_MS: u64 = 60_000;

pub(super) async fn run(common: &Common) -> Result<Exit, Failure> {
    let mut daemon = common.connect().await?;
    let status = ask(&mut daemon).await?;
    show::answer(common.output, &status, |status| people(status, show::now_ms()))?;
    Ok(Exit::Done)
}

/// What the daemon knows of proxies.
pub(super) async fn ask(daemon: &mut Daemon) -> Result<StatusAnswer, Failure> {
    Ok(daemon.operator().status(StatusRequest {}).await.map_err(refusal)?.into_inner())
}

fn people(status: &StatusAnswer, now_ms: u64) -> String {
    let mut text = match status.version {
        0 => "no version is in force".to_owned(),
        number => format!("version {number} is in force"),
    };
    let connected = status.proxies.iter().filter(|proxy| proxy.connected).count();
    text += &format!(
        "; {connected} of {} proxies are connected; ringwayd {}\n\n",
        status.proxies.len(),
        show::clean(&status.daemon_version)
    );
    if !status.canary.is_empty() {
        text.insert_str(text.len() - 1, &format!("on trial: {}\n", show::clean(&status.canary)));
    }
    if !status.daemons.is_empty() {
        let list: Vec<_> = status.daemons.iter().map(daemon).collect();
        text.insert_str(text.len() - 1, &format!("daemons: {}\n", list.join(", ")));
    }
    if !status.cut_off.is_empty() {
        text.insert_str(text.len() - 1, &format!("{}\n", show::clean(&status.cut_off)));
    }
    let rows = status.proxies.iter().map(|proxy| {
        let applied = proxy.applied.clone().unwrap_or_default();
        let generation = if applied.generation == 0 { String::new() } else { applied.generation.to_string() };
        vec![
            proxy.id.clone(),
            proxy.group.clone(),
            proxy.name.clone(),
            state(proxy),
            applied.version,
            generation,
            show::relative(proxy.last_contact_ms, now_ms),
            show::ends(proxy.certificate_not_after_ms, now_ms),
        ]
    });
    let head = ["proxy", "group", "host", "state", "version", "generation", "contact", "certificate"];
    let none = "no proxy has joined; `ringwayctl token create --group G` makes what one joins with";
    text + &show::table(&head, rows.collect(), none)
}

/// `ctl-1 at 10.0.0.1:9443 (this one, 3 proxies)`
fn daemon(daemon: &DaemonThere) -> String {
    let this = if daemon.is_this { "this one, " } else { "" };
    let proxies = if daemon.proxies == 1 { "proxy" } else { "proxies" };
    let address = daemon.addresses.first().map_or("an unknown address", String::as_str);
    format!("{} at {} ({this}{} {proxies})", show::clean(&daemon.name), show::clean(address), daemon.proxies)
}

/// What somebody should know first.
fn state(proxy: &Proxy) -> String {
    let mut words = vec![match proxy {
        Proxy { connected: false, .. } => "absent".to_owned(),
        Proxy { draining: true, .. } => "draining".to_owned(),
        Proxy { ready: false, .. } => "not ready".to_owned(),
        _ => "ready".to_owned(),
    }];
    words.extend((!proxy.rejected.is_empty()).then(|| format!("{} refused", proxy.rejected.len())));
    if proxy.clock_skew_ms.unsigned_abs() > SKEW_MS {
        let way = if proxy.clock_skew_ms > 0 { "fast" } else { "slow" };
        words.push(format!("clock {} s {way}", proxy.clock_skew_ms.unsigned_abs() / 1000));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::pb::{Applied, Rejected};

    #[test]
    fn each_proxy_is_a_line_with_what_is_wrong_first() {
        let now_ms = 1_000_000_000_000;
        let ready = Proxy {
            id: "p1".to_owned(),
            group: "cart".to_owned(),
            name: "host-1".to_owned(),
            connected: true,
            ready: true,
            last_contact_ms: now_ms - 1000,
            applied: Some(Applied { version: "7".to_owned(), generation: 3, at_ms: 0 }),
            certificate_not_after_ms: now_ms + 12 * 3_600_000,
            ..Proxy::default()
        };
        let late =
            Proxy { id: "p2".to_owned(), rejected: vec![Rejected::default()], clock_skew_ms: -90_000, ..ready.clone() };
        let absent = Proxy { id: "p3".to_owned(), group: "edge".to_owned(), ..Proxy::default() };
        let proxies = vec![ready, late, absent];
        let status =
            StatusAnswer { version: 7, proxies, daemon_version: "0.1.0".to_owned(), ..StatusAnswer::default() };
        let wanted = "\
version 7 is in force; 2 of 3 proxies are connected; ringwayd 0.1.0

PROXY  GROUP  HOST    STATE                              VERSION  GENERATION  CONTACT  CERTIFICATE
p1     cart   host-1  ready                              7        3           1 s ago  in 12 h
p2     cart   host-1  ready, 1 refused, clock 90 s slow  7        3           1 s ago  in 12 h
p3     edge   -       absent                             -        -           -        -
";
        assert_eq!(people(&status, now_ms), wanted);
        let trial = StatusAnswer { canary: "version 8 on 1 of 2 proxies".to_owned(), ..StatusAnswer::default() };
        assert!(people(&trial, now_ms).contains("\non trial: version 8 on 1 of 2 proxies\n\n"));
        let there = |name: &str, proxies: u32, is_this: bool| DaemonThere {
            name: name.to_owned(),
            addresses: vec![format!("{name}:9443")],
            proxies,
            is_this,
            ..DaemonThere::default()
        };
        let daemons = vec![there("ctl-1", 1, true), there("ctl-2", 3, false)];
        let several = StatusAnswer { daemons, cut_off: "cut off".to_owned(), ..StatusAnswer::default() };
        let wanted = "\ndaemons: ctl-1 at ctl-1:9443 (this one, 1 proxy), ctl-2 at ctl-2:9443 (3 proxies)\ncut off\n\n";
        assert!(people(&several, now_ms).contains(wanted), "{}", people(&several, now_ms));
    }
}
