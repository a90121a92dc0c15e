//! TLS passed through between programs that share nothing with us: curl and openssl before, openssl behind; and what an Envoy with the
//! same resources does.

use crate::envoy::static_bootstrap;
use prost::Message;
use ringway_tests::certificates::{Authority, Leaf};
use ringway_tests::tls::{Server, Tls};
use ringway_tests::{Origin, Proxy, Run, answers, free_port, peers, respond};
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

/// A service that tells its name, with a certificate for this one.
fn origin(authority: &Authority, certificate: &str, name: &'static str) -> Origin {
    let own = authority.issue(&Leaf::of(&[certificate]));
    Origin::secure(
        &Server::new(&own),
        answers(move |seen| respond(200, "X-Who: y\r\n", format!("{name} {}", seen.body.len()).as_bytes())),
    )
}

#[test]
fn curl_reaches_the_service_of_the_name() {
    let Some(_) = peers::find("curl", "passthrough::curl_reaches_the_service_of_the_name") else { return };
    let authority = Authority::new("root");
    let (a, b) = (origin(&authority, "a.test", "a"), origin(&authority, "*.b.test", "b"));
    let text = format!(
        "listeners:\n  web: {{ address: '127.0.0.1:$web', protocol: tls-passthrough, hosts: [ {{ names: [a.test], to: a }}, {{ names: ['*.b.test'], to: b }} ] }}\n\
         services:\n  a: {{ endpoints: [{}] }}\n  b: {{ endpoints: [{}] }}\n",
        a.address(),
        b.address()
    );
    let proxy = Run::new(&text).file_of("ca.pem", &authority.pem()).start();
    let port = proxy.port("web");
    let curl = |name: &str, arguments: &[&str]| {
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "20", "--cacert", "ca.pem", "--resolve", &format!("*:{port}:127.0.0.1")])
            .args(arguments)
            .arg(format!("https://{name}:{port}/"))
            .current_dir(proxy.folder())
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    fs::write(proxy.folder().join("body"), vec![7; 3_000_000]).unwrap();
    for version in [&["--tlsv1.3"][..], &["--tls-max", "1.2"]] {
        assert_eq!(curl("a.test", version), (true, "a 0".to_owned()));
        assert_eq!(curl("x.b.test", version), (true, "b 0".to_owned()));
        assert_eq!(curl("a.test", &[version, &["--data-binary", "@body"]].concat()), (true, "a 3000000".to_owned()));
        assert!(!curl("c.test", version).0);
    }
    let line = proxy.logged_ending("passthrough_refused");
    assert_eq!((line["sni"].as_str(), line["detail"].as_str()), (Some("c.test"), Some("unknown_name")), "{line}");
}

#[test]
fn a_hello_of_several_records_between_openssl_and_openssl() {
    let Some(_) = peers::find("openssl", "passthrough::a_hello_of_several_records") else { return };
    let authority = Authority::new("root");
    let folder = tempfile::TempDir::new().unwrap();
    authority.issue(&Leaf::of(&["a.test"])).put(folder.path(), "own");
    let port = free_port();
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-cert", "own.pem", "-key", "own.key", "-www"]);
    let _server = peers::Peer::start(command.current_dir(folder.path()), port);
    let text = format!(
        "listeners:\n  web: {{ address: '127.0.0.1:$web', protocol: tls-passthrough, hosts: [ {{ names: [a.test], to: app }} ] }}\n\
         services:\n  app: {{ endpoints: ['127.0.0.1:{port}'] }}\n"
    );
    let proxy = Run::new(&text).file_of("ca.pem", &authority.pem()).start();
    // 20,000 bytes of protocols that nobody knows: more than one record has room for.
    let names: Vec<String> = (0..100).map(|n| format!("{n:0200}")).collect();
    let names = names.join(",");
    let to = format!("127.0.0.1:{}", proxy.port("web"));
    for more in [&[][..], &["-alpn", &names], &["-max_send_frag", "512"], &["-max_send_frag", "512", "-alpn", &names]] {
        for version in ["-tls1_2", "-tls1_3"] {
            let mut command = Command::new("openssl");
            command.args(["s_client", "-connect", &to, "-servername", "a.test", "-CAfile", "ca.pem", "-ign_eof"]);
            command.args(["-verify_return_error", version]).args(more);
            let request = b"GET / HTTP/1.0\r\n\r\n";
            let (success, told) = peers::talk(command.current_dir(proxy.folder()), request, Duration::from_millis(300));
            assert!(success && told.contains("HTTP/1.0 200"), "{version} {} words: {told}", more.len());
        }
    }
    let mut sent: Vec<u64> = proxy.log().iter().filter_map(|line| line["request_bytes"].as_u64()).collect();
    sent.sort_unstable();
    assert!(sent.last().is_some_and(|most| *most > 20_000), "no hello was large: {sent:?}");
}

