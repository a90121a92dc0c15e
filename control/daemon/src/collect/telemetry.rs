//! What proxies counted, added up by group. Proxies report totals since they began; what is new since the last report is
//! added here, so that a report that comes twice, or after a break, counts once. Everything is bounded: what is beyond a
//! bound is added up under `other`.

use super::word::Word;
use api::{LATENCY_BOUNDS_US, pb};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Series that are kept, of all groups together.
const MOST_SERIES: usize = 5000;
/// Pairs of an identity and a service, of all groups together.
const MOST_PAIRS: usize = 20_000;
/// Words of all groups together.
const MOST_WORDS: usize = 20_000;
/// Series of one report that are looked at.
pub(super) const MOST_REPORTED: usize = 8192;
/// The longest name in a report, bytes; a SPIFFE ID has 2048 at most.
pub(super) const LONGEST: usize = 2048;
pub(super) const OTHER: &str = "other";

/// Rates are those of about so long: several reports of each proxy.
const WINDOW: Duration = Duration::from_secs(10);
/// Between samples.
const SAMPLE: Duration = Duration::from_secs(2);
/// Samples that are kept.
const SAMPLES: usize = 8;

/// How many buckets a histogram has: one a bound, and one beyond.
const BUCKETS: usize = LATENCY_BOUNDS_US.len() + 1;

/// What requests are counted under.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The group of the proxies.
    pub group: String,
    /// The listener.
    pub listener: String,
    /// The route; empty: none took it.
    pub route: String,
    /// The service; empty: the proxy answered by itself.
    pub service: String,
}

/// Counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// By the first digit of the status; 0: none was sent.
    pub classes: [u64; 6],
    /// Failed at the service or the proxy: answered with 5xx, or cut short by one of them.
    pub failed: u64,
    /// Refused by rules.
    pub denied: u64,
    /// Durations, by bucket of `LATENCY_BOUNDS_US`.
    pub latency: [u64; BUCKETS],
    /// All durations together.
    pub latency_sum_us: u64,
}

impl Counts {
    fn read(series: &pb::Series) -> Counts {
        let mut counts = Counts { denied: series.denied, latency_sum_us: series.latency_sum_us, ..Counts::default() };
        counts.classes.iter_mut().zip(&series.classes).for_each(|(to, from)| *to = *from);
        counts.latency.iter_mut().zip(&series.latency).for_each(|(to, from)| *to = *from);
        counts.failed = series.failed.max(counts.classes[5]);
        counts
    }

    /// What was counted after `before`; totals never go back, whatever a report says.
    pub(crate) fn since(&self, before: &Counts) -> Counts {
        let mut counts = *self;
        counts.each(before, u64::saturating_sub);
        counts
    }

    pub(crate) fn add(&mut self, more: &Counts) {
        self.each(more, u64::saturating_add);
    }

    fn each(&mut self, other: &Counts, with: impl Fn(u64, u64) -> u64) {
        self.classes.iter_mut().zip(other.classes).for_each(|(to, from)| *to = with(*to, from));
        self.latency.iter_mut().zip(other.latency).for_each(|(to, from)| *to = with(*to, from));
        self.failed = with(self.failed, other.failed);
        self.denied = with(self.denied, other.denied);
        self.latency_sum_us = with(self.latency_sum_us, other.latency_sum_us);
    }

    /// All requests.
    pub fn requests(&self) -> u64 {
        self.classes.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The share of requests that failed at the service or the proxy; 0 without a request.
    pub fn errors(&self) -> f64 {
        if self.requests() == 0 { 0.0 } else { (self.failed as f64 / self.requests() as f64).min(1.0) }
    }

    /// Whether there was nothing but connections whose bytes are not read: how long these take is no latency.
    fn are_connections(&self) -> bool {
        self.classes[1..].iter().all(|count| *count == 0)
    }

    /// The duration that this share of requests stayed under, microseconds ([`api::quantile_us`]).
    pub fn quantile_us(&self, share: f64) -> f64 {
        api::quantile_us(&self.latency.map(|count| count as f64), share)
    }
}

/// Who talks to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// The SPIFFE ID of who asked; empty: none was proven.
    pub source: String,
    /// The group of the proxy that was asked.
    pub group: String,
    /// The service behind it.
    pub service: String,
}

/// Everything that is counted. `Key` and `Pair` differ in how a report names them: a series with a source is of a pair.
#[derive(Debug, Default)]
pub struct Telemetry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What each proxy reported last.
    last: HashMap<Arc<str>, Last>,
    totals: HashMap<Key, Counts>,
    pairs: HashMap<Pair, Counts>,
    words: HashMap<(String, Word), u64>,
    samples: VecDeque<(Instant, Arc<HashMap<Key, Counts>>)>,
}

