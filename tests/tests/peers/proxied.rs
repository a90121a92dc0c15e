//! PROXY headers from and to programs that share nothing with us: haproxy before and behind, nginx behind, curl before, and what an Envoy
//! with the same resources does.

use crate::envoy::static_bootstrap;
use prost::Message;
use ringway_tests::certificates::{Authority, Leaf};
use ringway_tests::{Client, Origin, Proxy, Run, eventually, free_port, peers, respond};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

const FROM: &str = "proxy-protocol: { from: 127.0.0.0/8 },";

/// What curl prints that comes from another address of this host than the usual.
fn curl(arguments: &[&str], url: &str) -> String {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "20", "--interface", "127.0.0.5"])
        .args(arguments)
        .arg(url)
        .output()
        .unwrap();
    assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn haproxy(program: &Path, folder: &Path, sections: &str, port: u16) -> peers::Peer {
    let file = folder.join(format!("haproxy-{port}.cfg"));
    let text = format!(
        "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 10s\n  timeout server 10s\n{sections}"
    );
    fs::write(&file, text).unwrap();
    peers::Peer::start(Command::new(program).arg("-db").arg("-f").arg(&file), port)
}

#[test]
fn haproxy_tells_us_the_client() {
    let (Some(program), Some(_)) =
        (peers::find("haproxy", "proxied::haproxy_tells"), peers::find("curl", "proxied::haproxy_tells"))
    else {
        return;
    };
    let origin = Origin::echo();
    let authority = Authority::new("root");
    let text = format!(
        "listeners:\n  web: {{ address: '127.0.0.1:$web', {FROM} routes: [ {{ to: app }} ] }}\n  \
         secure: {{ address: '127.0.0.1:$secure', {FROM} tls: {{ certificates: [ {{ certificate: own.pem, key: own.key }} ] }}, routes: [ {{ to: app }} ] }}\n\
         services:\n  app: {{ endpoints: [{}] }}\n",
        origin.address()
    );
    let run = Run::new(&text).file_of("ca.pem", &authority.pem());
    let proxy = run.pair("own", &authority.issue(&Leaf::of(&["a.test"]))).start();
    let [v1, v2, tlvs, secure] = [(); 4].map(|()| free_port());
    let (web, tls) = (proxy.port("web"), proxy.port("secure"));
    let sections = format!(
        "listen v1\n  bind 127.0.0.1:{v1}\n  server us 127.0.0.1:{web} send-proxy check inter 100ms\n\
         listen v2\n  bind 127.0.0.1:{v2}\n  server us 127.0.0.1:{web} send-proxy-v2 check inter 100ms\n\
         listen tlvs\n  bind 127.0.0.1:{tlvs}\n  unique-id-format %[uuid()]\n  server us 127.0.0.1:{web} send-proxy-v2-ssl-cn proxy-v2-options crc32c,unique-id,ssl,cert-cn\n\
         listen secure\n  bind 127.0.0.1:{secure}\n  server us 127.0.0.1:{tls} send-proxy-v2\n"
    );
    let _haproxy = haproxy(&program, proxy.folder(), &sections, v1);
    for (number, port) in [v1, v2, tlvs].into_iter().enumerate() {
        let path = format!("/{number}");
        assert!(curl(&[], &format!("http://127.0.0.1:{port}{path}")).contains(&path));
        assert_eq!(origin.seen().pop().unwrap().head.field("x-forwarded-for"), Some("127.0.0.5"));
        let source = proxy.logged(&path)["source"].as_str().unwrap().to_owned();
        assert!(source.starts_with("127.0.0.5:"), "{source}");
    }
    let ca = proxy.folder().join("ca.pem");
    let to = format!("a.test:{secure}:127.0.0.1");
    curl(&["--cacert", ca.to_str().unwrap(), "--resolve", &to], &format!("https://a.test:{secure}/tls"));
    let line = proxy.logged("/tls");
    assert!(line["source"].as_str().unwrap().starts_with("127.0.0.5:") && line["tls"] == "TLSv1.3", "{line}");
    // Its own checks connect with headers that name nobody, and are no refusals.
    let accepted = || proxy.metrics().total("ringway_connections_accepted_total", &[]);
    let before = accepted();
    eventually("checks go on", || accepted() > before + 4.0);
    let refused = proxy.metrics().total("ringway_endings_total", &[("ending", "proxy_header")]);
    assert_eq!(refused, 0.0, "{:?}", proxy.log());
}

