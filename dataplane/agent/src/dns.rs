//! DNS names of services: a task a name, which asks again as the answer's TTL says. A name that cannot be resolved keeps
//! the addresses it had; one that never could has none, and its service answers 503 until it has.

use crate::tell::tell;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Resolver, TokioResolver};
use plan::{Answers, Name};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How soon an answer is asked for again, whatever its TTL.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(300);
/// How long one question may take, of which there are two attempts.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Addresses and how long they hold, or why there are none.
type Answer = Result<(Vec<IpAddr>, Duration), String>;
type Lookup = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// The names of the current plan.
pub(crate) struct Dns {
    lookup: Lookup,
    tasks: BTreeMap<Box<str>, JoinHandle<()>>,
    news: mpsc::Receiver<News>,
    tell_news: mpsc::Sender<News>,
    known: BTreeMap<Box<str>, Vec<IpAddr>>,
    /// Names of which nothing was heard yet.
    waiting: BTreeSet<Box<str>>,
    failures: Arc<AtomicU64>,
}

struct News {
    host: Box<str>,
    /// None when it could not be resolved.
    addresses: Option<Vec<IpAddr>>,
}

impl Dns {
    /// Asks the servers of `/etc/resolv.conf`, after `/etc/hosts`. `failures` counts questions without an answer.
    pub(crate) fn new(failures: Arc<AtomicU64>) -> Dns {
        Dns::with(system_lookup(), failures)
    }

    fn with(lookup: Lookup, failures: Arc<AtomicU64>) -> Dns {
        let (tell_news, news) = mpsc::channel(256);
        let (known, waiting) = Default::default();
        Dns { lookup, tasks: BTreeMap::new(), news, tell_news, known, waiting, failures }
    }

    /// Reads the system's files anew; every name is asked for again.
    pub(crate) fn reread(&mut self) {
        self.lookup = system_lookup();
        self.stop_all();
    }

    /// From now on resolves these names and no others.
    pub(crate) fn want(&mut self, names: &BTreeSet<Name>) {
        let wanted = |host: &str| names.iter().any(|name| &*name.host == host);
        self.tasks.retain(|host, task| {
            let keep = wanted(host);
            if !keep {
                task.abort();
            }
            keep
        });
        self.known.retain(|host, _| wanted(host));
        self.waiting.retain(|host| wanted(host));
        for name in names {
            if !self.tasks.contains_key(&name.host) {
                let host = name.host.clone();
                let task =
                    keep_asking(host.clone(), self.lookup.clone(), self.tell_news.clone(), self.failures.clone());
                self.tasks.insert(host.clone(), tokio::spawn(task));
                self.waiting.insert(host);
            }
        }
    }

    /// Waits until each name was asked for once, at most for `longest`.
    pub(crate) async fn settle(&mut self, longest: Duration) {
        let _ = tokio::time::timeout(longest, async {
            while !self.waiting.is_empty() {
                let Some(news) = self.news.recv().await else { return };
                self.take(news);
            }
        })
        .await;
    }

    /// Waits until a name has other addresses than before. Nothing is lost when the wait is given up.
    pub(crate) async fn changed(&mut self) {
        while let Some(news) = self.news.recv().await {
            let mut changed = self.take(news);
            // What else is known by now becomes part of the same plan.
            while let Ok(news) = self.news.try_recv() {
                changed |= self.take(news);
            }
            if changed {
                return;
            }
        }
        std::future::pending().await
    }

    /// What is known of these names.
    pub(crate) fn answers(&self, names: &BTreeSet<Name>) -> Answers {
        let known = names.iter().filter_map(|name| Some((name.clone(), self.known.get(&name.host)?.clone())));
        Answers { addresses: known.collect() }
    }

    /// Says whether it changed anything.
    fn take(&mut self, news: News) -> bool {
        if !self.tasks.contains_key(&news.host) {
            return false;
        }
        self.waiting.remove(&news.host);
        let Some(addresses) = news.addresses else { return false };
        self.known.insert(news.host, addresses.clone()).is_none_or(|before| before != addresses)
    }

    fn stop_all(&mut self) {
        std::mem::take(&mut self.tasks).into_values().for_each(|task| task.abort());
        self.waiting.clear();
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop_all();
    }
}

