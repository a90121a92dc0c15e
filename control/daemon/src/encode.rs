//! Bytes as text, digests, and random bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto::rand::SecureRandom;

/// Lower case, two digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What [`hex`] wrote; none if it is something else.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| if let [a, b] = pair { Some(digit(*a)? << 4 | digit(*b)?) } else { None }).collect()
}

/// With padding, as it stands in files.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// What [`base64`] wrote; none if it is something else.
pub(crate) fn unbase64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = crypto::digest::digest(&crypto::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// Bytes that nobody can guess.
///
/// # Panics
/// The kernel has none: there is nothing that could go on safely.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    crypto::rand::SystemRandom::new().fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let bytes = random::<33>();
        assert_eq!(unhex(&hex(&bytes)).unwrap(), bytes);
        assert_eq!(unbase64(&base64(&bytes)).unwrap(), bytes);
        assert_eq!(unhex("0g"), None);
        assert_eq!(unhex("012"), None);
        assert_ne!(random::<16>(), random::<16>());
        assert_eq!(hex(&sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
