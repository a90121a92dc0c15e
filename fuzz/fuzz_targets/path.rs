//! Paths and hosts: normalising once is enough, and nothing that climbs or hides a slash is left.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::path::{normalise, normalise_host};

fuzz_target!(|bytes: &[u8]| {
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    if let Ok(changed) = normalise(bytes, &mut once) {
        let normal = if changed { &once[..] } else { bytes };
        assert_eq!(changed, normal != bytes);
        assert_eq!(normalise(normal, &mut twice), Ok(false));
        assert!(normal == b"*" || normal[0] == b'/');
        let segments = normal.split(|&byte| byte == b'/').skip(1);
        let count = segments.clone().count();
        for (at, segment) in segments.enumerate() {
            assert!(segment != b"." && segment != b".." && (!segment.is_empty() || at + 1 == count));
            assert!(!segment.windows(3).any(|triplet| matches!(triplet, b"%2F" | b"%5C" | b"%00" | b"%2E")));
        }
    }
    let mut out = Vec::new();
    if let Ok(host) = normalise_host(bytes, &mut out) {
        let host = host.to_vec();
        assert_eq!(normalise_host(&host, &mut Vec::new()), Ok(&host[..]));
        assert!(!host.ends_with(b".") && !host.iter().any(u8::is_ascii_uppercase));
    }
});
