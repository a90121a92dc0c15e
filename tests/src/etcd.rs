//! An etcd that daemons share.

use crate::peers::find;
use crate::ports::free_port;
use crate::wait::until;
use std::net::TcpStream;
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Of the etcd that wants to know who asks: the user that may read and write below `/ringway`.
const USER: &str = "ringway";
#[cfg(feature = "tls")]
const PASSWORD: &str = "let me in";

/// A running etcd; killed when dropped.
#[derive(Debug)]
pub struct Etcd {
    program: PathBuf,
    folder: TempDir,
    members: Vec<Member>,
    /// It speaks TLS, and wants a client's certificate, a user and a password.
    secured: bool,
}

#[derive(Debug)]
struct Member {
    port: u16,
    peer: u16,
    child: Option<Child>,
}

impl Etcd {
    /// Starts one of one member; none, and a line that says so, where it is not installed.
    ///
    /// # Panics
    /// It does not listen.
    pub fn start(test: &str) -> Option<Etcd> {
        Etcd::of(test, 1)?.started()
    }

    /// Starts one of three members.
    ///
    /// # Panics
    /// One does not listen.
    pub fn three(test: &str) -> Option<Etcd> {
        Etcd::of(test, 3)?.started()
    }

    /// Starts one that speaks TLS, and wants a client's certificate, a user and a password.
    ///
    /// # Panics
    /// It does not listen, or cannot be told whom it shall let in.
    #[cfg(feature = "tls")]
    pub fn secured(test: &str) -> Option<Etcd> {
        use crate::certificates::{Authority, Leaf};
        find("curl", test)?;
        let mut etcd = Etcd::of(test, 1)?;
        etcd.secured = true;
        let (authority, folder) = (Authority::new("etcd's authority"), etcd.folder.path());
        authority.issue(&Leaf::of(&["127.0.0.1"])).put(folder, "member");
        authority.issue(&Leaf::of(&["ringwayd"])).put(folder, "client");
        std::fs::write(folder.join("ca.pem"), authority.pem()).expect("written");
        std::fs::write(folder.join("password"), format!("{PASSWORD}\n")).expect("written");
        let etcd = etcd.started()?;
        // The root may do anything; who has no name then may do nothing.
        let user = |name: &str, password: &str| format!("{{\"name\":\"{name}\",\"password\":\"{password}\"}}");
        etcd.ask("auth/user/add", &user("root", "of this etcd"));
        etcd.ask("auth/user/grant", "{\"user\":\"root\",\"role\":\"root\"}");
        etcd.ask("auth/user/add", &user(USER, PASSWORD));
        etcd.ask("auth/role/add", &format!("{{\"name\":\"{USER}\"}}"));
        // `/ringway/` to `/ringway0`: all keys below it, in base64.
        let below = "\"permType\":\"READWRITE\",\"key\":\"L3Jpbmd3YXkv\",\"range_end\":\"L3Jpbmd3YXkw\"";
        etcd.ask("auth/role/grant", &format!("{{\"name\":\"{USER}\",\"perm\":{{{below}}}}}"));
        etcd.ask("auth/user/grant", &format!("{{\"user\":\"{USER}\",\"role\":\"{USER}\"}}"));
        etcd.ask("auth/enable", "{}");
        Some(etcd)
    }

    fn of(test: &str, members: usize) -> Option<Etcd> {
        let program = find("etcd", test)?;
        let folder = TempDir::new().expect("a folder");
        let members = (0..members).map(|_| Member { port: free_port(), peer: free_port(), child: None }).collect();
        Some(Etcd { program, folder, members, secured: false })
    }

    fn started(mut self) -> Option<Etcd> {
        self.revive();
        Some(self)
    }

    /// What a daemon's `store.etcd` says to find it.
    pub fn settings(&self) -> String {
        self.settings_of(0..self.members.len())
    }

    /// The same, for a daemon that knows of some members alone.
    pub fn settings_of(&self, members: Range<usize>) -> String {
        let places = self.members[members].iter().map(|member| format!("'{}'", self.url(member.port)));
        let places: Vec<String> = places.collect();
        let places = format!("endpoints: [{}]", places.join(", "));
        if !self.secured {
            return places;
        }
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        format!(
            "{places}, ca: {}, certificate: {}, key: {}, user: {USER}, password-file: {}",
            file("ca.pem"),
            file("client.pem"),
            file("client.key"),
            file("password")
        )
    }

    fn url(&self, port: u16) -> String {
        format!("{}://127.0.0.1:{port}", if self.secured { "https" } else { "http" })
    }

    /// Kills all of it, with no chance to tidy up.
    ///
    /// # Panics
    /// It cannot be killed.
    pub fn kill(&mut self) {
        (0..self.members.len()).for_each(|member| self.kill_member(member));
    }

    /// Kills one member.
    ///
    /// # Panics
    /// It cannot be killed.
    pub fn kill_member(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].child.take() {
            child.kill().expect("killed");
            let _status = child.wait();
        }
    }

    /// Starts what was killed again, where it was.
    ///
    /// # Panics
    /// It does not listen.
    pub fn revive(&mut self) {
        let peers = self.members.iter().enumerate();
        let all: Vec<String> = peers.map(|(at, member)| format!("m{at}=http://127.0.0.1:{}", member.peer)).collect();
        for at in 0..self.members.len() {
            if self.members[at].child.is_none() {
                let child = self.spawn(at, &all.join(","));
                self.members[at].child = Some(child);
            }
        }
        for member in &self.members {
            let listens = until(Duration::from_secs(20), || TcpStream::connect(("127.0.0.1", member.port)).ok());
            assert!(listens.is_some(), "etcd does not listen");
        }
    }

    fn spawn(&self, at: usize, all: &str) -> Child {
        let Member { port, peer, .. } = self.members[at];
        let (client, peer) = (self.url(port), format!("http://127.0.0.1:{peer}"));
        let folder = self.folder.path();
        let mut command = Command::new(&self.program);
        command.args(["--name", &format!("m{at}"), "--data-dir"]).arg(folder.join(format!("etcd{at}")));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", all, "--logger", "zap", "--log-level", "error"]);
        if self.secured {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(folder.join("ca.pem"));
            command.arg("--cert-file").arg(folder.join("member.pem"));
            command.arg("--key-file").arg(folder.join("member.key"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("etcd starts")
    }

    /// Asks it something over its gateway, in JSON.
    #[cfg(feature = "tls")]
    fn ask(&self, what: &str, body: &str) {
        let file = |name: &str| self.folder.path().join(name);
        let asked = || {
            let mut curl = Command::new("curl");
            curl.args(["-sSf", "-m", "5", "-d", body, &format!("{}/v3/{what}", self.url(self.members[0].port))]);
            curl.arg("--cacert").arg(file("ca.pem")).arg("--cert").arg(file("client.pem"));
            curl.arg("--key").arg(file("client.key")).output().expect("curl runs")
        };
        // It listens before it has elected itself.
        let done = until(Duration::from_secs(20), || asked().status.success().then_some(()));
        assert!(done.is_some(), "etcd does not do {what}: {:?}", asked());
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            let _gone = child.kill();
            let _status = child.wait();
        }
    }
}
