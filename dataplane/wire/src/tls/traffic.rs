//! Records after the handshake, and the few messages that may still come in them.

use super::Failure;
use super::aside::{self, Aside};
use super::record::{ALERT, APPLICATION_DATA, Direction, HANDSHAKE, MOST, TAG};
use super::session::Opened;
use rustls::ExtractedSecrets;
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;

/// Records without bytes, and keys that are replaced, in a row: more are a flood.
const IDLE_RECORDS: u8 = 32;
/// A message after the handshake that spans records, bytes.
const MESSAGE_BYTES: usize = 64 * 1024;
/// Messages after the handshake (RFC 8446 section 4).
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
/// Alerts that are no failures (RFC 8446 section 6.1): the second says that the first follows.
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// A connection's records, both ways.
pub(super) struct Traffic {
    open: Direction,
    seal: Direction,
    /// `None` in TLS 1.2: there nothing but data and alerts may follow.
    later: Option<Box<Later>>,
    idle_records: u8,
}

/// What TLS 1.3 has after the handshake: tickets, and new keys.
struct Later {
    kernel: Kernel,
    /// See [`Aside`].
    ends_s: u64,
    /// An answer to a KeyUpdate is due.
    owed: bool,
    /// The beginning of a message that spans records.
    partial: Vec<u8>,
}

/// What rustls keeps to make keys and sessions of.
pub(super) enum Kernel {
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
}

impl Traffic {
    /// Of TLS 1.3.
    pub(super) fn new(secrets: ExtractedSecrets, kernel: Kernel, ends_s: u64) -> Result<Traffic, Failure> {
        let later = Box::new(Later { kernel, ends_s, owed: false, partial: Vec::new() });
        let (open, seal) = (Direction::opening(secrets.rx, false)?, Direction::sealing(secrets.tx, false)?);
        Ok(Traffic { open, seal, later: Some(later), idle_records: 0 })
    }

    /// Of TLS 1.2.
    pub(super) fn new_12(secrets: ExtractedSecrets) -> Result<Traffic, Failure> {
        let (open, seal) = (Direction::opening(secrets.rx, true)?, Direction::sealing(secrets.tx, true)?);
        Ok(Traffic { open, seal, later: None, idle_records: 0 })
    }

    /// Whether records are sealed where their bytes lie.
    pub(super) fn seals_in_place(&self) -> bool {
        self.later.is_some()
    }

