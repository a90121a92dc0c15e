//! openssl on either side: `s_client` as client, with what it says about our end of a session, and `s_server` as service.

use ringway_tests::certificates::{Authority, Leaf};
use ringway_tests::{Origin, Proxy, Run, free_port, peers};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const WEB: &str = "spiffe://shop/ns/web/sa/web";

/// A proxy that takes certificates of clients, and files for openssl in its folder: `ca.pem`, `web.pem`, `web.key`.
fn proxy(clients: &str, origin: &Origin) -> (Authority, Proxy) {
    let authority = Authority::new("root");
    let text = format!(
        "listeners:\n  web: {{ address: '127.0.0.1:$web', tls: {{ certificates: [ {{ certificate: own.pem, key: own.key }} ], {clients} }}, routes: [ {{ to: app }} ] }}\n\
         services:\n  app: {{ endpoints: [{}] }}\n",
        origin.address()
    );
    let run = Run::new(&text).file_of("ca.pem", &authority.pem()).pair("own", &authority.issue(&Leaf::of(&["a.test"])));
    let proxy = run.pair("web", &authority.issue(&Leaf::of(&[WEB]))).start();
    (authority, proxy)
}

/// What s_client says, with this input.
fn client(proxy: &Proxy, arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &format!("127.0.0.1:{}", proxy.port("web")), "-servername", "a.test"]);
    command.args(["-CAfile", "ca.pem", "-verify_return_error", "-ign_eof"]).args(arguments);
    peers::talk(command.current_dir(proxy.folder()), input.as_bytes(), Duration::from_millis(300))
}

const CLOSE: &str = "GET /from-openssl HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

#[test]
fn a_clean_close_in_both_versions() {
    let Some(_) = peers::find("openssl", "openssl::a_clean_close_in_both_versions") else { return };
    let origin = Origin::echo();
    let (_authority, proxy) = proxy("clients: none", &origin);
    for version in ["-tls1_2", "-tls1_3"] {
        let (success, told) = client(&proxy, &[version, "-alpn", "h2,http/1.1", "-msg"], CLOSE);
        assert!(success, "{told}");
        for words in ["Verification: OK", "ALPN protocol: http/1.1", "\"target\":\"/from-openssl\""] {
            assert!(told.contains(words), "{version}: {words} is not in\n{told}");
        }
        // A warning, close_notify: read from us, before the end of the connection.
        assert!(told.contains("<<< ") && told.contains("warning close_notify"), "{version}: {told}");
        assert!(!told.contains("unexpected eof"), "{version}: {told}");
    }
}

#[test]
fn certificates_of_clients() {
    let Some(_) = peers::find("openssl", "openssl::certificates_of_clients") else { return };
    let origin = Origin::echo();
    let (_authority, proxy) = proxy("clients: required, trust: ca.pem", &origin);
    for version in ["-tls1_2", "-tls1_3"] {
        let (success, told) = client(&proxy, &[version, "-cert", "web.pem", "-key", "web.key"], CLOSE);
        assert!(success && told.contains("200"), "{version}: {told}");
        assert_eq!(proxy.logged("/from-openssl")["source_identity"], WEB);
        let before = origin.count();
        let (_, told) = client(&proxy, &[version], CLOSE);
        assert!(told.contains("alert"), "{version}: {told}");
        assert_eq!(origin.count(), before, "{version}");
    }
}

#[test]
fn sessions_are_resumed() {
    let Some(_) = peers::find("openssl", "openssl::sessions_are_resumed") else { return };
    let origin = Origin::echo();
    let (_authority, proxy) = proxy("clients: required, trust: ca.pem", &origin);
    for version in ["-tls1_2", "-tls1_3"] {
        let own = ["-cert", "web.pem", "-key", "web.key", version];
        let (success, told) = client(&proxy, &[&own[..], &["-sess_out", "session.pem"]].concat(), CLOSE);
        assert!(success && told.contains("New, TLSv1"), "{version}: {told}");
        let (success, told) = client(&proxy, &[&own[..], &["-sess_in", "session.pem"]].concat(), CLOSE);
        assert!(success && told.contains("Reused, TLSv1") && told.contains("200"), "{version}: {told}");
    }
}

#[test]
fn downgrades_and_renegotiation_are_refused() {
    let Some(_) = peers::find("openssl", "openssl::downgrades_and_renegotiation_are_refused") else { return };
    let origin = Origin::echo();
    let (_authority, proxy) = proxy("clients: none", &origin);
    for version in ["-tls1", "-tls1_1"] {
        let (success, told) = client(&proxy, &[version, "-cipher", "ALL:@SECLEVEL=0"], CLOSE);
        assert!(!success || told.contains("Cipher is (NONE)"), "{version}: {told}");
    }
    for cipher in [
        "AES128-SHA",
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-ECDSA-AES128-SHA256",
        "NULL-SHA256:@SECLEVEL=0",
        "ADH-AES128-SHA256:@SECLEVEL=0",
    ] {
        let (success, told) = client(&proxy, &["-tls1_2", "-cipher", cipher], CLOSE);
        assert!(!success || told.contains("Cipher is (NONE)"), "{cipher}: {told}");
    }
    // `R` alone on a line asks for a renegotiation: without -ign_eof, which would send it on.
    let mut command = Command::new("openssl");
    let at = format!("127.0.0.1:{}", proxy.port("web"));
    command.args(["s_client", "-connect", &at, "-servername", "a.test", "-tls1_2"]);
    let (_, told) = peers::talk(&mut command, b"R\n", Duration::from_millis(800));
    assert!(told.contains("RENEGOTIATING"), "{told}");
    assert!(told.contains("Secure Renegotiation IS"), "{told}");
    // An alert that can be read, or the end; not a session that neither works nor ends.
    let refused = ["no renegotiation", "unexpected message", "handshake failure", "unexpected eof", "errno=", "closed"];
    assert!(refused.iter().any(|words| told.contains(words)), "{told}");
    assert!(!told.contains("(KILLED)") && !told.contains("bad record mac"), "{told}");
    assert_eq!(origin.count(), 0);
}

