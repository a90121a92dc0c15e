//! The load and the origin over TLS, and against a peer that cuts its records and closes as it is told.

use super::*;
use crate::certificates::Authority;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::LazyLock;
use wire::tls::{
    Clients, Clock, Credential, HandshakeState, Opened, Server, ServerSettings, Session, TicketKeys, Trust,
};

const AES128: &str = "TLS13_AES_128_GCM_SHA256";

/// Two authorities, `ca` and `other`; `origin` and `client` of the first, `stranger` of the second.
static FILES: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let (ca, other) = (Authority::new(dir.path(), "ca").unwrap(), Authority::new(dir.path(), "other").unwrap());
    ca.issue(dir.path(), "origin").unwrap();
    ca.issue(dir.path(), "client").unwrap();
    other.issue(dir.path(), "stranger").unwrap();
    dir
});

fn file(name: &str) -> String {
    FILES.path().join(name).display().to_string()
}

fn own(role: &str) -> Vec<String> {
    vec!["--certificate".into(), file(&format!("{role}.pem")), "--key".into(), file(&format!("{role}.key"))]
}

fn words(parts: &[&[&str]]) -> Vec<String> {
    parts.iter().flat_map(|part| part.iter().map(ToString::to_string)).collect()
}

/// An origin with TLS and these options more.
fn secure_origin(options: &[&str]) -> SocketAddr {
    let options = [own("origin"), words(&[options])].concat();
    origin(&options.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A load that trusts `ca`, with these options more.
fn secure_load(at: SocketAddr, path: &str, options: &[&str]) -> Report {
    let trust = file("ca.pem");
    load(&format!("https://{at}{path}"), &[&["--trust", trust.as_str()], options].concat())
}

fn kinds(report: &Report) -> Vec<&str> {
    report.errors.keys().map(String::as_str).collect()
}

#[test]
fn answers_and_their_suite_are_counted() {
    let at = secure_origin(&[]);
    for (word, name) in [
        ("aes-128-gcm", AES128),
        ("aes-256-gcm", "TLS13_AES_256_GCM_SHA384"),
        ("chacha20-poly1305", "TLS13_CHACHA20_POLY1305_SHA256"),
    ] {
        let report = secure_load(at, "/size/100", &["-n", "300", "-c", "4", "--length", "100", "--suite", word]);
        assert_eq!((report.requests, report.bytes_in, report.failures()), (300, 30_000, 0), "{:?}", report.errors);
        let secured = report.secured.unwrap();
        assert_eq!((&secured.suites, secured.resumed), (&[(name.to_owned(), 300)].into(), 0));
        assert!((1..=4).contains(&secured.full), "{secured:?}");
    }
}

#[test]
fn bulk_goes_both_ways() {
    let at = secure_origin(&[]);
    for path in ["/size/5000000", "/size/5000000/chunked"] {
        let report = secure_load(at, path, &["-n", "4", "-c", "2", "--length", "5000000"]);
        assert_eq!((report.requests, report.failures()), (4, 0), "{path}: {:?}", report.errors);
    }
    let options = ["-n", "20", "-c", "2", "-X", "POST", "--body-size", "300000", "--length", "300000"];
    let report = secure_load(at, "/echo", &options);
    assert_eq!((report.bytes_in, report.failures()), (6_000_000, 0), "{:?}", report.errors);
}

#[test]
fn each_request_may_have_its_own_full_handshake() {
    let at = secure_origin(&[]);
    let report = secure_load(at, "/", &["-n", "60", "-c", "4", "--no-keepalive", "--resume"]);
    assert_eq!((report.requests, report.failures()), (60, 0), "{:?}", report.errors);
    let secured = report.secured.unwrap();
    assert_eq!((secured.full, secured.resumed), (60, 0));
}

#[test]
fn sessions_are_resumed_only_where_that_is_asked_for() {
    let peer = Peer { tickets: true, ..Peer::default() };
    let at = peer.start(|wire, session| answer(wire, session, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", true));
    for (options, resumed) in [(vec!["--resume"], 9), (vec![], 0)] {
        let options = [&["-n", "10", "-c", "1", "--no-keepalive"], &options[..]].concat();
        let report = secure_load(at, "/", &options);
        let secured = report.secured.unwrap();
        assert_eq!((report.errors.len(), secured.full, secured.resumed), (0, 10 - resumed, resumed));
    }
}

#[test]
fn clients_show_their_certificate() {
    let (trust, client) = (file("ca.pem"), own("client"));
    let at = secure_origin(&["--clients", &trust]);
    let client: Vec<&str> = client.iter().map(String::as_str).collect();
    let report = secure_load(at, "/", &[&["-n", "20", "-c", "2"], &client[..]].concat());
    assert_eq!((report.requests, report.failures()), (20, 0), "{:?}", report.errors);
}

#[test]
fn a_refused_handshake_is_an_error_with_its_reason() {
    let trust = file("ca.pem");
    let at = secure_origin(&["--clients", &trust, "--suite", "aes-128-gcm"]);
    let few = ["-n", "3", "-c", "1"];
    let refused = |options: &[&str]| secure_load(at, "/", &[&few, options].concat());
    // The server finds out after the client's handshake is done.
    assert_eq!(kinds(&refused(&[])), ["tls peer_alert"]);
    let stranger = own("stranger");
    assert_eq!(kinds(&refused(&stranger.iter().map(String::as_str).collect::<Vec<_>>())), ["tls peer_alert"]);
    assert_eq!(kinds(&refused(&["--suite", "aes-256-gcm"])), ["tls peer_alert"]);
    assert_eq!(kinds(&refused(&["--sni", "elsewhere.test"])), ["tls wrong_name"]);
    let other = file("other.pem");
    let report = load(&format!("https://{at}/"), &[&["--trust", other.as_str()], &few[..]].concat());
    assert_eq!((report.requests, kinds(&report)), (0, vec!["tls unknown_issuer"]));
    // Each to a target that speaks the other language.
    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = plain.local_addr().unwrap();
    std::thread::spawn(move || {
        plain.incoming().for_each(|wire| wire.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap());
    });
    assert_eq!(kinds(&secure_load(address, "/", &few)), ["tls not_tls"]);
    assert_eq!(load(&format!("http://{at}/"), &few).requests, 0);
}

#[test]
fn files_that_are_wrong_are_named() {
    let said = |options: &[&str]| {
        let words = [&["load", "https://127.0.0.1:1/"], options].concat();
        measure(&Cli::parse_from(words).load).unwrap_err().to_string()
    };
    assert!(said(&[]).contains("--trust"));
    assert!(said(&["--trust", "/nowhere"]).starts_with("/nowhere: "));
    let key = file("ca.pem");
    assert!(said(&["--trust", &key, "--certificate", &key, "--key", &key]).contains("no whole private key"));
    let wrong = Cli::try_parse_from(["load", "https://127.0.0.1:1/", "--suite", "rot13"]).map(|_| ()).unwrap_err();
    assert!(wrong.to_string().contains("chacha20-poly1305"));
}

#[test]
fn a_record_may_be_cut_anywhere() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n";
    // Two records of some 60 and 28 bytes, in two pieces.
    let length = head.len() + 6 + 2 * 22;
    for cut in 0..length {
        let at = Peer::default().start(move |wire, session| {
            request(wire, session)?;
            let mut out = Vec::new();
            session.seal(&[head], &mut out).unwrap();
            session.seal(&[b"abcdef"], &mut out).unwrap();
            assert_eq!(out.len(), length);
            pieces(wire, &out, Some(cut))
        });
        let report = secure_load(at, "/", &["-n", "1", "-c", "1", "--length", "6"]);
        assert_eq!((report.requests, report.failures()), (1, 0), "cut at {cut}: {:?}", report.errors);
    }
}

#[test]
fn the_handshake_may_be_cut_anywhere() {
    // The server's first flight has some 700 bytes.
    for cut in (0..800).step_by(37) {
        let peer = Peer { cut: Some(cut), ..Peer::default() };
        let at = peer.start(|wire, session| answer(wire, session, b"HTTP/1.1 204 No\r\n\r\n", true));
        let report = secure_load(at, "/", &["-n", "1", "-c", "1"]);
        assert_eq!((report.requests, report.failures()), (1, 0), "cut at {cut}: {:?}", report.errors);
    }
}

#[test]
fn an_end_without_close_notify_is_no_end() {
    let until_close = b"HTTP/1.1 200 OK\r\n\r\nall of it?";
    let run = |response: &'static [u8], says: bool, options: &[&str]| {
        let at = Peer::default().start(move |wire, session| answer(wire, session, response, says));
        let report = secure_load(at, "/", &[&["-n", "1", "-c", "1"], options].concat());
        (report.requests, kinds(&report).join(","))
    };
    assert_eq!(run(until_close, true, &[]), (1, String::new()));
    assert_eq!(run(until_close, false, &[]), (0, "closed without close_notify".to_owned()));
    // A whole answer has lost nothing.
    let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx";
    assert_eq!(run(whole, false, &["--no-keepalive"]), (1, String::new()));
    assert_eq!(run(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx", false, &[]).1, "closed without close_notify");
}

#[test]
fn a_record_that_was_changed_is_an_error() {
    let at = Peer::default().start(|wire, session| {
        request(wire, session)?;
        let mut out = Vec::new();
        session.seal(&[b"HTTP/1.1 204 No\r\n\r\n"], &mut out).unwrap();
        *out.last_mut().unwrap() ^= 1;
        wire.socket.write_all(&out)
    });
    assert_eq!(kinds(&secure_load(at, "/", &["-n", "1", "-c", "1"])), ["tls decrypt"]);
}

/// A TLS server of blocking calls that does as it is told.
#[derive(Clone, Copy, Default)]
struct Peer {
    tickets: bool,
    /// Where the handshake's bytes are cut.
    cut: Option<usize>,
}

impl Peer {
    /// Starts it: after each handshake `act` has the connection.
    fn start(self, act: impl Fn(&mut Wire, &mut Session) -> std::io::Result<()> + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let read = |name: &str| std::fs::read(PathBuf::from(file(name))).unwrap();
        let server = Server::new(ServerSettings {
            certificates: vec![Credential::from_pem(&read("origin.pem"), &read("origin.key")).unwrap()],
            clients: Clients::None,
            trust: None::<Trust>,
            expect: Vec::new(),
            alpn: Vec::new(),
            tickets: self.tickets.then_some(TicketKeys { current: [7; 32], previous: None }),
            clock: Clock::new(1_735_689_600),
        })
        .unwrap();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let socket = socket.unwrap();
                socket.set_nodelay(true).unwrap();
                let mut wire = Wire { socket, rest: Vec::new() };
                let mut session = Session::accept(&server).unwrap();
                // Whoever is refused has left.
                let _ = shake(&mut wire, &mut session, self.cut).and_then(|()| act(&mut wire, &mut session));
            }
        });
        at
    }
}

/// A connection, with what was read of it and not taken.
struct Wire {
    socket: TcpStream,
    rest: Vec<u8>,
}

fn shake(wire: &mut Wire, session: &mut Session, cut: Option<usize>) -> std::io::Result<()> {
    loop {
        let mut out = Vec::new();
        let step = session.handshake(&mut wire.rest, &mut out);
        wire.rest.drain(..step.consumed);
        pieces(wire, &out, cut)?;
        match step.state {
            HandshakeState::Done => return Ok(()),
            HandshakeState::Failed(failure) => return Err(std::io::Error::other(failure.text())),
            HandshakeState::More => wire.more()?,
        }
    }
}

impl Wire {
    fn more(&mut self) -> std::io::Result<()> {
        let mut chunk = [0; 4096];
        let count = self.socket.read(&mut chunk)?;
        self.rest.extend_from_slice(&chunk[..count]);
        if count == 0 { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// Reads the request, which is one record.
fn request(wire: &mut Wire, session: &mut Session) -> std::io::Result<()> {
    while Session::record_length(&wire.rest).unwrap().is_none_or(|length| length > wire.rest.len()) {
        wire.more()?;
    }
    assert!(matches!(session.open(&mut wire.rest), Ok(Opened::Data(_))));
    wire.rest.clear();
    Ok(())
}

/// Answers one request; `says`: then closes, with close_notify or without.
fn answer(wire: &mut Wire, session: &mut Session, response: &[u8], says: bool) -> std::io::Result<()> {
    request(wire, session)?;
    let mut out = Vec::new();
    session.seal(&[response], &mut out).unwrap();
    if says {
        session.close(&mut out);
    }
    wire.socket.write_all(&out)
}

/// Writes two pieces that arrive one by one.
fn pieces(wire: &mut Wire, bytes: &[u8], cut: Option<usize>) -> std::io::Result<()> {
    let (first, second) = bytes.split_at(cut.unwrap_or(0).min(bytes.len()));
    wire.socket.write_all(first)?;
    if !first.is_empty() && !second.is_empty() {
        std::thread::sleep(Duration::from_millis(3));
    }
    wire.socket.write_all(second)
}
