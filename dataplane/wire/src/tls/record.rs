//! Records, opened and sealed where they lie.
//!
//! ```text
//!   TLS 1.3   23 03 03 length │ bytes … type │ tag 16             RFC 8446 section 5: zeros may stand behind the type
//!   TLS 1.2   type 03 03 length │ nonce 8 │ bytes … │ tag 16      RFC 5246 section 6.2.3.3; without the nonce in RFC 7905
//! ```
//!
//! What goes before the bytes is authenticated with them; in TLS 1.2 their place in the sequence too.

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
/// Records that one key of TLS 1.3 seals, at most: AES-GCM's limit is 2^24.5 of the largest (RFC 8446 section 5.5). Then
/// there is another key.
const LIMIT: u64 = 1 << 24;
/// TLS 1.2 has no other keys for a connection, and its nonces are never used twice: records of AES-GCM that it seals (NIST
/// SP 800-38D section 8.3).
const LIMIT_12: u64 = 1 << 32;
/// No limit: ChaCha20-Poly1305 of TLS 1.2; and whatever is opened, as it is who seals that keeps to limits.
const FOREVER: u64 = 1 << 62;
/// Nonces that stand in the records of TLS 1.2 (RFC 5288 section 3).
const EXPLICIT: usize = 8;

/// One direction's key and place in its sequence.
pub(super) struct Direction {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
    /// How many records there may be.
    limit: u64,
    format: Format,
}

/// How records are laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Tls13,
    Tls12,
    /// With a part of the nonce in them.
    Tls12Explicit,
}

impl Direction {
    /// What the other end seals.
    pub(super) fn opening(secrets: (u64, ConnectionTrafficSecrets), tls12: bool) -> Result<Direction, Failure> {
        Direction::new(secrets, tls12).map(|direction| Direction { limit: FOREVER, ..direction })
    }

