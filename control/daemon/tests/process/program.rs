//! A `ringwayd` that runs, and clients of it.

use api::pb;
use api::pb::agent_client::AgentClient;
use api::pb::operator_client::OperatorClient;
use rcgen::{CertificateParams, KeyPair};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_ringwayd");

/// A daemon that said that it is ready; killed when dropped.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    said: BufReader<ChildStderr>,
    pub(crate) address: String,
    admin: String,
}

pub(crate) fn command(folder: &Path) -> Command {
    at(folder, "127.0.0.1:0", "127.0.0.1:0")
}

pub(crate) fn at(folder: &Path, address: &str, admin: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--address", address, "--admin", admin, "--data-dir"]).arg(folder);
    command.env_remove("RINGWAYD_STORE_KEY").stdin(Stdio::null());
    command
}

impl Daemon {
    pub(crate) fn start(folder: &Path) -> Daemon {
        Daemon::started(command(folder))
    }

    pub(crate) fn started(mut command: Command) -> Daemon {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let (mut line, mut before) = (String::new(), String::new());
        while !line.contains(" ready: ") {
            before.push_str(&line);
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "it ended before it was ready: {before}");
        }
        let after = |mark: &str| {
            let (_, rest) = line.split_once(mark).unwrap();
            rest.split([',', '\n']).next().unwrap().to_owned()
        };
        let (address, admin) = (after("operators at "), after("pages at "));
        Daemon { child, said, address, admin }
    }

    pub(crate) fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.admin).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    /// A connection that shows this chain and key, if any.
    pub(crate) async fn channel(&self, folder: &Path, own: Option<(&[u8], &str)>) -> Result<Channel, String> {
        let roots = std::fs::read_to_string(folder.join("operator/ca.pem")).unwrap();
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(roots)).domain_name("localhost");
        if let Some((chain, key)) = own {
            tls = tls.identity(Identity::from_pem(chain, key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).unwrap().tls_config(tls).unwrap();
        endpoint.connect().await.map_err(|error| format!("{error:?}"))
    }

    /// The local administrator.
    pub(crate) async fn operator(&self, folder: &Path) -> OperatorClient<Channel> {
        let read = |name: &str| std::fs::read_to_string(folder.join("operator").join(name)).unwrap();
        let (chain, key) = (read("admin.pem"), read("admin.key"));
        OperatorClient::new(self.channel(folder, Some((chain.as_bytes(), &key))).await.unwrap())
    }

    /// Somebody without a certificate.
    pub(crate) async fn stranger(&self, folder: &Path) -> AgentClient<Channel> {
        AgentClient::new(self.channel(folder, None).await.unwrap())
    }
}

/// A document with group `cart`, different for each number.
pub(crate) fn document(number: u64) -> String {
    format!(
        "# {number}\ntrust-domain: shop\ngroups:\n  cart:\n    listeners: {{ in: {{ address: 127.0.0.1:8080, routes: [ {{ name: r{number}, to: app }} ] }} }}\n\
         \x20   services: {{ app: {{ endpoints: [127.0.0.1:1] }} }}\n"
    )
}

/// What a proxy with this key sends to join.
pub(crate) fn joining(token: &str, key: &KeyPair) -> pb::JoinRequest {
    pb::JoinRequest { token: token.to_owned(), csr: csr(key), name: "host".to_owned(), clock_ms: 0 }
}

/// A request for a certificate.
pub(crate) fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

/// Applies a document; the version, when it is acknowledged.
pub(crate) async fn apply(operator: &mut OperatorClient<Channel>, document: String) -> Option<u64> {
    let request = pb::ApplyRequest { document, ..pb::ApplyRequest::default() };
    let mut answers = operator.apply(request).await.ok()?.into_inner();
    let mut version = None;
    while let Some(progress) = answers.message().await.ok()? {
        version = (progress.outcome() == pb::Outcome::Applied).then_some(progress.version);
    }
    version
}

/// A token for group `cart`.
pub(crate) async fn token(operator: &mut OperatorClient<Channel>) -> Option<String> {
    let request = pb::CreateTokenRequest { group: "cart".to_owned(), ..pb::CreateTokenRequest::default() };
    Some(operator.create_token(request).await.ok()?.into_inner().token)
}
