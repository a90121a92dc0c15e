//! A record as a line: JSON, or words. Whatever a client sent, a line stays one line and JSON stays JSON.

use api::LogFormat;
use flow::log::Record;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Appends a record's line, with its end. `began` is when its core's clock was zero.
pub(super) fn write(out: &mut Vec<u8>, format: LogFormat, began: SystemTime, record: &Record<'_>) {
    let at = began + Duration::from_nanos(record.begun_ns);
    let at_ms = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    match format {
        LogFormat::Json => json(out, at_ms, record),
        LogFormat::Text => text(out, at_ms, record),
    }
    out.push(b'\n');
}

fn json(out: &mut Vec<u8>, at_ms: u64, record: &Record<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    time(out, at_ms);
    out.push(b'"');
    field(out, "listener", &[record.listener.as_bytes()]);
    field(out, "route", &[record.route.as_bytes()]);
    field(out, "source", &[record.source.as_bytes()]);
    field(out, "destination", &[record.destination.as_bytes()]);
    field(out, "service", &[record.service.as_bytes()]);
    field(out, "protocol", &[record.protocol.as_bytes()]);
    field(out, "method", &[record.method]);
    field(out, "url", &[record.authority, record.path]);
    match record.status {
        0 => put(out, format_args!(",\"status\":null")),
        status => put(out, format_args!(",\"status\":{status}")),
    }
    put(out, format_args!(",\"request_bytes\":{}", record.received_bytes));
    put(out, format_args!(",\"response_bytes\":{}", record.sent_bytes));
    put(out, format_args!(",\"duration_ms\":"));
    milliseconds(out, record.duration_ns);
    put(out, format_args!(",\"upstream_ms\":"));
    match record.upstream_ns {
        0 => out.extend_from_slice(b"null"),
        ns => milliseconds(out, ns),
    }
    field(out, "source_identity", &[record.source_identity.as_bytes()]);
    field(out, "destination_identity", &[record.destination_identity.as_bytes()]);
    field(out, "rule", &[record.rule.as_bytes()]);
    field(out, "dry_run", &[record.dry_run.as_bytes()]);
    field(out, "tls", &[record.tls.as_bytes()]);
    field(out, "sni", &[record.sni.as_bytes()]);
    field(out, "request_id", &[record.request_id]);
    field(out, "ending", &[record.ending.as_bytes()]);
    field(out, "detail", &[record.detail.as_bytes()]);
    out.push(b'}');
}

/// Time, listener, source, "method url protocol", status, bytes in and out, duration and upstream time in milliseconds,
/// service, destination, route, request id, ending, detail, source's and destination's identities, rule, rule that would have
/// refused, TLS version, SNI. What is absent is `-`.
fn text(out: &mut Vec<u8>, at_ms: u64, record: &Record<'_>) {
    time(out, at_ms);
    word(out, &[record.listener.as_bytes()]);
    word(out, &[record.source.as_bytes()]);
    word(out, &[record.method]);
    word(out, &[record.authority, record.path]);
    word(out, &[record.protocol.as_bytes()]);
    match record.status {
        0 => put(out, format_args!(" -")),
        status => put(out, format_args!(" {status}")),
    }
    put(out, format_args!(" {} {} ", record.received_bytes, record.sent_bytes));
    milliseconds(out, record.duration_ns);
    out.push(b' ');
    match record.upstream_ns {
        0 => out.push(b'-'),
        ns => milliseconds(out, ns),
    }
    for last in [record.service, record.destination, record.route] {
        word(out, &[last.as_bytes()]);
    }
    word(out, &[record.request_id]);
    word(out, &[record.ending.as_bytes()]);
    word(out, &[record.detail.as_bytes()]);
    let identities = [record.source_identity, record.destination_identity];
    for last in identities.into_iter().chain([record.rule, record.dry_run, record.tls, record.sni]) {
        word(out, &[last.as_bytes()]);
    }
}

/// A JSON member; null when all parts are empty.
fn field(out: &mut Vec<u8>, name: &str, parts: &[&[u8]]) {
    put(out, format_args!(",\"{name}\":"));
    if parts.iter().all(|part| part.is_empty()) {
        out.extend_from_slice(b"null");
    } else {
        quoted(out, parts);
    }
}

/// A word after a space; quoted when it would not be one otherwise.
fn word(out: &mut Vec<u8>, parts: &[&[u8]]) {
    out.push(b' ');
    let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    if parts.iter().all(|part| part.is_empty()) {
        out.push(b'-');
    } else if parts.iter().all(|part| part.iter().all(plain)) && parts.concat() != b"-" {
        parts.iter().for_each(|part| out.extend_from_slice(part));
    } else {
        quoted(out, parts);
    }
}

/// A JSON string (RFC 8259 section 7). Bytes that are not UTF-8 are percent-encoded, as they would be in a URL.
fn quoted(out: &mut Vec<u8>, parts: &[&[u8]]) {
    out.push(b'"');
    for part in parts {
        for chunk in part.utf8_chunks() {
            chunk.valid().chars().for_each(|c| character(out, c));
            chunk.invalid().iter().for_each(|byte| put(out, format_args!("%{byte:02X}")));
        }
    }
    out.push(b'"');
}