    /// What we seal.
    pub(super) fn sealing(secrets: (u64, ConnectionTrafficSecrets), tls12: bool) -> Result<Direction, Failure> {
        Direction::new(secrets, tls12)
    }

    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets), tls12: bool) -> Result<Direction, Failure> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Failure::NoCommonCipher),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| Failure::Other)?;
        let iv = iv.as_ref().try_into().map_err(|_| Failure::Other)?;
        let chacha = *algorithm == CHACHA20_POLY1305;
        let (format, limit) = match (tls12, chacha) {
            (false, _) => (Format::Tls13, LIMIT),
            (true, true) => (Format::Tls12, FOREVER),
            (true, false) => (Format::Tls12Explicit, LIMIT_12),
        };
        Ok(Direction { key: LessSafeKey::new(key), iv, sequence, limit, format })
    }

    /// The key is to be replaced soon.
    pub(super) fn is_worn(&self) -> bool {
        self.sequence >= self.limit - 1024
    }

    /// Nothing opens any more: else a false record could stand for one that is left out.
    pub(super) fn end(&mut self) {
        self.sequence = self.limit;
    }

    /// The next nonce (RFC 8446 section 5.3, RFC 7905 section 2; in RFC 5288 section 3 any that is not used twice).
    fn nonce(&mut self) -> Result<[u8; NONCE_LEN], Failure> {
        if self.sequence >= self.limit {
            return Err(Failure::Limit);
        }
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(byte, other)| *byte ^= other);
        self.sequence += 1;
        Ok(nonce)
    }

    /// What TLS 1.2 authenticates beside the bytes of the record before the next (RFC 5246 section 6.2.3.3).
    fn aad_12(&self, kind: u8, version: [u8; 2], length: usize) -> Aad<[u8; 13]> {
        let mut aad = [0; 13];
        aad[..8].copy_from_slice(&(self.sequence - 1).to_be_bytes());
        aad[8..].copy_from_slice(&[kind, version[0], version[1], (length >> 8) as u8, length as u8]);
        Aad::from(aad)
    }

    /// Opens a whole record: its content type, and where its bytes lie.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(u8, Range<usize>), Failure> {
        let (header, sealed) = record.split_first_chunk_mut::<HEADER>().ok_or(Failure::BadRecord)?;
        let opened = match self.format {
            Format::Tls13 => self.open_13(*header, sealed),
            Format::Tls12 | Format::Tls12Explicit => self.open_12(*header, sealed),
        };
        let (kind, range) = opened?;
        if range.len() > MOST {
            return Err(Failure::TooLarge);
        }
        Ok((kind, HEADER + range.start..HEADER + range.end))
    }

    fn open_13(&mut self, header: [u8; HEADER], sealed: &mut [u8]) -> Result<(u8, Range<usize>), Failure> {
        if header[0] != APPLICATION_DATA || sealed.len() < TAG + 1 {
            return Err(Failure::BadRecord);
        }
        let nonce = Nonce::assume_unique_for_key(self.nonce()?);
        let plain = self.key.open_in_place(nonce, Aad::from(header), sealed).map_err(|_| Failure::Decrypt)?;
        // The type stands behind the bytes, perhaps with zeros behind it.
        let length = plain.iter().rposition(|byte| *byte != 0).ok_or(Failure::BadRecord)?;
        Ok((plain[length], 0..length))
    }

    fn open_12(&mut self, header: [u8; HEADER], sealed: &mut [u8]) -> Result<(u8, Range<usize>), Failure> {
        let mut nonce = self.nonce()?;
        let from = if self.format == Format::Tls12Explicit { EXPLICIT } else { 0 };
        let (explicit, sealed) = sealed.split_at_mut_checked(from).ok_or(Failure::BadRecord)?;
        nonce[NONCE_LEN - from..].copy_from_slice(explicit);
        let length = sealed.len().checked_sub(TAG).ok_or(Failure::BadRecord)?;
        let [kind, major, minor, ..] = header;
        let aad = self.aad_12(kind, [major, minor], length);
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.open_in_place(nonce, aad, sealed).map_err(|_| Failure::Decrypt)?;
        Ok((kind, from..from + length))
    }

    /// Seals bytes of TLS 1.3 where they lie: `chunk` is up to 16,384 of them and one more, for the type.
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
        let nonce = Nonce::assume_unique_for_key(self.nonce()?);
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
        if self.format != Format::Tls13 {
            return self.append_12(kind, parts, out);
        }
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

    fn append_12<'a>(
        &mut self,
        kind: u8,
        parts: impl Iterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let nonce = self.nonce()?;
        let begin = out.len();
        out.extend_from_slice(&[kind, 3, 3, 0, 0]);
        if self.format == Format::Tls12Explicit {
            out.extend_from_slice(&nonce[NONCE_LEN - EXPLICIT..]);
        }
        let from = out.len();
        parts.for_each(|part| out.extend_from_slice(part));
        let length = out.len() - from;
        if length > MOST {
            return Err(Failure::TooLarge);
        }
        let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), self.aad_12(kind, [3, 3], length));
        let tag = self.key.seal_in_place_separate_tag(nonce, aad, &mut out[from..]).map_err(|_| Failure::Other)?;
        out.extend_from_slice(tag.as_ref());
        let length = out.len() - begin - HEADER;
        out[begin + 3..begin + HEADER].copy_from_slice(&(length as u16).to_be_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(at: u64) -> (u64, ConnectionTrafficSecrets) {
        (at, ConnectionTrafficSecrets::Aes256Gcm { key: [7; 32].into(), iv: [9; NONCE_LEN].into() })
    }

    #[test]
    fn rfc8446_5_5_who_seals_keeps_to_the_limit_and_who_opens_takes_what_comes() {
        // Some never take another key, and are not cut off for it.
        for tls12 in [false, true] {
            let limit = if tls12 { LIMIT_12 } else { LIMIT };
            let mut other = Direction { limit: FOREVER, ..Direction::sealing(secrets(limit - 2), tls12).unwrap() };
            let mut open = Direction::opening(secrets(limit - 2), tls12).unwrap();
            for _ in 0..5 {
                let mut record = Vec::new();
                other.append(APPLICATION_DATA, std::iter::once(&b"data"[..]), &mut record).unwrap();
                let (kind, range) = open.open(&mut record).unwrap();
                assert_eq!((kind, &record[range]), (APPLICATION_DATA, &b"data"[..]));
            }
            let mut ours = Direction::sealing(secrets(limit - 1025), tls12).unwrap();
            let mut seal =
                || ours.append(APPLICATION_DATA, std::iter::empty(), &mut Vec::new()).map(|()| ours.is_worn());
            assert_eq!(seal(), Ok(true), "time for another key");
            let refused: Vec<Failure> = (0..1025).filter_map(|_| seal().err()).collect();
            assert_eq!(refused, [Failure::Limit]);
        }
    }
}
