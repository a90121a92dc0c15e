//! Every body is decoded whole, a byte at a time, and split at every place: with the same outcome.

use super::*;
use proptest::prelude::*;

const TRAILER_LIMIT: usize = 100;

/// The data, what is left behind the body, and the trailers.
type Outcome = Result<(Vec<u8>, Vec<u8>, Vec<u8>), Option<Reject>>;

/// Decodes bytes that come in these parts. `Err(None)`: the body is not at its end.
fn decode_parts<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let mut chunked = Chunked::new(TRAILER_LIMIT);
    let (mut data, mut behind, mut ended) = (Vec::new(), Vec::new(), false);
    for part in parts {
        let mut rest = part;
        while !ended {
            match chunked.next(rest).map_err(Some)? {
                Piece::Data { skip, length } => {
                    assert!(length > 0);
                    data.extend_from_slice(&rest[skip..skip + length]);
                    rest = &rest[skip + length..];
                }
                Piece::More => break,
                Piece::End { consumed } => {
                    rest = &rest[consumed..];
                    ended = true;
                }
            }
        }
        if ended {
            behind.extend_from_slice(rest);
        }
    }
    if !ended {
        return Err(None);
    }
    assert_eq!(chunked.next(b"x"), Ok(Piece::End { consumed: 0 }));
    Ok((data, behind, chunked.trailers().to_vec()))
}

fn decode(body: &[u8]) -> Outcome {
    let whole = decode_parts([body].into_iter());
    assert_eq!(decode_parts(body.chunks(1)), whole, "a byte at a time");
    for at in 0..=body.len() {
        let (first, second) = body.split_at(at);
        assert_eq!(decode_parts([first, second].into_iter()), whole, "split at {at}");
    }
    whole
}

#[track_caller]
fn decodes(body: &str, data: &str, behind: &str, trailers: &str) {
    let outcome = (data.as_bytes().to_vec(), behind.as_bytes().to_vec(), trailers.as_bytes().to_vec());
    assert_eq!(decode(body.as_bytes()), Ok(outcome));
}

#[track_caller]
fn refuses(body: &str, reject: Reject) {
    assert_eq!(decode(body.as_bytes()), Err(Some(reject)), "{body:?}");
}

#[test]
fn rfc9112_7_1_chunks() {
    decodes("0\r\n\r\n", "", "", "");
    decodes("5\r\nhello\r\n0\r\n\r\n", "hello", "", "");
    decodes("1\r\na\r\n2\r\nbc\r\n0\r\n\r\nGET /", "abc", "GET /", "");
    decodes("00a\r\n0123456789\r\n000\r\n\r\n", "0123456789", "", "");
    decodes("A\r\n\r\n0\r\n\r\n\r\n\r\r\n0\r\n\r\n", "\r\n0\r\n\r\n\r\n\r", "", "");
}

#[test]
fn rfc9112_7_1_sizes() {
    use Reject::*;
    for body in [
        "+5\r\nhello\r\n",
        "-5\r\n",
        "0x5\r\nhello\r\n",
        "5_0\r\n",
        " 5\r\nhello\r\n",
        "5 \r\nhello\r\n",
        "5\t\r\nhello\r\n",
        "\r\n",
        ";a\r\n",
        "g\r\n",
        "5,5\r\n",
        "5 ;a\r\nhello\r\n",
        "\0\r\n",
        "5\0\r\n",
        "\"5\"\r\n",
        "5h\r\nhello\r\n",
    ] {
        refuses(body, BadChunkSize);
    }
    refuses("5\nhello\n0\n\n", BareLf);
    refuses("5\rhello\r\n", BareCr);
    refuses("5\r\rhello\r\n", BareCr);
    refuses("\n5\r\nhello", BareLf);
}