#[test]
fn an_envoy_sends_each_name_to_the_same_service() {
    let Some(program) = peers::find("envoy", "passthrough::an_envoy_sends_each_name") else { return };
    let authority = Authority::new("root");
    let services = ["exact", "wild", "deep", "rest"].map(|name| (name, origin(&authority, "any.test", name)));
    let of_services: String =
        services.iter().map(|(name, of)| format!("  {name}: {{ endpoints: [{}] }}\n", of.address())).collect();
    let text = format!(
        "listeners:\n  \
         open: {{ address: '127.0.0.1:$open', protocol: tls-passthrough, hosts: [ {{ names: [a.test, b.test], to: exact }}, {{ names: ['*.b.test'], to: wild }}, {{ names: ['*.c.b.test'], to: deep }}, {{ names: ['*'], to: rest }} ] }}\n  \
         shut: {{ address: '127.0.0.1:$shut', protocol: tls-passthrough, hosts: [ {{ names: [a.test], to: exact }}, {{ names: ['*.b.test'], to: wild }} ] }}\n  \
         denied: {{ address: '127.0.0.1:$denied', protocol: tls-passthrough, to: rest, deny: [ {{ name: here, source: 127.0.0.0/8 }} ] }}\n\
         services:\n{of_services}"
    );
    let proxy = Proxy::start(&text);
    let mut theirs = fs::read_to_string(proxy.file()).unwrap().replace("access.log", "envoy.log");
    let mut place = |name: &str| {
        let port = free_port();
        theirs = theirs.replace(&format!(":{}", proxy.port(name)), &format!(":{port}"));
        (proxy.address(name), SocketAddr::from(([127, 0, 0, 1], port)))
    };
    let [open, shut, denied, _admin] = ["open", "shut", "denied", "admin"].map(&mut place);
    let document = api::load(&theirs, "envoy.yaml").expect("a good document");
    let file = proxy.folder().join("envoy.pb");
    fs::write(&file, static_bootstrap(api::translate(&document)).encode_to_vec()).unwrap();
    let mut command = Command::new(program);
    command.args(["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id", "-c"]).arg(&file);
    let _envoy = peers::Peer::start(&mut command, denied.1.port());
    let who = |to: SocketAddr, name: Option<&str>| {
        let tls = Tls::trusting(&[&authority]).any_name();
        let tls = if name.is_none() { tls.no_name() } else { tls };
        let mut client = tls.try_connect(to, name.unwrap_or("any.test")).ok()?;
        client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
        Some(client.try_answer("GET").ok()?.text().split(' ').next()?.to_owned())
    };
    for name in [
        Some("a.test"),
        Some("A.Test"),
        Some("b.test"),
        Some("x.b.test"),
        Some("x.y.b.test"),
        Some("c.b.test"),
        Some("x.c.b.test"),
        Some("xb.test"),
        Some("x.a.test"),
        Some("test"),
        None,
    ] {
        for (ours, theirs) in [open, shut, denied] {
            assert_eq!(who(ours, name), who(theirs, name), "{name:?}");
        }
        assert!(who(open.0, name).is_some() && who(denied.0, name).is_none(), "{name:?}");
    }
    assert_eq!(who(open.0, Some("x.c.b.test")).as_deref(), Some("deep"));
    assert_eq!(who(shut.0, None), None);
}
