//! An answer's head, to GET and to HEAD: a part of it gets the verdict of the whole, and what is accepted has a body that RFC 9112
//! section 6.3 allows. The first byte says how long the part is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::h1::{Body, Head, HeadEnd, Limits, Method, Parsed};

const LIMITS: Limits = Limits { head_bytes: 2048, fields: 30, target_bytes: 500 };

fuzz_target!(|input: &[u8]| {
    let Some((&cut, bytes)) = input.split_first() else { return };
    for method in [Method::Get, Method::Head] {
        let mut head = Head::default();
        let whole = head.parse_response(bytes, method, &LIMITS);
        let part = &bytes[..bytes.len() * usize::from(cut) / 255];
        let verdict = Head::default().parse_response(part, method, &LIMITS);
        assert!(verdict == whole || verdict == Ok(Parsed::Partial), "{verdict:?}, whole: {whole:?}");
        if let Ok(Parsed::Complete { length }) = whole {
            assert!(HeadEnd::default().find(&bytes[..length]) && !HeadEnd::default().find(&bytes[..length - 1]));
            assert!((100..600).contains(&head.status));
            let bodyless = method == Method::Head || matches!(head.status, 100..200 | 204 | 304);
            assert_eq!(bodyless, head.body == Body::None);
            assert!(head.body != Body::UntilClose || !head.keep_alive);
        } else if HeadEnd::default().find(bytes) {
            assert_ne!(whole, Ok(Parsed::Partial));
        }
    }
});
