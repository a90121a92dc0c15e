//! Certificates made on the spot, and two ends that talk through byte vectors.

use super::super::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType, IsCa, Issuer,
};
use rcgen::{ExtendedKeyUsagePurpose as Usage, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber};
use rcgen::{SanType, date_time_ymd};
use rustls::{Connection, RootCertStore, SupportedCipherSuite};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::io::{Read, Write};

/// 2025-01-01.
pub(super) const NOW_S: u64 = 1_735_689_600;
pub(super) const DAY_S: u64 = 86_400;

pub(super) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
    /// What goes behind a leaf: its own certificate, where it is no root.
    chain: String,
}

/// A year, a month, a day.
pub(super) type Day = (i32, u8, u8);

/// A chain and its key, as PEM.
#[derive(Clone)]
pub(super) struct Pems {
    pub(super) chain: String,
    pub(super) key: String,
}

impl Pems {
    pub(super) fn credential(&self) -> Credential {
        Credential::from_pem(self.chain.as_bytes(), self.key.as_bytes()).unwrap()
    }

    fn parts(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes()).map(|der| der.unwrap()).collect();
        (chain, PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap())
    }
}

impl Ca {
    pub(super) fn new(name: &str) -> Ca {
        Ca::until(name, (2035, 1, 1))
    }

    /// A root that ends on a day.
    pub(super) fn until(name: &str, end: Day) -> Ca {
        let (params, key) = Ca::parameters(name, end);
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { issuer: Issuer::new(params, key), pem, chain: String::new() }
    }

    /// One between this one and leaves.
    pub(super) fn between(&self, name: &str, serial: u64, end: Day) -> Ca {
        let (mut params, key) = Ca::parameters(name, end);
        params.serial_number = Some(SerialNumber::from(serial));
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        let chain = format!("{pem}{}", self.chain);
        Ca { issuer: Issuer::new(params, key), pem, chain }
    }

    fn parameters(name: &str, end: Day) -> (CertificateParams, KeyPair) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(end.0, end.1, end.2));
        (params, KeyPair::generate().unwrap())
    }

    /// A leaf for both usages, valid in 2024 and 2025, changed as said.
    pub(super) fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Pems {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "leaf");
        (params.not_before, params.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2026, 1, 1));
        params.extended_key_usages = vec![Usage::ServerAuth, Usage::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem() + &self.chain;
        Pems { chain, key: key.serialize_pem() }
    }

    pub(super) fn named(&self, names: &[&str]) -> Pems {
        self.issue(|params| {
            params.subject_alt_names = names.iter().map(|name| SanType::DnsName((*name).try_into().unwrap())).collect();
        })
    }

    pub(super) fn identified(&self, uri: &str) -> Pems {
        self.issue(|params| params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())])
    }

    /// Names as they are, also those that rcgen would not write.
    pub(super) fn with_uris(&self, uris: &[&[u8]]) -> Pems {
        let mut names = Vec::new();
        for uri in uris {
            names.extend_from_slice(&[0x86, uri.len() as u8]);
            names.extend_from_slice(uri);
        }
        let content = [&[0x30, names.len() as u8], &names[..]].concat();
        let extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], content);
        self.issue(|params| params.custom_extensions = vec![extension])
    }

    pub(super) fn revoking(&self, serial: u64) -> String {
        self.list(&[serial], (2026, 6, 1))
    }

    /// A list of what it has revoked, good until a day.
    pub(super) fn list(&self, serials: &[u64], end: Day) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 6, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 6, 1),
            next_update: date_time_ymd(end.0, end.1, end.2),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// An identity, and a name, in a certificate of this number.
    pub(super) fn numbered(&self, serial: u64) -> Pems {
        self.issue(|params| {
            params.serial_number = Some(SerialNumber::from(serial));
            let uri = SanType::URI("spiffe://example.org/a".try_into().unwrap());
            params.subject_alt_names = vec![uri, SanType::DnsName("a.example".try_into().unwrap())];
        })
    }

    pub(super) fn trust(&self, domains: &[&str]) -> Trust {
        let domains = domains.iter().map(|domain| (*domain).to_owned()).collect();
        Trust::from_pem(&[self.pem.as_bytes()], domains, &[]).unwrap()
    }

    pub(super) fn server(&self, pems: &Pems) -> ServerSettings {
        ServerSettings {
            certificates: vec![pems.credential()],
            clients: Clients::None,
            trust: Some(self.trust(&[])),
            expect: Vec::new(),
            alpn: Vec::new(),
            tickets: None,
            clock: Clock::new(NOW_S),
        }
    }

    pub(super) fn client(&self) -> ClientSettings {
        ClientSettings {
            trust: self.trust(&[]),
            expect: vec![Expect::Name("a.example".into())],
            sni: Some("a.example".to_owned()),
            certificate: None,
            alpn: Vec::new(),
            clock: Clock::new(NOW_S),
        }
    }

    /// rustls' own client, of one suite.
    pub(super) fn other_client(&self, suite: SupportedCipherSuite, shown: Option<&Pems>) -> Connection {
        other_client_of(&self.other_client_settings(suite, shown))
    }

    /// What it remembers sessions in.
    pub(super) fn other_client_settings(
        &self,
        suite: SupportedCipherSuite,
        shown: Option<&Pems>,
    ) -> Arc<rustls::ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let builder = rustls::ClientConfig::builder_with_details(only(suite), Arc::new(Clock::new(NOW_S)))
            .with_protocol_versions(&[suite.version()])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shown.map(Pems::parts) {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.enable_secret_extraction = true;
        Arc::new(config)
    }
}