#[test]
fn rfc9112_7_1_size_overflow() {
    assert_eq!(decode(b"ffffffffffffffff\r\nabc"), Err(None));
    refuses("10000000000000000\r\nabc", Reject::BadChunkSize);
    refuses("fffffffffffffffff\r\n", Reject::BadChunkSize);
    decodes("0000000000000001\r\na\r\n0\r\n\r\n", "a", "", "");
    refuses("00000000000000001\r\na\r\n0\r\n\r\n", Reject::BadChunkSize);
    // A 32-bit counter would see 5.
    assert_eq!(decode(b"100000005\r\nhello"), Err(None));
}

#[test]
fn rfc9112_7_1_chunk_ends() {
    for body in [
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\rX",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello \r\n0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
    ] {
        refuses(body, Reject::BadChunkEnd);
    }
    refuses("6\r\nhello\r\n0\r\n\r\n", Reject::BadChunkEnd);
    refuses("0\r\n\rX", Reject::BareCr);
    refuses("0\r\n\n", Reject::BareLf);
    refuses("0\n\r\n", Reject::BareLf);
}

#[test]
fn rfc9112_7_1_not_at_its_end() {
    for body in
        ["", "5", "5\r", "5\r\n", "5\r\nhel", "5\r\nhello", "5\r\nhello\r\n", "0", "0\r\n", "0\r\n\r", "0\r\na: b\r\n"]
    {
        assert_eq!(decode(body.as_bytes()), Err(None), "{body:?}");
    }
}

#[test]
fn rfc9112_7_1_1_extensions_are_dropped() {
    decodes("5;a=b;c=\"d e\";f\r\nhello\r\n0;x\r\n\r\n", "hello", "", "");
    decodes("5;\r\nhello\r\n0\r\n\r\n", "hello", "", "");
    refuses("5;a\nhello\r\n", Reject::BareLf);
    refuses("5;a\rb\r\nhello", Reject::BareCr);
    for bad in ["\0", "\x7f", "\x0b", "ä"] {
        refuses(&format!("5;a={bad}\r\nhello"), Reject::BadChunkExtension);
    }
}

#[test]
fn rfc9112_7_1_1_extensions_are_bounded_for_the_body() {
    let limit = usize::from(EXTENSION_BYTES);
    let one = |length: usize| format!("1;{}\r\na\r\n", "x".repeat(length - 1));
    let whole = |body: String| decode_parts([body.as_bytes()].into_iter()).map(|outcome| outcome.0);
    assert_eq!(whole(format!("{}0\r\n\r\n", one(limit))), Ok(b"a".to_vec()));
    assert_eq!(whole(format!("{}0\r\n\r\n", one(limit + 1))), Err(Some(Reject::ChunkExtensionsTooLong)));
    assert_eq!(whole(one(limit / 2).repeat(2) + "0\r\n\r\n"), Ok(b"aa".to_vec()));
    assert_eq!(whole(one(limit / 2).repeat(2) + "0;\r\n\r\n"), Err(Some(Reject::ChunkExtensionsTooLong)));
}

#[test]
fn rfc9112_7_1_2_trailers_have_one_form() {
    decodes("0\r\na: b\r\n\r\n", "", "", "a: b\r\n");
    decodes("0\r\na:b\r\nX-C:\t d e \t\r\ng:\r\n\r\nrest", "", "rest", "a: b\r\nX-C: d e\r\ng: \r\n");
    decodes(
        "1\r\nx\r\n0\r\nETag: \"a\"\r\ncontent-digest: 1\r\ngrpc-status: 0\r\n\r\n",
        "x",
        "",
        "ETag: \"a\"\r\ncontent-digest: 1\r\ngrpc-status: 0\r\n",
    );
}

