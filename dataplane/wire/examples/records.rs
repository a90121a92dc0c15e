//! What records cost: our own, sealed and opened where they lie, and the same through rustls' unbuffered interface alone; and what
//! a session holds. TLS 1.3, AES-128-GCM, both ends in one thread.
//!
//! ```sh
//! cargo build --release -p ringway-wire --example records
//! target/release/examples/records                 # times, as medians of many short batches, and memory
//! for n in 1000 2000; do valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/records seal-own 64 $n; done
//! ```
//!
//! The difference of both counts, over 1000, is the cost of one record: `seal-own`, `seal-rustls`; with `open-own`, `open-rustls` it is that of
//! sealing one and opening it. `shake 0` is a full handshake, both halves.
//! Under valgrind another cipher runs than without, as it does not know all of a CPU: what is left when that is subtracted counts.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "it measures time, and is no core's code")]

use ringway_wire::tls::{
    Client, ClientSettings, Clients, Clock, Credential, Expect, HandshakeState, Narrow, Opened, Server, ServerSettings,
    Session, Suite, Trust,
};
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// Records that are made before some are opened.
const BATCH: usize = 64;
/// Messages of at most so many bytes are copied into their record, others sealed where they lie.
const COPIED: usize = 4096;
const SIZES: [usize; 3] = [64, 1024, 16_384];
const WAYS: [&str; 4] = ["seal-own", "seal-rustls", "open-own", "open-rustls"];
const BATCHES: usize = 1000;
const SHAKES: usize = 2000;
/// Sessions that are held at once to see what one holds.
const HELD: usize = 500;

/// Lets an end of rustls' do what it can.
macro_rules! drive {
    ($end:expr, $input:expr, $output:expr) => {
        loop {
            let (done, more) = turn($end.process_tls_records(&mut $input), &mut $output);
            $input.drain(..done);
            if !more {
                break;
            }
        }
    };
}

fn main() {
    let ends = Ends::new();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse().ok());
    if let (Some(way), Some(size), Some(count)) = (words.first(), number(1), number(2)) {
        ends.count(way, size, count);
        return;
    }
    println!("| record | {} |", WAYS.join(" | "));
    for size in SIZES {
        let times = ends.times(size).map(|ns| format!("{ns:.0} ns"));
        println!("| {size} bytes | {} |", times.join(" | "));
    }
    let times = (0..SHAKES).map(|_| shake(&ends.server, &ends.client).2);
    println!("a server's half of a full handshake: {:.1} us", middle(times.collect()) / 1000.0);
    ends.memory();
}

fn middle(mut list: Vec<f64>) -> f64 {
    list.sort_by(f64::total_cmp);
    list[list.len() / 2]
}

/// Settings of both ends, for either way.
struct Ends {
    server: Server,
    client: Client,
    rustls_server: Arc<rustls::ServerConfig>,
    rustls_client: Arc<rustls::ClientConfig>,
}

impl Ends {
    fn new() -> Ends {
        let key = rcgen::KeyPair::generate().expect("randomness");
        let params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
        let made = params.self_signed(&key).expect("a certificate");
        let (chain, key) = (made.pem(), key.serialize_pem());
        let clock = Clock::new(1_735_689_600);
        let narrow = Narrow { suite: Some(Suite::Aes128Gcm), never_resumes: true };
        let server = ServerSettings {
            certificates: vec![Credential::from_pem(chain.as_bytes(), key.as_bytes()).expect("a pair")],
            clients: Clients::None,
            trust: None,
            expect: Vec::new(),
            alpn: Vec::new(),
            tickets: None,
            clock: clock.clone(),
        };
        let client = ClientSettings {
            trust: Trust::from_pem(&[chain.as_bytes()], Vec::new(), &[]).expect("a root"),
            expect: vec![Expect::Name("a.example".into())],
            sni: Some("a.example".to_owned()),
            certificate: None,
            alpn: Vec::new(),
            clock,
        };
        let (rustls_server, rustls_client) = configs(made.der().clone(), &key);
        Ends {
            server: Server::narrowed(server, narrow).expect("a server"),
            client: Client::narrowed(client, narrow).expect("a client"),
            rustls_server,
            rustls_client,
        }
    }

