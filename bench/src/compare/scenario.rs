//! What is measured: the scenarios, and which arms take part in each.

use super::arms::{Arm, Kind};
use super::secure::Tls;

/// Connections that send requests in scenarios of small messages.
const BUSY: usize = 64;
/// Connections that carry bulk.
const BULK: usize = 16;
/// One body of bulk.
const BULK_BYTES: usize = 1 << 20;
/// Idle connections, where descriptors allow.
const IDLE: usize = 10_000;
/// Descriptors that a process needs beside its connections.
const SPARE: u64 = 400;

/// What a scenario is about; the first column of its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// CPU microseconds for each request: lower is better.
    Cpu,
    /// Gigabytes of bodies for each CPU second: higher is better.
    Bulk,
    /// p99 at a fixed rate, in microseconds: lower is better.
    Latency,
    /// MiB after a long run: lower is better.
    Memory,
}

/// One scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    Small,
    Rate,
    New,
    Down,
    Up,
    Idle,
    Latency,
    TlsSmall,
    TlsNew,
    Mtls,
    TlsDown,
    TlsIdle,
    Long,
}

impl Scenario {
    pub(crate) const ALL: [Scenario; 13] = [
        Scenario::Small,
        Scenario::Rate,
        Scenario::New,
        Scenario::Down,
        Scenario::Up,
        Scenario::Idle,
        Scenario::Latency,
        Scenario::TlsSmall,
        Scenario::TlsNew,
        Scenario::Mtls,
        Scenario::TlsDown,
        Scenario::TlsIdle,
        Scenario::Long,
    ];

    /// The word for `--only`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scenario::Small => "small",
            Scenario::Rate => "rate",
            Scenario::New => "new",
            Scenario::Down => "down",
            Scenario::Up => "up",
            Scenario::Idle => "idle",
            Scenario::Latency => "latency",
            Scenario::TlsSmall => "tls-small",
            Scenario::TlsNew => "tls-new",
            Scenario::Mtls => "mtls",
            Scenario::TlsDown => "tls-down",
            Scenario::TlsIdle => "tls-idle",
            Scenario::Long => "long",
        }
    }

    pub(crate) fn measure(self) -> Measure {
        match self {
            Scenario::Small | Scenario::Rate | Scenario::New | Scenario::Idle => Measure::Cpu,
            Scenario::TlsSmall | Scenario::TlsNew | Scenario::Mtls | Scenario::TlsIdle => Measure::Cpu,
            Scenario::Down | Scenario::Up | Scenario::TlsDown => Measure::Bulk,
            Scenario::Latency => Measure::Latency,
            Scenario::Long => Measure::Memory,
        }
    }

    /// A heading, with what was asked.
    pub(crate) fn title(self, load: &Load) -> String {
        match self {
            Scenario::Small => format!("Small keep-alive: {BUSY} connections, 64-byte bodies"),
            Scenario::Rate => {
                format!("The same at one rate for all: {} requests a second", load.rate.unwrap_or(0.0).round())
            }
            Scenario::New => format!("A new connection for each request, {BUSY} at a time"),
            Scenario::Down => format!("1 MiB bodies down, {BULK} connections"),
            Scenario::Up => format!("1 MiB bodies up, {BULK} connections"),
            Scenario::Idle => format!("{} idle connections, {BUSY} busy ones", load.idle),
            Scenario::Latency => {
                format!(
                    "Latency at a third of the best peer's most: {} requests a second",
                    load.rate.unwrap_or(0.0).round()
                )
            }
            Scenario::TlsSmall => format!("TLS 1.3 kept alive: {BUSY} connections, 64-byte bodies"),
            Scenario::TlsNew => format!("A full TLS 1.3 handshake for each request, {BUSY} at a time"),
            Scenario::Mtls => format!("Mutual TLS 1.3 on both sides, kept alive: {BUSY} connections, 64-byte bodies"),
            Scenario::TlsDown => format!("1 MiB bodies down over TLS 1.3, {BULK} connections"),
            Scenario::TlsIdle => format!("{} idle connections of TLS 1.3, {BUSY} busy ones", load.idle),
            Scenario::Long => format!("Memory after {:.0} s of load, {BUSY} connections", load.seconds),
        }
    }

    /// Where TLS is spoken.
    pub(crate) fn tls(self) -> Tls {
        match self {
            Scenario::TlsSmall | Scenario::TlsNew | Scenario::TlsDown | Scenario::TlsIdle => Tls::Down,
            Scenario::Mtls => Tls::Mutual,
            _ => Tls::None,
        }
    }

    /// Whether each request has a connection of its own.
    pub(crate) fn connects_anew(self) -> bool {
        matches!(self, Scenario::New | Scenario::TlsNew)
    }

    /// Whether there are idle connections.
    pub(crate) fn has_idle(self) -> bool {
        matches!(self, Scenario::Idle | Scenario::TlsIdle)
    }

    /// What an arm is warmed up with.
    pub(crate) fn warm_up(self) -> Scenario {
        match self {
            // With the busy connections alone, so that what the idle ones add can be told from what the proxy keeps anyway.
            Scenario::Idle => Scenario::Small,
            Scenario::TlsIdle => Scenario::TlsSmall,
            other => other,
        }
    }

    /// Whether the load runs at a fixed rate.
    pub(crate) fn fixed_rate(self) -> bool {
        matches!(self, Scenario::Rate | Scenario::Latency)
    }

    /// Why an arm has no row here, or none when it takes part.
    pub(crate) fn leaves_out(self, arm: &Arm, descriptors: u64) -> Option<String> {
        let bulk = self.measure() == Measure::Bulk;
        match arm.kind {
            // The larger buffers are for bulk; among them the best one counts.
            Kind::Relay { .. } | Kind::Naive if self.tls() != Tls::None => Some(String::new()),
            Kind::Relay { buffer } if buffer > 4096 && !bulk => Some(String::new()),
            Kind::Relay { .. } if self == Scenario::Idle && 2 * self.idle(descriptors) as u64 + SPARE > descriptors => {
                Some(format!("two descriptors a connection, of {descriptors} in all"))
            }
            _ => None,
        }
    }

    /// How many idle connections the descriptor limit allows this scenario.
    pub(crate) fn idle(self, descriptors: u64) -> usize {
        if self.has_idle() { IDLE.min(descriptors.saturating_sub(SPARE) as usize) } else { 0 }
    }

    /// The options of `ringway-bench load` for one slice.
    pub(crate) fn options(self, load: &Load) -> Vec<String> {
        let mut words = vec!["--json".to_string(), "--warmup".into(), "0.25".into()];
        let mut add = |name: &str, value: String| words.extend([name.to_string(), value]);
        add("--duration", load.seconds.to_string());
        match self.measure() {
            Measure::Bulk => add("--connections", BULK.to_string()),
            _ => add("--connections", BUSY.to_string()),
        }
        if let Some(rate) = load.rate {
            add("--rate", format!("{rate:.0}"));
        }
        if load.idle > 0 {
            add("--idle", load.idle.to_string());
        }
        match self {
            Scenario::New | Scenario::TlsNew => words.push("--no-keepalive".into()),
            Scenario::Up => words.extend(["-X", "POST", "--body-size", &BULK_BYTES.to_string()].map(String::from)),
            _ => {}
        }
        words
    }

    /// What is asked for.
    pub(crate) fn path(self) -> String {
        match self {
            Scenario::Down | Scenario::TlsDown => format!("/size/{BULK_BYTES}"),
            Scenario::Up => "/size/2".to_string(),
            _ => "/size/64".to_string(),
        }
    }
}

