//! TLS peers in this process, over rustls with its ordinary buffers: a client and a server that tell what they met. They share
//! nothing with the proxy but the library's name.

use crate::certificates::{Authority, Issued};
use crate::client::Client;
use crate::stream::{Layer, Met, Stream};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, DigitallySignedStruct, Error, HandshakeKind,
    RootCertStore, ServerConfig, ServerConnection, SignatureScheme, SupportedProtocolVersion,
};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long a test waits for a connection.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a TLS client behaves. Without more it trusts some authorities, checks names, offers TLS 1.2 and 1.3, sends no certificate
/// and never resumes.
#[derive(Clone, Debug)]
pub struct Tls {
    roots: Vec<Vec<u8>>,
    any_name: bool,
    own: Option<Issued>,
    versions: &'static [&'static SupportedProtocolVersion],
    suite: Option<&'static str>,
    alpn: Vec<Vec<u8>>,
    resumes: bool,
    no_name: bool,
    early: Vec<u8>,
    piece: Option<(usize, Duration)>,
    record: Option<usize>,
    config: OnceLock<Arc<ClientConfig>>,
}

/// How a TLS server behaves. Without more it takes TLS 1.2 and 1.3 and asks for no certificate.
#[derive(Clone, Debug)]
pub struct Server {
    own: Issued,
    roots: Vec<Vec<u8>>,
    required: bool,
    versions: &'static [&'static SupportedProtocolVersion],
    suite: Option<&'static str>,
    alpn: Vec<Vec<u8>>,
    early_bytes: u32,
}

/// TLS 1.2 alone.
pub const TLS_1_2: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
/// TLS 1.3 alone.
pub const TLS_1_3: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Told of each handshake that a server makes: what it met, or why it failed.
pub type Tell = Arc<dyn Fn(Result<Met, String>) + Send + Sync>;

impl Tls {
    /// Trusts these authorities.
    pub fn trusting(authorities: &[&Authority]) -> Tls {
        Tls {
            roots: authorities.iter().map(|authority| authority.der()).collect(),
            any_name: false,
            own: None,
            versions: rustls::ALL_VERSIONS,
            suite: None,
            alpn: Vec::new(),
            resumes: false,
            no_name: false,
            early: Vec::new(),
            piece: None,
            record: None,
            config: OnceLock::new(),
        }
    }

    /// Trusts the root in this PEM text.
    pub fn rooted(pem: &str) -> Tls {
        Tls { roots: vec![first_of(pem)], ..Tls::trusting(&[]) }
    }

    /// Takes a server of any name: those with identities have none.
    pub fn any_name(self) -> Tls {
        self.changed(|of| of.any_name = true)
    }

    /// Has this certificate to show.
    pub fn with(self, own: &Issued) -> Tls {
        self.changed(|of| of.own = Some(own.clone()))
    }