#[derive(Debug, Default)]
struct Last {
    epoch: u64,
    /// The process before it: what comes of that one was under way when it ended.
    left: Option<u64>,
    counts: HashMap<[String; 4], Counts>,
    words: HashMap<Word, u64>,
}

/// The rate of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// Whose.
    pub key: Key,
    /// What came in the window.
    pub counts: Counts,
    /// How long that was, seconds.
    pub seconds: f64,
}

impl Telemetry {
    /// A proxy reports its totals. `epoch` names the process that counted them.
    pub(crate) fn take(&self, proxy: &str, group: &str, epoch: u64, counters: &pb::Counters) {
        let mut inner = self.lock();
        let Inner { last, totals, pairs, words, .. } = &mut *inner;
        // Of a proxy that is new here nothing is known of when it counted what: that is where counting begins.
        let is_new = !last.contains_key(proxy);
        let of_proxy = last.entry(proxy.into()).or_default();
        if of_proxy.left == Some(epoch) {
            return;
        }
        if of_proxy.epoch != epoch {
            of_proxy.left = (!is_new).then_some(of_proxy.epoch);
            of_proxy.counts.clear();
            of_proxy.words.clear();
            of_proxy.epoch = epoch;
        }
        for series in counters.series.iter().take(MOST_REPORTED) {
            let names = [&series.source, &series.listener, &series.route, &series.service];
            if names.iter().any(|name| name.len() > LONGEST) {
                continue;
            }
            let names = names.map(String::clone);
            let now = Counts::read(series);
            if of_proxy.counts.len() >= MOST_REPORTED && !of_proxy.counts.contains_key(&names) {
                continue;
            }
            let before = of_proxy.counts.insert(names.clone(), now);
            let news = match before {
                Some(before) => now.since(&before),
                None if is_new => Counts::default(),
                None => now,
            };
            let [source, listener, route, service] = names;
            let group = group.to_owned();
            // The sum of a pair is of the same requests as the sums by route.
            if source.is_empty() {
                add(totals, Key { group, listener, route, service }, &news, MOST_SERIES, |key| Key {
                    listener: OTHER.to_owned(),
                    route: OTHER.to_owned(),
                    service: OTHER.to_owned(),
                    ..key
                });
            } else {
                // People ask who ever talked to whom, not how much since.
                let sum = if before.is_none() { now } else { news };
                add(pairs, Pair { source, group, service }, &sum, MOST_PAIRS, |pair| Pair {
                    source: OTHER.to_owned(),
                    service: OTHER.to_owned(),
                    ..pair
                });
            }
        }
        for (word, now) in Word::of(counters) {
            if of_proxy.words.len() >= MOST_REPORTED && !of_proxy.words.contains_key(&word) {
                continue;
            }
            let before = of_proxy.words.insert(word.clone(), now).or(is_new.then_some(now));
            let news = now.saturating_sub(before.unwrap_or_default());
            let mut key = (group.to_owned(), word);
            if words.len() >= MOST_WORDS && !words.contains_key(&key) {
                key.1 = key.1.other();
            }
            let sum = words.entry(key).or_default();
            *sum = sum.saturating_add(news);
        }
    }

    /// What was counted one by one since the daemon began, by group.
    pub fn words(&self) -> BTreeMap<(String, Word), u64> {
        self.lock().words.iter().map(|(word, count)| (word.clone(), *count)).collect()
    }

    /// A proxy is no more: what it counted stays counted.
    pub(crate) fn forget(&self, proxy: &str) {
        self.lock().last.remove(proxy);
    }

    /// The totals since the daemon began.
    pub fn totals(&self) -> BTreeMap<Key, Counts> {
        self.lock().totals.iter().map(|(key, counts)| (key.clone(), *counts)).collect()
    }

    /// By proxy: the process that counts, and all that it has counted.
    pub(crate) fn of_proxies(&self) -> HashMap<Arc<str>, (u64, Counts)> {
        let inner = self.lock();
        let sum = |last: &Last| {
            let mut sum = Counts::default();
            for (_, counts) in last.counts.iter().filter(|(names, _)| names[0].is_empty()) {
                let latency = if counts.are_connections() { [0; BUCKETS] } else { counts.latency };
                sum.add(&Counts { latency, ..*counts });
            }
            sum
        };
        inner.last.iter().map(|(proxy, last)| (proxy.clone(), (last.epoch, sum(last)))).collect()
    }

    /// Who talked to whom.
    pub fn pairs(&self) -> BTreeMap<Pair, Counts> {
        self.lock().pairs.iter().map(|(pair, counts)| (pair.clone(), *counts)).collect()
    }