    /// So many records one way, for a profiler.
    fn count(&self, way: &str, size: usize, count: usize) {
        let (plain, mut chunk, mut records, mut opened) =
            (vec![b'x'; size], vec![b'x'; size + 1], Vec::new(), Vec::new());
        let (mut server, mut client, _) = shake(&self.server, &self.client);
        let (mut rustls_server, mut rustls_client) = self.shake_rustls();
        for _ in 0..count {
            match way {
                "seal-own" if size > COPIED => seal_own_in_place(&mut server, &mut chunk, &mut records),
                "seal-own" => seal_own(&mut server, &plain, &mut records),
                "seal-rustls" => seal_rustls(&mut rustls_server, &plain, &mut records),
                "open-own" => {
                    seal_own(&mut server, &plain, &mut records);
                    open_own(&mut client, &mut records);
                }
                "open-rustls" => {
                    seal_rustls(&mut rustls_server, &plain, &mut records);
                    open_rustls(&mut rustls_client, &mut records, &mut opened);
                }
                "shake" => drop(black_box(shake(&self.server, &self.client))),
                _ => panic!("{} or shake?", WAYS.join(", ")),
            }
            black_box(&mut records).clear();
        }
    }

    /// Nanoseconds of each way, in the order of [`WAYS`]. They take turns, so that what disturbs one disturbs all.
    fn times(&self, size: usize) -> [f64; 4] {
        let (plain, mut chunk, mut records, mut opened) =
            (vec![b'x'; size], vec![b'x'; size + 1], Vec::new(), Vec::new());
        let (mut server, mut client, _) = shake(&self.server, &self.client);
        let mut only_seals = shake(&self.server, &self.client).0;
        let (mut rustls_server, mut rustls_client) = self.shake_rustls();
        let mut all = [const { Vec::new() }; WAYS.len()];
        let mut record = |way: usize, begun: Instant| all[way].push(begun.elapsed().as_nanos() as f64 / BATCH as f64);
        for _ in 0..BATCHES {
            let begun = Instant::now();
            for _ in 0..BATCH {
                match size > COPIED {
                    true => seal_own_in_place(&mut only_seals, &mut chunk, &mut records),
                    false => seal_own(&mut only_seals, &plain, &mut records),
                }
            }
            record(0, begun);
            records.clear();
            (0..BATCH).for_each(|_| seal_own(&mut server, &plain, &mut records));
            let begun = Instant::now();
            open_own(&mut client, &mut records);
            record(2, begun);
            records.clear();
            let begun = Instant::now();
            (0..BATCH).for_each(|_| seal_rustls(&mut rustls_server, &plain, &mut records));
            record(1, begun);
            let begun = Instant::now();
            open_rustls(&mut rustls_client, &mut records, &mut opened);
            record(3, begun);
            records.clear();
        }
        all.map(middle)
    }

    /// What a server's side holds after its handshake.
    fn memory(&self) {
        let mut own = Vec::with_capacity(HELD);
        let held = allocation_counter::measure(|| own.extend((0..HELD).map(|_| shake(&self.server, &self.client).0)));
        let each = held.bytes_current as usize / HELD;
        println!("a session of our own: {} bytes, {each} of them on the heap", each + size_of::<Session>());
        let mut rustls = Vec::with_capacity(HELD);
        let held = allocation_counter::measure(|| rustls.extend((0..HELD).map(|_| self.shake_rustls().0)));
        let each = held.bytes_current as usize / HELD;
        let all = each + size_of::<UnbufferedServerConnection>();
        println!("a session of rustls: {all} bytes, {each} of them on the heap");
    }

    fn shake_rustls(&self) -> (UnbufferedServerConnection, UnbufferedClientConnection) {
        let name = "a.example".try_into().expect("a name");
        let mut client = UnbufferedClientConnection::new(self.rustls_client.clone(), name).expect("a client");
        let mut server = UnbufferedServerConnection::new(self.rustls_server.clone()).expect("a server");
        let (mut up, mut down) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            drive!(client, down, up);
            drive!(server, up, down);
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        (server, client)
    }
}