fn character(out: &mut Vec<u8>, c: char) {
    match c {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        // Line separators end a line for some readers; C1 controls move some terminals.
        c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
            put(out, format_args!("\\u{:04x}", u32::from(c)))
        }
        c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// RFC 3339 in UTC with milliseconds.
fn time(out: &mut Vec<u8>, at_ms: u64) {
    let (days, ms) = (at_ms / 86_400_000, at_ms % 86_400_000);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    put(out, format_args!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000));
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant, chrono-compatible date algorithms, `civil_from_days`).
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

fn milliseconds(out: &mut Vec<u8>, ns: u64) {
    put(out, format_args!("{}.{:03}", ns / 1_000_000, ns / 1000 % 1000));
}

/// Writing to memory does not fail.
fn put(out: &mut Vec<u8>, what: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::Ending;

    /// 2026-11-22T21:55:13.000Z
    const BEGAN_S: u64 = 1_795_384_513;

    fn line(format: LogFormat, record: &Record<'_>) -> String {
        let mut out = Vec::new();
        write(&mut out, format, UNIX_EPOCH + Duration::from_secs(BEGAN_S), record);
        String::from_utf8(out).unwrap()
    }

    fn example() -> Record<'static> {
        Record {
            begun_ns: 1_234_567_890,
            duration_ns: 12_345_678,
            upstream_ns: 11_000_000,
            received_bytes: 3,
            sent_bytes: 64,
            status: 200,
            listener: "web",
            route: "all",
            service: "cart",
            source: "192.0.2.1:50000",
            destination: "10.0.0.1:8080",
            protocol: "HTTP/1.1",
            method: b"POST",
            authority: b"shop.example.com",
            path: b"/cart?x=1",
            request_id: b"0123",
            ..Record::default()
        }
        .ended(Ending::Complete)
    }

    #[test]
    fn json_has_every_field() {
        assert_eq!(
            line(LogFormat::Json, &example()),
            "{\"time\":\"2026-11-22T21:55:14.234Z\",\"listener\":\"web\",\"route\":\"all\",\
             \"source\":\"192.0.2.1:50000\",\"destination\":\"10.0.0.1:8080\",\"service\":\"cart\",\
             \"protocol\":\"HTTP/1.1\",\"method\":\"POST\",\"url\":\"shop.example.com/cart?x=1\",\"status\":200,\
             \"request_bytes\":3,\"response_bytes\":64,\"duration_ms\":12.345,\"upstream_ms\":11.000,\
             \"source_identity\":null,\"destination_identity\":null,\"rule\":null,\"dry_run\":null,\"tls\":null,\"sni\":null,\
             \"request_id\":\"0123\",\"ending\":\"complete\",\"detail\":null}\n"
        );
    }

    #[test]
    fn text_is_words() {
        assert_eq!(
            line(LogFormat::Text, &example()),
            "2026-11-22T21:55:14.234Z web 192.0.2.1:50000 POST shop.example.com/cart?x=1 HTTP/1.1 200 3 64 12.345 11.000 \
             cart 10.0.0.1:8080 all 0123 complete - - - - - - -\n"
        );
        let nothing = line(LogFormat::Text, &Record { listener: "a b", route: "-", ..Record::default() });
        assert_eq!(nothing, "2026-11-22T21:55:13.000Z \"a b\" - - - - - 0 0 0.000 - - - \"-\" - - - - - - - - -\n");
    }

    #[test]
    fn what_tls_and_policy_add_is_in_the_documented_order() {
        let secured = Record {
            source_identity: "spiffe://shop/web",
            destination_identity: "spiffe://shop/cart",
            rule: "the web",
            dry_run: "old-net",
            tls: "TLSv1.3",
            sni: "shop.example.com",
            ..example()
        };
        let json = line(LogFormat::Json, &secured);
        let added = "\"source_identity\":\"spiffe://shop/web\",\"destination_identity\":\"spiffe://shop/cart\",\
             \"rule\":\"the web\",\"dry_run\":\"old-net\",\"tls\":\"TLSv1.3\",\"sni\":\"shop.example.com\"";
        assert!(json.contains(added), "{json}");
        let text = line(LogFormat::Text, &secured);
        let added = " complete - spiffe://shop/web spiffe://shop/cart \"the web\" old-net TLSv1.3 shop.example.com\n";
        assert!(text.ends_with(added), "{text}");
    }

    #[test]
    fn hostile_bytes_stay_within_their_field() {
        let hostile = Record {
            path: b"/\"}\n{\"ending\":\"complete\"\\\x00\x1b[2J\xff\xc3\xa4\xe2\x80\xa8",
            method: b"\xfe",
            sni: "a\n\"b c",
            ..Record::default()
        };
        for format in [LogFormat::Json, LogFormat::Text] {
            let line = line(format, &hostile);
            assert_eq!(line.matches('\n').count(), 1);
            assert!(line.trim_end().chars().all(|c| !c.is_control() && c != '\u{2028}'), "{line}");
        }
        let parsed: serde_json::Value = serde_json::from_str(&line(LogFormat::Json, &hostile)).unwrap();
        assert_eq!(parsed["url"], "/\"}\n{\"ending\":\"complete\"\\\0\u{1b}[2J%FFä\u{2028}");
        assert_eq!(parsed["method"], "%FE");
        assert_eq!(parsed["ending"], serde_json::Value::Null);
    }

    #[test]
    fn dates_know_leap_years() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(11_017), (2000, 3, 1));
        assert_eq!(date(47_540), (2100, 2, 28));
        assert_eq!(date(47_541), (2100, 3, 1));
    }
}
