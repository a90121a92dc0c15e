//! The processes of the mesh: `ringwayd`, a proxy for each group, the programs behind them; and the operator's `ringwayctl`.

use crate::ask::Caller;
use crate::document::{GROUPS, Ports, local};
use crate::family::Family;
use crate::place::Place;
use ringway_tests::until;
use serde_json::Value;
use std::fs::OpenOptions;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a process may take until it is ready: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long `ringwayctl` may take: it waits for proxies for a minute.
const VERB: Duration = Duration::from_secs(90);

/// All that runs; it ends with this.
pub(crate) struct Mesh {
    pub(crate) place: Place,
    pub(crate) ports: Ports,
    programs: PathBuf,
    daemon: Child,
    /// Each with its log.
    others: Vec<(String, Child)>,
    family: Family,
}

/// What `ringwayctl` said.
pub(crate) struct Said {
    pub(crate) done: bool,
    pub(crate) code: Option<i32>,
    /// Both streams, what stands in lines of its own.
    pub(crate) lines: Vec<String>,
}

impl Said {
    pub(crate) fn first(&self) -> &str {
        self.lines.first().map_or("nothing", String::as_str)
    }

    pub(crate) fn last(&self) -> &str {
        self.lines.last().map_or("nothing", String::as_str)
    }
}

impl Mesh {
    /// Starts the daemon, puts a document in force, and starts what it is about.
    pub(crate) fn start(place: Place, ports: Ports, programs: &Path, document: &str) -> Result<Mesh, String> {
        let family = Family::new().map_err(|error| format!("sh: {error}"))?;
        let programs = programs.to_path_buf();
        let daemon = start_daemon(&place, &ports, &programs, &family)?;
        let mut mesh = Mesh { place, ports, programs, daemon, others: Vec::new(), family };
        mesh.wait_for_daemon()?;
        mesh.place.write("mesh.yaml", document)?;
        mesh.must(&["apply", "mesh.yaml", "--comment", "the first"])?;
        mesh.start_programs()?;
        (0..GROUPS.len()).try_for_each(|index| mesh.start_proxy(index))?;
        mesh.wait_for_proxies()?;
        Ok(mesh)
    }

    fn start_programs(&mut self) -> Result<(), String> {
        let next = self.ports.out.to_string();
        for (name, port) in ["web", "cart v1", "cart v2"].into_iter().zip(self.ports.programs) {
            // Ourselves: not by path, as building the others may have put another file there.
            let mut command = Command::new("/proc/self/exe");
            command.arg0("demo").args(["program", name, &port.to_string()]);
            command.args((name == "web").then_some(&next));
            self.add(&mut command, format!("{}.log", name.replace(' ', "-")))?;
        }
        Ok(())
    }

    fn start_proxy(&mut self, index: usize) -> Result<(), String> {
        let group = GROUPS[index];
        let token = self.must(&["token", "create", "--group", group])?;
        let token = token.lines.iter().find(|line| line.starts_with("rw1.")).ok_or("no token came")?;
        self.place.write(&format!("{group}/token"), token)?;
        let file = format!(
            "daemon: {{ token: token, state: state }}\nadmin: {{ address: 127.0.0.1:{} }}\naccess-log: {{ path: access.log }}\ncores: 1\n",
            self.ports.admin[index]
        );
        self.place.write(&format!("{group}/proxy.yaml"), &file)?;
        let mut command = Command::new(self.programs.join("ringway"));
        command.args(["run", "-c", &format!("{group}/proxy.yaml")]);
        self.add(&mut command, format!("{group}/log"))
    }

    fn add(&mut self, command: &mut Command, log: String) -> Result<(), String> {
        let child = spawn(&self.family, &self.place, command, &log)?;
        self.others.push((log, child));
        Ok(())
    }

    /// All are ready, and a request comes through to both versions of cart.
    fn wait_for_proxies(&mut self) -> Result<(), String> {
        let programs = self.ports.programs;
        self.wait("a program does not listen", || {
            programs.iter().all(|port| TcpStream::connect(local(*port)).is_ok())
        })?;
        let admin = self.ports.admin;
        self.wait("a proxy is not ready", || {
            admin.iter().all(|port| Caller::new(local(*port)).status("GET", "/ready") == 200)
        })?;
        let (public, out) = (self.ports.public, self.ports.out);
        self.wait("no request comes through", || {
            let comes = |port, path| Caller::new(local(port)).status("GET", path) == 200;
            comes(public, "/basket") && comes(out, "/v2/")
        })
    }

    fn wait(&mut self, what: &str, mut holds: impl FnMut() -> bool) -> Result<(), String> {
        let held = until(PATIENCE, || {
            let ended = self.ended();
            if ended.is_some() { Some(ended) } else { holds().then_some(None) }
        });
        match held {
            Some(None) => Ok(()),
            Some(Some(ended)) => Err(ended),
            None => Err(format!("{what} after {} s", PATIENCE.as_secs())),
        }
    }

