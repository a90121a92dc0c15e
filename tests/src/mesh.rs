//! `ringwayd` as a process, `ringwayctl` beside it, and proxies that join.

use crate::client::Client;
use crate::etcd::Etcd;
use crate::ports::free_port;
use crate::program::build_control;
use crate::proxy::{Proxy, Run};
use crate::wait::until;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How long a verb may take: `--wait` waits for a minute.
const PATIENCE: Duration = Duration::from_secs(90);

/// A daemon with a store of its own; killed when dropped.
#[derive(Debug)]
pub struct Mesh {
    child: Child,
    folder: TempDir,
    port: u16,
    admin: u16,
}

/// What `ringwayctl` said.
#[derive(Debug)]
pub struct Said {
    /// The exit code; None: it was killed.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Mesh {
    /// Starts with an empty store, and waits until it is ready.
    ///
    /// # Panics
    /// It does not become ready.
    pub fn start() -> Mesh {
        let folder = TempDir::new().expect("a folder");
        let (port, admin) = (free_port(), free_port());
        let child = spawn(folder.path(), port, admin);
        let mesh = Mesh { child, folder, port, admin };
        mesh.wait_until_ready();
        mesh
    }

    /// Starts a daemon that shares an etcd with others, and waits until it is ready.
    ///
    /// # Panics
    /// It does not become ready.
    pub fn sharing(etcd: &Etcd) -> Mesh {
        let folder = TempDir::new().expect("a folder");
        let file = format!("store: {{ etcd: {{ {} }} }}\nstore-key: store.key\n", etcd.settings());
        fs::write(folder.path().join("ringwayd.yaml"), file).expect("written");
        fs::write(folder.path().join("store.key"), "5e".repeat(32)).expect("written");
        let (port, admin) = (free_port(), free_port());
        let child = spawn(folder.path(), port, admin);
        let mesh = Mesh { child, folder, port, admin };
        mesh.wait_until_ready();
        mesh
    }

    /// What an admin page answers: its status, and its text.
    ///
    /// # Panics
    /// It does not answer.
    pub fn page(&self, path: &str) -> (u16, String) {
        let mut client = Client::to(([127, 0, 0, 1], self.admin).into());
        client.send(format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"));
        let answer = client.answer();
        (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
    }

    fn wait_until_ready(&self) {
        let ready = until(Duration::from_secs(20), || {
            let mut client = Client::try_to(([127, 0, 0, 1], self.admin).into()).ok()?;
            client.try_send("GET /ready HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").ok()?;
            client.try_answer("GET").is_ok_and(|answer| answer.status == 200).then_some(())
        });
        assert!(ready.is_some(), "ringwayd is not ready:\n{}", self.output());
    }

    /// What the daemon has printed, in all its lives.
    pub fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("ringwayd.log")).unwrap_or_default()
    }

    /// A folder for the test's files, where `ringwayctl` runs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// HOST:PORT.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The daemon's process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Kills the daemon, with no chance to tidy up.
    ///
    /// # Panics
    /// It cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        let _status = self.child.wait();
    }

    /// Starts the daemon that was killed, at the same address.
    pub fn revive(&mut self) {
        self.child = spawn(self.folder.path(), self.port, self.admin);
        self.wait_until_ready();
    }

    /// Runs `ringwayctl` as the daemon's own operator, in [`Mesh::folder`].
    ///
    /// # Panics
    /// It does not end.
    pub fn control(&self, arguments: &[&str]) -> Said {
        self.control_as("data/operator", arguments)
    }

    /// Runs `ringwayctl` with the credential of a folder.
    ///
    /// # Panics
    /// It does not end.
    pub fn control_as(&self, credential: &str, arguments: &[&str]) -> Said {
        let mut command = Command::new(build_control().join("ringwayctl"));
        command.args(arguments).current_dir(self.folder()).env("RINGWAY_CREDENTIAL", credential);
        command.env_remove("RINGWAY_DAEMON").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("ringwayctl starts");
        let id = child.id();
        let output = std::thread::spawn(move || child.wait_with_output());
        let ended = until(PATIENCE, || output.is_finished().then_some(()));
        if ended.is_none() {
            let _gone = Command::new("kill").args(["-9", &id.to_string()]).status();
        }
        let output = output.join().expect("no panic").expect("output");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let said = Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
        assert!(ended.is_some(), "ringwayctl {arguments:?} does not end: {said:?}");
        said
    }

    /// Runs `ringwayctl`, which is to succeed: its standard output.
    ///
    /// # Panics
    /// It does not succeed.
    pub fn done(&self, arguments: &[&str]) -> String {
        let said = self.control(arguments);
        assert_eq!(said.code, Some(0), "ringwayctl {arguments:?}: {said:?}\n--- ringwayd:\n{}", self.output());
        said.out
    }

    /// As [`Mesh::done`], for programs.
    ///
    /// # Panics
    /// It does not succeed, or what it prints is no JSON.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.done(&[&["-o", "json"], arguments].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// Writes `mesh.yaml`.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn write(&self, document: &str) {
        fs::write(self.folder().join("mesh.yaml"), document).expect("written");
    }

    /// Puts a document in force, with all proxies that are connected.
    ///
    /// # Panics
    /// It is not.
    pub fn push(&self, document: &str) {
        self.write(document);
        self.done(&["apply", "mesh.yaml", "--wait"]);
    }

    /// The configuration of a proxy that is to join a group.
    pub fn joining(&self, group: &str) -> Run {
        let token = self.done(&["token", "create", "--group", group]);
        Run::new("daemon: { token: $dir/token, state: $dir/state }\n").file_of("token", &token)
    }

    /// A proxy that has joined a group and is ready.
    pub fn proxy(&self, group: &str) -> Proxy {
        self.joining(group).start()
    }

    /// What the daemon says of the proxies of a group.
    pub fn proxies(&self, group: &str) -> Vec<serde_json::Value> {
        let status = self.json(&["status"]);
        let all = status["proxies"].as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|proxy| proxy["group"] == group).collect()
    }
}

impl Said {
    /// Both streams.
    pub fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- ringwayd printed:\n{}", self.output());
        }
    }
}

fn spawn(folder: &Path, port: u16, admin: u16) -> Child {
    let log = PathBuf::from(folder).join("ringwayd.log");
    let log = fs::OpenOptions::new().create(true).append(true).open(log).expect("a log");
    let mut command = Command::new(build_control().join("ringwayd"));
    command.args(["run", "--address", &format!("127.0.0.1:{port}"), "--admin", &format!("127.0.0.1:{admin}")]);
    let file = folder.join("ringwayd.yaml");
    if file.exists() {
        command.arg("-c").arg(file);
    }
    command.arg("--data-dir").arg(folder.join("data")).current_dir(folder).env_remove("RINGWAYD_STORE_KEY");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("ringwayd starts")
}