fn configs(certificate: CertificateDer<'static>, key: &str) -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let provider = Arc::new(rustls::crypto::CryptoProvider {
        cipher_suites: vec![rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..rustls::crypto::ring::default_provider()
    });
    let versions = &[&rustls::version::TLS13];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).expect("a root");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let server = rustls::ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
    let mut server =
        server.expect("a version").with_no_client_auth().with_single_cert(vec![certificate], key).expect("a pair");
    server.send_tls13_tickets = 0;
    let client = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
    let client = client.expect("a version").with_root_certificates(roots).with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// A full handshake; how long the server's half took, nanoseconds.
fn shake(server: &Server, client: &Client) -> (Session, Session, f64) {
    let mut client = Session::connect(client).expect("randomness");
    let (mut up, mut down, mut ns) = (Vec::new(), Vec::new(), 0);
    client.handshake(&mut [], &mut up);
    let begun = Instant::now();
    let mut server = Session::accept(server).expect("randomness");
    loop {
        let begun = if ns == 0 { begun } else { Instant::now() };
        let step = server.handshake(&mut up, &mut down);
        ns += begun.elapsed().as_nanos();
        up.drain(..step.consumed);
        if step.state == HandshakeState::Done {
            return (server, client, ns as f64);
        }
        let step = client.handshake(&mut down, &mut up);
        assert!(!matches!(step.state, HandshakeState::Failed(_)), "{:?}", step.state);
        down.drain(..step.consumed);
    }
}

/// Short parts, copied into one record of output memory.
#[inline(never)]
fn seal_own(session: &mut Session, plain: &[u8], records: &mut Vec<u8>) {
    session.seal(&[plain], records).expect("sealed");
}

/// Bulk, where it lies; the last byte's place is for the record's type. The frame around it is for the message.
#[inline(never)]
fn seal_own_in_place(session: &mut Session, chunk: &mut [u8], frames: &mut Vec<u8>) {
    let (mut header, mut trailer) = ([0; Session::HEADER], [0; Session::TRAILER]);
    session.seal_in_place(chunk, &mut header, &mut trailer).expect("sealed");
    frames.extend_from_slice(&header);
    frames.extend_from_slice(&trailer);
}

#[inline(never)]
fn seal_rustls(connection: &mut UnbufferedServerConnection, plain: &[u8], records: &mut Vec<u8>) {
    let begin = records.len();
    records.resize(begin + plain.len() + 64, 0);
    let Ok(ConnectionState::WriteTraffic(mut traffic)) = connection.process_tls_records(&mut []).state else {
        panic!("no traffic")
    };
    let written = traffic.encrypt(plain, &mut records[begin..]).expect("sealed");
    records.truncate(begin + written);
}

/// Opens all records where they lie.
#[inline(never)]
fn open_own(session: &mut Session, mut records: &mut [u8]) {
    while let Ok(Some(length)) = Session::record_length(records) {
        let (record, rest) = records.split_at_mut(length);
        let opened = session.open(record).expect("opened");
        assert!(matches!(opened, Opened::Data(_)));
        black_box(record);
        records = rest;
    }
}

/// Opens all records, and copies the bytes into memory that whoever passes them on can own: rustls' goes with its state.
#[inline(never)]
fn open_rustls(connection: &mut UnbufferedClientConnection, mut records: &mut [u8], plain: &mut Vec<u8>) {
    while let Ok(Some(length)) = Session::record_length(records) {
        let (record, rest) = records.split_at_mut(length);
        let status = connection.process_tls_records(record);
        let (discard, Ok(ConnectionState::ReadTraffic(mut traffic))) = (status.discard, status.state) else {
            panic!("no record")
        };
        assert_eq!(discard, length);
        plain.clear();
        while let Some(Ok(data)) = traffic.next_record() {
            plain.extend_from_slice(data.payload);
        }
        black_box(&mut *plain);
        records = rest;
    }
}

/// Lets rustls do one thing; how much of the input is done with, and whether there is more to do.
fn turn<Data>(status: UnbufferedStatus<'_, '_, Data>, out: &mut Vec<u8>) -> (usize, bool) {
    let more = match status.state.expect("a handshake") {
        ConnectionState::EncodeTlsData(mut data) => {
            let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) else { panic!("nothing to say") };
            let begin = out.len();
            out.resize(begin + needed.required_size, 0);
            data.encode(&mut out[begin..]).expect("room");
            true
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            true
        }
        _ => false,
    };
    (status.discard, more)
}