#[test]
fn curl_tells_us_itself() {
    let Some(_) = peers::find("curl", "proxied::curl_tells_us_itself") else { return };
    let origin = Origin::echo();
    let proxy = Proxy::start(&format!(
        "listeners:\n  web: {{ address: '127.0.0.1:$web', {FROM} routes: [ {{ to: app }} ] }}\nservices:\n  app: {{ endpoints: [{}] }}\n",
        origin.address()
    ));
    let url = format!("http://127.0.0.1:{}/[1-3]", proxy.port("web"));
    curl(&["--haproxy-protocol"], &url);
    assert_eq!(origin.count(), 3);
    let seen = origin.seen();
    assert!(seen.iter().all(|seen| seen.head.field("x-forwarded-for") == Some("127.0.0.5")));
    // Without one it gets no answer.
    let output = Command::new("curl").args(["-sS", "--max-time", "20", &url]).output().unwrap();
    assert!(!output.status.success());
}

/// The client and whom it connected to, as a service tells them that was told.
fn told(proxy: &Proxy) -> (String, String) {
    let told = curl(&[], &format!("http://127.0.0.1:{}/", proxy.port("web")));
    let (source, destination) = told.trim_end().split_once(' ').unwrap_or_else(|| panic!("{told:?}"));
    (source.to_owned(), destination.to_owned())
}

#[test]
fn haproxy_and_nginx_are_told_the_client() {
    let (Some(program), Some(nginx), Some(_)) = (
        peers::find("haproxy", "proxied::are_told"),
        peers::find("nginx", "proxied::are_told"),
        peers::find("curl", "proxied::are_told"),
    ) else {
        return;
    };
    let authority = Authority::new("root");
    let folder = tempfile::TempDir::new().unwrap();
    authority.issue(&Leaf::of(&["a.test"])).put(folder.path(), "own");
    let pair = ["own.pem", "own.key"].map(|name| fs::read_to_string(folder.path().join(name)).unwrap());
    fs::write(folder.path().join("both.pem"), pair.concat()).unwrap();
    let [plain, secure, page] = [(); 3].map(|()| free_port());
    let answer = "  mode http\n  http-request return status 200 content-type text/plain lf-string \"%[src]:%[src_port] %[dst]:%[dst_port]\"\n";
    let sections = format!(
        "frontend plain\n  bind 127.0.0.1:{plain} accept-proxy\n{answer}\
         frontend secure\n  bind 127.0.0.1:{secure} accept-proxy ssl crt {}\n{answer}",
        folder.path().join("both.pem").display()
    );
    let _haproxy = haproxy(&program, folder.path(), &sections, plain);
    let place = folder.path().display();
    let config = format!(
        "daemon off; worker_processes 1; pid {place}/pid; error_log {place}/error.log;\nevents {{ }}\n\
         http {{ access_log off; client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;\n\
         uwsgi_temp_path {place}/u; scgi_temp_path {place}/s; server {{ listen 127.0.0.1:{page} proxy_protocol; location / {{ return 200 \
         '$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port'; }} }} }}\n"
    );
    fs::write(folder.path().join("nginx.conf"), config).unwrap();
    let mut command = Command::new(nginx);
    command.arg("-p").arg(folder.path()).arg("-c").arg(folder.path().join("nginx.conf"));
    let _nginx = peers::Peer::start(command.arg("-e").arg(folder.path().join("error.log")), page);
    for version in ["v1", "v2"] {
        for (port, tls) in [(plain, ""), (page, ""), (secure, "tls: { expect: a.test, trust: ca.pem },")] {
            let text = format!(
                "listeners:\n  web: {{ address: '127.0.0.1:$web', routes: [ {{ to: app }} ] }}\n\
                 services:\n  app: {{ {tls} proxy-protocol: {version}, endpoints: ['127.0.0.1:{port}'] }}\n"
            );
            let proxy = Run::new(&text).file_of("ca.pem", &authority.pem()).start();
            let (source, destination) = told(&proxy);
            assert!(source.starts_with("127.0.0.5:"), "{version} {port}: {source}");
            assert_eq!(destination, proxy.address("web").to_string(), "{version} {port}");
        }
    }
}

/// The headers that begin an origin's connections.
type Headers = Arc<Mutex<Vec<Vec<u8>>>>;