    /// Speaks these versions only.
    pub fn versions(self, versions: &'static [&'static SupportedProtocolVersion]) -> Tls {
        self.changed(|of| of.versions = versions)
    }

    /// Offers one cipher suite.
    pub fn suite(self, suite: &'static str) -> Tls {
        self.changed(|of| of.suite = Some(suite))
    }

    /// Offers these application protocols.
    pub fn alpn(self, names: &[&str]) -> Tls {
        self.changed(|of| of.alpn = names.iter().map(|name| name.as_bytes().to_vec()).collect())
    }

    /// Keeps tickets, and resumes when it has one. Clones made from now on share them.
    pub fn resuming(self) -> Tls {
        let of = self.changed(|of| of.resumes = true);
        of.config();
        of
    }

    /// Sends no name.
    pub fn no_name(self) -> Tls {
        self.changed(|of| of.no_name = true)
    }

    /// Sends this as early data, if a ticket lets it. Clones keep their tickets.
    pub fn early(mut self, bytes: &[u8]) -> Tls {
        self.early = bytes.to_vec();
        self
    }

    /// Sends in pieces of so many bytes, each in a segment of its own.
    pub fn in_pieces(mut self, size: usize) -> Tls {
        self.piece = Some((size, Duration::from_micros(100)));
        self
    }

    /// The same, with so much time between them.
    pub fn in_slow_pieces(mut self, size: usize, pause: Duration) -> Tls {
        self.piece = Some((size, pause));
        self
    }

    /// Sends its hello in records of so many bytes.
    pub fn hello_in_records(mut self, size: usize) -> Tls {
        self.record = Some(size);
        self
    }

    fn changed(mut self, change: impl FnOnce(&mut Tls)) -> Tls {
        change(&mut self);
        self.config = OnceLock::new();
        self
    }

    fn config(&self) -> &Arc<ClientConfig> {
        self.config.get_or_init(|| {
            let provider = provider(self.suite);
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store(&self.roots)), provider.clone());
            let verifier = AnyName { inner: inner.build().expect("roots"), any_name: self.any_name };
            let config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(self.versions)
                .expect("versions")
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier));
            let mut config = match &self.own {
                // Whether the key fits is not looked at: a liar's may not.
                Some(own) => {
                    let key = ring::sign::any_supported_type(&own.private_key()).expect("a key");
                    let pair = CertifiedKey::new(own.certificates(), key);
                    config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
                }
                None => config.with_no_client_auth(),
            };
            config.alpn_protocols.clone_from(&self.alpn);
            config.enable_sni = !self.no_name;
            // Used only with `early`.
            config.enable_early_data = true;
            if !self.resumes {
                config.resumption = Resumption::disabled();
            }
            Arc::new(config)
        })
    }

    /// Connects and shakes hands.
    ///
    /// # Panics
    /// It fails.
    pub fn connect(&self, address: SocketAddr, name: &str) -> Client {
        self.try_connect(address, name).unwrap_or_else(|e| panic!("TLS to {name} at {address}: {e}"))
    }

    /// Connects and shakes hands. In TLS 1.3 the server may still refuse our certificate: that shows with the first read.
    ///
    /// # Errors
    /// Nobody listens, or one of both refuses the other.
    pub fn try_connect(&self, address: SocketAddr, name: &str) -> io::Result<Client> {
        self.over(TcpStream::connect_timeout(&address, PATIENCE)?, name)
    }

    /// Shakes hands over a connected socket.
    ///
    /// # Errors
    /// One of both refuses the other.
    pub fn over(&self, socket: TcpStream, name: &str) -> io::Result<Client> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut connection = ClientConnection::new(self.config().clone(), name).expect("a connection");
        if let (false, Some(mut early)) = (self.early.is_empty(), connection.early_data()) {
            early.write_all(&self.early)?;
        }
        let wire = Wire { socket, piece: self.piece, record: self.record };
        let mut session = Session::new(connection.into(), wire, None);
        session.early = !self.early.is_empty();
        session.shake()?;
        Ok(Client::over(Stream::Layer(Box::new(session))))
    }

    /// The bytes of its hello.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn hello(&self, name: &str) -> Vec<u8> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut connection = ClientConnection::new(self.config().clone(), name).expect("a connection");
        let mut hello = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut hello).expect("bytes");
        }
        hello
    }

    /// Asks for a page, and must be refused before an answer comes: why, in words.
    ///
    /// # Panics
    /// There is an answer.
    pub fn refused(&self, address: SocketAddr, name: &str) -> String {
        let asked = self.try_connect(address, name).and_then(|mut client| {
            client.try_send("GET /refused HTTP/1.1\r\nHost: a\r\n\r\n")?;
            client.try_answer("GET")
        });
        match asked {
            Ok(answer) => panic!("not refused: {answer:?}"),
            Err(e) => e.to_string(),
        }
    }
}

impl Server {
    /// Shows this certificate.
    pub fn new(own: &Issued) -> Server {
        Server {
            own: own.clone(),
            roots: Vec::new(),
            required: false,
            versions: rustls::ALL_VERSIONS,
            suite: None,
            alpn: Vec::new(),
            early_bytes: 0,
        }
    }

    /// Takes so many bytes of early data.
    pub fn early(mut self, bytes: u32) -> Server {
        self.early_bytes = bytes;
        self
    }

