//! A PROXY header: a part of it gets the verdict of the whole, and what it says, written in either version and read again, is the
//! same. The first byte says how long the part is (255: all of it).
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::proxy::{MOST_V1_BYTES, MOST_V2_BYTES, read, write_v1, write_v2};

fuzz_target!(|input: &[u8]| {
    let Some((&cut, bytes)) = input.split_first() else { return };
    let whole = read(bytes);
    let part = read(&bytes[..bytes.len() * usize::from(cut) / 255]);
    assert!(part == whole || part == Ok(None), "{part:?}, whole: {whole:?}");
    let Ok(Some(header)) = whole else {
        // Nobody has to hold more than the longest header to know.
        assert!(whole != Ok(None) || bytes.len() < MOST_V2_BYTES);
        return;
    };
    assert!(header.consumed <= bytes.len() && header.consumed <= MOST_V2_BYTES);
    assert_eq!(read(&bytes[..header.consumed]), Ok(Some(header)));
    assert_eq!(read(&bytes[..header.consumed - 1]), Ok(None));
    assert_eq!(header.source.is_some(), header.destination.is_some());
    let (mut line, mut binary) = (Vec::new(), Vec::new());
    write_v1(&mut line, header.source, header.destination);
    write_v2(&mut binary, header.source, header.destination);
    assert!(line.len() <= MOST_V1_BYTES);
    for out in [line, binary] {
        let again = read(&out).expect("what we write we read").expect("whole");
        assert_eq!((again.source, again.destination), (header.source, header.destination));
        assert_eq!(again.consumed, out.len());
    }
});
