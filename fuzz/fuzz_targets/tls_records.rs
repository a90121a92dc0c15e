//! TLS sessions and hostile bytes, in place of a handshake, within one, and behind one: nothing panics, a session that failed stays
//! failed, and nothing opens but what was sealed, once and in order. The first byte says which of them is tried.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};
use wire::tls::{Client, ClientSettings, Clients, Clock, Credential, Expect, Failure, HandshakeState, Opened};
use wire::tls::{Server, ServerSettings, Session, TicketKeys, Trust};

/// The most that a peer may make us say before it has proved anything.
const ANSWER_BYTES: usize = 16 * 1024;

struct Ends {
    server: Server,
    client: Client,
    /// rustls' own clients: TLS 1.3, TLS 1.2.
    others: [Arc<ClientConfig>; 2],
}

static ENDS: LazyLock<Ends> = LazyLock::new(|| {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap().pem();
    let certificates = vec![Credential::from_pem(leaf.as_bytes(), key.serialize_pem().as_bytes()).unwrap()];
    let trust = Trust::from_pem(&[root.as_bytes()], Vec::new(), &[]).unwrap();
    let clock = Clock::new(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let other = |version| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        Arc::new(builder.with_root_certificates(roots.clone()).with_no_client_auth())
    };
    Ends {
        server: Server::new(ServerSettings {
            certificates,
            clients: Clients::Optional,
            trust: Some(trust.clone()),
            expect: Vec::new(),
            alpn: vec![b"http/1.1".to_vec()],
            tickets: Some(TicketKeys { current: [7; 32], previous: None }),
            clock: clock.clone(),
        })
        .unwrap(),
        client: Client::new(ClientSettings {
            trust,
            expect: vec![Expect::Name("a.example".into())],
            sni: Some("a.example".to_owned()),
            certificate: None,
            alpn: Vec::new(),
            clock,
        })
        .unwrap(),
        others: [other(&rustls::version::TLS13), other(&rustls::version::TLS12)],
    }
});

fuzz_target!(|input: &[u8]| {
    let Some((&kind, bytes)) = input.split_first() else { return };
    match kind % 6 {
        0 => before(Session::accept(&ENDS.server), bytes),
        1 => before(Session::connect(&ENDS.client), bytes),
        version @ (2 | 3) => within(&ENDS.others[usize::from(version - 2)], bytes),
        version => behind(&ENDS.others[usize::from(version - 4)], bytes),
    }
});

/// One of ours in a handshake.
struct Shaking {
    session: Session,
    input: Vec<u8>,
    said: usize,
}

impl Shaking {
    fn new(session: Session) -> Shaking {
        Shaking { session, input: Vec::new(), said: 0 }
    }

    fn take(&mut self, bytes: &[u8]) -> (HandshakeState, Vec<u8>) {
        self.input.extend_from_slice(bytes);
        let mut out = Vec::new();
        let step = self.session.handshake(&mut self.input, &mut out);
        assert!(step.consumed <= self.input.len());
        self.input.drain(..step.consumed);
        self.said += out.len();
        assert!(self.said <= ANSWER_BYTES);
        if let HandshakeState::Failed(_) = step.state {
            assert_eq!(self.session.handshake(&mut self.input, &mut out).state, HandshakeState::Failed(Failure::Other));
            assert!(self.session.open(&mut [23, 3, 3, 0, 1, 0]).is_err());
            assert!(self.session.seal(&[b"x"], &mut Vec::new()).is_err());
        }
        (step.state, out)
    }
}

/// Anything instead of a handshake. The first byte is the length of the pieces.
fn before(session: Result<Session, Failure>, bytes: &[u8]) {
    let Some((&step, bytes)) = bytes.split_first() else { return };
    let mut ours = Shaking::new(session.unwrap());
    for piece in std::iter::once(&b""[..]).chain(bytes.chunks(usize::from(step).max(1))) {
        match ours.take(piece).0 {
            HandshakeState::More => {}
            HandshakeState::Done => panic!("nobody was there to agree with"),
            HandshakeState::Failed(_) => return,
        }
    }
}

/// A client's handshake with bytes of it changed, left out or put in: `(place, what, byte)` each.
fn within(other: &Arc<ClientConfig>, bytes: &[u8]) {
    let mut client = connection(other);
    let mut ours = Shaking::new(Session::accept(&ENDS.server).unwrap());
    let mut changes: Vec<(usize, u8, u8)> =
        bytes.as_chunks::<4>().0.iter().map(|[a, b, c, d]| (usize::from(*a) << 8 | usize::from(*b), *c, *d)).collect();
    changes.sort_unstable();
    let (mut changes, mut at) = (VecDeque::from(changes), 0);
    for _ in 0..8 {
        let sent = sent(&mut client);
        let mut changed = Vec::new();
        for byte in &sent {
            let mut kept = Some(*byte);
            while let Some((_, what, with)) = changes.pop_front_if(|(place, ..)| *place <= at) {
                match what % 3 {
                    0 => kept = kept.map(|byte| byte ^ with),
                    1 => kept = None,
                    _ => changed.push(with),
                }
            }
            changed.extend(kept);
            at += 1;
        }
        let (state, out) = ours.take(&changed);
        if state != HandshakeState::More {
            return;
        }
        let _ = feed(&mut client, &out);
    }
}