    /// Takes certificates of these authorities, and nobody without one if `required`.
    pub fn clients(mut self, authorities: &[&Authority], required: bool) -> Server {
        self.roots = authorities.iter().map(|authority| authority.der()).collect();
        self.required = required;
        self
    }

    /// Speaks these versions only.
    pub fn versions(mut self, versions: &'static [&'static SupportedProtocolVersion]) -> Server {
        self.versions = versions;
        self
    }

    /// Takes one cipher suite.
    pub fn suite(mut self, suite: &'static str) -> Server {
        self.suite = Some(suite);
        self
    }

    /// Takes these application protocols.
    pub fn alpn(mut self, names: &[&str]) -> Server {
        self.alpn = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// What makes sessions of sockets. The handshake is made with the first read or write.
    ///
    /// # Panics
    /// The certificate is of no use.
    pub fn sessions(&self, tell: Tell) -> impl Fn(TcpStream) -> Stream + Send + Sync + use<> {
        let provider = provider(self.suite);
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(self.versions)
            .expect("versions");
        let config = if self.roots.is_empty() {
            config.with_no_client_auth()
        } else {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store(&self.roots)), provider);
            let verifier = if self.required { verifier } else { verifier.allow_unauthenticated() };
            config.with_client_cert_verifier(verifier.build().expect("roots"))
        };
        let mut config = config.with_single_cert(self.own.certificates(), self.own.private_key()).expect("a pair");
        config.alpn_protocols.clone_from(&self.alpn);
        config.max_early_data_size = self.early_bytes;
        let config = Arc::new(config);
        move |socket| {
            let connection = ServerConnection::new(config.clone()).expect("a connection");
            let wire = Wire { socket, piece: None, record: None };
            Stream::Layer(Box::new(Session::new(connection.into(), wire, Some(tell.clone()))))
        }
    }
}

impl Issued {
    fn certificates(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.chain.as_bytes()).map(|der| der.expect("PEM")).collect()
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key")
    }
}

/// The first certificate of a PEM text.
///
/// # Panics
/// There is none.
pub fn first_of(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate").to_vec()
}

fn store(roots: &[Vec<u8>]) -> RootCertStore {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(CertificateDer::from(root.clone())).expect("a root");
    }
    store
}

/// All that ring has, or one suite of it.
fn provider(suite: Option<&str>) -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    if let Some(suite) = suite {
        provider.cipher_suites.retain(|known| format!("{:?}", known.suite()) == suite);
        assert_eq!(provider.cipher_suites.len(), 1, "{suite} is not known");
    }
    Arc::new(provider)
}