    /// Opens one whole record, where it lies. After a failure nothing opens.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<Opened, Failure> {
        self.opened(record).inspect_err(|_| self.open.end())
    }

    fn opened(&mut self, record: &mut [u8]) -> Result<Opened, Failure> {
        let (kind, range) = self.open.open(record)?;
        let amid = self.later.as_ref().is_some_and(|later| !later.partial.is_empty());
        if kind == APPLICATION_DATA && !range.is_empty() && !amid {
            self.idle_records = 0;
            return Ok(Opened::Data(range));
        }
        self.idle_records += 1;
        if self.idle_records > IDLE_RECORDS {
            return Err(Failure::Limit);
        }
        match kind {
            _ if amid && kind != HANDSHAKE => Err(Failure::BadRecord),
            APPLICATION_DATA => Ok(Opened::Nothing),
            HANDSHAKE if !range.is_empty() => self.messages(&record[range]).map(|()| Opened::Nothing),
            ALERT => match record[range] {
                [_, CLOSE_NOTIFY] => Ok(Opened::Closed),
                [_, USER_CANCELED] => Ok(Opened::Nothing),
                // No failures in TLS 1.2 (RFC 5246 section 7.2).
                [WARNING, _] if self.later.is_none() => Ok(Opened::Nothing),
                [_, _] => Err(Failure::PeerAlert),
                _ => Err(Failure::BadRecord),
            },
            _ => Err(Failure::BadRecord),
        }
    }

    /// Messages after the handshake; one may span records, but for a KeyUpdate, which ends its record. In TLS 1.2 they
    /// could only ask for another handshake.
    fn messages(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let later = self.later.as_mut().ok_or(Failure::BadRecord)?;
        if later.partial.len() + bytes.len() > MESSAGE_BYTES {
            return Err(Failure::TooLarge);
        }
        let mut gathered = std::mem::take(&mut later.partial);
        gathered.extend_from_slice(bytes);
        let mut rest = &gathered[..];
        while let Some((&[kind, a, b, c], body)) = rest.split_first_chunk::<4>() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > MESSAGE_BYTES {
                return Err(Failure::TooLarge);
            }
            let Some((body, behind)) = body.split_at_checked(length) else { break };
            rest = behind;
            match (kind, body) {
                (NEW_SESSION_TICKET, ticket) => later.remember(ticket)?,
                (KEY_UPDATE, [asks @ (0 | 1)]) if rest.is_empty() => {
                    let secrets = match &mut later.kernel {
                        Kernel::Server(kernel) => kernel.update_rx_secret(),
                        Kernel::Client(kernel) => kernel.update_rx_secret(),
                    };
                    self.open = Direction::opening(secrets.map_err(|_| Failure::Other)?, false)?;
                    later.owed |= *asks == 1;
                }
                _ => return Err(Failure::BadRecord),
            }
        }
        later.partial = rest.to_vec();
        Ok(())
    }

    /// Whether something must go before the next bytes.
    pub(super) fn wants_send(&self) -> bool {
        self.later.as_ref().is_some_and(|later| later.owed || self.seal.is_worn())
    }

    /// Says that the next key follows, and takes it.
    pub(super) fn update_key(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let Some(later) = &mut self.later else { return Ok(()) };
        later.owed = false;
        self.seal.append(HANDSHAKE, std::iter::once(&[KEY_UPDATE, 0, 0, 1, 0][..]), out)?;
        let secrets = match &mut later.kernel {
            Kernel::Server(kernel) => kernel.update_tx_secret(),
            Kernel::Client(kernel) => kernel.update_tx_secret(),
        };
        self.seal = Direction::sealing(secrets.map_err(|_| Failure::Other)?, false)?;
        Ok(())
    }

    /// Puts records behind `out` that carry the bytes of `parts`.
    pub(super) fn seal(&mut self, parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), Failure> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length <= MOST {
            return self.seal.append(APPLICATION_DATA, parts.iter().copied(), out);
        }
        let bytes = parts.concat();
        bytes.chunks(MOST).try_for_each(|chunk| self.seal.append(APPLICATION_DATA, std::iter::once(chunk), out))
    }

    /// Seals bytes of TLS 1.3 where they lie; see [`Direction::seal`].
    pub(super) fn seal_in_place(
        &mut self,
        chunk: &mut [u8],
        header: &mut [u8; super::record::HEADER],
        trailer: &mut [u8; TAG + 1],
    ) -> Result<(), Failure> {
        match self.later {
            Some(_) => self.seal.seal(APPLICATION_DATA, chunk, header, trailer),
            None => Err(Failure::Other),
        }
    }

    /// Puts close_notify behind `out`, or the alert that tells of a failure.
    pub(super) fn alert(&mut self, failure: Option<Failure>, out: &mut Vec<u8>) {
        let alert = match failure {
            None => [WARNING, CLOSE_NOTIFY],
            // Nobody is there to be told.
            Some(Failure::PeerAlert) => return,
            Some(failure) => [FATAL, failure.alert()],
        };
        let _ = self.seal.append(ALERT, std::iter::once(&alert[..]), out);
    }
}

impl Later {
    /// A session to be resumed; a server is sent none.
    fn remember(&mut self, ticket: &[u8]) -> Result<(), Failure> {
        let Kernel::Client(kernel) = &mut self.kernel else { return Err(Failure::BadRecord) };
        let mut aside = Aside { ends_s: self.ends_s, ..Aside::default() };
        aside::with(&mut aside, || kernel.handle_new_session_ticket(ticket)).map_err(|_| Failure::BadRecord)
    }
}
