//! What a trial of a push is: who has it first, how long they are watched, and what takes it back: how many of their answers
//! fail, how long they take, held against the rest of their groups. `trial` does it.

use crate::collect::{Counts, Member};
use crate::encode::sha256;
use api::pb;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// When nobody says.
const WATCH: Duration = Duration::from_secs(30);
/// Two reports of each proxy, which come every two seconds: less shows nothing.
const SHORTEST: Duration = Duration::from_secs(4);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// With fewer requests nothing is judged by them.
const ENOUGH: u64 = 50;
/// The rest fares as badly when those on trial are no worse than so many times it.
const AS_BAD: f64 = 1.5;

/// How a push is tried.
#[derive(Debug)]
pub(super) struct Canary {
    /// Of a group's members that are connected.
    percent: u32,
    pub(super) watch: Duration,
    limits: Vec<Limit>,
}

/// What takes a push back.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    /// More than this share of requests failed.
    Errors(f64),
    /// The slowest of a hundred took longer, microseconds.
    P99(f64),
    /// The slowest of a hundred took so many times as long as those of the rest.
    Latency(f64),
}

impl Canary {
    /// What an operator asks for.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub(super) fn read(asked: &pb::Canary) -> Result<Canary, String> {
        let pb::Canary { percent, watch_ms, abort_on } = asked;
        if !(1..=99).contains(percent) {
            return Err(format!("--canary is from 1% to 99%, not {percent}%"));
        }
        let watch = if *watch_ms == 0 { WATCH } else { Duration::from_millis(u64::from(*watch_ms)) };
        if !(SHORTEST..=LONGEST).contains(&watch) {
            return Err("--watch is from 4s to 24h: proxies report every 2s".to_owned());
        }
        let limits = abort_on.iter().map(|text| limit(text)).collect::<Result<Vec<_>, _>>()?;
        let limits = if limits.is_empty() { vec![Limit::Errors(0.01)] } else { limits };
        Ok(Canary { percent: *percent, watch, limits })
    }

    /// Who tries a push; nobody where nobody is connected.
    pub(super) fn members(
        &self,
        number: u64,
        groups: &[String],
        members: &HashMap<Arc<str>, Member>,
    ) -> BTreeMap<String, BTreeSet<String>> {
        chosen(self.percent, number, groups, members)
    }

    /// Why those on trial are worse than they may be.
    pub(super) fn judge(&self, trial: &Counts, rest: &Counts) -> Vec<String> {
        self.limits.iter().filter_map(|limit| judge(*limit, trial, rest)).collect()
    }
}

/// `errors>1%`, `p99>200ms`, `latency>1.5x`
fn limit(text: &str) -> Result<Limit, String> {
    let wrong = || {
        let text: String = text.escape_default().take(60).collect();
        format!("--abort-on is `errors>1%`, `p99>200ms` or `latency>1.5x`, not `{text}`")
    };
    let (what, value) = text.split_once('>').ok_or_else(wrong)?;
    let value = value.trim();
    let number = |unit: &str| {
        let number = value.strip_suffix(unit)?.trim().parse::<f64>().ok()?;
        (number.is_finite() && number >= 0.0).then_some(number)
    };
    let found = match what.trim() {
        "errors" => number("%").filter(|percent| *percent < 100.0).map(|percent| Limit::Errors(percent / 100.0)),
        "p99" => number("ms").map(|ms| ms * 1e3).or_else(|| number("s").map(|s| s * 1e6)).map(Limit::P99),
        "latency" => number("x").filter(|factor| *factor >= 1.0).map(Limit::Latency),
        _ => None,
    };
    found.ok_or_else(wrong)
}

/// Who tries a push: of each group that it changes, some of those who are connected, by a hash of who they are and of what
/// is tried; one at least, and not all unless there is one alone.
fn chosen(
    percent: u32,
    number: u64,
    groups: &[String],
    members: &HashMap<Arc<str>, Member>,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, Vec<(Vec<u8>, String)>> = BTreeMap::new();
    for (proxy, member) in members.iter().filter(|(_, member)| member.is_connected()) {
        if groups.contains(&member.group) {
            let hash = sha256(format!("{number} {proxy}").as_bytes()).to_vec();
            all.entry(member.group.clone()).or_default().push((hash, proxy.to_string()));
        }
    }
    let some = |mut list: Vec<(Vec<u8>, String)>| {
        list.sort();
        let wanted = (list.len() * percent as usize).div_ceil(100);
        let count = wanted.clamp(1, (list.len() - 1).max(1));
        list.into_iter().take(count).map(|(_, proxy)| proxy).collect()
    };
    all.into_iter().map(|(group, list)| (group, some(list))).collect()
}

/// Why those on trial are worse than they may be.
fn judge(limit: Limit, trial: &Counts, rest: &Counts) -> Option<String> {
    if trial.requests() < ENOUGH {
        return None;
    }
    let is_rest = rest.requests() >= ENOUGH;
    let of_rest = |what: String| if is_rest { format!(", of the rest {what}") } else { String::new() };
    let percent = |counts: &Counts| format!("{:.1}%", counts.errors() * 100.0);
    let (slow, slow_of_rest) = (trial.quantile_us(0.99), rest.quantile_us(0.99));
    let ms = |us: f64| format!("{:.1} ms", us / 1e3);
    match limit {
        Limit::Errors(most) => {
            let is_worse = !is_rest || trial.errors() > AS_BAD * rest.errors();
            (trial.errors() > most && is_worse).then(|| format!("errors: {}{}", percent(trial), of_rest(percent(rest))))
        }
        Limit::P99(most_us) => {
            let is_worse = !is_rest || slow > slow_of_rest;
            (slow > most_us && is_worse).then(|| format!("p99: {}{}", ms(slow), of_rest(ms(slow_of_rest))))
        }
        Limit::Latency(most) => (is_rest && slow_of_rest > 0.0 && slow > most * slow_of_rest).then(|| {
            format!("latency: p99 is {:.1} times that of the rest, {}", slow / slow_of_rest, ms(slow_of_rest))
        }),
    }
}

