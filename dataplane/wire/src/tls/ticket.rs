//! Tickets that let a client resume a session (RFC 8446 section 4.6.1): sealed with keys that all cores share, derived for
//! each set of settings, so that a ticket is worth nothing under others.
//!
//! ```text
//! nonce 12 │ sealed: when it ends 8, state … │ tag 16
//! ```
//!
//! A session is not verified again when it is resumed. So a ticket ends with the first thing that the trust in the client
//! rests on, and the handshake is then a whole one.

use super::{Clock, aside};
use crypto::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use crypto::hkdf::{HKDF_SHA256, Salt};
use crypto::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;
use std::fmt;

/// How long a ticket may be used, seconds. It ends sooner when both its keys have been replaced.
const LIFETIME_S: u32 = 12 * 3600;

/// What tickets are sealed with. Printed, it says nothing of the keys.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKeys {
    /// What new tickets are sealed with.
    pub current: [u8; 32],
    /// What it was before: its tickets are still taken.
    pub previous: Option<[u8; 32]>,
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKeys")
    }
}

pub(super) struct Tickets {
    current: LessSafeKey,
    previous: Option<LessSafeKey>,
    random: SystemRandom,
    clock: Clock,
}

impl Tickets {
    /// Tickets of a server whose settings have this digest.
    pub(super) fn new(keys: &TicketKeys, settings: &[u8; 32], clock: Clock) -> Option<Tickets> {
        Some(Tickets {
            current: derive(&keys.current, settings)?,
            previous: keys.previous.and_then(|key| derive(&key, settings)),
            random: SystemRandom::new(),
            clock,
        })
    }
}

fn derive(master: &[u8; 32], settings: &[u8; 32]) -> Option<LessSafeKey> {
    let secret = Salt::new(HKDF_SHA256, b"ringway tickets").extract(master);
    let info = [&settings[..]];
    let key = secret.expand(&info, &AES_256_GCM).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(key)))
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut ticket = [&nonce, &aside::ends_s().to_be_bytes()[..], plain].concat();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.current.seal_in_place_separate_tag(nonce, Aad::empty(), &mut ticket[NONCE_LEN..]).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.split_first_chunk::<NONCE_LEN>()?;
        let opened = std::iter::once(&self.current).chain(&self.previous).find_map(|key| {
            let mut state = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let length = key.open_in_place(nonce, Aad::empty(), &mut state).ok()?.len();
            state.truncate(length);
            Some(state)
        })?;
        let (ends_s, state) = opened.split_first_chunk()?;
        let ends_s = u64::from_be_bytes(*ends_s);
        if self.clock.now_s() > ends_s {
            return None;
        }
        aside::ends(ends_s);
        Some(state.to_vec())
    }
}