/// An origin that takes a header before each connection.
fn listening(headers: &Headers) -> Origin {
    let headers = headers.clone();
    Origin::new(move |conversation| {
        let Some(mut header) = conversation.read(16) else { return };
        if header.starts_with(b"PROXY ") {
            while !header.ends_with(b"\r\n") {
                header.extend(conversation.read(1).unwrap_or_else(|| b"\r\n".to_vec()));
            }
        } else {
            header.extend(conversation.read(header[15].into()).unwrap_or_default());
        }
        headers.lock().unwrap().push(header);
        while conversation.request().is_some() {
            conversation.send(respond(200, "", b"x"));
        }
    })
}

#[test]
fn an_envoy_refuses_and_tells_the_same() {
    let Some(program) = peers::find("envoy", "proxied::an_envoy_refuses_and_tells_the_same") else { return };
    let headers = Headers::default();
    let origin = listening(&headers);
    let text = format!(
        "listeners:\n  \
         one: {{ address: '127.0.0.1:$one', {FROM} routes: [ {{ to: first }} ] }}\n  \
         two: {{ address: '127.0.0.1:$two', {FROM} routes: [ {{ to: second }} ] }}\n  \
         far: {{ address: '127.0.0.1:$far', proxy-protocol: {{ from: 10.0.0.0/8 }}, routes: [ {{ to: second }} ] }}\n\
         services:\n  first: {{ endpoints: [{0}], proxy-protocol: v1 }}\n  second: {{ endpoints: [{0}], proxy-protocol: v2 }}\n",
        origin.address()
    );
    let proxy = Proxy::start(&text);
    let mut theirs = fs::read_to_string(proxy.file()).unwrap().replace("access.log", "envoy.log");
    let mut place = |name: &str| {
        let port = free_port();
        theirs = theirs.replace(&format!(":{}", proxy.port(name)), &format!(":{port}"));
        (proxy.address(name), SocketAddr::from(([127, 0, 0, 1], port)))
    };
    let [one, two, far, _admin] = ["one", "two", "far", "admin"].map(&mut place);
    let document = api::load(&theirs, "envoy.yaml").expect("a good document");
    let file = proxy.folder().join("envoy.pb");
    fs::write(&file, static_bootstrap(api::translate(&document)).encode_to_vec()).unwrap();
    let mut command = Command::new(program);
    command.args(["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id", "-c"]).arg(&file);
    let _envoy = peers::Peer::start(&mut command, far.1.port());
    let v2 = |command: u8, family: u8, rest: &[u8]| {
        [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, family, 0, rest.len() as u8][..], rest].concat()
    };
    // Each says another client: an Envoy uses a connection again for the same one.
    let v4 = [192, 0, 2, 8, 198, 51, 100, 1, 0x13, 0x88, 1, 0xBB];
    let begins: &[(&[u8], bool)] = &[
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n", true),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\n", true),
        (&v2(1, 0x11, &v4), true),
        (&v2(1, 0x11, &[192, 0, 2, 9, 198, 51, 100, 1, 0x13, 0x88, 1, 0xBB, 4, 0, 2, 9, 9]), true),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 5000\r\n", false),
        (b"PROXY TCP4 192.0.2.700 198.51.100.1 5000 443\r\n", false),
        (b"PROXY UDP4 192.0.2.7 198.51.100.1 5000 443\r\n", false),
        (&v2(1, 0x11, &v4[..11]), false),
        (&v2(3, 0x11, &v4), false),
        (b"", false),
    ];
    // What the service is told, or nothing if the connection is refused.
    let outcome = |to: SocketAddr, begin: &[u8]| {
        headers.lock().unwrap().clear();
        let mut client = Client::to(to);
        client.send([begin, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"].concat());
        let answered = client.try_answer("GET").is_ok_and(|answer| answer.status == 200);
        let header = headers.lock().unwrap().pop();
        assert_eq!(answered, header.is_some(), "{to} {} {header:?}", begin.escape_ascii());
        header
    };
    for (begin, good) in begins {
        for (ours, theirs) in [one, two] {
            let ours = outcome(ours, begin);
            assert_eq!(ours.is_some(), *good, "{}", begin.escape_ascii());
            assert_eq!(ours, outcome(theirs, begin), "{}", begin.escape_ascii());
        }
        assert_eq!((outcome(far.0, begin), outcome(far.1, begin)), (None, None), "{}", begin.escape_ascii());
    }
}
