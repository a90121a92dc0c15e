//! nginx behind the proxy: two of them, as a stranger would have it.

use ringway_tests::{Client, Proxy, free_port, peers};
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