/// What one slice is asked for beside its scenario.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    pub(crate) seconds: f64,
    pub(crate) rate: Option<f64>,
    pub(crate) idle: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(kind: Kind) -> Arm {
        Arm { name: "x".into(), kind, program: "x".into(), version: String::new() }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = Scenario::ALL.iter().map(|scenario| scenario.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Scenario::ALL.len());
    }

    #[test]
    fn large_buffers_are_for_bulk_alone() {
        let large = arm(Kind::Relay { buffer: 65536 });
        assert!(Scenario::Small.leaves_out(&large, 20_000).is_some());
        assert!(Scenario::Down.leaves_out(&large, 20_000).is_none());
        assert!(Scenario::Small.leaves_out(&arm(Kind::Relay { buffer: 4096 }), 20_000).is_none());
    }

    #[test]
    fn idle_connections_stay_within_the_descriptors() {
        assert_eq!(Scenario::Idle.idle(20_000), 10_000);
        assert_eq!(Scenario::Idle.idle(1024), 624);
        assert_eq!((Scenario::Small.idle(20_000), Scenario::TlsIdle.idle(20_000)), (0, 10_000));
        let relay = arm(Kind::Relay { buffer: 4096 });
        assert!(Scenario::Idle.leaves_out(&relay, 20_000).is_some_and(|why| why.contains("20000")));
        assert!(Scenario::Idle.leaves_out(&relay, 40_000).is_none());
    }

    #[test]
    fn with_tls_only_those_take_part_that_speak_it() {
        for scenario in Scenario::ALL.into_iter().filter(|scenario| scenario.tls() != Tls::None) {
            assert!(scenario.leaves_out(&arm(Kind::Relay { buffer: 4096 }), 40_000).is_some());
            assert!(scenario.leaves_out(&arm(Kind::Naive), 40_000).is_some());
            assert!(scenario.leaves_out(&arm(Kind::Nginx), 40_000).is_none());
        }
    }

    #[test]
    fn options_say_what_the_scenario_is() {
        let load = Load { seconds: 1.5, rate: Some(5000.4), idle: 0 };
        let options = Scenario::Rate.options(&load).join(" ");
        assert!(options.contains("--rate 5000 ") || options.ends_with("--rate 5000"), "{options}");
        assert!(Scenario::New.options(&Load::default()).contains(&"--no-keepalive".to_string()));
        assert!(Scenario::Up.options(&Load::default()).join(" ").contains("-X POST --body-size 1048576"));
    }
}
