//! `ringway check` and usage errors: what scripts rely on.

use ringway_tests::{build, check};
use std::process::Command;

const GOOD: &str = "listeners:\n  web: { address: 127.0.0.1:8080, routes: [ { to: app } ] }\nservices:\n  app: { endpoints: [127.0.0.1:9000] }\n";

/// The findings as `LINE:COLUMN: text`, with the exit status 1.
fn findings(text: &str) -> Vec<String> {
    let output = check(text);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    let lines = told.lines().map(|line| {
        let (file, finding) = line.split_once("ringway.yaml:").unwrap_or_else(|| panic!("no FILE:LINE:COLUMN: {line}"));
        assert!(file.starts_with('/'), "the file as it was named: {line}");
        let mut parts = finding.splitn(3, ':');
        let is_number = |part: Option<&str>| part.is_some_and(|p| p.parse::<u32>().is_ok_and(|n| n > 0));
        assert!(is_number(parts.next()) && is_number(parts.next()), "{line}");
        finding.to_owned()
    });
    lines.collect()
}

#[test]
fn a_good_file_exits_with_0() {
    let output = check(GOOD);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn nothing_is_bound_and_nothing_resolved() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = GOOD
        .replace("127.0.0.1:8080", &taken.local_addr().unwrap().to_string())
        .replace("127.0.0.1:9000", "no-such-name.invalid:80");
    assert_eq!(check(&text).status.code(), Some(0));
}

#[test]
fn each_error_has_its_place_and_the_right_word() {
    for (from, to, finding) in [
        ("listeners:", "listners:", "1:1: unknown key `listners` in the document; did you mean `listeners`?"),
        ("to: app", "to: ap", "2:51: unknown service `ap`; did you mean `app`?"),
        ("8080", "80800", "2:19: an address is `ip:port`, `[ipv6]:port` or `unix:path`, not `127.0.0.1:80800`"),
        ("to: app }", "to: app, timeout: 5 }", "2:65: `5` has no unit: write `5s` or `5ms`"),
        ("9000]", "9000], balance: robin", "`robin` is not known here; write `round-robin`"),
        ("9000]", "9000], protocol: http2", "`http2` is not supported yet"),
        ("to: app }", "to: app, retry: { on: [reset] } }", "`reset` is not supported yet"),
        ("routes:", "tls: {}, routes:", "a listener's `tls` needs `certificates`"),
    ] {
        let found = findings(&GOOD.replace(from, to));
        assert!(found.iter().any(|line| line.contains(finding)), "{to}: {found:?}");
    }
}

#[test]
fn all_errors_are_told_at_once_and_in_order() {
    let text = "listeners:\n  web: { adress: 127.0.0.1:8080, routes: [ { to: nobody, timeot: 1s } ] }\n  db: { address: 1, protocol: tcp }\n\
                services:\n  app: { endpoints: [127.0.0.1:0], balance: best }\nlimits: { head: 1 }\ncors: all\n";
    let found = findings(text);
    assert!(found.len() >= 8, "{found:?}");
    let lines: Vec<u32> = found.iter().map(|line| line.split(':').next().unwrap().parse().unwrap()).collect();
    assert!(lines.is_sorted(), "{found:?}");
    assert_eq!(lines.first().zip(lines.last()), Some((&2, &7)));
}

#[test]
fn text_that_is_no_yaml_is_told_with_its_place() {
    for text in ["listeners: [", "a: b: c", "\t", "", "{", "- a\nb", "\u{0}", "a: &a [*a]"] {
        assert!(!findings(text).is_empty(), "{text:?}");
    }
}

#[test]
fn a_file_that_is_not_there_exits_with_1() {
    let output = Command::new(build()).args(["check", "-c", "/no/such/file.yaml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/file.yaml"), "{output:?}");
}

#[test]
fn usage_errors_exit_with_2() {
    for arguments in
        [&["chek"][..], &["run"], &["check"], &["run", "-c", "x", "--cors", "1"], &["run", "-c", "x", "--cores", "0"]]
    {
        let output = Command::new(build()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn help_and_version_exit_with_0() {
    for (argument, word) in [("--help", "Usage:"), ("--version", "ringway ")] {
        let output = Command::new(build()).arg(argument).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&output.stdout).contains(word), "{output:?}");
    }
}