    /// Who has ended, and what it said last.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let mut others = self.others.iter_mut();
        let (log, status) = others.find_map(|(log, child)| Some((log.clone(), child.try_wait().ok()??)))?;
        Some(format!("{log}: it has ended ({status})\n{}", self.place.tail(&log)))
    }

    /// Where `ringwayctl` is.
    pub(crate) fn programs(&self) -> &Path {
        &self.programs
    }

    /// The process id of the daemon.
    pub(crate) fn daemon_id(&self) -> u32 {
        self.daemon.id()
    }

    /// Whether the daemon is there no more.
    pub(crate) fn daemon_has_ended(&mut self) -> bool {
        !matches!(self.daemon.try_wait(), Ok(None))
    }

    /// kill -9
    pub(crate) fn kill_daemon(&mut self) -> Result<(), String> {
        self.daemon.kill().and_then(|()| self.daemon.wait()).map_err(|error| error.to_string()).map(drop)
    }

    /// Starts the daemon again, where it was.
    pub(crate) fn revive_daemon(&mut self) -> Result<(), String> {
        self.daemon = start_daemon(&self.place, &self.ports, &self.programs, &self.family)?;
        self.wait_for_daemon()
    }

    fn wait_for_daemon(&mut self) -> Result<(), String> {
        let pages = local(self.ports.pages);
        let ready = until(PATIENCE, || {
            let ended = self.daemon_has_ended();
            (ended || Caller::new(pages).status("GET", "/ready") == 200).then_some(!ended)
        });
        let told = || self.place.tail("ringwayd.log");
        match ready {
            Some(true) => Ok(()),
            Some(false) => Err(format!("ringwayd has ended:\n{}", told())),
            None => Err(format!("ringwayd is not ready after {} s:\n{}", PATIENCE.as_secs(), told())),
        }
    }

    /// Runs `ringwayctl` as the daemon's own operator, in the demo's folder.
    pub(crate) fn control(&self, arguments: &[&str]) -> Result<Said, String> {
        let mut command = Command::new(self.programs.join("ringwayctl"));
        command.args(arguments).current_dir(self.place.folder());
        command.env("RINGWAY_CREDENTIAL", "ringwayd/operator").env_remove("RINGWAY_DAEMON");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.family.start(&mut command)?;
        let id = child.id();
        let output = std::thread::spawn(move || child.wait_with_output());
        if until(VERB, || output.is_finished().then_some(())).is_none() {
            let _gone = Command::new("kill").args(["-9", &id.to_string()]).status();
        }
        let output = output.join().map_err(|_| "panicked")?.map_err(|error| error.to_string())?;
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        let lines = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        Ok(Said { done: output.status.success(), code: output.status.code(), lines })
    }

    /// As [`Mesh::control`]; what does not succeed is an error.
    pub(crate) fn must(&self, arguments: &[&str]) -> Result<Said, String> {
        let said = self.control(arguments)?;
        if said.done {
            Ok(said)
        } else {
            Err(format!("ringwayctl {}: {}", arguments.join(" "), said.lines.join("\n    ")))
        }
    }

    /// As [`Mesh::must`], for programs.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value, String> {
        let said = self.must(&[&["-o", "json"], arguments].concat())?;
        serde_json::from_str(&said.lines.concat())
            .map_err(|error| format!("ringwayctl {}: {error}", arguments.join(" ")))
    }

    /// The version in force, and how many proxies are connected and work with it.
    pub(crate) fn standing(&self) -> Result<(u64, usize), String> {
        let status = self.json(&["status"])?;
        let number = status["version"].as_u64().ok_or("ringwayctl status tells no version")?;
        let version = number.to_string();
        let works = |proxy: &&Value| {
            let applied = proxy["applied"]["version"].as_str();
            proxy["connected"] == true && proxy["ready"] == true && applied == Some(&version)
        };
        Ok((number, status["proxies"].as_array().map_or(0, |all| all.iter().filter(works).count())))
    }
}

fn start_daemon(place: &Place, ports: &Ports, programs: &Path, family: &Family) -> Result<Child, String> {
    let mut command = Command::new(programs.join("ringwayd"));
    command.args(["run", "--data-dir", "ringwayd", "--address", &local(ports.daemon).to_string()]);
    command.args(["--admin", &local(ports.pages).to_string()]).env_remove("RINGWAYD_STORE_KEY");
    spawn(family, place, &mut command, "ringwayd.log")
}

/// Starts a process whose words go to a file.
fn spawn(family: &Family, place: &Place, command: &mut Command, log: &str) -> Result<Child, String> {
    let path = place.folder().join(log);
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let file = file.and_then(|file| Ok((file.try_clone()?, file)));
    let (out, err) = file.map_err(|error| format!("{}: {error}", path.display()))?;
    family.start(command.current_dir(place.folder()).stdout(out).stderr(err))
}
