//! curl through the proxy.

use ringway_tests::{Origin, Proxy, peers, plain, respond};
use std::fs;
use std::process::Command;

/// Standard output of curl, which must succeed.
fn curl(proxy: &Proxy, arguments: &[&str], path: &str) -> String {
    let url = format!("http://127.0.0.1:{}{path}", proxy.port("web"));
    let output = Command::new("curl").args(["-sS", "--max-time", "20"]).args(arguments).arg(url).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn get_head_and_http_1_0() {
    let Some(_) = peers::find("curl", "curl::get_head_and_http_1_0") else { return };
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    assert!(curl(&proxy, &[], "/get?x=y").contains(r#""target":"/get?x=y""#));
    assert!(curl(&proxy, &["--http1.0"], "/old").contains(r#""target":"/old""#));
    assert!(curl(&proxy, &["-I"], "/head").starts_with("HTTP/1.1 200"));
    // An HTTP/2 upgrade is not for us: it goes on in HTTP/1.1.
    assert!(curl(&proxy, &["--http2"], "/h2c").contains(r#""target":"/h2c""#));
}

#[test]
fn ten_mebibytes_up_by_length_with_expect_and_chunked() {
    let Some(_) = peers::find("curl", "curl::ten_mebibytes_up") else { return };
    let origin = Origin::answering(|seen| respond(200, "", format!("{}", seen.body.len()).as_bytes()));
    let proxy = Proxy::start(&plain(&[&origin]));
    let file = proxy.folder().join("body");
    let body: Vec<u8> = (0..10 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(&file, &body).unwrap();
    let data = format!("@{}", file.display());
    for more in [&["-H", "X: y"][..], &["-H", "Expect: 100-continue"], &["-H", "Transfer-Encoding: chunked"]] {
        let arguments = [more, &["--data-binary", &data]].concat();
        assert_eq!(curl(&proxy, &arguments, "/up"), body.len().to_string(), "{more:?}");
        assert!(origin.seen().pop().unwrap().body == body, "{more:?}");
    }
}

#[test]
fn ten_mebibytes_down() {
    let Some(_) = peers::find("curl", "curl::ten_mebibytes_down") else { return };
    let body: Vec<u8> = (0..10 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let answer = respond(200, "", &body);
    let origin = Origin::answering(move |_| answer.clone());
    let proxy = Proxy::start(&plain(&[&origin]));
    let file = proxy.folder().join("down");
    curl(&proxy, &["-o", file.to_str().unwrap()], "/down");
    assert!(fs::read(file).unwrap() == body);
}

#[test]
fn several_urls_on_one_connection() {
    let Some(_) = peers::find("curl", "curl::several_urls_on_one_connection") else { return };
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let base = format!("http://127.0.0.1:{}", proxy.port("web"));
    let first = format!("{base}/[1-20]");
    let shown = curl(&proxy, &["-w", "%{num_connects}\n", "-o", "/dev/null", &first, "-o", "/dev/null"], "/end");
    let connects: u32 = shown.lines().map(|line| line.parse::<u32>().unwrap()).sum();
    assert_eq!((connects, origin.count()), (1, 21));
}
