//! The `ringway` program as a process.

use crate::client::Client;
use crate::metrics::Metrics;
use crate::origin::Origin;
use crate::ports::free_port;
use crate::program::build;
use crate::wait::until;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// SIGKILL: ours.
const KILL: i32 = 9;

/// How a proxy is started.
#[derive(Debug)]
pub struct Run {
    text: String,
    folder: TempDir,
    ports: BTreeMap<String, u16>,
    arguments: Vec<String>,
}

/// A running proxy; killed when dropped.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    run: Run,
    output: Arc<Mutex<String>>,
}

/// One http listener `web` that sends everything to a service `app` with these endpoints.
pub fn plain(origins: &[&Origin]) -> String {
    routes("{ name: all, to: app }", origins)
}

/// One http listener `web` with these routes (flow style, with commas between), and a service `app` with these endpoints.
pub fn routes(routes: &str, origins: &[&Origin]) -> String {
    let endpoints: Vec<_> = origins.iter().map(|o| o.address().to_string()).collect();
    format!(
        "listeners:\n  web: {{ address: '127.0.0.1:$web', routes: [ {routes} ] }}\nservices:\n  app: {{ endpoints: [{}] }}\n",
        endpoints.join(", ")
    )
}

impl Run {
    /// With this configuration, in which each `$word` becomes a free port and `$dir` the folder of the file. One core,
    /// an admin page and an access log (`access.log` in the folder) unless the text has its own.
    ///
    /// # Panics
    /// There is no room for files.
    pub fn new(text: &str) -> Run {
        let folder = TempDir::new().expect("a folder");
        let mut text = text.to_owned();
        let has = |key: &str| text.lines().any(|line| line.starts_with(key));
        let (has_log, has_cores, has_admin) = (has("access-log:"), has("cores:"), has("admin:"));
        if !has_admin {
            text.push_str("admin: { address: 127.0.0.1:$admin }\n");
        }
        if !has_log {
            text.push_str("access-log: { path: $dir/access.log, format: json }\n");
        }
        if !has_cores {
            text.push_str("cores: 1\n");
        }
        let mut run = Run { text, folder, ports: BTreeMap::new(), arguments: Vec::new() };
        run.text = fill(&run.text, run.folder.path(), &mut run.ports);
        run
    }

    /// With one more argument.
    pub fn argument(mut self, argument: &str) -> Run {
        self.arguments.push(argument.to_owned());
        self
    }

    /// The folder of the configuration.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// With a file in that folder.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn file_of(self, name: &str, contents: &str) -> Run {
        fs::write(self.folder().join(name), contents).expect("written");
        self
    }

    /// With a certificate and its key in that folder: `NAME.pem` and `NAME.key`.
    #[cfg(feature = "tls")]
    pub fn pair(self, name: &str, issued: &crate::certificates::Issued) -> Run {
        issued.put(self.folder(), name);
        self
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ringway.yaml")
    }

    /// Starts, and waits until the proxy is ready.
    ///
    /// # Panics
    /// It does not become ready.
    pub fn start(self) -> Proxy {
        let mut proxy = self.start_unready();
        let ready = until(Duration::from_secs(20), || {
            let ended = proxy.child.try_wait().expect("a child");
            assert!(ended.is_none(), "ringway ended with {ended:?}:\n{}", proxy.output());
            proxy.is_ready().then_some(())
        });
        assert!(ready.is_some(), "ringway is not ready:\n{}", proxy.output());
        proxy
    }

    /// Starts, and waits for nothing.
    ///
    /// # Panics
    /// There is no such program.
    pub fn start_unready(self) -> Proxy {
        fs::write(self.file(), &self.text).expect("written");
        let mut child = self.spawn();
        let output = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().expect("piped"), output.clone());
        collect(child.stderr.take().expect("piped"), output.clone());
        Proxy { child, run: self, output }
    }

    /// Starts a proxy that is to end by itself.
    ///
    /// # Panics
    /// It does not within 20 s.
    pub fn fail(self) -> Output {
        fs::write(self.file(), &self.text).expect("written");
        let mut child = self.spawn();
        let ended = until(Duration::from_secs(20), || child.try_wait().expect("a child"));
        if ended.is_none() {
            let _gone = child.kill();
        }
        let output = child.wait_with_output().expect("output");
        assert!(ended.is_some(), "ringway runs on: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn spawn(&self) -> Child {
        let mut command = Command::new(build());
        command.arg("run").arg("-c").arg(self.file()).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("ringway starts")
    }
}

impl Proxy {
    /// Starts with a configuration; see [`Run::new`].
    pub fn start(text: &str) -> Proxy {
        Run::new(text).start()
    }

    /// The port that stands for `$name`.
    ///
    /// # Panics
    /// The configuration has no such word.
    pub fn port(&self, name: &str) -> u16 {
        *self.run.ports.get(name).unwrap_or_else(|| panic!("no ${name} in the configuration"))
    }

