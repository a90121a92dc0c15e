//! A chunked body, decoded whole and in parts: with the same outcome. The first byte is the length of the parts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::h1::{Chunked, Piece, Reject};

fuzz_target!(|input: &[u8]| {
    let Some((&step, body)) = input.split_first() else { return };
    let whole = decode([body].into_iter());
    let parts = decode(body.chunks(usize::from(step).max(1)));
    assert_eq!(whole, parts);
});

/// Data, bytes behind the body if it ended, and trailers.
type Outcome = Result<(Vec<u8>, Option<Vec<u8>>, Vec<u8>), Reject>;

fn decode<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let mut chunked = Chunked::new(200);
    let (mut data, mut behind) = (Vec::new(), None);
    for mut part in parts {
        loop {
            match chunked.next(part)? {
                Piece::Data { skip, length } => {
                    assert_ne!(length, 0);
                    data.extend_from_slice(&part[skip..skip + length]);
                    part = &part[skip + length..];
                }
                Piece::More => break,
                Piece::End { consumed } => {
                    behind.get_or_insert_with(Vec::new).extend_from_slice(&part[consumed..]);
                    break;
                }
            }
        }
    }
    Ok((data, behind, chunked.trailers().to_vec()))
}
