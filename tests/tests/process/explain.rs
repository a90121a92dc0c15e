//! `ringway explain`: a decision without a request, and the exit codes that scripts rely on.

use ringway_tests::build;
use ringway_tests::certificates::{Authority, Leaf};
use std::process::{Command, Output};

const FILE: &str = "
listeners:
  web:
    address: 127.0.0.1:8080
    tls: { certificates: [ { certificate: own.pem, key: own.key } ], clients: optional, trust: ca.pem }
    deny: [ { name: old-net, source: 192.0.2.0/24 } ]
    routes: [ { name: cart, match: { path: /cart/* }, allow: [ { name: web, identity: 'spiffe://shop/web' } ], to: app } ]
services:
  app: { endpoints: [127.0.0.1:9000] }
";

fn explain(file: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ringway.yaml");
    std::fs::write(&path, file).unwrap();
    let authority = Authority::new("root");
    authority.issue(&Leaf::of(&["shop.example.com"])).put(folder.path(), "own");
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    Command::new(build()).args(["explain", "-c"]).arg(path).args(arguments).output().unwrap()
}

#[test]
fn the_decision_its_rules_and_candidates_are_printed() {
    let url = "http://shop.example.com:8080/x/../cart/1";
    let output = explain(FILE, &["GET", url, "--identity", "spiffe://shop/web", "--source", "10.1.2.3"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()), "{told}");
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("listener web, route cart: forward to app"), "{told}");
    for line in ["path: /cart/1", "  old-net: does not hold: source", "  web: holds", "  127.0.0.1:9000, weight 1"] {
        assert!(lines.contains(&line), "{line} is not in {told}");
    }
    let output = explain(FILE, &["GET", url, "--identity", "spiffe://shop/web", "--source", "192.0.2.1"]);
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("denied, 403"),
        "a decision is an answer, whatever it says"
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_wrong_file_exits_with_1_and_a_wrong_question_with_2() {
    let code = |file: &str, arguments: &[&str], told: &str| {
        let output = explain(file, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.stdout.is_empty() && stderr.contains(told), "{arguments:?}: {stderr}");
        output.status.code()
    };
    assert_eq!(code("listners: {}\n", &["GET", "http://a/"], "ringway.yaml:1:1: unknown key"), Some(1));
    for (arguments, told) in [
        (["GET", "shop.example.com", "--source", "10.1.2.3"], "write http://host/path"),
        (["GET", "http://a/", "--source", "10.1.2"], "write 192.0.2.1"),
        (["GET", "http://a/", "--identity", "web"], "write spiffe://trust-domain/path"),
        (["GET", "http://a/", "--header", "x"], "write `name: value`"),
        (["GET", "http://a/", "--listener", "wbe"], "choose web (127.0.0.1:8080)"),
        (["GET", "http://a/", "--nothing", "x"], "--nothing"),
    ] {
        assert_eq!(code(FILE, &arguments, told), Some(2), "{arguments:?}");
    }
}