#[test]
fn rfc9110_6_5_1_forbidden_trailers_are_dropped() {
    for name in [
        "Content-Length",
        "transfer-encoding",
        "HOST",
        "Authorization",
        "Cookie",
        "Set-Cookie",
        "Connection",
        "TE",
        "Trailer",
        "Via",
        "Upgrade",
        "Content-Type",
        "Content-Encoding",
        "Content-Range",
        "Content-Language",
        "If-Match",
        "If-Unmodified-Since",
        "Cache-Control",
        "Expect",
        "Range",
        "Max-Forwards",
        "X-Forwarded-For",
        "X-Forwarded-Port",
        "X-Request-Id",
        "Proxy-Foo",
        "Keep-Alive",
        "Location",
        "Forwarded",
        "WWW-Authenticate",
        "Accept-Charset",
    ] {
        decodes(&format!("0\r\nx: 1\r\n{name}: v\r\ny: 2\r\n\r\n"), "", "", "x: 1\r\ny: 2\r\n");
    }
}

#[test]
fn rfc9112_5_bad_trailers() {
    use Reject::*;
    refuses("0\r\na : b\r\n\r\n", SpaceBeforeColon);
    refuses("0\r\n a: b\r\n\r\n", ObsFold);
    refuses("0\r\na: b\r\n c\r\n\r\n", ObsFold);
    refuses("0\r\n: b\r\n\r\n", EmptyName);
    refuses("0\r\nab\r\n\r\n", BadName);
    refuses("0\r\na(: b\r\n\r\n", BadName);
    refuses("0\r\na: b\n\r\n", BareLf);
    refuses("0\r\na: b\rc\r\n\r\n", BareCr);
    refuses("0\r\na: \0\r\n\r\n", Nul);
    refuses("0\r\na: \x0b\r\n\r\n", ControlCharacter);
    refuses("0\r\nContent-Length : 5\r\n\r\n", SpaceBeforeColon);
}

#[test]
fn rfc6585_5_trailers_are_bounded() {
    let body = |length: usize| format!("0\r\na: {}\r\n\r\n", "x".repeat(length - 5));
    assert!(decode(body(TRAILER_LIMIT).as_bytes()).is_ok());
    refuses(&body(TRAILER_LIMIT + 1), Reject::TrailersTooLarge);
    // Dropped ones count too, and a line need not end to be too long.
    refuses(&format!("0\r\n{}", "host: a\r\n".repeat(12)), Reject::TrailersTooLarge);
    refuses(&format!("0\r\n{}", "x".repeat(TRAILER_LIMIT + 1)), Reject::TrailersTooLarge);
}

#[test]
fn a_decoder_is_small_and_allocates_for_trailers_only() {
    assert!(size_of::<Chunked>() <= 48);
    let mut chunked = Chunked::new(usize::MAX);
    assert_eq!(chunked.next(b"1\r\na\r\n0\r\n\r\n"), Ok(Piece::Data { skip: 3, length: 1 }));
    assert_eq!(chunked.next(b"\r\n0\r\n\r\n"), Ok(Piece::End { consumed: 7 }));
    assert_eq!(chunked.trailers.capacity(), 0);
}

#[test]
fn rfc9112_7_1_chunk_heads() {
    for length in [1, 9, 10, 15, 16, 255, 256, 65536, usize::MAX] {
        let mut out = Vec::new();
        write_chunk_head(&mut out, length);
        assert_eq!(out, format!("{length:x}\r\n").as_bytes());
    }
}

proptest! {
    #[test]
    fn any_chunks_in_any_parts_are_the_data(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        behind in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut body = Vec::new();
        for chunk in &chunks {
            write_chunk_head(&mut body, chunk.len());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(LAST_CHUNK);
        body.extend_from_slice(b"\r\n");
        body.extend_from_slice(&behind);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let parts = cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]);
        prop_assert_eq!(decode_parts(parts), Ok((chunks.concat(), behind, Vec::new())));
    }

    #[test]
    fn any_bytes_in_any_parts_end_alike(body in "([0-9a-f]{1,2}(;x)?\r\n|[a-z]{1,9}|\r\n|0\r\n|a: b\r\n|\r|\n| |:){0,12}") {
        let _ = decode(body.as_bytes());
    }
}
