//! curl through the proxy.

use ringway_tests::certificates::{Authority, Leaf};
use ringway_tests::{Origin, Proxy, Run, peers, plain, respond};
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

/// A proxy with TLS for `a.test` that takes certificates of clients; what curl needs lies in its folder.
fn secure(origin: &Origin) -> Proxy {
    let authority = Authority::new("root");
    let text = format!(
        "listeners:\n  web: {{ address: '127.0.0.1:$web', tls: {{ certificates: [ {{ certificate: own.pem, key: own.key }} ], clients: optional, trust: ca.pem }}, routes: [ {{ to: app }} ] }}\n\
         services:\n  app: {{ endpoints: [{}] }}\n",
        origin.address()
    );
    let run = Run::new(&text).file_of("ca.pem", &authority.pem());
    let run =
        run.pair("own", &authority.issue(&Leaf::of(&["a.test"]))).pair("web", &authority.issue(&Leaf::of(&[WEB])));
    run.pair("old", &authority.issue(&Leaf::of(&[WEB]).expired())).start()
}

const WEB: &str = "spiffe://shop/ns/web/sa/web";

/// Whether curl succeeded, and what it printed.
fn secure_curl(proxy: &Proxy, arguments: &[&str], path: &str) -> (bool, Vec<u8>) {
    let port = proxy.port("web");
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "20", "--cacert", "ca.pem", "--resolve", &format!("a.test:{port}:127.0.0.1")])
        .args(arguments)
        .arg(format!("https://a.test:{port}{path}"))
        .current_dir(proxy.folder())
        .output()
        .unwrap();
    (output.status.success(), if output.status.success() { output.stdout } else { output.stderr })
}

#[test]
fn over_tls_with_and_without_a_certificate() {
    let Some(_) = peers::find("curl", "curl::over_tls") else { return };
    let origin = Origin::echo();
    let proxy = secure(&origin);
    for version in [&["--tls-max", "1.2"][..], &["--tlsv1.3"], &["--http2"], &["--http1.0"]] {
        for (own, identity) in [(&[][..], None), (&["--cert", "web.pem", "--key", "web.key"], Some(WEB))] {
            let path = format!("/{}", origin.count());
            let (success, told) = secure_curl(&proxy, &[version, own].concat(), &path);
            assert!(success, "{version:?}: {}", String::from_utf8_lossy(&told));
            assert_eq!(proxy.logged(&path)["source_identity"].as_str(), identity, "{version:?}");
        }
    }
    let before = origin.count();
    let (success, told) = secure_curl(&proxy, &["--cert", "old.pem", "--key", "old.key"], "/refused");
    assert!(!success && !told.is_empty(), "{}", String::from_utf8_lossy(&told));
    assert_eq!(origin.count(), before);
}

#[test]
fn ten_mebibytes_over_tls_both_ways() {
    let Some(_) = peers::find("curl", "curl::ten_mebibytes_over_tls") else { return };
    let origin = Origin::answering(|seen| respond(200, "", &seen.body));
    let proxy = secure(&origin);
    let body: Vec<u8> = (0..10 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(proxy.folder().join("body"), &body).unwrap();
    for more in [
        &["--tlsv1.3"][..],
        &["--tls-max", "1.2"],
        &["-H", "Transfer-Encoding: chunked"],
        &["-H", "Expect: 100-continue"],
    ] {
        let (success, came) = secure_curl(&proxy, &[more, &["--data-binary", "@body"]].concat(), "/echo");
        assert!(success && came == body, "{more:?}: {} bytes", came.len());
    }
}