/// `errors 0.0% (rest 0.1%), p99 12.0 ms (rest 11.0 ms)`
pub(super) fn compared(trial: &Counts, rest: &Counts) -> String {
    if trial.requests() < ENOUGH {
        return format!("{} requests, too few to judge by", trial.requests());
    }
    let rest_of = |what: String| if rest.requests() > 0 { format!(" (rest {what})") } else { String::new() };
    let percent = |counts: &Counts| format!("{:.1}%", counts.errors() * 100.0);
    let ms = |counts: &Counts| format!("{:.1} ms", counts.quantile_us(0.99) / 1e3);
    format!("errors {}{}, p99 {}{}", percent(trial), rest_of(percent(rest)), ms(trial), rest_of(ms(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(good: u64, bad: u64, bucket: usize) -> Counts {
        let mut counts = Counts::default();
        (counts.classes[2], counts.classes[5], counts.failed) = (good, bad, bad);
        counts.latency[bucket] = good + bad;
        counts
    }

    #[test]
    fn limits_are_read_or_told_what_would_be_right() {
        assert_eq!(limit("errors>1%"), Ok(Limit::Errors(0.01)));
        assert_eq!(limit("errors > 0.5 %"), Ok(Limit::Errors(0.005)));
        assert_eq!(limit("p99>200ms"), Ok(Limit::P99(200_000.0)));
        assert_eq!(limit("p99>1.5s"), Ok(Limit::P99(1_500_000.0)));
        assert_eq!(limit("latency>1.5x"), Ok(Limit::Latency(1.5)));
        for wrong in
            ["", "errors", "errors>1", "errors>-1%", "errors>100%", "p99>1", "latency>0.5x", "latency>nanx", "x>1%"]
        {
            let why = limit(wrong).expect_err(wrong);
            assert!(why.starts_with("--abort-on is `errors>1%`, `p99>200ms` or `latency>1.5x`, not"), "{why}");
        }
        let read = |percent, watch_ms| Canary::read(&pb::Canary { percent, watch_ms, abort_on: Vec::new() });
        assert_eq!(read(10, 0).unwrap().watch, WATCH);
        assert_eq!(read(10, 0).unwrap().limits, [Limit::Errors(0.01)]);
        assert!(read(0, 0).is_err() && read(100, 0).is_err() && read(10, 3999).is_err() && read(10, 4000).is_ok());
    }

    #[test]
    fn those_on_trial_are_held_against_the_rest() {
        let errors = |trial: &Counts, rest: &Counts| judge(Limit::Errors(0.01), trial, rest);
        let none = Counts::default();
        assert_eq!(errors(&counts(49, 0, 0), &none), None);
        assert_eq!(errors(&counts(20, 20, 0), &none), None, "too few to judge by");
        assert_eq!(errors(&counts(95, 5, 0), &none).as_deref(), Some("errors: 5.0%"));
        assert_eq!(errors(&counts(95, 5, 0), &counts(1000, 0, 0)).as_deref(), Some("errors: 5.0%, of the rest 0.0%"));
        assert_eq!(errors(&counts(95, 5, 0), &counts(960, 40, 0)), None, "the rest fares as badly");
        assert_eq!(errors(&counts(995, 5, 0), &counts(1000, 0, 0)), None, "within the limit");
        // From 5 to 10 ms, and from 50 to 100 ms.
        let (quick, slow) = (counts(100, 0, 4), counts(100, 0, 7));
        assert_eq!(judge(Limit::P99(20_000.0), &slow, &quick).as_deref(), Some("p99: 99.5 ms, of the rest 9.9 ms"));
        assert_eq!(judge(Limit::P99(20_000.0), &slow, &slow), None);
        assert!(judge(Limit::Latency(1.5), &slow, &quick).unwrap().starts_with("latency: p99 is 10."));
        assert_eq!(judge(Limit::Latency(1.5), &slow, &none), None, "there is nobody to be held against");
        assert_eq!(compared(&quick, &none), "errors 0.0%, p99 9.9 ms");
    }

    #[test]
    fn some_of_each_group_try_never_all_unless_there_is_one() {
        let member = |group: &str, connected: bool| {
            let mut member = Member::default();
            group.clone_into(&mut member.group);
            member.report = connected.then(Arc::default);
            member
        };
        let mut members: HashMap<Arc<str>, Member> = HashMap::new();
        for n in 0..40 {
            members.insert(format!("many-{n}").into(), member("many", n < 30));
        }
        for (name, group) in [("two-a", "two"), ("two-b", "two"), ("one", "one"), ("other", "other")] {
            members.insert(name.into(), member(group, true));
        }
        let groups = ["many", "two", "one", "empty"].map(str::to_owned);
        let counts = |percent: u32, number: u64| -> Vec<usize> {
            chosen(percent, number, &groups, &members).values().map(BTreeSet::len).collect()
        };
        // By name: `many`, `one`, `two`.
        assert_eq!(counts(10, 1), [3, 1, 1]);
        assert_eq!(counts(1, 1), [1, 1, 1]);
        assert_eq!(counts(99, 1), [29, 1, 1]);
        assert_eq!(chosen(10, 1, &groups, &members), chosen(10, 1, &groups, &members));
        assert_ne!(chosen(10, 1, &groups, &members), chosen(10, 2, &groups, &members), "another push, others");
    }
}