pub(super) fn other_client_of(settings: &Arc<rustls::ClientConfig>) -> Connection {
    let name = ServerName::try_from("a.example").unwrap();
    rustls::ClientConnection::new(settings.clone(), name).unwrap().into()
}

fn only(suite: SupportedCipherSuite) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { cipher_suites: vec![suite], ..rustls::crypto::ring::default_provider() })
}

/// rustls' own server, of one suite.
pub(super) fn other_server(suite: SupportedCipherSuite, pems: &Pems) -> Connection {
    other_server_of(Arc::new(other_server_settings(suite, pems)))
}

pub(super) fn other_server_of(settings: Arc<rustls::ServerConfig>) -> Connection {
    rustls::ServerConnection::new(settings).unwrap().into()
}

pub(super) fn other_server_settings(suite: SupportedCipherSuite, pems: &Pems) -> rustls::ServerConfig {
    let (chain, key) = pems.parts();
    let mut config = rustls::ServerConfig::builder_with_details(only(suite), Arc::new(Clock::new(NOW_S)))
        .with_protocol_versions(&[suite.version()])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.enable_secret_extraction = true;
    config
}

/// How many of so many bytes arrive at once.
pub(super) type Split<'a> = &'a mut dyn FnMut(usize) -> usize;

pub(super) fn whole(length: usize) -> usize {
    length
}

pub(super) struct End {
    pub(super) session: Session,
    pub(super) input: Vec<u8>,
    pub(super) state: HandshakeState,
}

impl End {
    fn new(session: Session) -> End {
        End { session, input: Vec::new(), state: HandshakeState::More }
    }

    /// A step, when it still shakes. What it sends.
    fn step(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.state == HandshakeState::More {
            let Handshake { consumed, state } = self.session.handshake(&mut self.input, &mut out);
            self.input.drain(..consumed);
            self.state = state;
        }
        out
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        match self.state {
            HandshakeState::Failed(failure) => Some(failure),
            HandshakeState::More | HandshakeState::Done => None,
        }
    }

    /// Puts bytes behind the input and opens the records that are whole: the data, and the last that was not data.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<(Vec<u8>, Opened), Failure> {
        self.input.extend_from_slice(bytes);
        let (mut data, mut last) = (Vec::new(), Opened::Nothing);
        while let Some(length) = Session::record_length(&self.input)?.filter(|length| *length <= self.input.len()) {
            let mut record: Vec<u8> = self.input.drain(..length).collect();
            match self.session.open(&mut record)? {
                Opened::Data(range) => data.extend_from_slice(&record[range]),
                other => last = other,
            }
        }
        Ok((data, last))
    }

    pub(super) fn seal(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.session.take_pending(&mut out).unwrap();
        let before = out.len();
        self.session.seal(&[bytes], &mut out).unwrap();
        assert!(out.len() - before <= self.session.sealed_length(bytes.len()));
        out
    }

    /// The same, with all but the last record's bytes sealed where they lie.
    pub(super) fn seal_in_place(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for part in bytes.chunks(16_384) {
            let (mut header, mut trailer) = ([0; Session::HEADER], [0; Session::TRAILER]);
            let mut chunk = [part, &[0xee]].concat();
            self.session.seal_in_place(&mut chunk, &mut header, &mut trailer).unwrap();
            out.extend_from_slice(&header);
            out.extend_from_slice(&chunk[..part.len()]);
            out.extend_from_slice(&trailer);
        }
        out
    }
}

pub(super) struct Pair {
    pub(super) server: End,
    pub(super) client: End,
}