    /// Keeps samples for rates; for as long as the daemon lives.
    pub(crate) async fn sample(self: Arc<Telemetry>) {
        let mut every = tokio::time::interval(SAMPLE);
        loop {
            every.tick().await;
            self.sample_at(Instant::now());
        }
    }

    pub(super) fn sample_at(&self, now: Instant) {
        let mut inner = self.lock();
        let totals = Arc::new(inner.totals.clone());
        inner.samples.push_back((now, totals));
        if inner.samples.len() > SAMPLES {
            inner.samples.pop_front();
        }
    }

    /// Rates of the last seconds, of what has any, the busiest first.
    pub fn rates(&self, now: Instant) -> Vec<Rate> {
        let inner = self.lock();
        let age = |(at, _): &&(Instant, _)| now.saturating_duration_since(*at);
        // The youngest that is old enough, or the oldest there is.
        let sample = inner.samples.iter().rev().find(|sample| age(sample) >= WINDOW).or(inner.samples.front());
        let Some((at, before)) = sample else { return Vec::new() };
        let seconds = now.saturating_duration_since(*at).as_secs_f64();
        if seconds <= 0.0 {
            return Vec::new();
        }
        let mut rates: Vec<Rate> = Vec::new();
        for (key, counts) in &inner.totals {
            let counts = before.get(key).map_or(*counts, |before| counts.since(before));
            if counts != Counts::default() {
                rates.push(Rate { key: key.clone(), counts, seconds });
            }
        }
        let busy = |rate: &Rate| std::cmp::Reverse((rate.counts.requests(), rate.counts.denied));
        rates.sort_by(|a, b| busy(a).cmp(&busy(b)).then_with(|| a.key.cmp(&b.key)));
        rates
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds under a key, or under `other` when there are too many.
fn add<K: Eq + std::hash::Hash>(
    to: &mut HashMap<K, Counts>,
    key: K,
    more: &Counts,
    most: usize,
    other: impl FnOnce(K) -> K,
) {
    let key = if to.len() >= most && !to.contains_key(&key) { other(key) } else { key };
    to.entry(key).or_default().add(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(source: &str, route: &str, good: u64, bad: u64) -> pb::Series {
        let mut latency = vec![0; BUCKETS];
        latency[3] = good + bad;
        pb::Series {
            source: source.to_owned(),
            listener: "web".to_owned(),
            route: route.to_owned(),
            service: "cart".to_owned(),
            classes: vec![0, 0, good, 0, 0, bad],
            latency,
            ..pb::Series::default()
        }
    }

    fn report(telemetry: &Telemetry, proxy: &str, epoch: u64, series: Vec<pb::Series>) {
        telemetry.take(proxy, "edge", epoch, &pb::Counters { series, ..pb::Counters::default() });
    }

    fn requests(telemetry: &Telemetry) -> u64 {
        telemetry.totals().values().map(Counts::requests).sum()
    }

    #[test]
    fn what_is_reported_twice_or_after_a_break_counts_once() {
        let telemetry = Telemetry::default();
        report(&telemetry, "a", 1, vec![series("", "r", 1000, 0)]);
        assert_eq!(requests(&telemetry), 0, "who knows when that was");
        report(&telemetry, "a", 1, vec![series("", "r", 1010, 2)]);
        report(&telemetry, "a", 1, vec![series("", "r", 1010, 2)]);
        assert_eq!(requests(&telemetry), 12);
        // A route that is new.
        report(&telemetry, "a", 1, vec![series("", "r", 1010, 2), series("", "s", 5, 0)]);
        assert_eq!(requests(&telemetry), 17);
        // Another process begins with nothing.
        report(&telemetry, "a", 2, vec![series("", "r", 3, 0)]);
        assert_eq!(requests(&telemetry), 20);
        // Totals never go back.
        report(&telemetry, "a", 2, vec![series("", "r", 1, 0)]);
        assert_eq!(requests(&telemetry), 20);
        report(&telemetry, "b", 7, vec![series("", "r", 100, 0)]);
        report(&telemetry, "b", 7, vec![series("", "r", 104, 0)]);
        assert_eq!(requests(&telemetry), 24);
    }

    #[test]
    fn a_late_report_of_a_process_that_was_replaced_counts_for_nothing() {
        let telemetry = Telemetry::default();
        report(&telemetry, "a", 1, vec![series("", "r", 0, 0)]);
        report(&telemetry, "a", 1, vec![series("", "r", 10, 0)]);
        report(&telemetry, "a", 2, vec![series("", "r", 3, 0)]);
        report(&telemetry, "a", 1, vec![series("", "r", 11, 0)]);
        report(&telemetry, "a", 2, vec![series("", "r", 4, 0)]);
        assert_eq!(requests(&telemetry), 14);
        report(&telemetry, "a", 3, vec![series("", "r", 1, 0)]);
        assert_eq!(requests(&telemetry), 15);
    }

    #[test]
    fn words_count_once_too_and_are_bounded() {
        let telemetry = Telemetry::default();
        let take = |endings: Vec<(String, u64)>, epoch: u64| {
            let series = pb::Series { endings: [("overloaded".to_owned(), 2)].into(), ..series("", "r", 1, 0) };
            let endings = endings.into_iter().collect();
            let counters = pb::Counters { endings, handshakes: 7, series: vec![series], ..pb::Counters::default() };
            telemetry.take("a", "edge", epoch, &counters);
        };
        let count = |word: &Word| telemetry.words()[&("edge".to_owned(), word.clone())];
        let drained = || Word::Ending("drained".to_owned());
        take(vec![("drained".to_owned(), 5)], 1);
        take(vec![("drained".to_owned(), 6)], 1);
        take(vec![("drained".to_owned(), 6)], 1);
        assert_eq!((count(&drained()), count(&Word::Handshake)), (1, 0));
        take(vec![("drained".to_owned(), 6)], 2);
        assert_eq!((count(&drained()), count(&Word::Handshake)), (7, 7));
        let failed = Word::Failed {
            listener: "web".to_owned(),
            route: "r".to_owned(),
            service: "cart".to_owned(),
            ending: "overloaded".to_owned(),
        };
        assert_eq!(count(&failed), 2);
        take((0..100_000).map(|n| (n.to_string(), 1)).chain([("x".repeat(65), 1)]).collect(), 2);
        assert!(telemetry.words().len() <= MOST_REPORTED + 10, "{}", telemetry.words().len());
    }

    #[test]
    fn what_tcp_takes_is_no_latency() {
        let telemetry = Telemetry::default();
        let tcp = pb::Series { classes: vec![10], failed: 1, ..series("", "tcp", 0, 0) };
        let tcp = pb::Series { latency: series("", "", 10, 0).latency, ..tcp };
        report(&telemetry, "a", 1, vec![tcp, series("", "r", 5, 5)]);
        let (_, counts) = telemetry.of_proxies()["a"];
        assert_eq!((counts.requests(), counts.failed), (20, 6));
        assert_eq!(counts.latency.iter().sum::<u64>(), 10);
    }

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let telemetry = Telemetry::default();
        let start = Instant::now();
        assert!(telemetry.rates(start).is_empty());
        report(&telemetry, "a", 1, vec![series("", "r", 0, 0), series("", "quiet", 0, 0)]);
        for second in 0..30 {
            report(&telemetry, "a", 1, vec![series("", "r", second * 90, second * 10), series("", "quiet", 0, 0)]);
            telemetry.sample_at(start + Duration::from_secs(second));
        }
        let rates = telemetry.rates(start + Duration::from_secs(29));
        assert_eq!(rates.len(), 1, "{rates:?}");
        let per_second = rates[0].counts.requests() as f64 / rates[0].seconds;
        assert_eq!((per_second, rates[0].counts.errors()), (100.0, 0.1));
        // All took from 2.5 to 5 ms.
        assert_eq!(rates[0].counts.quantile_us(0.5), 3750.0);
    }

    #[test]
    fn quantiles_stay_within_the_bounds() {
        assert_eq!(Counts::default().quantile_us(0.99), 0.0);
        let mut counts = Counts::default();
        counts.latency[0] = 99;
        counts.latency[BUCKETS - 1] = 1;
        assert_eq!(counts.quantile_us(0.99), 500.0);
        assert_eq!(counts.quantile_us(1.0), 60_000_000.0);
    }

    #[test]
    fn pairs_are_counted_beside_routes_and_everything_is_bounded() {
        let telemetry = Telemetry::default();
        report(&telemetry, "a", 1, vec![series("spiffe://shop/web", "", 7, 0)]);
        assert_eq!((requests(&telemetry), telemetry.pairs().len()), (0, 1));
        report(&telemetry, "a", 1, vec![series("spiffe://shop/web", "", 9, 0)]);
        assert_eq!(telemetry.pairs().values().next().unwrap().requests(), 9);

        for proxy in 0..3 {
            let many = |count: u64| (0..3000).map(|n| series("", &format!("{proxy}-{n}"), count, 0)).collect();
            report(&telemetry, &format!("p{proxy}"), 1, many(0));
            report(&telemetry, &format!("p{proxy}"), 1, many(1));
        }
        assert_eq!(requests(&telemetry), 9000, "what is beyond the bound is among the others");
        assert_eq!(telemetry.totals().len(), MOST_SERIES + 1);
        report(&telemetry, "a", 1, vec![series(&"x".repeat(LONGEST + 1), "", 1, 0)]);
        assert_eq!(telemetry.pairs().len(), 1);
    }
}
