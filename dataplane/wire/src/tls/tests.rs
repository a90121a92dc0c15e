//! Sessions against each other and against rustls' own connections; refusals by name.

use super::*;
use crate::spiffe::Pattern;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, ExtendedKeyUsagePurpose,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

/// 2026-06-01
const NOW_S: u64 = 1_780_272_000;

struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a leaf differs in from a usual one.
#[derive(Clone)]
struct Leaf {
    dns: Vec<&'static str>,
    uris: Vec<&'static str>,
    years: (i32, i32),
    usages: Vec<ExtendedKeyUsagePurpose>,
    serial: u64,
}

impl Leaf {
    fn of(uri: &'static str) -> Leaf {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Leaf { dns: vec![], uris: vec![uri], years: (2026, 2027), usages, serial: 7 }
    }

    fn named(dns: &'static str) -> Leaf {
        Leaf { dns: vec![dns], uris: vec![], ..Leaf::of("") }
    }
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, leaf: &Leaf) -> (String, String) {
        let mut params =
            CertificateParams::new(leaf.dns.iter().map(|dns| (*dns).to_owned()).collect::<Vec<_>>()).unwrap();
        for uri in &leaf.uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
        }
        params.extended_key_usages = leaf.usages.clone();
        params.serial_number = Some(SerialNumber::from(leaf.serial));
        params.not_before = date_time_ymd(leaf.years.0, 1, 1);
        params.not_after = date_time_ymd(leaf.years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn credential(&self, leaf: &Leaf) -> Credential {
        let (chain, key) = self.issue(leaf);
        Credential::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
    }

    fn trust(&self, domains: &[&str]) -> Trust {
        let domains = domains.iter().map(|domain| (*domain).to_owned()).collect();
        Trust::from_pem(&[self.pem().as_bytes()], domains, &[]).unwrap()
    }

    fn revoke(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2026, 2, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 2, 1),
            next_update: date_time_ymd(2027, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

fn identity(text: &str) -> Expect {
    Expect::Identity(Pattern::parse(text).unwrap())
}

const CART: &str = "spiffe://shop/ns/cart/sa/cart";
const WEB: &str = "spiffe://shop/ns/web/sa/web";

/// Both sides' settings, as two sidecars have them.
struct Mesh {
    authority: Authority,
    server: ServerSettings,
    client: ClientSettings,
}

impl Mesh {
    fn new() -> Mesh {
        let authority = Authority::new();
        let clock = Clock::new(NOW_S);
        let server = ServerSettings {
            certificates: vec![authority.credential(&Leaf::of(CART))],
            clients: Clients::Required,
            trust: Some(authority.trust(&["shop"])),
            expect: vec![],
            alpn: vec![b"http/1.1".to_vec()],
            tickets: Some(TicketKeys { current: [7; 32], previous: None }),
            clock: clock.clone(),
        };
        let client = ClientSettings {
            trust: authority.trust(&["shop"]),
            expect: vec![identity(CART)],
            sni: None,
            certificate: Some(authority.credential(&Leaf::of(WEB))),
            alpn: vec![],
            clock,
        };
        Mesh { authority, server, client }
    }

    fn servers(&self) -> Server {
        Server::new(self.server.clone()).unwrap()
    }

    fn clients(&self) -> Client {
        Client::new(self.client.clone()).unwrap()
    }

    fn refused_as(&self) -> [Option<Failure>; 2] {
        match shake(&self.servers(), &self.clients(), usize::MAX) {
            Ok(_) => [None; 2],
            Err(failures) => failures,
        }
    }
}

/// One side while both talk.
struct Side {
    session: Session,
    input: Vec<u8>,
    state: HandshakeState,
}

/// Lets both talk, `piece` bytes at a time; the sessions with what followed, or why it came to nothing on each side.
fn shake(server: &Server, client: &Client, piece: usize) -> Result<[Side; 2], [Option<Failure>; 2]> {
    let side = |session: Session| Side { session, input: Vec::new(), state: HandshakeState::More };
    let mut sides = [side(Session::connect(client).unwrap()), side(Session::accept(server).unwrap())];
    let mut wires: [Vec<u8>; 2] = Default::default();
    for _ in 0..100_000 {
        let mut moved = false;
        for (at, side) in sides.iter_mut().enumerate() {
            let taken = wires[at].len().min(piece);
            side.input.extend(wires[at].drain(..taken));
            moved |= taken > 0;
            if side.state == HandshakeState::More {
                let step = side.session.handshake(&mut side.input, &mut wires[1 - at]);
                side.input.drain(..step.consumed);
                moved |= step.consumed > 0 || step.state != HandshakeState::More;
                side.state = step.state;
            }
        }
        if !moved && wires.iter().all(Vec::is_empty) {
            break;
        }
    }
    if sides.iter().all(|side| side.state == HandshakeState::Done) {
        return Ok(sides);
    }
    Err(sides.map(|side| match side.state {
        HandshakeState::Failed(failure) => Some(failure),
        _ => None,
    }))
}

/// Opens all records of `bytes`; what they carry.
fn open_all(session: &mut Session, bytes: &[u8]) -> Result<(Vec<u8>, bool), Failure> {
    let (mut plain, mut closed, mut rest) = (Vec::new(), false, bytes.to_vec());
    while let Some(length) = Session::record_length(&rest)?.filter(|length| *length <= rest.len()) {
        let mut record: Vec<u8> = rest.drain(..length).collect();
        match session.open(&mut record)? {
            Opened::Data(range) => plain.extend_from_slice(&record[range]),
            Opened::Nothing => {}
            Opened::Closed => closed = true,
        }
    }
    Ok((plain, closed))
}

fn data(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

#[test]
fn two_sidecars_agree_and_know_each_other() {
    let mesh = Mesh::new();
    for piece in [usize::MAX, 1, 7, 1000] {
        let [mut client, mut server] = shake(&mesh.servers(), &mesh.clients(), piece).unwrap();
        assert_eq!(server.session.peer().identity.as_ref().map(|id| id.as_str()), Some(WEB));
        assert_eq!(client.session.peer().identity.as_ref().map(|id| id.as_str()), Some(CART));
        assert_eq!((client.session.peer().version, client.session.peer().resumed), ("TLSv1.3", false));
        // The ticket stands before what the server says.
        for length in [0, 1, 100, 16_383, 16_384, 16_385, 100_000] {
            let sent = data(length);
            let mut wire = Vec::new();
            client.session.seal(&[&sent[..length / 2], &sent[length / 2..]], &mut wire).unwrap();
            assert_eq!(open_all(&mut server.session, &wire).unwrap().0, sent, "{length}");
            let mut wire = std::mem::take(&mut client.input);
            server.session.seal(&[&sent], &mut wire).unwrap();
            assert_eq!(open_all(&mut client.session, &wire).unwrap().0, sent, "{length}");
        }
        let mut wire = Vec::new();
        client.session.close(&mut wire);
        assert_eq!(open_all(&mut server.session, &wire), Ok((vec![], true)));
    }
}

#[test]
fn rfc8446_5_2_records_are_sealed_in_place_and_broken_ones_do_not_open() {
    let mesh = Mesh::new();
    let [mut client, mut server] = shake(&mesh.servers(), &mesh.clients(), usize::MAX).unwrap();
    let sent = data(40);
    let seal = |session: &mut Session| {
        let mut chunk = [&sent[..], &[99]].concat();
        let (mut header, mut trailer) = ([0; Session::HEADER], [0; Session::TRAILER]);
        session.seal_in_place(&mut chunk, &mut header, &mut trailer).unwrap();
        [&header[..], &chunk[..sent.len()], &trailer].concat()
    };
    let record = seal(&mut client.session);
    for at in 0..record.len() {
        // Each needs a session that waits for the same record.
        let [mut client, mut server] = shake(&mesh.servers(), &mesh.clients(), usize::MAX).unwrap();
        let mut whole = seal(&mut client.session);
        whole[at] ^= 1;
        let opened = open_all(&mut server.session, &whole);
        assert!(opened.is_err() || opened == Ok((vec![], false)), "byte {at}: {opened:?}");
    }
    assert_eq!(open_all(&mut server.session, &record).unwrap().0, sent);
    assert_eq!(open_all(&mut server.session, &record), Err(Failure::Decrypt), "a record comes once");
}

#[test]
fn refusals_have_names() {
    let with_client = |leaf: Leaf| {
        let mut mesh = Mesh::new();
        mesh.client.certificate = Some(mesh.authority.credential(&leaf));
        mesh.refused_as()[1]
    };
    let usual = Leaf::of(WEB);
    assert_eq!(with_client(usual.clone()), None);
    let cases = [
        (Leaf { years: (2020, 2021), ..usual.clone() }, Failure::Expired),
        (Leaf { years: (2030, 2031), ..usual.clone() }, Failure::NotYetValid),
        (Leaf { usages: vec![ExtendedKeyUsagePurpose::ServerAuth], ..usual.clone() }, Failure::WrongUsage),
        (Leaf::of("spiffe://evil/ns/web/sa/web"), Failure::WrongIdentity),
        (Leaf { uris: vec![WEB, "spiffe://shop/ns/root"], ..usual.clone() }, Failure::WrongIdentity),
        (Leaf { uris: vec![WEB, "https://shop/"], ..usual.clone() }, Failure::WrongIdentity),
        (Leaf { uris: vec!["spiffe://shop/ns/w%65b"], ..usual.clone() }, Failure::WrongIdentity),
        (Leaf { uris: vec![], ..usual }, Failure::WrongIdentity),
    ];
    for (leaf, failure) in cases {
        assert_eq!(with_client(leaf.clone()), Some(failure), "{:?} {:?}", leaf.uris, leaf.years);
    }
    let mut none = Mesh::new();
    none.client.certificate = None;
    assert_eq!(none.refused_as()[1], Some(Failure::NoCertificate));
    none.server.clients = Clients::Optional;
    assert_eq!(none.refused_as(), [None; 2]);

    let mut stranger = Mesh::new();
    stranger.client.certificate = Some(Authority::new().credential(&Leaf::of(WEB)));
    assert_eq!(stranger.refused_as()[1], Some(Failure::UnknownIssuer));
    stranger.server.clients = Clients::Optional;
    assert_eq!(stranger.refused_as()[1], Some(Failure::UnknownIssuer), "a bad one is worse than none");

    let mut revoked = Mesh::new();
    let list = revoked.authority.revoke(7);
    let roots = revoked.authority.pem();
    let trust = Trust::from_pem(&[roots.as_bytes()], vec!["shop".to_owned()], &[list.as_bytes()]).unwrap();
    revoked.server.trust = Some(trust);
    assert_eq!(revoked.refused_as()[1], Some(Failure::Revoked));

    let mut other = Mesh::new();
    other.client.expect = vec![identity("spiffe://shop/ns/pay/**")];
    assert_eq!(other.refused_as()[0], Some(Failure::WrongIdentity));
    other.client.expect = vec![Expect::Name("cart.example".into())];
    assert_eq!(other.refused_as()[0], Some(Failure::WrongName));

    let mut unwanted = Mesh::new();
    unwanted.server.expect = vec![identity("spiffe://shop/ns/pay/**")];
    assert_eq!(unwanted.refused_as()[1], Some(Failure::WrongIdentity));

    let mut alpn = Mesh::new();
    alpn.client.alpn = vec![b"h2".to_vec()];
    assert_eq!(alpn.refused_as()[1], Some(Failure::NoCommonAlpn));
}

#[test]
fn what_is_no_tls_is_told_from_it() {
    let server = Mesh::new().servers();
    for (bytes, failure) in [(&b"GET / HTTP/1.1\r\n"[..], Failure::NotTls), (b"\x16\x03\x01\xff\xff", Failure::NotTls)]
    {
        let (mut input, mut out) = (bytes.to_vec(), Vec::new());
        let step = Session::accept(&server).unwrap().handshake(&mut input, &mut out);
        assert_eq!(step.state, HandshakeState::Failed(failure));
    }
    let (mut session, mut out) = (Session::accept(&server).unwrap(), Vec::new());
    assert_eq!(session.handshake(&mut [0x16, 3, 1, 2], &mut out).state, HandshakeState::More);
}

#[test]
fn certificates_are_chosen_by_name() {
    let mut mesh = Mesh::new();
    let leaves = [Leaf::named("a.example"), Leaf::named("*.b.example"), Leaf::named("x.b.example")];
    mesh.server.certificates = leaves.iter().map(|leaf| mesh.authority.credential(leaf)).collect();
    mesh.server.clients = Clients::None;
    let server = mesh.servers();
    for (name, number) in [("a.example", 0), ("y.b.example", 1), ("x.b.example", 2), ("z.y.b.example", 0), ("c", 0)] {
        assert_eq!(server.certificate_for(name.as_bytes()), number, "{name}");
    }
    mesh.client.sni = Some("y.b.example".to_owned());
    mesh.client.expect = vec![Expect::Name("y.b.example".into())];
    let [_, server] = shake(&server, &mesh.clients(), usize::MAX).unwrap();
    let peer = server.session.peer();
    assert_eq!((peer.sni.as_deref(), peer.certificate), (Some("y.b.example"), 1));
}

#[test]
fn a_ticket_is_worth_something_under_its_own_settings_alone() {
    let mut mesh = Mesh::new();
    let client = mesh.clients();
    let once = |mesh: &Mesh| {
        let [mut client, mut server] = shake(&mesh.servers(), &client, usize::MAX)?;
        let wire = std::mem::take(&mut client.input);
        open_all(&mut client.session, &wire).unwrap();
        assert_eq!(server.session.peer().resumed, client.session.peer().resumed);
        assert_eq!(server.session.peer().identity.as_ref().map(|id| id.as_str()), Some(WEB));
        server.session.close(&mut Vec::new());
        Ok::<bool, [Option<Failure>; 2]>(server.session.peer().resumed)
    };
    assert_eq!(once(&mesh), Ok(false));
    assert_eq!(once(&mesh), Ok(true));
    mesh.server.tickets = Some(TicketKeys { current: [8; 32], previous: Some([7; 32]) });
    assert_eq!(once(&mesh), Ok(true), "the key before the current one still opens");
    mesh.server.expect = vec![identity("spiffe://shop/ns/web/**")];
    assert_eq!(once(&mesh), Ok(false), "other clients are let in");
    assert_eq!(once(&mesh), Ok(true));
    mesh.server.clock.set(NOW_S + 400 * 86_400);
    assert!(once(&mesh).is_err(), "the certificates have expired meanwhile");
}

#[test]
fn credentials_that_cannot_be_used_say_why() {
    let authority = Authority::new();
    let ((chain, key), (_, other)) = (authority.issue(&Leaf::of(WEB)), authority.issue(&Leaf::of(WEB)));
    let read = |chain: &str, key: &str| Credential::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err();
    assert_eq!(read(&chain, &other), "the key does not belong to the certificate");
    assert_eq!(read("", &key), "has no certificate");
    assert!(read(&chain[..chain.len() / 2], &key).contains("no whole PEM"));
    assert!(read(&chain, "").contains("private key"));
    let whole = Credential::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    assert_eq!(whole.identity().unwrap().as_str(), WEB);
    assert!(whole.check_time(NOW_S).is_ok() && whole.check_time(NOW_S * 2).is_err());
}

#[test]
fn rustls_agrees_about_records_keys_and_ends() {
    use rustls::{ClientConnection, Connection, RootCertStore};
    use std::io::{Read, Write};
    let mut mesh = Mesh::new();
    mesh.server.clients = Clients::None;
    mesh.server.certificates = vec![mesh.authority.credential(&Leaf::named("cart.example"))];
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let mut roots = RootCertStore::empty();
        use rustls_pki_types::pem::PemObject;
        roots.add(rustls_pki_types::CertificateDer::from_pem_slice(mesh.authority.pem().as_bytes()).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder_with_details(provider(), Arc::new(Clock::new(NOW_S)))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "cart.example".try_into().unwrap();
        let mut peer = Connection::from(ClientConnection::new(Arc::new(config), name).unwrap());
        let mut session = Session::accept(&mesh.servers()).unwrap();
        let (mut input, mut state) = (Vec::new(), HandshakeState::More);
        while state == HandshakeState::More {
            peer.write_tls(&mut input).unwrap();
            let mut out = Vec::new();
            let step = session.handshake(&mut input, &mut out);
            input.drain(..step.consumed);
            state = step.state;
            let mut rest = &out[..];
            while !rest.is_empty() {
                peer.read_tls(&mut rest).unwrap();
                peer.process_new_packets().unwrap();
            }
        }
        assert_eq!(state, HandshakeState::Done);
        let is_13 = session.peer().version == "TLSv1.3";
        assert_eq!(session.seals_in_place(), is_13);
        for length in [1, 100, 16_384, 16_385, 60_000] {
            if is_13 {
                peer.refresh_traffic_keys().unwrap();
            }
            let sent = data(length);
            let mut wire = std::mem::take(&mut input);
            for piece in sent.chunks(30_000) {
                peer.writer().write_all(piece).unwrap();
                while peer.wants_write() {
                    peer.write_tls(&mut wire).unwrap();
                }
            }
            assert_eq!(open_all(&mut session, &wire).unwrap().0, sent, "{length}");
            assert_eq!(session.wants_send(), is_13, "the answer to a KeyUpdate is due");
            let mut out = Vec::new();
            session.take_pending(&mut out).unwrap();
            session.seal(&[&sent], &mut out).unwrap();
            let (mut rest, mut got) = (&out[..], Vec::new());
            while !rest.is_empty() {
                peer.read_tls(&mut rest).unwrap();
                peer.process_new_packets().unwrap();
                let _ = peer.reader().read_to_end(&mut got);
            }
            assert_eq!(got, sent, "{length}");
        }
        let mut out = Vec::new();
        session.close(&mut out);
        peer.read_tls(&mut &out[..]).unwrap();
        assert!(peer.process_new_packets().unwrap().peer_has_closed());
    }
}

#[test]
fn the_clock_goes_on_when_nobody_sets_it() {
    const S: u64 = 1_000_000_000;
    let clock = Clock::new(5);
    clock.tick(100 * S);
    assert_eq!(clock.now_s(), 5, "it does not know how the other one stands to it");
    clock.follow(NOW_S * S + S / 2, 7 * S);
    assert_eq!(clock.now_s(), NOW_S);
    clock.tick(7 * S + S / 2);
    assert_eq!(clock.now_s(), NOW_S + 1);

    // Certificates expire while whoever sets the clock hangs.
    let mut mesh = Mesh::new();
    let years = 2 * 365 * 86_400;
    mesh.server.clock.follow(NOW_S * S, S);
    mesh.client.clock = Clock::new(NOW_S);
    let (server, client) = (mesh.servers(), mesh.clients());
    assert!(shake(&server, &client, usize::MAX).is_ok());
    Session::accept(&server).unwrap().tick((years + 1) * S);
    assert_eq!(shake(&server, &client, usize::MAX).err().unwrap()[1], Some(Failure::Expired));
}

#[test]
fn a_session_stays_small() {
    assert!(size_of::<Session>() <= 1536, "{}", size_of::<Session>());
}
