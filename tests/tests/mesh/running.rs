//! A `ringwayd` that runs, its operator, and proxies of it.

use api::pb;
use api::pb::agent_client::AgentClient;
use api::pb::operator_client::OperatorClient;
use ringway_tests::{Proxy, Run, build_daemon, free_port};
use std::future::Future;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// The daemon; killed when dropped.
pub(crate) struct Daemon {
    folder: TempDir,
    port: u16,
    child: Option<Child>,
    said: Arc<Mutex<String>>,
    runtime: Runtime,
}

impl Daemon {
    pub(crate) fn start() -> Daemon {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (folder, port) = (TempDir::new().unwrap(), free_port());
        let mut daemon = Daemon { folder, port, child: None, said: Arc::default(), runtime };
        daemon.start_again();
        daemon
    }

    /// Starts it where it was.
    pub(crate) fn start_again(&mut self) {
        assert!(self.child.is_none());
        let mut command = Command::new(build_daemon());
        command.args(["run", "--admin", "127.0.0.1:0", "--address", &format!("127.0.0.1:{}", self.port)]);
        command.arg("--data-dir").arg(self.folder.path());
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("ringwayd starts");
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains(" ready: ") {
            assert!(lines.read_line(&mut line).unwrap() > 0, "ringwayd is not ready: {line}");
        }
        let said = self.said.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = lines.read(&mut bytes) {
                said.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        self.child = Some(child);
    }

    /// Sends it a signal: `STOP`, `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(status.expect("kill runs").success(), "kill -{name}");
    }

    /// Ends it with no chance to tidy up.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Does something as the local administrator.
    pub(crate) fn operator<T, F: Future<Output = T>>(&self, work: impl FnOnce(OperatorClient<Channel>) -> F) -> T {
        self.runtime.block_on(async {
            let client = operator(self.folder.path(), self.port).await;
            work(client).await
        })
    }

    /// Pushes a document, and waits until the proxies that are connected have it: the last that was said.
    pub(crate) fn apply(&self, document: &str, wait: bool) -> pb::Progress {
        self.applied(pb::ApplyRequest { document: document.to_owned(), wait, ..pb::ApplyRequest::default() })
    }

    fn applied(&self, request: pb::ApplyRequest) -> pb::Progress {
        self.operator(async move |mut client| {
            let mut stream = client.apply(request).await.unwrap().into_inner();
            let mut last = pb::Progress::default();
            while let Some(progress) = stream.message().await.unwrap() {
                last = progress;
            }
            last
        })
    }

    /// Pushes a document that must be good.
    pub(crate) fn push(&self, document: &str) -> u64 {
        let last = self.apply(document, true);
        assert_eq!(last.outcome(), pb::Outcome::Applied, "{last:?}\n{}", self.said());
        last.version
    }

    /// Pushes a document that needs a force.
    pub(crate) fn force(&self, document: &str) -> pb::Progress {
        self.applied(pb::ApplyRequest { document: document.to_owned(), force: true, ..pb::ApplyRequest::default() })
    }

    /// Where the daemon is, and a chain, a key and roots with which a client of another kind is a proxy of this group.
    pub(crate) fn credential(&self, group: &str) -> [String; 4] {
        let token = self.token(group);
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
        let roots = std::fs::read(self.folder.path().join("operator/ca.pem")).unwrap();
        let address = format!("127.0.0.1:{}", self.port);
        let issued = self.runtime.block_on(async {
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&roots)).domain_name("localhost");
            let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap();
            let mut client = AgentClient::new(endpoint.connect().await.unwrap());
            let request = pb::JoinRequest { token, csr, name: "other".to_owned(), clock_ms: 0 };
            client.join(request).await.unwrap().into_inner()
        });
        let file = |name: &str, bytes: &[u8]| {
            let path = self.folder.path().join(format!("{}.{name}", issued.proxy));
            std::fs::write(&path, bytes).unwrap();
            path.display().to_string()
        };
        let key = key.serialize_pem();
        [address, file("pem", &issued.chain), file("key", key.as_bytes()), file("ca", &issued.bundle)]
    }

    fn token(&self, group: &str) -> String {
        let request = pb::CreateTokenRequest { group: group.to_owned(), ..pb::CreateTokenRequest::default() };
        self.operator(async move |mut client| client.create_token(request).await.unwrap().into_inner().token)
    }

    pub(crate) fn status(&self) -> pb::StatusAnswer {
        self.operator(async |mut client| client.status(pb::StatusRequest {}).await.unwrap().into_inner())
    }

    /// How to start a proxy of this group.
    pub(crate) fn proxy_of(&self, group: &str) -> Run {
        let (token, port) = (self.token(group), self.port);
        let text = format!("daemon: {{ addresses: ['127.0.0.1:{port}'], token: $dir/join, state: $dir/state }}\n");
        Run::new(&text).file_of("join", &token)
    }

    /// A proxy of this group that is ready.
    pub(crate) fn join(&self, group: &str) -> Proxy {
        self.proxy_of(group).start()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("ringwayd said:\n{}", self.said());
        }
    }
}

async fn operator(folder: &Path, port: u16) -> OperatorClient<Channel> {
    let read = |name: &str| std::fs::read(folder.join("operator").join(name)).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read("ca.pem")))
        .identity(Identity::from_pem(read("admin.pem"), read("admin.key")))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}")).unwrap().tls_config(tls).unwrap();
    OperatorClient::new(endpoint.connect().await.unwrap())
}
