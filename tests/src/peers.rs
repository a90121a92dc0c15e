//! Programs of others that tests use when they are there (`tests/peers.sh` installs them).

use crate::program::workspace;
use crate::wait::until;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The path of nginx, haproxy, envoy or curl; none, and a line that says so, when it is not installed.
pub fn find(program: &str, test: &str) -> Option<PathBuf> {
    let found = match program {
        "curl" => Some(PathBuf::from("curl")),
        _ => by_script(program),
    };
    // pyenv's shims are scripts that know their program under some versions of Python only: so it is tried.
    let version = if program == "nginx" { "-v" } else { "--version" };
    let runs = |path: &PathBuf| Command::new(path).arg(version).output().is_ok_and(|output| output.status.success());
    let found = found.filter(runs);
    if found.is_none() {
        println!("SKIPPED {test}: {program} is not installed (tests/peers.sh installs it)");
    }
    found
}

fn by_script(program: &str) -> Option<PathBuf> {
    let output = Command::new(workspace().join("tests/peers.sh")).args(["--print", program]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim()))
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
                let _any = std::io::Read::read_to_string(&mut stderr, &mut told);
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
