//! The daemon's life: settings, store, authority, server, pages; until a signal ends it.

use crate::settings::{Given, Settings};
use crate::state::{Daemon, now_ms};
use crate::{admin, authority, server, tell};
use rustls::ServerConfig;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Runs the daemon until SIGTERM or SIGINT. The exit code is 1 when it could not start; then standard error says why.
pub fn run(file: Option<&Path>, given: &Given) -> ExitCode {
    let Ok(settings) = Settings::read(file, given) else { return ExitCode::FAILURE };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime.map_err(|error| format!("cannot start: {error}")).and_then(|runtime| {
        let ended = runtime.block_on(serve(settings));
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tell::tell(why);
            ExitCode::FAILURE
        }
    }
}

/// Streams that are open at the end get so long to notice.
const END: Duration = Duration::from_secs(1);

async fn serve(settings: Settings) -> Result<(), String> {
    let no_signals = |error| format!("cannot listen to signals: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let ended = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let cannot = |error| format!("cannot listen on {}: {error}", settings.address);
    let listener = TcpListener::bind(settings.address).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    let admin_address = settings.admin;
    let daemon = Daemon::open(settings, address).await?;
    let (configs, config) = watch::channel(own_config(&daemon).map_err(|refusal| refusal.to_string())?);
    tokio::spawn(keep(daemon.clone(), configs));
    let (admin, _pages) = admin::start(admin_address, daemon.clone()).await?;
    tell::tell_ready(format_args!("proxies and operators at {address}, admin pages at {admin}"));

    let (end, mut ending) = watch::channel(false);
    let stopped = async move {
        let _ = ending.changed().await;
    };
    let store = daemon.store.clone();
    let server = tokio::spawn(server::serve(daemon, listener, config, stopped));
    tokio::pin!(server);
    tokio::select! {
        // It should not end before it is told to.
        ended = &mut server => return ended.map_err(|error| format!("the server is gone: {error}"))?,
        () = ended => {}
    }
    end.send_replace(true);
    let _ = tokio::time::timeout(END, server).await;
    let _ = tokio::time::timeout(END, store.leave()).await;
    Ok(())
}

/// The settings of TLS with a new certificate of our own.
pub(crate) fn own_config(daemon: &Daemon) -> Result<Arc<ServerConfig>, authority::Refusal> {
    let names = daemon.settings().certificate_names();
    let (chain, key) = daemon.authority.own_certificate(&daemon.trust_domain(), &names, now_ms())?;
    server::config(&chain, &key, &daemon.authority.bundle())
}

/// Keeps up with the store: documents, roots; and renews what is the daemon's own at half of its life.
pub(crate) async fn keep(daemon: Arc<Daemon>, configs: watch::Sender<Arc<ServerConfig>>) {
    const LOOK: Duration = Duration::from_secs(60);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let mut store = daemon.store.watch();
    let (mut made, mut told) = (Made::default(), Vec::new());
    let (mut looked, mut noticed) = (Instant::now(), Instant::now());
    loop {
        let failed = keep_once(&daemon, &configs, &mut made, looked.elapsed() > LOOK).await;
        // What lasts is said once.
        let failed: Vec<String> = failed.iter().map(ToString::to_string).collect();
        failed.iter().filter(|why| !told.contains(*why)).for_each(tell::tell);
        told = failed;
        if looked.elapsed() > LOOK {
            looked = Instant::now();
        }
        if noticed.elapsed() > DAY {
            noticed = Instant::now();
            daemon.authority.notice(now_ms()).into_iter().for_each(tell::tell);
        }
        let _ = tokio::time::timeout(LOOK, store.changed()).await;
    }
}

/// What the daemon's own certificate was made with.
#[derive(Default)]
struct Made {
    at_ms: u64,
    number: u64,
    trust_domain: String,
}

/// Each step by itself: what fails holds back nothing else, least of all the daemon's own certificate. What failed.
async fn keep_once(
    daemon: &Daemon,
    configs: &watch::Sender<Arc<ServerConfig>>,
    made: &mut Made,
    look: bool,
) -> Vec<authority::Refusal> {
    let now_ms = now_ms();
    let mut failed: Vec<authority::Refusal> = Vec::new();
    failed.extend(daemon.read_document().await.err().map(Into::into));
    let number = daemon.authority.refresh(now_ms).await.unwrap_or_else(|refusal| {
        failed.push(refusal);
        made.number
    });
    match daemon.read_trust().await {
        Ok(damaged) => failed.extend(damaged),
        Err(refusal) => failed.push(refusal),
    }
    failed.extend(daemon.read_endpoints().await.err().map(Into::into));
    let trust_domain = daemon.trust_domain();
    let changed = made.number != number || made.trust_domain != trust_domain;
    let half_ms = u64::try_from(authority::LEAF_LIFE.as_millis()).unwrap_or(u64::MAX) / 2;
    if changed || now_ms > made.at_ms + half_ms {
        match own_config(daemon) {
            Ok(config) => {
                configs.send_replace(config);
                *made = Made { at_ms: now_ms, number, trust_domain };
            }
            Err(refusal) => failed.push(refusal),
        }
    }
    if changed || look {
        failed.extend(daemon.keep_local_operator().await.err());
    }
    if look {
        failed.extend(daemon.sweep_proxies(now_ms).await.err());
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::Running;
    use crate::store::Change;

    #[tokio::test]
    async fn the_daemons_own_certificate_is_renewed_at_half_its_life_and_when_its_root_changes() {
        let running = Running::start().await;
        let daemon = &running.daemon;
        let (configs, mut config) = watch::channel(own_config(daemon).unwrap());
        let mut made = Made::default();
        let mut is_new = async |at_ms: Option<u64>| {
            made.at_ms = at_ms.unwrap_or(made.at_ms);
            assert!(keep_once(daemon, &configs, &mut made, false).await.is_empty());
            let changed = config.has_changed().unwrap();
            config.mark_unchanged();
            changed
        };
        const HOUR_MS: u64 = 3_600_000;
        assert!(is_new(None).await);
        assert!(!is_new(Some(now_ms() - 11 * HOUR_MS)).await);
        assert!(is_new(Some(now_ms() - 13 * HOUR_MS)).await);
        assert!(!is_new(None).await);
        daemon.authority.rotate(false, now_ms()).await.unwrap();
        assert!(is_new(None).await);
        assert!(!is_new(None).await);
    }

    /// A record that cannot be opened is nobody's but its own.
    #[tokio::test]
    async fn one_damaged_record_stops_nothing_else() {
        let running = Running::start().await;
        let daemon = &running.daemon;
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = rcgen::CertificateParams::new(["shop.example.com".to_owned()]).unwrap().self_signed(&key).unwrap();
        let pair = api::mesh::KeyPair { chain: chain.pem().into_bytes(), key: key.serialize_pem().into_bytes() };
        daemon.authority.put_secret("edge", "shop", &pair, "", now_ms()).await.unwrap();
        let sealed = daemon.store.get::<serde_json::Value>("secrets/edge:shop").await.unwrap().unwrap().value;
        let odd = serde_json::json!("no secret");
        let text = "trust-domain: shop\ngroups: {}\n";
        let about = crate::store::documents::About::default();
        let version = daemon.store.push(None, text, about).await.unwrap();
        let change = Change::new().put("secrets/edge:other", &sealed).put("secrets/edge:odd", &odd);
        let piece = format!("documents/text/{}/0000", version.digest);
        daemon.store.commit(change.put_bytes(piece, b"other".to_vec())).await.unwrap();

        let (configs, mut config) = watch::channel(own_config(daemon).unwrap());
        let failed = keep_once(daemon, &configs, &mut Made::default(), true).await;
        let failed: Vec<String> = failed.iter().map(ToString::to_string).collect();
        assert!(failed.iter().any(|why| why.contains("`shop` of group `edge` is damaged; put it again")), "{failed:?}");
        assert!(failed.iter().any(|why| why.contains("secrets/edge:odd")), "{failed:?}");
        assert!(config.has_changed().unwrap(), "its own certificate is made all the same");
        config.mark_unchanged();
        let secrets = daemon.snapshots.state().secrets;
        assert_eq!(secrets.keys().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["shop"]);

        // And it starts, so that they can be put again.
        let running = running.again().await;
        assert_eq!(running.daemon.snapshots.state().secrets.len(), 1);
        assert!(running.daemon.in_force().borrow().as_ref().is_some_and(|now| now.mesh.is_none()));
    }
}