/// Resolves one name for as long as it is wanted.
async fn keep_asking(host: Box<str>, lookup: Lookup, news: mpsc::Sender<News>, failures: Arc<AtomicU64>) {
    let mut retry = SOONEST;
    let mut told = false;
    loop {
        let (addresses, pause) = match lookup(host.to_string()).await {
            Ok((mut addresses, ttl)) => {
                // Servers rotate their answers; an order is no change.
                addresses.sort_unstable();
                addresses.dedup();
                (retry, told) = (SOONEST, false);
                (Some(addresses), ttl.clamp(SOONEST, LATEST))
            }
            Err(reason) => {
                failures.fetch_add(1, Relaxed);
                if !std::mem::replace(&mut told, true) {
                    tell(format_args!("cannot resolve {host}: {reason}"));
                }
                let pause = retry;
                retry = (retry * 2).min(LATEST / 10);
                (None, pause)
            }
        };
        if news.send(News { host: host.clone(), addresses }).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

/// The system's resolver. Without its files or without servers only `/etc/hosts` and `localhost` (RFC 6761 section 6.3)
/// have answers.
fn system_lookup() -> Lookup {
    let resolver = match resolver() {
        Ok(resolver) => resolver,
        Err(error) => {
            let reason = format!("the resolver cannot be made: {error}");
            return Arc::new(move |_| {
                let reason = reason.clone();
                Box::pin(async move { Err(reason) })
            });
        }
    };
    Arc::new(move |host| {
        let resolver = resolver.clone();
        Box::pin(async move {
            let answer = resolver.lookup_ip(host).await.map_err(|error| error.to_string())?;
            let ttl = answer.valid_until().saturating_duration_since(Instant::now());
            Ok((answer.iter().collect(), ttl))
        })
    })
}

fn resolver() -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|_| {
        let nothing = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
        Resolver::builder_with_config(nothing, TokioRuntimeProvider::default())
    });
    let options = builder.options_mut();
    options.timeout = options.timeout.min(ATTEMPT);
    options.attempts = options.attempts.min(2);
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // Its cache must not answer when we ask again because the TTL is over, nor keep a failure for hours.
    options.positive_max_ttl = Some(LATEST);
    options.negative_max_ttl = Some(SOONEST);
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn name(host: &str) -> Name {
        Name { host: host.into(), port: 80 }
    }

    /// Answers each question with the next of these; the last again and again.
    fn script(answers: Vec<Answer>) -> Lookup {
        let answers = Mutex::new(answers);
        Arc::new(move |_| {
            let mut answers = answers.lock().unwrap();
            let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
            Box::pin(async move { answer })
        })
    }

    fn found(addresses: &[&str], ttl_s: u64) -> Answer {
        Ok((addresses.iter().map(|address| address.parse().unwrap()).collect(), Duration::from_secs(ttl_s)))
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn a_change_is_told_a_rotation_and_a_failure_are_not() {
        run(async {
            let answers = vec![
                found(&["10.0.0.1", "10.0.0.2"], 2),
                found(&["10.0.0.2", "10.0.0.1"], 2),
                Err("no network".to_owned()),
                found(&["10.0.0.3"], 1000),
            ];
            let failures = Arc::new(AtomicU64::new(0));
            let mut dns = Dns::with(script(answers), failures.clone());
            let names = BTreeSet::from([name("a")]);
            dns.want(&names);
            let began = tokio::time::Instant::now();
            dns.settle(Duration::from_secs(2)).await;
            assert_eq!(dns.answers(&names).addresses[&name("a")].len(), 2);
            dns.changed().await;
            assert_eq!(dns.answers(&names).addresses[&name("a")], ["10.0.0.3".parse::<IpAddr>().unwrap()]);
            assert_eq!(failures.load(Relaxed), 1);
            // Two seconds of TTL twice, then one until the retry.
            assert_eq!(began.elapsed().as_secs(), 5);
        });
    }

    #[test]
    fn a_name_without_an_answer_is_not_waited_for_longer_than_asked() {
        run(async {
            let never: Lookup = Arc::new(|_| Box::pin(std::future::pending()));
            let mut dns = Dns::with(never, Arc::default());
            let names = BTreeSet::from([name("a"), name("b")]);
            dns.want(&names);
            let began = tokio::time::Instant::now();
            dns.settle(Duration::from_secs(2)).await;
            assert_eq!(began.elapsed().as_secs(), 2);
            assert!(dns.answers(&names).addresses.is_empty());
        });
    }

    #[test]
    fn names_that_are_no_longer_wanted_are_forgotten() {
        run(async {
            let mut dns = Dns::with(script(vec![found(&["10.0.0.1"], 1)]), Arc::default());
            let both = BTreeSet::from([name("a"), name("b")]);
            dns.want(&both);
            dns.settle(Duration::from_secs(2)).await;
            let one = BTreeSet::from([name("b")]);
            dns.want(&one);
            assert_eq!(dns.answers(&both).addresses.keys().cloned().collect::<Vec<_>>(), [name("b")]);
            assert_eq!(dns.tasks.len(), 1);
        });
    }

    #[test]
    fn rfc6761_localhost_is_known_without_a_network() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (addresses, _) = system_lookup()("localhost".to_owned()).await.unwrap();
            assert!(addresses.iter().all(IpAddr::is_loopback) && !addresses.is_empty(), "{addresses:?}");
        });
    }
}
