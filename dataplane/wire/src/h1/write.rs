//! Writing heads. Nothing that is written can end a line early: bytes that would are replaced, whoever let them through.

use super::bytes;
use super::head::{Field, Span};

/// Writes `METHOD path?query HTTP/1.1`; `query` is empty or begins with `?`. Bytes that would end the target are percent-encoded.
pub fn write_request_line(out: &mut Vec<u8>, method: &[u8], path: &[u8], query: &[u8]) {
    out.extend_from_slice(method);
    out.push(b' ');
    push_target(out, path);
    push_target(out, query);
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Writes `HTTP/1.1 status reason`. A status has three digits.
pub fn write_status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    debug_assert!((100..1000).contains(&status));
    out.extend_from_slice(b"HTTP/1.1 ");
    write_decimal(out, u64::from(status));
    out.push(b' ');
    push_text(out, reason);
    out.extend_from_slice(b"\r\n");
}

/// Writes `name: value`. Bytes that would end the line are written as spaces.
pub fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    debug_assert!(!name.is_empty() && bytes::run_end(name, 0, bytes::TOKEN) == name.len());
    push_text(out, name);
    out.extend_from_slice(b": ");
    push_text(out, value);
    out.extend_from_slice(b"\r\n");
}

/// Writes the fields of a parsed head that are not hop-by-hop and that `keep` wants, in order, as `name: value`.
/// Neighbours that are written so already are copied in one go. `head` is what was parsed.
pub fn write_fields(out: &mut Vec<u8>, head: &[u8], fields: &[Field], mut keep: impl FnMut(&Field) -> bool) {
    // From the first name of a run to the last value.
    let mut run = Span::default();
    for field in fields {
        if field.hop_by_hop || !keep(field) {
            continue;
        }
        let follows = field.name.start == run.end + 2 && !run.is_empty();
        match is_canonical(head, field) {
            true if follows => run.end = field.value.end,
            true => {
                push_line(out, run.of(head));
                run = Span { start: field.name.start, end: field.value.end };
            }
            false => {
                push_line(out, run.of(head));
                run = Span::default();
                write_field(out, field.name.of(head), field.value.of(head));
            }
        }
    }
    push_line(out, run.of(head));
}

/// Writes a number in decimal digits.
pub fn write_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes a whole short answer of our own: a status, why, and the request's id (left out when empty). `lines` are whole field
/// lines that stand in it too. `close` announces that the connection ends; `head_only` leaves the body out, for HEAD.
pub fn write_error(
    out: &mut Vec<u8>,
    status: u16,
    reason_text: &str,
    request_id: &[u8],
    lines: &[u8],
    close: bool,
    head_only: bool,
) {
    let phrase = reason(status);
    let id_length = if request_id.is_empty() { 0 } else { REQUEST_ID.len() + request_id.len() + 1 };
    let length = 3 + 1 + phrase.len() + 2 + reason_text.len() + 1 + id_length;
    write_status_line(out, status, phrase.as_bytes());
    out.extend_from_slice(b"content-type: text/plain\r\ncontent-length: ");
    write_decimal(out, length as u64);
    out.extend_from_slice(b"\r\n");
    if !request_id.is_empty() {
        write_field(out, b"x-request-id", request_id);
    }
    out.extend_from_slice(lines);
    if close {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if head_only {
        return;
    }
    write_decimal(out, u64::from(status));
    for part in [" ", phrase, ": ", reason_text, "\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    if !request_id.is_empty() {
        out.extend_from_slice(REQUEST_ID);
        push_text(out, request_id);
        out.push(b'\n');
    }
}

const REQUEST_ID: &[u8] = b"request id: ";

/// The reason phrase of a status (RFC 9110 section 15, RFC 6585); empty for one that is not registered.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        511 => "Network Authentication Required",
        _ => "",
    }
}

/// Whether the field stands as `name: value`, one space between. What is behind the value shows only at the next field's start.
fn is_canonical(head: &[u8], field: &Field) -> bool {
    let between = Span { start: field.name.end, end: field.value.start };
    between.of(head) == b": "
}

