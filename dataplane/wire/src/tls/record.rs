//! TLS 1.3's records (RFC 8446 section 5), opened and sealed where they lie.
//!
//! ```text
//!   23 03 03 length │ bytes … type │ tag 16        sealed: bytes, type, zeros; the header is authenticated with them
//! ```

use super::Failure;
use crypto::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;
use std::ops::Range;

/// Content types (RFC 8446 appendix B.1).
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;

/// The most bytes that a record carries.
pub(super) const MOST: usize = 16_384;
pub(super) const HEADER: usize = 5;
pub(super) const TAG: usize = 16;
/// Records that one key seals, at most: AES-GCM's limit is 2^24.5 (RFC 8446 section 5.5).
const LIMIT: u64 = 1 << 24;

/// One direction's key and place in its sequence.
pub(super) struct Direction {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

impl Direction {
    pub(super) fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Direction, Failure> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Failure::NoCommonCipher),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| Failure::Other)?;
        let iv = iv.as_ref().try_into().map_err(|_| Failure::Other)?;
        Ok(Direction { key: LessSafeKey::new(key), iv, sequence })
    }

    /// The key is to be replaced soon.
    pub(super) fn is_worn(&self) -> bool {
        self.sequence >= LIMIT - 1024
    }

    /// Nothing opens any more: else a false record could stand for one that is left out.
    pub(super) fn end(&mut self) {
        self.sequence = LIMIT;
    }

    /// The next nonce (RFC 8446 section 5.3).
    fn nonce(&mut self) -> Result<Nonce, Failure> {
        if self.sequence >= LIMIT {
            return Err(Failure::Limit);
        }
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(byte, other)| *byte ^= other);
        self.sequence += 1;
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    /// Opens a whole record: its content type, and where its bytes lie.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(u8, Range<usize>), Failure> {
        let (header, sealed) = record.split_first_chunk_mut::<HEADER>().ok_or(Failure::BadRecord)?;
        if header[0] != APPLICATION_DATA || sealed.len() < TAG + 1 {
            return Err(Failure::BadRecord);
        }
        let nonce = self.nonce()?;
        let plain = self.key.open_in_place(nonce, Aad::from(*header), sealed).map_err(|_| Failure::Decrypt)?;
        // The type stands behind the bytes, perhaps with zeros behind it.
        let length = plain.iter().rposition(|byte| *byte != 0).ok_or(Failure::BadRecord)?;
        if length > MOST {
            return Err(Failure::TooLarge);
        }
        Ok((plain[length], HEADER..HEADER + length))
    }

    /// Seals bytes where they lie: `chunk` is up to 16,384 of them and one more, for the type.
    pub(super) fn seal(
        &mut self,
        kind: u8,
        chunk: &mut [u8],
        header: &mut [u8; HEADER],
        trailer: &mut [u8; TAG + 1],
    ) -> Result<(), Failure> {
        let (last, length) = (chunk.len().checked_sub(1).ok_or(Failure::Other)?, chunk.len() + TAG);
        if last > MOST {
            return Err(Failure::TooLarge);
        }
        *header = [APPLICATION_DATA, 3, 3, (length >> 8) as u8, length as u8];
        chunk[last] = kind;
        let nonce = self.nonce()?;
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(*header), chunk).map_err(|_| Failure::Other)?;
        trailer[0] = chunk[last];
        trailer[1..].copy_from_slice(tag.as_ref());
        Ok(())
    }

    /// Appends one record that carries the bytes of `parts`, at most 16,384.
    pub(super) fn append<'a>(
        &mut self,
        kind: u8,
        parts: impl Iterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let begin = out.len();
        out.extend_from_slice(&[0; HEADER]);
        parts.for_each(|part| out.extend_from_slice(part));
        out.push(0);
        let (mut header, mut trailer) = ([0; HEADER], [0; TAG + 1]);
        self.seal(kind, &mut out[begin + HEADER..], &mut header, &mut trailer)?;
        out[begin..begin + HEADER].copy_from_slice(&header);
        out.extend_from_slice(&trailer[1..]);
        Ok(())
    }
}