impl Pair {
    pub(super) fn failures(&self) -> (Option<Failure>, Option<Failure>) {
        (self.server.failure(), self.client.failure())
    }

    pub(super) fn assert_done(&self) {
        let states = (self.server.state, self.client.state);
        assert_eq!(states, (HandshakeState::Done, HandshakeState::Done));
    }

    /// Sends both ways, and compares.
    pub(super) fn talk(&mut self, bytes: &[u8]) {
        let sealed = self.client.seal(bytes);
        assert_eq!(self.server.receive(&sealed).unwrap().0, bytes);
        let sealed = self.server.seal(bytes);
        assert_eq!(self.client.receive(&sealed).unwrap().0, bytes);
    }
}

/// Both shake until nothing moves.
pub(super) fn shake_split(server: &Server, client: &Client, split: Split<'_>) -> Pair {
    shake_all(server, client, split, |_| {})
}

/// The same, with a hello that is changed on its way.
pub(super) fn shake_tampered(server: &Server, client: &Client, tamper: impl FnOnce(&mut Vec<u8>)) -> Pair {
    shake_all(server, client, &mut whole, tamper)
}

fn shake_all(server: &Server, client: &Client, split: Split<'_>, tamper: impl FnOnce(&mut Vec<u8>)) -> Pair {
    let mut pair = Pair {
        server: End::new(Session::accept(server).unwrap()),
        client: End::new(Session::connect(client).unwrap()),
    };
    let (mut up, mut down) = (pair.client.step(), Vec::new());
    tamper(&mut up);
    while !up.is_empty() || !down.is_empty() {
        let count = split(up.len()).min(up.len());
        pair.server.input.extend(up.drain(..count));
        down.extend(pair.server.step());
        let count = split(down.len()).min(down.len());
        pair.client.input.extend(down.drain(..count));
        up.extend(pair.client.step());
    }
    pair
}

pub(super) fn shake(server: &Server, client: &Client) -> Pair {
    shake_split(server, client, &mut whole)
}

/// With settings, which have to go together.
pub(super) fn shake_settings(server: ServerSettings, client: ClientSettings) -> Pair {
    shake(&Server::new(server).unwrap(), &Client::new(client).unwrap())
}

/// One of ours, and one of rustls'.
pub(super) struct Mixed {
    pub(super) ours: End,
    pub(super) other: Connection,
}

impl Mixed {
    pub(super) fn shake(session: Session, other: Connection) -> Mixed {
        let mut mixed = Mixed { ours: End::new(session), other };
        for _ in 0..20 {
            let sent = mixed.ours.step();
            let _ = mixed.feed(&sent);
            let received = mixed.take();
            mixed.ours.input.extend_from_slice(&received);
        }
        mixed
    }

    /// What the other sends.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.other.wants_write() {
            self.other.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// Feeds the other; the plaintext that it has then.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            self.other.read_tls(&mut bytes).unwrap();
            self.other.process_new_packets()?;
            let mut chunk = vec![0; 1 << 17];
            while let Ok(count @ 1..) = self.other.reader().read(&mut chunk) {
                plain.extend_from_slice(&chunk[..count]);
            }
        }
        Ok(plain)
    }

    pub(super) fn other_seal(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.other.set_buffer_limit(None);
        self.other.writer().write_all(bytes).unwrap();
        self.take()
    }

    /// Sends both ways, and compares.
    pub(super) fn talk(&mut self, bytes: &[u8]) {
        let sealed = self.ours.seal(bytes);
        assert!(self.feed(&sealed).unwrap() == bytes);
        let sealed = self.other_seal(bytes);
        assert!(self.ours.receive(&sealed).unwrap().0 == bytes);
    }
}

/// Bytes that do not repeat soon.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// A record of any type under a connection's ChaCha20-Poly1305 key (RFC 7905 section 2), `at` records on.
pub(super) fn seal_12(tx: &(u64, rustls::ConnectionTrafficSecrets), at: u64, kind: u8, bytes: &[u8]) -> Vec<u8> {
    use crypto::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
    let (begin, rustls::ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = tx else { panic!("another suite") };
    let sequence = (begin + at).to_be_bytes();
    let mut nonce: [u8; 12] = iv.as_ref().try_into().unwrap();
    nonce[4..].iter_mut().zip(sequence).for_each(|(byte, other)| *byte ^= other);
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key.as_ref()).unwrap());
    let length = bytes.len() as u8;
    let aad = [&sequence[..], &[kind, 3, 3, 0, length]].concat();
    let mut sealed = bytes.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut sealed).unwrap();
    [&[kind, 3, 3, 0, length + 16], &sealed[..]].concat()
}