/// After a handshake that went well: records of the client, each delivered as it is, changed or cut, in any order.
fn behind(other: &Arc<ClientConfig>, bytes: &[u8]) {
    let Some((mut client, mut session)) = shaken(other) else { panic!("no handshake") };
    let (mut records, mut next, mut well) = (Vec::<(Vec<u8>, Vec<u8>)>::new(), 0, true);
    for &[what, which, a, b] in bytes.as_chunks::<4>().0 {
        match what % 8 {
            0 => {
                let plain = vec![a; usize::from(b) * usize::from(which)];
                client.writer().write_all(&plain).unwrap();
                seal(&mut client, &mut records, plain);
            }
            1 if well && client.refresh_traffic_keys().is_ok() => seal(&mut client, &mut records, Vec::new()),
            2 => {
                let mut record = [&[which, 3, 3, 0, b][..], &vec![a; b.into()]].concat();
                assert!(session.open(&mut record).is_err());
                well = false;
            }
            3 => {
                let mut out = Vec::new();
                if session.take_pending(&mut out).is_ok() && session.seal(&[&[a, b], &[which]], &mut out).is_ok() {
                    assert_eq!(feed(&mut client, &out).unwrap(), [a, b, which]);
                }
            }
            what => {
                let Some((record, plain)) = records.get(usize::from(which)) else { continue };
                let mut record = record.clone();
                let whole = change(&mut record, what, a, b);
                let opened = session.open(&mut record);
                if whole && well && next == usize::from(which) {
                    next += 1;
                    match opened {
                        Ok(Opened::Data(range)) => assert_eq!(&record[range], plain),
                        Ok(Opened::Nothing) => assert!(plain.is_empty()),
                        // Nothing is carried too often.
                        Err(Failure::Limit) if plain.is_empty() => well = false,
                        other => panic!("{other:?}"),
                    }
                } else {
                    assert!(opened.is_err(), "{opened:?}");
                    well = false;
                }
            }
        }
    }
    let mut out = Vec::new();
    if well {
        session.close(&mut out)
    } else {
        session.alert(Failure::Decrypt, &mut out)
    }
    let _ = feed(&mut client, &out);
}

/// Whether it is still the record that was sealed.
fn change(record: &mut Vec<u8>, what: u8, a: u8, b: u8) -> bool {
    let place = (usize::from(a) << 8 | usize::from(b)) % record.len();
    match what {
        4 if !(3..5).contains(&place) => record[place] ^= a | 1,
        5 if place > 5 => {
            record.truncate(place);
            let length = (place - 5) as u16;
            record[3..5].copy_from_slice(&length.to_be_bytes());
        }
        _ => return true,
    }
    false
}

/// The records that the client has made of `plain`.
fn seal(client: &mut ClientConnection, records: &mut Vec<(Vec<u8>, Vec<u8>)>, mut plain: Vec<u8>) {
    let sent = sent(client);
    let mut rest = &sent[..];
    while let Ok(Some(length)) = Session::record_length(rest) {
        let (record, behind) = rest.split_at(length);
        let carried = plain.split_off(plain.len().min(16_384));
        records.push((record.to_vec(), std::mem::replace(&mut plain, carried)));
        rest = behind;
    }
    assert!(rest.is_empty() && plain.is_empty());
}

fn connection(other: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("a.example").unwrap();
    let mut client = ClientConnection::new(other.clone(), name).unwrap();
    client.set_buffer_limit(None);
    client
}

fn shaken(other: &Arc<ClientConfig>) -> Option<(ClientConnection, Session)> {
    let mut client = connection(other);
    let mut ours = Shaking::new(Session::accept(&ENDS.server).unwrap());
    for _ in 0..8 {
        let sent = sent(&mut client);
        let (state, out) = ours.take(&sent);
        feed(&mut client, &out).unwrap();
        if state == HandshakeState::Done {
            return Some((client, ours.session));
        }
    }
    None
}

fn sent(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// What the client reads of it.
fn feed(client: &mut ClientConnection, mut bytes: &[u8]) -> Result<Vec<u8>, rustls::Error> {
    let mut plain = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        client.process_new_packets()?;
        let _ = std::io::Read::read_to_end(&mut client.reader(), &mut plain);
    }
    Ok(plain)
}
