//! A ClientHello: read in pieces it gets the verdict of the whole, and the name we route by is the one that a TLS server reads.
//! The first byte is the length of the pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustls::server::{Accepted, Acceptor};
use wire::client_hello::{Hello, MOST_BYTES, Reader, Reject, read};

fuzz_target!(|input: &[u8]| {
    let Some((&step, bytes)) = input.split_first() else { return };
    let whole = read(bytes, MOST_BYTES);
    let step = usize::from(step).max(1);
    let mut reader = Reader::new(MOST_BYTES);
    let mut last = Ok(None);
    for end in (0..bytes.len()).step_by(step).skip(1).chain([bytes.len()]) {
        last = reader.read(&bytes[..end]);
        if last != Ok(None) {
            break;
        }
    }
    assert_eq!(last, whole);
    // As much as is allowed, and one byte less.
    if let Ok(Some(hello)) = &whole {
        assert!(hello.length <= bytes.len() && hello.length <= MOST_BYTES);
        assert_eq!(read(&bytes[..hello.length], hello.length), whole);
        assert_eq!(read(&bytes[..hello.length - 1], MOST_BYTES), Ok(None));
        assert_eq!(read(bytes, hello.length - 1), Err(Reject::TooLarge));
        compare(hello, &bytes[..hello.length]);
    }
});

/// What a server makes of the same bytes. It may refuse more; it may not see another name, or other protocols.
fn compare(ours: &Hello, bytes: &[u8]) {
    let Some(accepted) = accept(bytes) else { return };
    let theirs = accepted.client_hello();
    assert_eq!(ours.sni.as_deref(), theirs.server_name().map(str::to_ascii_lowercase).as_deref());
    let offered: Vec<&[u8]> = theirs.alpn().into_iter().flatten().collect();
    assert_eq!(ours.alpn.names().collect::<Vec<_>>(), offered);
}

fn accept(mut bytes: &[u8]) -> Option<Accepted> {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            return Some(accepted);
        }
    }
    None
}
