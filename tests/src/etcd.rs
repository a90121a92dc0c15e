//! An etcd that daemons share.

use crate::peers::find;
use crate::ports::free_port;
use crate::wait::until;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A running etcd of one member; killed when dropped.
#[derive(Debug)]
pub struct Etcd {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    peer: u16,
    child: Child,
}

impl Etcd {
    /// Starts one; none, and a line that says so, where it is not installed.
    ///
    /// # Panics
    /// It does not listen.
    pub fn start(test: &str) -> Option<Etcd> {
        let program = find("etcd", test)?;
        let folder = TempDir::new().expect("a folder");
        let (port, peer) = (free_port(), free_port());
        let child = spawn(&program, &folder, port, peer);
        let etcd = Etcd { program, folder, port, peer, child };
        etcd.wait();
        Some(etcd)
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Kills it, with no chance to tidy up.
    ///
    /// # Panics
    /// It cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        let _status = self.child.wait();
    }

    /// Starts it again, where it was.
    ///
    /// # Panics
    /// It does not listen.
    pub fn revive(&mut self) {
        self.child = spawn(&self.program, &self.folder, self.port, self.peer);
        self.wait();
    }

    fn wait(&self) {
        let listens = until(Duration::from_secs(20), || TcpStream::connect(("127.0.0.1", self.port)).ok());
        assert!(listens.is_some(), "etcd does not listen");
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

fn spawn(program: &PathBuf, folder: &TempDir, port: u16, peer: u16) -> Child {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
    let mut command = Command::new(program);
    command.arg("--data-dir").arg(folder.path().join("etcd"));
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("default={peer}"), "--logger", "zap", "--log-level", "error"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("etcd starts")
}
