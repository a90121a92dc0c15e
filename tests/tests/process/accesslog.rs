//! The access log: what a line says, both formats, reopening, and that it never stops traffic.

use ringway_tests::{Origin, Proxy, eventually, plain, respond};
use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[test]
fn a_json_line_has_all_that_happened() {
    let origin = Origin::new(|conversation| {
        while conversation.request().is_some() {
            conversation.send_after(Duration::from_millis(60), respond(200, "", b"0123456789"));
        }
    });
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send(
        "POST /logged?q=1 HTTP/1.1\r\nHost: shop.example\r\nX-Request-Id: id-7\r\nContent-Length: 5\r\n\r\nhello",
    );
    client.answer();
    let line = proxy.logged("/logged?q=1");
    for (field, value) in [
        ("service", "app"),
        ("protocol", "HTTP/1.1"),
        ("method", "POST"),
        ("request_id", "id-7"),
        ("ending", "complete"),
        ("destination", &origin.address().to_string()),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert!(line["source"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    assert!(line["url"].as_str().unwrap().contains("shop.example"), "{line}");
    assert_eq!(line["status"], 200);
    let text = line.to_string();
    assert!(text.contains("10") && text.contains('5'), "bytes both ways: {text}");
    let numbers = |part: &str| {
        let map = line.as_object().unwrap();
        map.iter()
            .find(|(name, _)| name.contains(part))
            .and_then(|(_, v)| v.as_f64())
            .unwrap_or_else(|| panic!("{part}: {line}"))
    };
    let (duration, upstream) = (numbers("duration"), numbers("upstream"));
    // In milliseconds or seconds, as the field's name says; one is within the other.
    assert!(upstream > 0.0 && duration >= upstream, "{line}");
    let year = 1970 + SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 31_556_952;
    assert!(line["time"].as_str().unwrap().starts_with(&year.to_string()), "{line}");
}

#[test]
fn hostile_bytes_stay_within_their_line() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let mut client = proxy.client();
    client.send(b"GET /a?%22\"\\x HTTP/1.1\r\nHost: a\r\nX-Request-Id: \"},{\"\xff\r\n\r\n");
    let _either = client.try_answer("GET");
    proxy.client().get("/after");
    proxy.logged("/after");
    assert_eq!(proxy.log().len(), 2, "{:?}", proxy.log());
}

#[test]
fn text_lines_have_the_same_words() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&format!("{}access-log: {{ path: $dir/access.log, format: text }}\n", plain(&[&origin])));
    proxy.client().get("/in-text");
    let path = proxy.folder().join("access.log");
    eventually("a line", || fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n')));
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 1);
    for word in ["GET", "/in-text", "200", "app", "complete", "HTTP/1.1", &origin.address().to_string()] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn stdout_is_a_place_too() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&format!("{}access-log: {{ path: /dev/stdout, format: json }}\n", plain(&[&origin])));
    proxy.client().get("/to-stdout");
    proxy.printed("/to-stdout");
}

#[test]
fn without_access_log_nothing_is_written() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&format!("{}access-log: {{ path: $dir/other.log }}\n", plain(&[&origin])));
    proxy.client().get("/");
    eventually("the file is there", || proxy.folder().join("other.log").exists());
    assert!(!proxy.folder().join("access.log").exists());
}

#[test]
fn sigusr1_reopens_and_no_line_is_lost() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&plain(&[&origin]));
    let (log, old) = (proxy.folder().join("access.log"), proxy.folder().join("access.log.1"));
    let mut client = proxy.client();
    for n in 0..5 {
        client.get(&format!("/before/{n}"));
    }
    proxy.logged("/before/4");
    fs::rename(&log, &old).unwrap();
    client.get("/between");
    eventually("it goes to the renamed file", || fs::read_to_string(&old).unwrap().contains("/between"));
    proxy.signal("USR1");
    eventually("there is a new file", || log.exists());
    for n in 0..5 {
        client.get(&format!("/after/{n}"));
    }
    proxy.logged("/after/4");
    let lines = |path| fs::read_to_string(path).unwrap().lines().count();
    assert_eq!((lines(&old), lines(&log)), (6, 5));
}

#[test]
fn a_log_that_nobody_reads_stops_no_traffic_and_is_counted() {
    let origin = Origin::text("x");
    let run =
        ringway_tests::Run::new(&format!("{}access-log: {{ path: $dir/pipe, format: json }}\n", plain(&[&origin])));
    let pipe = run.folder().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Somebody has it open and never reads: a full pipe, not a broken one.
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let proxy = run.start();
    let mut client = proxy.client();
    // A pipe takes 64 KiB, the queue of a core some more.
    let path = format!("/{}", "x".repeat(1900));
    for _ in 0..6000 {
        assert_eq!(client.get(&path).status, 200);
    }
    assert!(proxy.is_ready());
    let metrics = proxy.metrics();
    assert!(metrics.sum("ringway_log_records_dropped_total", &[]) > 0.0);
}
