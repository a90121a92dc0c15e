//! Programs of others that tests use when they are there (`tests/peers.sh` installs them).

use crate::program::workspace;
use crate::wait::until;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Set where all peers are to be there, as CI does: a test that misses one fails.
const REQUIRED: &str = "RINGWAY_PEERS_REQUIRED";

/// The path of nginx, haproxy, envoy, etcd, curl, openssl or xds; none, and a line that says so, when it is not installed.
///
/// # Panics
/// It is not, and `RINGWAY_PEERS_REQUIRED` is set.
pub fn find(program: &str, test: &str) -> Option<PathBuf> {
    let found = match program {
        "curl" | "openssl" => Some(PathBuf::from(program)),
        _ => by_script(program),
    };
    // pyenv's shims are scripts that know their program under some versions of Python only: so it is tried.
    let version = match program {
        "nginx" | "haproxy" => "-v",
        "openssl" => "version",
        _ => "--version",
    };
    let runs = |path: &PathBuf| Command::new(path).arg(version).output().is_ok_and(|output| output.status.success());
    let found = found.filter(runs);
    if found.is_none() {
        let why = format!("{program} is not installed (tests/peers.sh installs it)");
        assert!(std::env::var_os(REQUIRED).is_none(), "{test}: {why}, and {REQUIRED} is set");
        println!("SKIPPED {test}: {why}");
    }
    found
}

fn by_script(program: &str) -> Option<PathBuf> {
    let output = Command::new(workspace().join("tests/peers.sh")).args(["--print", program]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim()))
}

/// Runs a program with this input, which stays open for `rest`, so that it does not end before the other side; what it printed, both
/// streams, and whether it succeeded. One that does not end within 15 s is killed, and `(KILLED)` stands behind what it printed.
///
/// # Panics
/// It does not start.
pub fn talk(command: &mut Command, input: &[u8], rest: Duration) -> (bool, String) {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        let _gone = stdin.write_all(&input);
        std::thread::sleep(rest);
    });
    let collect = |from: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let (mut from, mut bytes) = (from, Vec::new());
            let _broken = from.read_to_end(&mut bytes);
            bytes
        })
    };
    let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let streams = [collect(Box::new(out)), collect(Box::new(err))];
    let status = until(Duration::from_secs(15), || child.try_wait().expect("a child"));
    if status.is_none() {
        let _gone = child.kill();
        let _status = child.wait();
    }
    writer.join().expect("no panic");
    let told: Vec<u8> = streams.into_iter().flat_map(|stream| stream.join().expect("no panic")).collect();
    let killed = if status.is_none() { "(KILLED)" } else { "" };
    (status.is_some_and(|status| status.success()), String::from_utf8_lossy(&told).into_owned() + killed)
}

/// A running peer; killed when dropped.
#[derive(Debug)]
pub struct Peer(Child);

impl Peer {
    /// Starts a program that runs in the foreground, and waits until it listens on this port.
    ///
    /// # Panics
    /// It does not within 30 s.
    pub fn start(command: &mut Command, port: u16) -> Peer {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
        let mut peer = Peer(child);
        let listens = until(Duration::from_secs(30), || {
            let ended = peer.0.try_wait().expect("a child").is_some();
            (ended || TcpStream::connect(("127.0.0.1", port)).is_ok()).then_some(!ended)
        });
        if listens != Some(true) {
            let _gone = peer.0.kill();
            let mut told = String::new();
            if let Some(mut stderr) = peer.0.stderr.take() {
                let _any = stderr.read_to_string(&mut told);
            }
            panic!("{command:?} does not listen on {port}:\n{told}");
        }
        // Nobody reads on: it must not fill the pipe.
        if let Some(stderr) = peer.0.stderr.take() {
            std::thread::spawn(move || std::io::copy(&mut { stderr }, &mut std::io::sink()));
        }
        peer
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // A master that is killed leaves its workers alone; so it is asked first.
        let _asked = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        if until(Duration::from_secs(3), || self.0.try_wait().ok().flatten()).is_none() {
            let _gone = self.0.kill();
        }
        let _status = self.0.wait();
    }
}
