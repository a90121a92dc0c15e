//! The proxies that are compared: where their binaries are, their configurations, and a running one.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::cgroup::Cgroup;
use super::place::Place;
use super::secure::{self, Tls};
use crate::proc;

const READY_WITHIN: Duration = Duration::from_secs(10);
const QUIT_WITHIN: Duration = Duration::from_secs(3);

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    /// The bare byte relay with receive buffers of so many bytes. It connects anew for each of its clients' connections.
    Relay {
        buffer: usize,
    },
    Naive,
    Nginx,
    Haproxy,
    Envoy,
}

/// A proxy that may be measured.
#[derive(Clone, Debug)]
pub(crate) struct Arm {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
    /// What its `--version` says.
    pub(crate) version: String,
}

impl Arm {
    /// Peers are the proxies that other people built.
    pub(crate) fn is_peer(&self) -> bool {
        matches!(self.kind, Kind::Nginx | Kind::Haproxy | Kind::Envoy)
    }

    pub(crate) fn is_relay(&self) -> bool {
        matches!(self.kind, Kind::Relay { .. })
    }
}

/// Where programs are looked for.
pub(crate) struct Programs {
    pub(crate) bench: PathBuf,
    pub(crate) ringway: PathBuf,
    pub(crate) envoy: Option<PathBuf>,
}

/// Every arm: the installed ones, and the names of those that are not, each with the reason.
pub(crate) fn all(programs: &Programs) -> (Vec<Arm>, Vec<(String, String)>) {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    let mut add = |name: &str, kind: Kind, program: Option<PathBuf>, why: &str| match program {
        Some(program) if program.exists() => {
            let version = version(kind, &program);
            found.push(Arm { name: name.to_string(), kind, program, version });
        }
        _ => missing.push((name.to_string(), why.to_string())),
    };
    add(
        "ringway",
        Kind::Ours,
        Some(programs.ringway.clone()),
        "no binary (--ringway PATH, or build it beside this one)",
    );
    for (name, buffer) in [("relay", 4096), ("relay-16k", 16 << 10), ("relay-64k", 64 << 10), ("relay-256k", 256 << 10)]
    {
        add(name, Kind::Relay { buffer }, Some(programs.bench.clone()), "");
    }
    add("naive", Kind::Naive, Some(programs.bench.clone()), "");
    add("nginx", Kind::Nginx, which("nginx"), "not installed (tests/peers.sh)");
    add("haproxy", Kind::Haproxy, which("haproxy"), "not installed (tests/peers.sh)");
    add(
        "envoy",
        Kind::Envoy,
        programs.envoy.clone().or_else(private_envoy).or_else(|| which("envoy")),
        "not installed (tests/peers.sh)",
    );
    (found, missing)
}

/// Finds a program on the path, and in the places for system programs.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    places.map(|place| place.join(name)).find(|file| file.is_file())
}

/// Where tests/peers.sh puts Envoy's binary.
fn private_envoy() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let peers = variable("RINGWAY_PEERS").or_else(|| Some(cache?.join("ringway/peers")))?;
    Some(peers.join("envoy/bin/envoy-binary")).filter(|file| file.is_file())
}

/// The template with its `{words}` filled in.
pub(crate) fn fill(template: &str, words: &[(&str, String)]) -> String {
    let mut text = template.to_string();
    for (word, value) in words {
        text = text.replace(&format!("{{{word}}}"), value);
    }
    text
}

/// The configuration that an arm is started with; empty for those that take none.
///
/// nginx and HAProxy want other buffers for bulk than for small messages; they get what measured best for each.
pub(crate) fn configuration(kind: Kind, at: &Addresses, dir: &Path, setting: Setting<'_>) -> String {
    let template = match kind {
        Kind::Ours => include_str!("peers/ringway.yaml"),
        Kind::Nginx => include_str!("peers/nginx.conf"),
        Kind::Haproxy => include_str!("peers/haproxy.cfg"),
        Kind::Envoy => include_str!("peers/envoy.yaml"),
        Kind::Relay { .. } | Kind::Naive => return String::new(),
    };
    let Setting { descriptors, bulk, tls, certificates } = setting;
    let connections = descriptors.saturating_sub(1000);
    let choose = |for_bulk: &str, otherwise: &str| if bulk { for_bulk.to_string() } else { otherwise.to_string() };
    let template = secure::words(kind, tls)
        .iter()
        .fold(template.to_string(), |template, (word, text)| fill(&template, &[(*word, (*text).to_string())]));
    let if_tls = |tls: bool, then: &str, otherwise: &str| if tls { then } else { otherwise }.to_string();
    fill(
        &template,
        &[
            ("certificates", certificates.display().to_string()),
            ("scheme", if_tls(tls != Tls::None, "https", "http")),
            ("upstream_scheme", if_tls(tls == Tls::Mutual, "https", "http")),
            ("nginx_ssl", if_tls(tls != Tls::None, " ssl", "")),
            ("dir", dir.display().to_string()),
            ("listen", at.listen.to_string()),
            ("host", at.listen.ip().to_string()),
            ("port", at.listen.port().to_string()),
            ("upstream", at.upstream.to_string()),
            ("upstream_host", at.upstream.ip().to_string()),
            ("upstream_port", at.upstream.port().to_string()),
            ("admin", at.admin.to_string()),
            ("descriptors", descriptors.to_string()),
            ("connections", connections.to_string()),
            ("nginx_buffering", choose("off", "on")),
            ("nginx_buffer", choose("256k", "8k")),
            ("nginx_buffers", choose("4 256k", "16 16k")),
            ("nginx_busy", choose("512k", "64k")),
            ("haproxy_buffer", choose("65536", "16384")),
        ],
    )
}

