//! A real `ringwayd`, and the operator who works with it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use api::pb;
use api::pb::Outcome;
use api::pb::operator_client::OperatorClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::failed;
use crate::core::free_address;
use crate::proc;

/// A start reads documents of megabytes.
const READY: Duration = Duration::from_secs(60);
/// The largest answer, bytes.
const MOST_BYTES: usize = 256 << 20;

/// The process; killed when dropped.
pub(super) struct Daemon {
    child: Child,
    program: PathBuf,
    dir: PathBuf,
    /// Where proxies and operators are answered.
    pub(super) address: SocketAddr,
    /// Where its pages are.
    pub(super) admin: SocketAddr,
}

impl Daemon {
    /// Starts one with an empty store below `dir`. `advertise` is where proxies are told that it is; absent: where it is.
    pub(super) fn start(program: &Path, dir: &Path, advertise: Option<SocketAddr>) -> io::Result<Daemon> {
        let (address, admin) = (free_address()?, free_address()?);
        std::fs::create_dir_all(dir)?;
        let advertise = advertise.unwrap_or(address);
        std::fs::write(dir.join("ringwayd.yaml"), format!("advertise: ['{advertise}']\ntrust-domain: bench\n"))?;
        let (program, dir) = (program.to_owned(), dir.to_owned());
        let child = spawn(&program, &dir, address, admin)?;
        let mut daemon = Daemon { child, program, dir, address, admin };
        daemon.wait_ready()?;
        Ok(daemon)
    }

    /// Has it give way to everything else: it would be on another machine. With what it starts later, too.
    pub(super) fn give_way(&self) -> io::Result<()> {
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let thread = thread?.file_name();
            let done = Command::new("renice").args(["-n", "19", "-p"]).arg(thread).stdout(Stdio::null()).status()?;
            if !done.success() {
                return Err(failed("renice(1) does not make the daemon nicer"));
            }
        }
        Ok(())
    }

    /// Kills it, with no chance to tidy up.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Starts it again, at the same place.
    pub(super) fn revive(&mut self) -> io::Result<()> {
        self.child = spawn(&self.program, &self.dir, self.address, self.admin)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> io::Result<()> {
        let until = Instant::now() + READY;
        loop {
            if http_get(self.admin, "/ready").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(failed(format!(
                    "ringwayd ended ({status}); see {}",
                    self.dir.join("ringwayd.out").display()
                )));
            }
            if Instant::now() > until {
                return Err(failed("ringwayd is not ready within a minute"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its processes.
    pub(super) fn pids(&self) -> Vec<u32> {
        proc::family(self.child.id())
    }

    /// The most memory that it ever had, bytes.
    pub(super) fn peak_rss(&self) -> io::Result<u64> {
        proc::peak_rss(&self.pids())
    }

    /// The certificates of the mesh's roots, PEM.
    pub(super) fn roots(&self) -> io::Result<String> {
        std::fs::read_to_string(self.dir.join("data/operator/ca.pem"))
    }

    /// The local administrator, connected.
    pub(super) async fn operator(&self) -> io::Result<Operator> {
        let read = |name: &str| std::fs::read_to_string(self.dir.join("data/operator").join(name));
        let identity = Identity::from_pem(read("admin.pem")?, read("admin.key")?);
        let channel = endpoint(self.address, &self.roots()?, Some(identity))?.connect().await.map_err(failed)?;
        Ok(Operator(OperatorClient::new(channel).max_decoding_message_size(MOST_BYTES)))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.kill();
    }
}

/// Where a daemon is, and whom we take for it.
pub(super) fn endpoint(at: SocketAddr, roots: &str, identity: Option<Identity>) -> io::Result<Endpoint> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(roots)).domain_name("localhost");
    let tls = identity.into_iter().fold(tls, ClientTlsConfig::identity);
    let endpoint = Endpoint::from_shared(format!("https://{at}")).map_err(failed)?;
    let endpoint = endpoint
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    endpoint.tls_config(tls).map_err(failed)
}

fn spawn(program: &Path, dir: &Path, address: SocketAddr, admin: SocketAddr) -> io::Result<Child> {
    let output = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("ringwayd.out"))?;
    let mut command = Command::new(program);
    command.args(["run", "-c", "ringwayd.yaml", "--data-dir", "data"]);
    command.args(["--address", &address.to_string(), "--admin", &admin.to_string()]);
    command.current_dir(dir).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    command.spawn().map_err(|error| failed(format!("{}: {error}", program.display())))
}

/// An answer of an admin page, head and body.
pub(super) fn http_get(at: SocketAddr, path: &str) -> io::Result<String> {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", Ipv4Addr::LOCALHOST)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Who pushes.
#[derive(Clone)]
pub(super) struct Operator(OperatorClient<Channel>);

impl Operator {
    /// Pushes a document and waits until all who are connected have answered; the version's number, and how many they were.
    ///
    /// # Errors
    /// It is not applied by all.
    pub(super) async fn push(&mut self, document: String) -> io::Result<(u64, u32)> {
        let request =
            pb::ApplyRequest { document, file: "bench".into(), force: true, wait: true, ..Default::default() };
        let mut stream = self.0.apply(request).await.map_err(failed)?.into_inner();
        let mut last = pb::Progress::default();
        while let Some(progress) = stream.message().await.map_err(failed)? {
            last = progress;
        }
        match last.outcome() {
            Outcome::Applied => Ok((last.version, last.of)),
            other => Err(failed(format!("the push ended with {other:?}: {} {:?}", last.line, last.findings))),
        }
    }

    /// The text of a token for so many proxies of a group.
    pub(super) async fn token(&mut self, group: &str, uses: usize) -> io::Result<String> {
        let request = pb::CreateTokenRequest { group: group.into(), uses: uses as u32, ttl_s: 3600 };
        Ok(self.0.create_token(request).await.map_err(failed)?.into_inner().token)
    }

    /// Sets a service's endpoints.
    pub(super) async fn set(&mut self, service: &str, addresses: Vec<String>) -> io::Result<()> {
        let request = pb::SetEndpointsRequest { service: service.into(), addresses };
        self.0.set_endpoints(request).await.map_err(failed).map(drop)
    }

    /// What is known of all proxies.
    pub(super) async fn status(&mut self) -> io::Result<pb::StatusAnswer> {
        Ok(self.0.status(pb::StatusRequest {}).await.map_err(failed)?.into_inner())
    }

    /// Changes the root as far as it goes. True: it is done; false: with another credential it goes on.
    pub(super) async fn rotate(&mut self) -> io::Result<bool> {
        let request = pb::RotateRootRequest { status_only: false, force: false };
        let mut stream = self.0.rotate_root(request).await.map_err(failed)?.into_inner();
        let mut last = pb::Progress::default();
        while let Some(progress) = stream.message().await.map_err(failed)? {
            last = progress;
        }
        match last.outcome() {
            Outcome::Applied | Outcome::Unchanged => Ok(true),
            Outcome::Running => Ok(false),
            other => Err(failed(format!("the rotation ended with {other:?}: {} {:?}", last.line, last.findings))),
        }
    }
}