/// The ordinary check of a server's certificate; its name may be left out of it.
#[derive(Debug)]
struct AnyName {
    inner: Arc<WebPkiServerVerifier>,
    any_name: bool,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let wrong_name = |error: &CertificateError| {
            matches!(error, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })
        };
        match self.inner.verify_server_cert(leaf, between, name, stapled, now) {
            Err(Error::InvalidCertificate(error)) if self.any_name && wrong_name(&error) => {
                Ok(ServerCertVerified::assertion())
            }
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The socket under a session, which may send oddly.
struct Wire {
    socket: TcpStream,
    piece: Option<(usize, Duration)>,
    record: Option<usize>,
}

impl Read for Wire {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.socket.read(out)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = match self.record.take() {
            Some(size) => &in_records(bytes, size),
            None => bytes,
        };
        match self.piece {
            Some((size, pause)) => {
                for piece in sent.chunks(size) {
                    self.socket.write_all(piece)?;
                    std::thread::sleep(pause);
                }
            }
            None => self.socket.write_all(sent)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The same handshake message in records of `size` bytes (RFC 8446 section 5.1).
///
/// # Panics
/// The bytes are no whole record.
pub fn in_records(record: &[u8], size: usize) -> Vec<u8> {
    let (header, payload) = record.split_at(5);
    assert_eq!(usize::from(u16::from_be_bytes([header[3], header[4]])), payload.len(), "one record");
    let mut out = Vec::new();
    for part in payload.chunks(size) {
        out.extend_from_slice(&header[..3]);
        out.extend_from_slice(&(part.len() as u16).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// One connection, either side.
struct Session {
    connection: Connection,
    wire: Wire,
    tell: Option<Tell>,
    /// Early data is wanted.
    early: bool,
    /// Nothing more may be sent.
    over: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("met", &self.met()).finish_non_exhaustive()
    }
}

impl Session {
    fn new(connection: Connection, wire: Wire, tell: Option<Tell>) -> Session {
        Session { connection, wire, tell, early: false, over: false }
    }

    /// Makes the handshake, if it is not made.
    fn shake(&mut self) -> io::Result<()> {
        while self.connection.is_handshaking() {
            let step = self.step();
            match (&step, &self.tell) {
                (Ok(0), Some(tell)) => tell(Err("the client left".to_owned())),
                (Err(e), Some(tell)) => tell(Err(e.to_string())),
                _ => {}
            }
            if step? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended within the handshake"));
            }
            if let (false, Some(tell)) = (self.connection.is_handshaking(), &self.tell) {
                tell(self.met().ok_or_else(|| "nothing met".to_owned()));
            }
        }
        self.send()
    }

    /// Sends what is to be sent and reads once: how many bytes came.
    fn step(&mut self) -> io::Result<usize> {
        self.send()?;
        let came = self.connection.read_tls(&mut self.wire)?;
        if let Err(error) = self.connection.process_new_packets() {
            let _alert = self.send();
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        self.send()?;
        Ok(came)
    }

    fn send(&mut self) -> io::Result<()> {
        while self.connection.wants_write() && !self.over {
            self.connection.write_tls(&mut self.wire)?;
        }
        Ok(())
    }
}

impl Read for Session {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.shake()?;
        loop {
            match self.connection.reader().read(out) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.step()?,
                // 0 after a close_notify; an error when the connection ended without one.
                done => return done,
            };
        }
    }
}

impl Write for Session {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.shake()?;
        if self.over {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = self.connection.writer().write(bytes)?;
        self.send()?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl Layer for Session {
    fn limit(&self, time: Duration) {
        let socket = &self.wire.socket;
        let done = socket.set_read_timeout(Some(time)).and_then(|()| socket.set_write_timeout(Some(time)));
        done.expect("timeouts can be set");
    }

    fn finish(&mut self) {
        self.connection.send_close_notify();
        let _gone = self.send();
        self.cut();
    }

    fn cut(&mut self) {
        self.over = true;
        let _gone = self.wire.socket.shutdown(Shutdown::Write);
    }

    fn met(&self) -> Option<Met> {
        let suite = self.connection.negotiated_cipher_suite()?;
        let version = match self.connection.protocol_version()? {
            rustls::ProtocolVersion::TLSv1_2 => "TLSv1.2".to_owned(),
            rustls::ProtocolVersion::TLSv1_3 => "TLSv1.3".to_owned(),
            other => format!("{other:?}"),
        };
        let (name, early) = match &self.connection {
            Connection::Server(server) => (server.server_name().map(str::to_owned), None),
            Connection::Client(client) => (None, self.early.then(|| client.is_early_data_accepted())),
        };
        Some(Met {
            version,
            suite: format!("{:?}", suite.suite()),
            alpn: self.connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            name,
            early,
            resumed: self.connection.handshake_kind() == Some(HandshakeKind::Resumed),
            certificate: self.connection.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec()),
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.over && !self.connection.is_handshaking() {
            self.connection.send_close_notify();
            let _gone = self.send();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::Leaf;
    use crate::origin::{Origin, answers, respond};

    fn told(client: &mut Client) -> u16 {
        client.get("/").status
    }

    #[test]
    fn both_sides_agree_on_what_they_met() {
        let authority = Authority::new("root");
        let (own, web) = (authority.issue(&Leaf::of(&["a.test"])), authority.issue(&Leaf::of(&["spiffe://shop/web"])));
        let server = Server::new(&own).clients(&[&authority], true).alpn(&["http/1.1"]);
        let origin = Origin::secure(&server, answers(|_| respond(200, "", b"x")));
        let tls = Tls::trusting(&[&authority]).with(&web).alpn(&["h2", "http/1.1"]).in_pieces(1);
        let mut client = tls.connect(origin.address(), "a.test");
        assert_eq!(told(&mut client), 200);
        let (met, seen) = (client.met(), origin.met().pop().unwrap());
        assert_eq!((met.certificate, seen.certificate), (Some(own.der.clone()), Some(web.der)));
        assert_eq!((met.version.as_str(), met.alpn.as_deref()), ("TLSv1.3", Some("http/1.1")));
        assert_eq!(seen.alpn, met.alpn);
        assert_eq!(seen.name.as_deref(), Some("a.test"));
        assert!(!seen.resumed);
    }

    #[test]
    fn each_side_refuses_the_wrong_other() {
        let (authority, other) = (Authority::new("root"), Authority::new("other"));
        let own = authority.issue(&Leaf::of(&["a.test"]));
        let origin =
            Origin::secure(&Server::new(&own).clients(&[&authority], true), answers(|_| respond(200, "", b"x")));
        let good = Tls::trusting(&[&authority]).with(&authority.issue(&Leaf::of(&["spiffe://shop/web"])));
        assert_eq!(told(&mut good.connect(origin.address(), "a.test")), 200);
        assert!(good.try_connect(origin.address(), "b.test").is_err());
        assert!(good.clone().any_name().try_connect(origin.address(), "b.test").is_ok());
        assert!(Tls::trusting(&[&other]).any_name().try_connect(origin.address(), "a.test").is_err());
        assert!(Tls::trusting(&[&authority]).refused(origin.address(), "a.test").contains("alert"));
        let wrong = other.issue(&Leaf::of(&["spiffe://shop/web"]));
        assert!(Tls::trusting(&[&authority]).with(&wrong).refused(origin.address(), "a.test").contains("alert"));
        assert_eq!(origin.count(), 1);
        crate::eventually("both are told", || origin.refused().len() >= 4);
    }

    #[test]
    fn tickets_records_versions_and_early_data() {
        let authority = Authority::new("root");
        let own = authority.issue(&Leaf::of(&["a.test"]));
        let origin = Origin::secure(&Server::new(&own).early(1000), answers(|_| respond(200, "", b"x")));
        let tls = Tls::trusting(&[&authority]).resuming();
        for resumed in [false, true] {
            let mut client = tls.clone().hello_in_records(40).connect(origin.address(), "a.test");
            assert_eq!((told(&mut client), client.met().resumed), (200, resumed));
        }
        let early = tls.clone().early(b"GET /early HTTP/1.1\r\nHost: a\r\n\r\n");
        let met = early.connect(origin.address(), "a.test").met();
        assert_eq!((met.resumed, met.early), (true, Some(true)));
        let old = Tls::trusting(&[&authority]).versions(TLS_1_2).suite("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
        let mut client = old.connect(origin.address(), "a.test");
        assert_eq!((told(&mut client), client.met().version.as_str()), (200, "TLSv1.2"));
    }

    #[test]
    fn an_end_without_close_notify_is_an_error_and_one_with_it_is_none() {
        let authority = Authority::new("root");
        let own = authority.issue(&Leaf::of(&["a.test"]));
        for clean in [true, false] {
            let origin = Origin::secure(&Server::new(&own), move |conversation| {
                if conversation.request().is_some() {
                    conversation.send("HTTP/1.1 200 OK\r\n\r\nbody");
                    if clean { conversation.finish() } else { conversation.cut() }
                }
            });
            let mut client = Tls::trusting(&[&authority]).connect(origin.address(), "a.test");
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.try_answer("GET").is_ok(), clean);
        }
    }

    #[test]
    fn records_are_split_as_told() {
        assert_eq!(in_records(&[22, 3, 1, 0, 3, 7, 8, 9], 2), [22, 3, 1, 0, 2, 7, 8, 22, 3, 1, 0, 1, 9]);
    }
}