/// What a configuration depends on beside addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'a> {
    /// Descriptors that a process may have.
    pub(crate) descriptors: u64,
    /// Bodies will be large.
    pub(crate) bulk: bool,
    /// Where TLS is spoken.
    pub(crate) tls: Tls,
    /// The directory of certificates.
    pub(crate) certificates: &'a Path,
}

/// Where an arm listens and what it forwards to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) listen: SocketAddr,
    pub(crate) upstream: SocketAddr,
    /// Ringway's admin page.
    pub(crate) admin: SocketAddr,
}

/// A process under test; ends with this value.
pub(crate) struct Running {
    child: Child,
    name: String,
    dir: PathBuf,
    pub(crate) at: Addresses,
    /// Held until the process has ended.
    #[expect(dead_code, reason = "removed by its drop")]
    cgroup: Option<Cgroup>,
}

impl Running {
    /// Starts an arm on the proxy's CPU and waits until it is ready.
    pub(crate) fn start(
        arm: &Arm,
        at: Addresses,
        dir: &Path,
        place: &Place,
        setting: Setting<'_>,
        ready: impl Fn(SocketAddr) -> bool,
    ) -> io::Result<Running> {
        let dir = dir.join(&arm.name);
        std::fs::create_dir_all(&dir)?;
        let arguments = arguments(arm, &at, &dir, setting)?;
        let cgroup = Cgroup::make(&arm.name);
        let mut command = place.command(place.proxy, &arm.program, cgroup.as_ref());
        command.args(&arguments);
        let mut running = Running::spawn(command, &arm.name, at, &dir, cgroup)?;
        running.wait_ready(ready)?;
        Ok(running)
    }

    /// Starts any command that answers at `at.listen`, with its output in `dir`.
    pub(crate) fn spawn(
        mut command: Command,
        name: &str,
        at: Addresses,
        dir: &Path,
        cgroup: Option<Cgroup>,
    ) -> io::Result<Running> {
        let output = std::fs::File::create(dir.join(format!("{name}.out")))?;
        let child = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn()?;
        Ok(Running { child, name: name.to_string(), dir: dir.to_path_buf(), at, cgroup })
    }

    /// The process and its workers.
    pub(crate) fn pids(&self) -> Vec<u32> {
        proc::family(self.child.id())
    }

    /// The counters of the arm's ring, as Prometheus text, where it has one and tells.
    pub(crate) fn counters(&self, kind: Kind) -> Option<String> {
        match kind {
            Kind::Ours => get(self.at.admin, "/metrics").ok(),
            Kind::Relay { .. } => std::fs::read_to_string(counters(&self.dir)).ok(),
            _ => None,
        }
    }