    /// `127.0.0.1` with the port that stands for `$name`.
    pub fn address(&self, name: &str) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port(name)))
    }

    /// Connects to the listener at `$web`.
    pub fn client(&self) -> Client {
        Client::to(self.address("web"))
    }

    /// The folder of the configuration.
    pub fn folder(&self) -> &Path {
        self.run.folder.path()
    }

    /// The configuration's file.
    pub fn file(&self) -> PathBuf {
        self.run.file()
    }

    /// What it has printed so far, both streams.
    pub fn output(&self) -> String {
        self.output.lock().expect("no reader panicked").clone()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal: `HUP`, `TERM`, `USR1` …
    ///
    /// # Panics
    /// `kill` does not run.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.id().to_string()]).status();
        assert!(status.expect("kill runs").success(), "kill -{name}");
    }

    /// Whether `/ready` says so.
    pub fn is_ready(&self) -> bool {
        let Ok(mut client) = Client::try_to(self.address("admin")) else { return false };
        client.try_send("GET /ready HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").is_ok()
            && client.try_answer("GET").is_ok_and(|answer| answer.status == 200)
    }

    /// Reads a page of the admin listener.
    pub fn admin(&self, method: &str, path: &str) -> crate::Answer {
        let mut client = Client::to(self.address("admin"));
        client
            .send(format!("{method} {path} HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
        client.try_answer(method).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// The page of metrics.
    ///
    /// # Panics
    /// It is malformed.
    pub fn metrics(&self) -> Metrics {
        Metrics::read(self.admin("GET", "/metrics").text()).expect("a page of metrics")
    }

    /// Replaces the configuration's file, with the same ports, and keeps admin page, access log and cores.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn rewrite(&mut self, text: &str) {
        let mut text = text.to_owned();
        let old = fs::read_to_string(self.file()).expect("the file");
        for key in ["admin:", "access-log:", "cores:"] {
            if !text.lines().any(|line| line.starts_with(key)) {
                let kept = old.lines().find(|line| line.starts_with(key)).unwrap_or_default();
                text.push_str(&format!("{kept}\n"));
            }
        }
        let text = fill(&text, self.run.folder.path(), &mut self.run.ports);
        fs::write(self.file(), text).expect("written");
    }

    /// Kills it, with no chance to tidy up, and starts another in its place.
    ///
    /// # Panics
    /// The other does not become ready.
    pub fn kill_and_start(self) -> Proxy {
        self.kill().start()
    }

    /// Kills it, with no chance to tidy up. What it was started with, and all that it left behind.
    ///
    /// # Panics
    /// It cannot be killed.
    pub fn kill(mut self) -> Run {
        self.child.kill().expect("killed");
        let _status = self.child.wait();
        let mut run = Run::new("");
        std::mem::swap(&mut run, &mut self.run);
        run
    }

    /// Waits until something was printed.
    ///
    /// # Panics
    /// It was not within 10 s.
    pub fn printed(&self, text: &str) {
        let found = until(Duration::from_secs(10), || self.output().contains(text).then_some(()));
        assert!(found.is_some(), "{text:?} is not printed:\n{}", self.output());
    }

    /// The lines of the access log so far.
    pub fn log(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.run.folder.path().join("access.log")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    /// Waits for the line of the request with this path.
    ///
    /// # Panics
    /// It does not come within 10 s.
    pub fn logged(&self, path: &str) -> serde_json::Value {
        let is_it = |line: &serde_json::Value| line["url"].as_str().is_some_and(|url| url.ends_with(path));
        let found = until(Duration::from_secs(10), || self.log().into_iter().find(is_it));
        found.unwrap_or_else(|| panic!("no line for {path}: {:?}", self.log()))
    }

    /// Waits for the line of something that ended so.
    ///
    /// # Panics
    /// It does not come within 10 s.
    pub fn logged_ending(&self, ending: &str) -> serde_json::Value {
        let found = until(Duration::from_secs(10), || self.log().into_iter().find(|line| line["ending"] == ending));
        found.unwrap_or_else(|| panic!("no line with ending {ending}: {:?}", self.log()))
    }

    /// Waits for the process's end.
    ///
    /// # Panics
    /// It does not end within `limit`.
    pub fn ended(&mut self, limit: Duration) -> ExitStatus {
        let begun = Instant::now();
        let status = until(limit, || self.child.try_wait().expect("a child"));
        status.unwrap_or_else(|| panic!("runs after {:?}:\n{}", begun.elapsed(), self.output()))
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        let _gone = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- ringway ({ended:?}) printed:\n{}", self.output());
        } else if let Ok(Some(status)) = ended {
            // A proxy must not have ended by itself with an error, least of all by a panic.
            assert!(
                status.success() || status.signal() == Some(KILL),
                "ringway ended with {status}:\n{}",
                self.output()
            );
        }
    }
}

/// Runs `ringway check` on a text in a file `name`.
///
/// # Panics
/// It cannot be run.
pub fn check(text: &str) -> Output {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("ringway.yaml");
    fs::write(&file, text).expect("written");
    Command::new(build()).arg("check").arg("-c").arg(&file).output().expect("ringway runs")
}

/// Puts a free port for each `$word`, the same for the same word, and the folder for `$dir`.
fn fill(text: &str, folder: &Path, ports: &mut BTreeMap<String, u16>) -> String {
    let mut parts = text.split('$');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit()).unwrap_or(part.len());
        let (word, rest) = part.split_at(end);
        match word {
            "dir" => filled.push_str(&folder.display().to_string()),
            word => filled.push_str(&ports.entry(word.to_owned()).or_insert_with(free_port).to_string()),
        }
        filled.push_str(rest);
    }
    filled
}

fn collect(from: impl Read + Send + 'static, to: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut to = to.lock().expect("no reader panicked");
            to.push_str(&line);
            to.push('\n');
        }
    });
}
