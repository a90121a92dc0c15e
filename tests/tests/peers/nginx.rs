//! nginx behind the proxy: two of them, as a stranger would have it.

use ringway_tests::certificates::{Authority, Leaf};
use ringway_tests::{Client, Proxy, Run, free_port, peers};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Starts an nginx that serves files from a folder of its own and says its name.
fn nginx(program: &Path, folder: &Path, name: &str) -> (peers::Peer, u16) {
    let (port, place) = (free_port(), folder.join(name));
    fs::create_dir_all(place.join("html")).unwrap();
    fs::write(place.join("html/small.txt"), "small").unwrap();
    fs::write(place.join("html/large.bin"), vec![b'n'; 5_000_000]).unwrap();
    let text = format!(
        "daemon off; worker_processes 1; pid {place}/pid; error_log {place}/error.log;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off; client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;\n\
         uwsgi_temp_path {place}/u; scgi_temp_path {place}/s; keepalive_requests 7; types {{ text/plain txt; }} gzip on; gzip_min_length 1; gzip_proxied any; gzip_types text/plain;\n\
         server {{ listen 127.0.0.1:{port}; root {place}/html; add_header X-Origin {name};\n\
         location /chunked {{ return 200 'body of {name}'; }} }} }}\n",
        place = place.display()
    );
    let file = place.join("nginx.conf");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(program);
    command.arg("-p").arg(&place).arg("-c").arg(&file).arg("-e").arg(place.join("error.log"));
    (peers::Peer::start(&mut command, port), port)
}

fn proxy(ports: &[u16]) -> Proxy {
    let endpoints: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    Proxy::start(&format!(
        "listeners:\n  web: {{ address: 127.0.0.1:$web, routes: [ {{ to: app }} ] }}\nservices:\n  app: {{ endpoints: [{}], balance: round-robin }}\n",
        endpoints.join(", ")
    ))
}

#[test]
fn two_of_them_take_turns_and_one_may_die() {
    let Some(program) = peers::find("nginx", "nginx::two_of_them_take_turns_and_one_may_die") else { return };
    let folder = tempfile::TempDir::new().unwrap();
    let (one, port_one) = nginx(&program, folder.path(), "one");
    let (_two, port_two) = nginx(&program, folder.path(), "two");
    let proxy = proxy(&[port_one, port_two]);
    let mut client = proxy.client();
    let mut count = |times: usize| {
        let mut names = [0, 0];
        for _ in 0..times {
            let answer = client.get("/small.txt");
            assert_eq!((answer.status, answer.text()), (200, "small"));
            names[usize::from(answer.field("x-origin") == Some("two"))] += 1;
        }
        names
    };
    // nginx ends each connection after seven requests: that must not show.
    assert_eq!(count(100), [50, 50]);
    drop(one);
    assert_eq!(count(50)[1], 50);
}