    /// Waits until it is ready; what the process printed is in the error when it ends or does not become so.
    pub(crate) fn wait_ready(&mut self, ready: impl Fn(SocketAddr) -> bool) -> io::Result<()> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            if ready(self.at.listen) {
                return Ok(());
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > until {
                let said = std::fs::read_to_string(self.dir.join(format!("{}.out", self.name))).unwrap_or_default();
                let state = ended.map_or("did not answer".to_string(), |status| format!("ended with {status}"));
                return Err(io::Error::other(format!("{} {state}: {}", self.name, last_lines(&said))));
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM, so that nginx's master takes its worker along; std has no word for it.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status();
        }
        let until = Instant::now() + QUIT_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > until {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// One GET over a connection of its own; the whole answer as text.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(300))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Writes the arm's configuration into `dir` and returns its command line.
fn arguments(arm: &Arm, at: &Addresses, dir: &Path, setting: Setting<'_>) -> io::Result<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (listen, upstream) = (at.listen.to_string(), at.upstream.to_string());
    let text = configuration(arm.kind, at, dir, setting);
    let file = dir.join(match arm.kind {
        Kind::Nginx => "nginx.conf",
        Kind::Haproxy => "haproxy.cfg",
        Kind::Envoy => "envoy.yaml",
        _ => "ringway.yaml",
    });
    if !text.is_empty() {
        std::fs::write(&file, text)?;
    }
    let (file, folder) = (file.display().to_string(), dir.display().to_string());
    Ok(match arm.kind {
        Kind::Ours => words(&["run", "-c", &file]),
        Kind::Relay { buffer } => {
            let counters = counters(dir).display().to_string();
            words(&["relay", &listen, &upstream, "--buffer", &buffer.to_string(), "--counters", &counters])
        }
        Kind::Naive => words(&["naive", &listen, &upstream]),
        Kind::Nginx => words(&["-p", &folder, "-c", &file, "-e", "stderr", "-g", "daemon off;"]),
        Kind::Haproxy => words(&["-db", "-f", &file]),
        Kind::Envoy => words(&["-c", &file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]),
    })
}

/// Where a relay leaves its ring's counters.
fn counters(dir: &Path) -> PathBuf {
    dir.join("counters")
}

/// The number out of what the program says about its version.
fn version(kind: Kind, program: &Path) -> String {
    let option = match kind {
        Kind::Nginx | Kind::Haproxy => "-v",
        _ => "--version",
    };
    let Ok(output) = Command::new(program).arg(option).output() else { return String::new() };
    number_in(&(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)))
}

fn number_in(said: &str) -> String {
    // Some say their path first, which may have numbers too.
    let said = said.split_once(" version").map_or(said, |(_, rest)| rest);
    let words = said.split([' ', '/', '\n', '-', '+']);
    let is_version = |word: &&str| word.contains('.') && word.starts_with(|first: char| first.is_ascii_digit());
    words.filter(|word| !word.is_empty()).find(is_version).unwrap_or_default().to_string()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::secure::Certificates;

    /// Small messages and bulk, each with every kind of TLS.
    fn settings(certificates: &Path) -> Vec<Setting<'_>> {
        let of = |tls| [false, true].map(|bulk| Setting { descriptors: 20_000, bulk, tls, certificates });
        [Tls::None, Tls::Down, Tls::Mutual].into_iter().flat_map(of).collect()
    }

    fn addresses() -> Addresses {
        Addresses {
            listen: "127.0.0.1:18901".parse().unwrap(),
            upstream: "127.0.0.1:18902".parse().unwrap(),
            admin: "127.0.0.1:18903".parse().unwrap(),
        }
    }

    #[test]
    fn every_template_is_filled_to_the_last_word() {
        for kind in [Kind::Ours, Kind::Nginx, Kind::Haproxy, Kind::Envoy] {
            for setting in settings(Path::new("/tmp/y")) {
                let text = configuration(kind, &addresses(), Path::new("/tmp/x"), setting);
                assert!(text.contains("18902"), "{kind:?} does not know its upstream");
                assert_eq!(text.contains("/tmp/y/proxy."), setting.tls != Tls::None, "{kind:?}");
                assert_eq!(text.contains("/tmp/y/ca.pem"), setting.tls == Tls::Mutual, "{kind:?}");
                // A word of ours is one of small letters alone; what YAML has in braces is more.
                let words = text.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
                let kept: Vec<_> =
                    words.filter(|(word, _)| word.chars().all(|c| c.is_ascii_lowercase() || c == '_')).collect();
                assert!(kept.is_empty(), "{kind:?} keeps {kept:?}");
            }
        }
    }

    /// Has the peer itself judge the configuration that we would start it with.
    fn judged(kind: Kind, program: &str, options: &[&str], file: &str) {
        let private = || private_envoy().filter(|_| kind == Kind::Envoy);
        let Some(program) = private().or_else(|| which(program)) else {
            eprintln!("skipped: {program} is not installed");
            return;
        };
        let certificates = tempfile::tempdir().unwrap();
        let certificates = Certificates::make(certificates.path()).unwrap();
        for setting in settings(certificates.dir()) {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join(file);
            std::fs::write(&file, configuration(kind, &addresses(), dir.path(), setting)).unwrap();
            let output = Command::new(&program).args(options).arg(&file).current_dir(dir.path()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{said}");
            assert!(!said.contains("[warn]") && !said.contains("[WARNING]"), "{said}");
        }
    }

    #[test]
    fn nginx_takes_its_configuration() {
        judged(Kind::Nginx, "nginx", &["-t", "-e", "stderr", "-c"], "nginx.conf");
    }

    #[test]
    fn haproxy_takes_its_configuration() {
        judged(Kind::Haproxy, "haproxy", &["-c", "-f"], "haproxy.cfg");
    }

    #[test]
    fn envoy_takes_its_configuration() {
        judged(Kind::Envoy, "envoy", &["--mode", "validate", "-c"], "envoy.yaml");
    }

    #[test]
    fn versions_are_found_in_what_programs_say() {
        assert_eq!(number_in("/versions/3.11.7/bin/envoy  version: 9e55/1.40.0/Clean/RELEASE"), "1.40.0");
        assert_eq!(number_in("HAProxy version 2.6.12-1+deb12u4 2026/10/17"), "2.6.12");
        assert_eq!(number_in("nginx version: nginx/1.22.1\n"), "1.22.1");
        assert_eq!(number_in("ringway 0.1.0\n"), "0.1.0");
        assert_eq!(number_in("none"), "");
    }

    #[test]
    fn ringways_configuration_is_yaml_with_its_addresses() {
        let setting = settings(Path::new("/tmp/y"))[0];
        let text = configuration(Kind::Ours, &addresses(), Path::new("/tmp/x"), setting);
        assert!(text.contains("address: 127.0.0.1:18901"));
        assert!(text.contains("admin: { address: 127.0.0.1:18903 }"));
    }
}
