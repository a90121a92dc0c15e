//! Requests, by section of RFC 9112 and RFC 9110.

use super::*;
use Reject::*;

#[test]
fn rfc9112_2_2_line_ends() {
    refuses("GET / HTTP/1.1\nHost: a\n\n", BareLf);
    refuses("GET / HTTP/1.1\r\nHost: a\n\r\n", BareLf);
    refuses("GET / HTTP/1.1\r\nHost: a\r\n\nx", BareLf);
    refuses("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", BareCr);
    refuses("GET / HTTP/1.1\r\nHost: a\r\n\rx", BareCr);
    refuses("GET / HTTP/1.1\rHost: a\r\n\r\n", BareCr);
    refuses("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", BareCr);
    refuses("GET /\n\n", BareLf);
    refuses("GET /\rHTTP/1.1\r\n", BareCr);
    refuses("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareLf);
    refuses(&with("a: b\nc: d\r\n"), BareLf);
    refuses(&with("a\n: b\r\n"), BareLf);
    refuses(&with("a\r: b\r\n"), BareCr);
    refuses(&with("a: b\r\rc\r\n"), BareCr);
}

#[test]
fn rfc9112_2_2_one_empty_line_before_a_request() {
    let text = "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = request(text);
    assert_eq!(head.path.of(text.as_bytes()), b"/");
    refuses("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", EmptyLine);
    refuses("\r\n\nGET / HTTP/1.1\r\n", BareLf);
    refuses("\rGET / HTTP/1.1\r\n", BareCr);
    refuses("\r\n\rGET / HTTP/1.1\r\n", BareCr);
}

#[test]
fn rfc9112_3_request_line() {
    refuses("GET\r\n", BadMethod);
    refuses("GET /\r\n", BadRequestLine);
    refuses("GET  / HTTP/1.1\r\n", BadRequestLine);
    refuses("GET /  HTTP/1.1\r\n", BadRequestLine);
    refuses("GET /\tHTTP/1.1\r\n", BadRequestLine);
    refuses("GET\t/ HTTP/1.1\r\n", BadMethod);
    refuses(" GET / HTTP/1.1\r\n", BadMethod);
    refuses("GET / HTTP/1.1 \r\n", BadVersion);
    refuses("GET / a HTTP/1.1\r\n", BadRequestLine);
    refuses("GET / HTTP/1.1\tx\r\n", BadVersion);
    refuses_bytes(b"\x16\x03\x01\x02\x00\x01", BadMethod);
    refuses_bytes(b"GET / HTTP/1.1\0\r\n", Nul);
    refuses_bytes(b"G\0T / HTTP/1.1\r\n", Nul);
    refuses_bytes(b"GET /\0 HTTP/1.1\r\n", Nul);
}

#[test]
fn rfc9112_2_3_versions() {
    let head = request("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(head.version, Version::Http10);
    for version in ["HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "HTTP/3.0", "HTTP/9.9"] {
        refuses(&format!("GET / {version}\r\n"), VersionUnsupported);
    }
    for version in
        ["HTTP/1", "HTTP/1.", "HTTP/11", "HTTP/a.1", "HTTP/.11", "HTTP/1,1", "HTTPS/1.1", "HTTP 1.1", "Http/1.1"]
    {
        refuses(&format!("GET / {version}\r\n"), BadVersion);
    }
    refuses("GET / HTTP/1.10\r\n", BadVersion);
    refuses("GET / http/1.1\r\n", BadRequestLine);
    refuses("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BadTarget);
}

#[test]
fn rfc9110_9_methods() {
    use Method::*;
    for (name, method) in [
        ("GET", Get),
        ("HEAD", Head),
        ("POST", Post),
        ("PUT", Put),
        ("DELETE", Delete),
        ("OPTIONS", Options),
        ("TRACE", Trace),
        ("PATCH", Patch),
        ("PROPFIND", Other),
        ("get", Other),
        ("M-SEARCH", Other),
        ("GETT", Other),
    ] {
        let text = format!("{name} / HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = request(&text);
        assert_eq!(head.method, method);
        assert_eq!(head.method_span.of(text.as_bytes()), name.as_bytes());
    }
    for name in ["G(T", "G/T", "GE\u{e9}", "G@T", "\"GET\"", "G,T", "GET:"] {
        refuses(&format!("{name} / HTTP/1.1\r\n"), BadMethod);
    }
}

#[test]
fn rfc9110_9_3_6_connect_is_refused() {
    refuses("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", ConnectRefused);
    refuses("CONNECT / HTTP/1.1\r\n", ConnectRefused);
}

#[test]
fn rfc9110_9_3_8_trace_has_no_body() {
    let trace = |line: &str| format!("TRACE / HTTP/1.1\r\nHost: a\r\n{line}\r\n");
    request(&trace(""));
    request(&trace("Content-Length: 0\r\n"));
    for line in ["Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n"] {
        assert_eq!(request_with(trace(line).as_bytes(), &LIMITS).1, Err(TraceWithBody));
    }
}

#[track_caller]
fn target(target: &str, path: &str, query: &str) {
    let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = request(&text);
    assert_eq!(head.path.of(text.as_bytes()), path.as_bytes());
    assert_eq!(head.query.of(text.as_bytes()), query.as_bytes());
    assert_eq!(head.authority.of(text.as_bytes()).to_ascii_lowercase(), b"a");
}

#[test]
fn rfc9112_3_2_1_origin_form() {
    target("/", "/", "");
    target("/a/b;c=d", "/a/b;c=d", "");
    target("/a?", "/a", "?");
    target("/a?b?c/d", "/a", "?b?c/d");
    target("/?a[]=1|2&x={y}^`\\", "/", "?a[]=1|2&x={y}^`\\");
    target("//a", "//a", "");
    target("/%2e%zz", "/%2e%zz", "");
    target("/http://b/c", "/http://b/c", "");
}

#[test]
fn rfc9112_3_2_bad_targets() {
    for target in [
        "a", "?a", "a/b", "*", "**", "/*|", "/a\"b", "/<", "/a\\b", "/a[", "/?<", "/?\"", "/\u{e9}", "/?\u{e9}",
        "\u{e9}", "/\x7f", "/\x01", "%2f", ":", ".", "@a/",
    ] {
        refuses(&format!("GET {target} HTTP/1.1\r\n"), BadTarget);
    }
    refuses("GET /a\tb HTTP/1.1\r\n", BadRequestLine);
    for target in ["/#", "/a#b", "/?#", "/a?b#c", "http://a/#", "http://a/b?c#d", "http://a#b"] {
        refuses(&format!("GET {target} HTTP/1.1\r\n"), Fragment);
    }
}

#[test]
fn rfc9112_3_2_2_absolute_form() {
    target("http://a/b?c", "/b", "?c");
    target("https://a/", "/", "");
    target("HTTP://A/", "/", "");
    target("http://a", "/", "");
    target("http://a?b", "/", "?b");
    let text = "GET http://shop:80/ HTTP/1.0\r\n\r\n";
    assert_eq!(request(text).authority.of(text.as_bytes()), b"shop:80");
    for (target, host) in
        [("http://a/", "b"), ("http://a/", "a:80"), ("http://a:80/", "a"), ("http://a/", "a."), ("http://ab", "a")]
    {
        let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(request_with(text.as_bytes(), &LIMITS).1, Err(HostMismatch), "{text}");
    }
    assert_eq!(request_with(b"GET http://a/ HTTP/1.1\r\n\r\n", &LIMITS).1, Err(MissingHost));
    for target in ["http:/a/", "http:a", "ftp://a/", "httpx://a/", "http//a", "file:///a", "ws://a/", "h"] {
        refuses(&format!("GET {target} HTTP/1.1\r\n"), BadTarget);
    }
    for target in [
        "http:///a",
        "http://",
        "http://u@a/",
        "http://u:p@a/",
        "http://a:b/",
        "http://a,b/",
        "http://[::1/",
        "http://?a",
    ] {
        refuses(&format!("GET {target} HTTP/1.1\r\n"), BadHost);
    }
}

#[test]
fn rfc9112_3_2_4_asterisk_form() {
    let text = "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(request(text).path.of(text.as_bytes()), b"*");
    request("OPTIONS /a HTTP/1.1\r\nHost: a\r\n\r\n");
    refuses("OPTIONS ** HTTP/1.1\r\n", BadTarget);
    refuses("OPTIONS *? HTTP/1.1\r\n", BadTarget);
    refuses("OPTIONS */a HTTP/1.1\r\n", BadTarget);
    refuses("GET * HTTP/1.1\r\n", BadTarget);
    refuses("OPTIONS http://a HTTP/1.1\r\n", BadTarget);
    request("OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\n\r\n");
}

#[test]
fn rfc9112_3_2_host() {
    assert_eq!(request_with(b"GET / HTTP/1.1\r\n\r\n", &LIMITS).1, Err(MissingHost));
    assert_eq!(request_with(b"GET / HTTP/1.1\r\nX-Host: a\r\n\r\n", &LIMITS).1, Err(MissingHost));
    assert!(request("GET / HTTP/1.0\r\n\r\n").authority.is_empty());
    refuses(&with("Host: a\r\n"), TwoHosts);
    refuses(&with("hOST: b\r\n"), TwoHosts);
    refuses("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", TwoHosts);
    for host in ["", "a b", "a,b", "a/b", "a@b", "a:b", "a:70000", "a..b", ".", "[::1", "a\\b", "\u{e9}", "a?", "a%20"]
    {
        refuses(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n"), BadHost);
        refuses(&format!("GET / HTTP/1.0\r\nHost: {host}\r\n"), BadHost);
    }
    for host in ["a", "A.b:8080", "[::1]:80", "1.2.3.4", "a.", "a_b"] {
        let text = format!("GET / HTTP/1.1\r\nHost: \t{host} \r\n\r\n");
        assert_eq!(request(&text).authority.of(text.as_bytes()), host.as_bytes());
    }
}

#[test]
fn rfc9112_5_field_lines() {
    refuses(&with("a : b\r\n"), SpaceBeforeColon);
    refuses(&with("a\t: b\r\n"), SpaceBeforeColon);
    refuses(&with("Content-Length : 5\r\n"), SpaceBeforeColon);
    refuses(&with(": b\r\n"), EmptyName);
    refuses(&with(":\r\n"), EmptyName);
    refuses(&with("ab\r\n"), BadName);
    refuses(&with("Host\r\n"), BadName);
    refuses(&with("Content-Length\r\n"), BadName);
    for byte in "\"(),/;<=>?@[\\]{}\x01\x0b\x7f\u{e9}".chars() {
        refuses(&with(&format!("{byte}a: b\r\n")), BadName);
        refuses(&with(&format!("a{byte}b: b\r\n")), BadName);
        refuses(&with(&format!("transfer-encodin{byte}: chunked\r\n")), BadName);
        refuses(&with(&format!("a{byte}: b\r\n")), BadName);
    }
    refuses(&with("a\0: b\r\n"), Nul);
    refuses(&with("a b: c\r\n"), SpaceBeforeColon);
}

#[test]
fn rfc9112_5_2_folds() {
    refuses(&with(" a: b\r\n"), ObsFold);
    refuses(&with("\ta: b\r\n"), ObsFold);
    refuses(&with("a: b\r\n c\r\n"), ObsFold);
    refuses("GET / HTTP/1.1\r\n Host: a\r\n", ObsFold);
    refuses("GET / HTTP/1.1\r\nTransfer-Encoding:\r\n chunked\r\n", BadTransferEncoding);
    refuses(&with("x:\r\n\tb\r\n"), ObsFold);
    refuses(&with(" \r\n"), ObsFold);
}

#[test]
fn rfc9110_5_5_values() {
    let text = with("a: \u{e9}\t\"b\" c\r\nd:\r\ne:\t \r\nf: :\r\n");
    let head = request(&text);
    let values: Vec<_> = head.fields[1..].iter().map(|f| f.value.of(text.as_bytes())).collect();
    assert_eq!(values, ["\u{e9}\t\"b\" c".as_bytes(), b"", b"", b":"]);
    refuses(&with("a: b\0c\r\n"), Nul);
    refuses(&with("a: \0\r\n"), Nul);
    for byte in (1..32u8).chain([127]) {
        if matches!(byte, b'\t' | b'\n' | b'\r') {
            continue;
        }
        refuses(&with(&format!("a: b{}c\r\n", byte as char)), ControlCharacter);
        refuses(&with(&format!("a:{}\r\n", byte as char)), ControlCharacter);
    }
}

fn body(lines: &str) -> Body {
    request(&with(lines)).body
}

#[test]
fn rfc9112_6_3_request_bodies() {
    assert_eq!(body(""), Body::None);
    assert_eq!(body("Content-Length: 0\r\n"), Body::Length(0));
    assert_eq!(body("content-length:5\r\n"), Body::Length(5));
    assert_eq!(body("CONTENT-LENGTH: \t007 \r\n"), Body::Length(7));
    assert_eq!(body("Transfer-Encoding: chunked\r\n"), Body::Chunked);
    assert_eq!(body("transfer-encoding:\tCHUNKED \r\n"), Body::Chunked);
    assert_eq!(body("X-Content-Length: 5\r\nContent-Lengt: 6\r\nContent-Lengthx: 7\r\n"), Body::None);
}

#[test]
fn rfc9112_6_3_both_lengths() {
    refuses(&with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), BothLengths);
    refuses(&with("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), BothLengths);
    refuses(&with("Content-Length: 0\r\nx: y\r\ntransfer-encoding: identity\r\n"), BothLengths);
    refuses(&with("Transfer-Encoding: chunked\r\nContent-Length: x\r\n"), BothLengths);
}

#[test]
fn rfc9112_6_3_bad_lengths() {
    for value in [
        "",
        " ",
        "+5",
        "-5",
        "5 5",
        "5,5",
        "5, 5",
        "0x5",
        "5a",
        "a",
        "5.0",
        "5;",
        "\"5\"",
        "5_0",
        "1e3",
        "\u{664}",
        "18446744073709551616",
        "99999999999999999999",
        "100000000000000000000000000000000000000000",
    ] {
        refuses(&with(&format!("Content-Length: {value}\r\n")), BadLength);
    }
    assert_eq!(body("Content-Length: 18446744073709551615\r\n"), Body::Length(u64::MAX));
    // Beyond what 32 bits hold.
    assert_eq!(body("Content-Length: 4294967301\r\n"), Body::Length(4294967301));
    for second in ["5", "6", "", "x"] {
        refuses(&with(&format!("Content-Length: 5\r\nContent-Length: {second}\r\n")), TwoLengths);
    }
}

#[test]
fn rfc9112_6_1_transfer_encodings() {
    for value in [
        "",
        "xchunked",
        "chunkedx",
        "chunked, gzip",
        "chunked,chunked",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "chunked;a=b",
        "chunked;",
        "\"chunked\"",
        "identity",
        "gzip",
        "chunk ed",
        "chunked identity",
        "'chunked'",
        "chunked\tx",
        "gzip,,chunked",
        "[chunked]",
    ] {
        refuses(&with(&format!("Transfer-Encoding: {value}\r\n")), BadTransferEncoding);
    }
    refuses(&with("Transfer-Encoding: \x0bchunked\r\n"), ControlCharacter);
    refuses(&with("Transfer-Encoding: chunked\r\n gzip\r\n"), ObsFold);
    refuses(&with("Transfer-Encoding : chunked\r\n"), SpaceBeforeColon);
    for second in ["chunked", "gzip", "identity", ""] {
        refuses(&with(&format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: {second}\r\n")), BadTransferEncoding);
    }
    for value in ["gzip, chunked", "deflate ,\tgzip,Chunked", "identity, chunked"] {
        refuses(&with(&format!("Transfer-Encoding: {value}\r\n")), UnsupportedTransferCoding);
    }
    refuses("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", TransferEncodingInHttp10);
    refuses("GET / HTTP/1.0\r\nTransfer-Encoding: x\r\n", TransferEncodingInHttp10);
}

#[test]
fn rfc9112_9_3_persistence() {
    let keeps =
        |version: &str, lines: &str| request(&format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n")).keep_alive;
    for (lines, http10, http11) in [
        ("", false, true),
        ("Connection: close\r\n", false, false),
        ("Connection: keep-alive\r\n", true, true),
        ("connection: Keep-Alive, x-a\r\n", true, true),
        ("Connection: x-a,\tCLOSE\r\n", false, false),
        ("Connection: keep-alive, close\r\n", false, false),
        ("Connection: close\r\nConnection: keep-alive\r\n", false, false),
        ("Connection: closed\r\n", false, true),
        ("Connection: , ,\r\n", false, true),
        ("Keep-Alive: timeout=5\r\n", false, true),
    ] {
        assert_eq!((keeps("1.0", lines), keeps("1.1", lines)), (http10, http11), "{lines:?}");
    }
}

fn hop_by_hop(lines: &str) -> Vec<String> {
    let text = with(lines);
    let head = request(&text);
    let named = head.fields.iter().filter(|field| field.hop_by_hop);
    named.map(|f| String::from_utf8(f.name.of(text.as_bytes()).to_vec()).unwrap()).collect()
}

#[test]
fn rfc9110_7_6_1_hop_by_hop_fields() {
    let lines = "Connection: close\r\nKeep-Alive: 1\r\nProxy-Connection: x\r\nTE: gzip\r\nUpgrade: x\r\nHTTP2-Settings: x\r\nProxy-Authorization: x\r\n";
    assert_eq!(hop_by_hop(lines).len(), 7);
    assert_eq!(hop_by_hop("Transfer-Encoding: chunked\r\n"), ["Transfer-Encoding"]);
    assert!(hop_by_hop("a: b\r\nTrailer: c\r\nVia: d\r\nContent-Length: 1\r\n").is_empty());
}

#[test]
fn rfc9110_7_6_1_fields_named_by_connection() {
    let names = hop_by_hop(
        "x-a: 1\r\nConnection: X-A, close , x-b\r\nx-B: 2\r\nx-a: 3\r\nx-c: 4\r\nconnection: Trailer\r\ntrailer: q\r\n",
    );
    assert_eq!(names, ["x-a", "Connection", "x-B", "x-a", "connection", "trailer"]);
    for name in [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "Authorization",
        "Cookie",
        "X-Forwarded-For",
        "x-request-id",
        "Via",
        "Expect",
        "Cache-Control",
        "Content-Type",
    ] {
        refuses(&with(&format!("Connection: close, {name}\r\n")), BadConnection);
    }
    for value in ["a b", "a;b", "close;", "\"close\"", "a=b", "a\u{e9}", "close / x"] {
        refuses(&with(&format!("Connection: {value}\r\n")), BadConnection);
    }
}

#[test]
fn rfc9110_7_6_1_connection_lists_are_bounded() {
    request(&with(&format!("Connection: {}a\r\n", "a,".repeat(31))));
    refuses(&with(&format!("Connection: {}a\r\n", "a,".repeat(32))), BadConnection);
    refuses(&with(&format!("Connection: {}\r\n", ",".repeat(32))), BadConnection);
    request(&with(&"Connection: a\r\n".repeat(32)));
    refuses(&with(&"Connection: a\r\n".repeat(33)), BadConnection);
}

fn upgrade(lines: &str) -> String {
    let text = with(lines);
    String::from_utf8(request(&text).upgrade.of(text.as_bytes()).to_vec()).unwrap()
}

#[test]
fn rfc9110_7_8_upgrade() {
    assert_eq!(upgrade("Connection: Upgrade\r\nUpgrade: websocket\r\n"), "websocket");
    assert_eq!(upgrade("Upgrade: a/1.0\r\nConnection: keep-alive, upgrade\r\n"), "a/1.0");
    for lines in [
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\n",
        "Connection: upgrade\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: H2C\r\nHTTP2-Settings: AAMA\r\n",
        "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n",
        "Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
        "Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n",
        "Connection: upgrade\r\nUpgrade:\r\n",
        "Connection: upgrade\r\nUpgrade: /\r\n",
        "Connection: upgrade\r\nUpgrade: a b\r\n",
    ] {
        assert_eq!(upgrade(lines), "", "{lines:?}");
    }
    assert!(request("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").upgrade.is_empty());
}

#[test]
fn rfc9110_10_1_1_expect() {
    let expects = |lines: &str| request(&with(lines)).expect_continue;
    assert!(expects("Expect: 100-continue\r\nContent-Length: 5\r\n"));
    assert!(expects("Transfer-Encoding: chunked\r\nexpect: 100-Continue\r\n"));
    assert!(!expects("Expect: 100-continue\r\n"));
    assert!(!expects("Expect: 100-continue\r\nContent-Length: 0\r\n"));
    let http10 = "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    assert!(!request(http10).expect_continue);
    for value in ["", "x", "100-continue, x", "100-continue, 100-continue", "100", "100-continue;q=1"] {
        refuses(&with(&format!("Expect: {value}\r\n")), ExpectationUnknown);
    }
    refuses(&with("Expect: 100-continue\r\nExpect: 100-continue\r\n"), ExpectationUnknown);
}

#[test]
fn rfc9110_10_1_4_te() {
    let takes = |lines: &str| request(&with(lines)).te_trailers;
    assert!(takes("TE: trailers\r\n") && takes("te: gzip;q=0.5, Trailers\r\nConnection: TE\r\n"));
    assert!(!takes("") && !takes("TE: gzip\r\n") && !takes("TE: trailersx\r\n"));
}