#[test]
fn files_ranges_validators_and_errors_pass() {
    let Some(program) = peers::find("nginx", "nginx::files_ranges_validators_and_errors_pass") else { return };
    let folder = tempfile::TempDir::new().unwrap();
    let (_one, port) = nginx(&program, folder.path(), "one");
    let proxy = proxy(&[port]);
    let mut client: Client = proxy.client();
    let large = client.get("/large.bin");
    assert!(large.body == vec![b'n'; 5_000_000]);
    let range = client.get_with("/large.bin", "Range: bytes=10-19\r\n");
    assert_eq!((range.status, range.body.len(), range.field("content-range")), (206, 10, Some("bytes 10-19/5000000")));
    let tag = large.field("etag").unwrap();
    let same = client.get_with("/large.bin", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((same.status, same.body.len()), (304, 0));
    assert_eq!(client.get("/none").status, 404);
    let packed = client.get_with("/small.txt", "Accept-Encoding: gzip\r\n");
    assert_eq!((packed.field("content-encoding"), packed.head.chunked()), (Some("gzip"), true));
    client.send("HEAD /large.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.try_answer("HEAD").unwrap().field("content-length"), Some("5000000"));
    client.send("POST /small.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").send(vec![b'x'; 100_000]);
    assert_eq!(client.try_answer("POST").unwrap().status, 405);
    assert_eq!(proxy.client().get("/chunked").text(), "body of one");
}

/// nginx over TLS, which wants a certificate of `ca.pem` and tells who showed it.
fn secure(program: &Path, folder: &Path, versions: &str) -> (peers::Peer, u16) {
    let (port, place) = (free_port(), folder.display().to_string());
    fs::create_dir_all(folder.join("html")).unwrap();
    fs::write(folder.join("html/large.bin"), vec![b'n'; 5_000_000]).unwrap();
    let text = format!(
        "daemon off; worker_processes 1; pid {place}/pid; error_log {place}/error.log;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off; client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;\n\
         uwsgi_temp_path {place}/u; scgi_temp_path {place}/s; keepalive_requests 7; client_max_body_size 20m;\n\
         server {{ listen 127.0.0.1:{port} ssl; root {place}/html; ssl_certificate {place}/own.pem; ssl_certificate_key {place}/own.key;\n\
         ssl_protocols {versions}; ssl_client_certificate {place}/ca.pem; ssl_verify_client on;\n\
         add_header X-Verify $ssl_client_verify; add_header X-Protocol $ssl_protocol; add_header X-Reused $ssl_session_reused;\n\
         add_header X-Name $ssl_server_name; add_header X-Serial $ssl_client_serial;\n\
         location /who {{ return 200 'hello'; }} }} }}\n",
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(program);
    command.arg("-p").arg(folder).arg("-c").arg(&file).arg("-e").arg(folder.join("error.log"));
    (peers::Peer::start(&mut command, port), port)
}

#[test]
fn over_tls_it_verifies_us_and_we_verify_it() {
    let Some(program) = peers::find("nginx", "nginx::over_tls") else { return };
    let authority = Authority::new("root");
    for (versions, protocol) in [("TLSv1.2", "TLSv1.2"), ("TLSv1.3", "TLSv1.3"), ("TLSv1.2 TLSv1.3", "TLSv1.3")] {
        let folder = tempfile::TempDir::new().unwrap();
        authority.issue(&Leaf::of(&["nginx.test"])).put(folder.path(), "own");
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let (_nginx, port) = secure(&program, folder.path(), versions);
        let own = authority.issue(&Leaf::of(&["spiffe://shop/ns/edge/sa/edge"]));
        let text = |expect: &str, more: &str| {
            format!(
                "identity: {{ certificate: edge.pem, key: edge.key, trust: ca.pem }}\n\
                 listeners:\n  web: {{ address: '127.0.0.1:$web', routes: [ {{ to: app }} ] }}\n\
                 services:\n  app: {{ endpoints: [127.0.0.1:{port}], tls: {{ expect: {expect}, trust: ca.pem, {more} }} }}\n"
            )
        };
        let start = |text: String| Run::new(&text).file_of("ca.pem", &authority.pem()).pair("edge", &own).start();
        let proxy = start(text("nginx.test", "sni: nginx.test"));
        let mut reused = 0;
        let mut client = proxy.client();
        for n in 0..30 {
            let answer = client.get("/who");
            assert_eq!((answer.status, answer.text()), (200, "hello"), "{n}");
            assert_eq!((answer.field("x-verify"), answer.field("x-protocol")), (Some("SUCCESS"), Some(protocol)));
            assert_eq!(answer.field("x-name"), Some("nginx.test"));
            let serial = u64::from_str_radix(answer.field("x-serial").unwrap(), 16).unwrap();
            assert_eq!(serial, own.serial);
            reused += u32::from(answer.field("x-reused") == Some("r"));
        }
        // Seven requests a connection, of which all but the first are resumed.
        assert!(reused >= 20, "{reused}");
        assert!(client.get("/large.bin").body == vec![b'n'; 5_000_000]);
        // Without ours it answers 400 of its own; with another name it gets nothing from us.
        assert_eq!(start(text("nginx.test", "offer-identity: false")).client().get("/who").status, 400);
        assert_eq!(start(text("other.test", "sni: nginx.test")).client().get("/who").status, 503);
    }
}