#[test]
fn keys_are_updated_when_asked() {
    let Some(_) = peers::find("openssl", "openssl::keys_are_updated_when_asked") else { return };
    let origin = Origin::echo();
    let (_authority, proxy) = proxy("clients: none", &origin);
    // `K` asks for new keys of both sides, `k` renews the client's: then a request, pipelined behind them.
    for update in ["K\n", "k\n"] {
        let mut command = Command::new("openssl");
        let at = format!("127.0.0.1:{}", proxy.port("web"));
        command.args(["s_client", "-connect", &at, "-servername", "a.test", "-tls1_3", "-msg", "-crlf"]);
        let mut child = command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        use std::io::Write;
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(250));
            stdin.write_all(update.as_bytes()).unwrap();
            stdin.flush().unwrap();
            std::thread::sleep(Duration::from_millis(250));
            stdin.write_all(b"GET /updated HTTP/1.1\nHost: a.test\n\n").unwrap();
        }
        std::thread::sleep(Duration::from_millis(500));
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(told.matches("\"target\":\"/updated\"").count(), 3, "{told}");
        let (sent, received) = (
            told.matches(">>> TLS 1.3, Handshake [length 0005], KeyUpdate").count(),
            told.matches("<<< TLS 1.3, Handshake [length 0005], KeyUpdate").count(),
        );
        assert_eq!((sent, received), (3, if update == "K\n" { 3 } else { 0 }), "{told}");
    }
}

#[test]
fn early_data_of_a_session_that_allows_it_is_not_taken() {
    let Some(_) = peers::find("openssl", "openssl::early_data") else { return };
    let origin = Origin::echo();
    let (_authority, proxy) = proxy("clients: none", &origin);
    fs::write(proxy.folder().join("early"), "GET /early HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
    // A server of the same name that takes it gives the session.
    let (_server, port) = server(proxy.folder(), &["-early_data", "-tls1_3"], "own");
    let mut command = Command::new("openssl");
    let at = format!("127.0.0.1:{port}");
    command.args(["s_client", "-connect", &at, "-servername", "a.test", "-tls1_3", "-sess_out", "session.pem"]);
    let (_, told) = peers::talk(command.current_dir(proxy.folder()), b"x\n", Duration::from_millis(300));
    assert!(told.contains("Max Early Data: 16384"), "{told}");
    let (_, told) = client(&proxy, &["-tls1_3", "-sess_in", "session.pem", "-early_data", "early"], CLOSE);
    assert!(!told.contains("Early data was accepted"), "{told}");
    // And one of our own session.
    let (success, told) = client(&proxy, &["-tls1_3", "-sess_out", "session.pem"], CLOSE);
    assert!(success, "{told}");
    assert!(!told.contains("Max Early Data: 1"), "{told}");
    let (_, told) = client(&proxy, &["-tls1_3", "-sess_in", "session.pem", "-early_data", "early"], CLOSE);
    assert!(!told.contains("Early data was accepted"), "{told}");
    assert!(origin.seen().iter().all(|seen| seen.head.word(1) != "/early"), "early data came through");
}

/// s_server with the pair of this name in a folder.
fn server(folder: &Path, arguments: &[&str], name: &str) -> (peers::Peer, u16) {
    let port = free_port();
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-quiet", "-CAfile", "ca.pem"]);
    command.args(["-cert", &format!("{name}.pem"), "-key", &format!("{name}.key")]).args(arguments);
    (peers::Peer::start(command.current_dir(folder), port), port)
}

#[test]
fn a_service_of_s_server() {
    let Some(_) = peers::find("openssl", "openssl::a_service_of_s_server") else { return };
    let authority = Authority::new("root");
    let folder = tempfile::TempDir::new().unwrap();
    fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    authority.issue(&Leaf::of(&["spiffe://shop/ns/cart/sa/cart"])).put(folder.path(), "cart");
    fs::write(folder.path().join("page"), vec![b'p'; 300_000]).unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        // -HTTP serves files, and closes behind each; -Verify wants a certificate.
        let (_server, port) =
            server(folder.path(), &["-HTTP", "-Verify", "3", "-verify_return_error", version], "cart");
        let text = format!(
            "identity: {{ certificate: web.pem, key: web.key, trust: ca.pem }}\n\
             listeners:\n  web: {{ address: '127.0.0.1:$web', routes: [ {{ to: app }} ] }}\n\
             services:\n  app: {{ endpoints: [127.0.0.1:{port}], tls: {{ expect: 'spiffe://shop/ns/cart/**' }} }}\n"
        );
        let run = Run::new(&text).file_of("ca.pem", &authority.pem());
        let proxy = run.pair("web", &authority.issue(&Leaf::of(&[WEB]))).start();
        fs::write(
            folder.path().join("answer"),
            format!("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n{}", "p".repeat(300_000)),
        )
        .unwrap();
        for _ in 0..3 {
            let answer = proxy.client().get("/answer");
            let whole = answer.status == 200 && answer.body == vec![b'p'; 300_000];
            assert!(whole, "{version}: {} {:?}", answer.status, proxy.log());
        }
        let line = proxy.logged("/answer");
        assert_eq!(line["destination_identity"], "spiffe://shop/ns/cart/sa/cart", "{line}");
    }
}