fn push_line(out: &mut Vec<u8>, line: &[u8]) {
    if !line.is_empty() {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends text, control characters as spaces (RFC 9110 section 5.5).
#[inline]
fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    loop {
        let end = bytes::text_end(rest, 0);
        out.extend_from_slice(&rest[..end]);
        let Some(behind) = rest.get(end + 1..) else {
            break;
        };
        out.push(b' ');
        rest = behind;
    }
}

/// Appends a part of a request target, bytes that cannot stand in one percent-encoded.
#[inline]
fn push_target(out: &mut Vec<u8>, target: &[u8]) {
    let mut rest = target;
    loop {
        let end = bytes::word_end(rest, 0);
        out.extend_from_slice(&rest[..end]);
        let Some((&byte, behind)) = rest[end..].split_first() else {
            break;
        };
        out.extend_from_slice(&[b'%', hex_digit(byte >> 4), hex_digit(byte & 15)]);
        rest = behind;
    }
}

fn hex_digit(value: u8) -> u8 {
    b"0123456789ABCDEF"[usize::from(value & 15)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::head::Head;
    use crate::h1::parse::{Limits, Parsed};

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rfc9112_3_request_line() {
        let line = written(|out| write_request_line(out, b"GET", b"/a", b"?b=c"));
        assert_eq!(line, "GET /a?b=c HTTP/1.1\r\n");
        let line = written(|out| write_request_line(out, b"GET", b"/a b\r\nX: y", "?ä\0".as_bytes()));
        assert_eq!(line, "GET /a%20b%0D%0AX:%20y?%C3%A4%00 HTTP/1.1\r\n");
    }

    #[test]
    fn rfc9112_4_status_line() {
        assert_eq!(written(|out| write_status_line(out, 200, b"OK")), "HTTP/1.1 200 OK\r\n");
        assert_eq!(written(|out| write_status_line(out, 599, b"")), "HTTP/1.1 599 \r\n");
    }

    #[test]
    fn rfc9110_5_5_no_value_splits_a_line() {
        let line = written(|out| write_field(out, b"a", b"b\r\nc: d\0\n\x7f\te"));
        assert_eq!(line, "a: b  c: d   \te\r\n");
        assert_eq!(written(|out| write_field(out, b"a", b"")), "a: \r\n");
        assert_eq!(written(|out| write_field(out, b"a", b"\n")), "a:  \r\n");
    }

    #[test]
    fn decimals() {
        for number in [0, 9, 10, 99, 100, 12345, u64::MAX] {
            assert_eq!(written(|out| write_decimal(out, number)), number.to_string());
        }
    }

    fn rewritten(head: &str, dropped: &str) -> String {
        let limits = Limits { head_bytes: 1000, fields: 20, target_bytes: 100 };
        let mut parsed = Head::default();
        let result = parsed.parse_request(head.as_bytes(), &limits);
        assert_eq!(result, Ok(Parsed::Complete { length: head.len() }));
        let keep = |field: &Field| field.name.of(head.as_bytes()) != dropped.as_bytes();
        written(|out| write_fields(out, head.as_bytes(), &parsed.fields, keep))
    }

    #[test]
    fn rfc9112_5_fields_are_written_in_one_form() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nb: 1\r\nc:2\r\nd:\t3\r\ne: 4 \t\r\nf: 5\r\ng:  6\r\nh:\r\ni: \r\nj: 7\r\n\r\n";
        let fields = "Host: a\r\nb: 1\r\nc: 2\r\nd: 3\r\ne: 4\r\nf: 5\r\ng: 6\r\nh: \r\ni: \r\nj: 7\r\n";
        assert_eq!(rewritten(head, ""), fields);
        for name in ["Host", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
            let line = fields.split_inclusive("\r\n").find(|line| line.starts_with(&format!("{name}:")));
            assert_eq!(rewritten(head, name), fields.replace(line.unwrap(), ""), "{name}");
        }
    }

    #[test]
    fn rfc9110_7_6_1_hop_by_hop_is_not_written() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\nx: 1\r\nKeep-Alive: 1\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: a\r\ny: 2\r\n\r\n";
        assert_eq!(rewritten(head, ""), "Host: a\r\ny: 2\r\n");
    }

    #[test]
    fn error_answers_parse_and_have_the_length_they_say() {
        let limits = Limits { head_bytes: 1000, fields: 20, target_bytes: 100 };
        for (id, close, head_only) in [("", false, false), ("abc-1", true, false), ("abc", false, true)] {
            let answer = written(|out| write_error(out, 400, "bad thing", id.as_bytes(), b"", close, head_only));
            let mut head = Head::default();
            let parsed = head.parse_response(answer.as_bytes(), Default::default(), &limits);
            let Ok(Parsed::Complete { length }) = parsed else { panic!("{parsed:?} {answer}") };
            assert_eq!(head.keep_alive, !close);
            let body = &answer[length..];
            let crate::h1::Body::Length(said) = head.body else { panic!("{answer}") };
            match head_only {
                true => assert_eq!(body, ""),
                false => assert_eq!(body.len() as u64, said),
            }
            if !head_only {
                assert!(body.starts_with("400 Bad Request: bad thing\n") && body.contains(id), "{body}");
            }
        }
        let answer = written(|out| write_error(out, 404, "no route", b"7", b"vary: origin\r\n", true, false));
        let expected = "HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\ncontent-length: 38\r\nx-request-id: 7\r\nvary: origin\r\nconnection: close\r\n\r\n404 Not Found: no route\nrequest id: 7\n";
        assert_eq!(answer, expected);
    }
}
