//! Peers that mean harm: what each may make us do, before it has proved anything and after.

use super::refusals::{to_client, to_server};
use super::support::*;
use super::*;
use rustls::ExtractedSecrets;

/// Its chain, with certificates behind it that have nothing to do with it: namesakes that issue each other.
fn with_maze(pems: &Pems, count: u64) -> Pems {
    let evil = Ca::new("evil");
    let maze: String = (0..count).map(|n| evil.between("evil", n + 1, (2030, 1, 1)).pem).collect();
    Pems { chain: format!("{}{maze}", pems.chain), ..pems.clone() }
}

/// What both sides make of a chain that is longer than ours may be.
fn verdict(ca: &Ca, shown: &Pems) -> Option<Failure> {
    use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256 as SUITE;
    let mut settings = ca.server(&ca.named(&["a.example"]));
    settings.clients = Clients::Required;
    let server = Server::new(settings).unwrap();
    let client = Client::new(ca.client()).unwrap();
    let ends = [
        Mixed::shake(Session::accept(&server).unwrap(), ca.other_client(SUITE, Some(shown))),
        Mixed::shake(Session::connect(&client).unwrap(), other_server(SUITE, shown)),
    ];
    let [ours, other] = ends.map(|mixed| mixed.ours.failure());
    assert_eq!(ours, other);
    ours
}

#[test]
fn a_maze_of_certificates_is_not_walked() {
    let ca = Ca::new("ca");
    // The builder of paths gives up on its own only after 200,000 of them, with another reason.
    for count in [8, 16, 100] {
        let lost = with_maze(&Ca::new("evil").named(&["a.example"]), count);
        assert_eq!(verdict(&ca, &lost), Some(Failure::UnknownIssuer), "{count}");
    }
    // What is well stays so, also behind one who has been signed twice.
    assert_eq!(verdict(&ca, &with_maze(&ca.numbered(1), 40)), None);
    let between = ca.between("between", 1, (2030, 1, 1));
    let mut twice = between.between("last", 2, (2030, 1, 1)).numbered(3);
    assert_eq!(verdict(&ca, &twice), None);
    let namesake = Ca::new("other").between("between", 4, (2030, 1, 1));
    let first = twice.chain.find("-----END CERTIFICATE-----\n").unwrap() + "-----END CERTIFICATE-----\n".len();
    twice.chain.insert_str(first, &namesake.pem);
    assert_eq!(verdict(&ca, &twice), None);
}

#[test]
fn a_bundle_of_many_roots_is_not_told_to_clients() {
    let ca = Ca::new("ca");
    let name = |n: usize| format!("a root with a name that is as long as names of roots are, number {n}");
    let others: String = (0..900).map(|n| Ca::new(&name(n)).pem).collect();
    let trust = Trust::from_pem(&[ca.pem.as_bytes(), others.as_bytes()], Vec::new(), &[]).unwrap();
    // More names than fit into a message: it was cut off within one.
    assert_eq!(to_client(&ca, Some(&ca.numbered(1)), |server| server.trust = Some(trust.clone())), None);
    assert_eq!(to_server(&ca, &ca.numbered(1), |client| client.trust = trust.clone()), None);
    assert!(!ca.trust(&[]).subjects().is_empty(), "a few are told");
}

#[test]
fn rfc8879_certificates_are_not_taken_compressed() {
    // A few bytes could become megabytes.
    let ca = Ca::new("ca");
    let mut hello = Vec::new();
    let _ = Session::connect(&Client::new(ca.client()).unwrap()).unwrap().handshake(&mut [], &mut hello);
    let extensions = extensions(&hello[Session::HEADER..]);
    assert!(extensions.contains(&43) && !extensions.contains(&27), "{extensions:?}");
    assert!(!extensions.contains(&42), "nor is early data sent");
}

/// The extensions of a hello.
fn extensions(message: &[u8]) -> Vec<u16> {
    let number = |at: usize| usize::from(message[at]) << 8 | usize::from(message[at + 1]);
    let mut at = 4 + 2 + 32;
    at += 1 + usize::from(message[at]);
    at += 2 + number(at);
    at += 1 + usize::from(message[at]);
    at += 2;
    let mut found = Vec::new();
    while at < message.len() {
        found.push(number(at) as u16);
        at += 4 + number(at + 2);
    }
    found
}

/// Ours, after a handshake, and what the other end seals with.
fn armed(ca: &Ca, server: bool) -> (End, record::Direction) {
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let pems = ca.named(&["a.example"]);
    let mixed = match server {
        true => {
            let server = Server::new(ca.server(&pems)).unwrap();
            Mixed::shake(Session::accept(&server).unwrap(), ca.other_client(suite, None))
        }
        false => {
            let client = Client::new(ca.client()).unwrap();
            Mixed::shake(Session::connect(&client).unwrap(), other_server(suite, &pems))
        }
    };
    let Mixed { mut ours, other } = mixed;
    ours.receive(&[]).unwrap();
    let ExtractedSecrets { tx, .. } = other.dangerous_extract_secrets().unwrap();
    (ours, record::Direction::sealing(tx, false).unwrap())
}

/// What comes of records of this kind, until one is refused; and of how many.
fn flood(ca: &Ca, server: bool, kind: u8, bytes: impl Fn(usize) -> Vec<u8>) -> (Failure, usize) {
    let (mut ours, mut seal) = armed(ca, server);
    for count in 0.. {
        let mut record = Vec::new();
        seal.append(kind, std::iter::once(&bytes(count)[..]), &mut record).unwrap();
        match ours.session.open(&mut record) {
            Ok(Opened::Data(range)) => assert!(!range.is_empty()),
            Ok(_) => {}
            Err(failure) => return (failure, count),
        }
    }
    unreachable!()
}

#[test]
fn floods_of_records_that_carry_nothing_end() {
    let ca = Ca::new("ca");
    // Those of the handshake count too.
    let ends = |(failure, count): (Failure, usize)| {
        assert!(failure == Failure::Limit && (16..=32).contains(&count), "{count}")
    };
    ends(flood(&ca, true, 23, |_| Vec::new()));
    // user_canceled
    ends(flood(&ca, true, 21, |_| vec![1, 90]));
    // A message that is long in coming: as many pieces, or as many bytes.
    let slow = |count: usize| if count == 0 { vec![4, 0, 255, 0] } else { vec![0] };
    ends(flood(&ca, false, 22, slow));
    let long = |count: usize| if count == 0 { vec![4, 0, 255, 255] } else { vec![0; 16_384] };
    assert_eq!(flood(&ca, false, 22, long).0, Failure::TooLarge);
    assert_eq!(flood(&ca, false, 22, |_| vec![4, 1, 0, 1]), (Failure::TooLarge, 0), "longer than any may be");
    // Data within a message, or another kind of record.
    for (kind, bytes) in [(23, vec![1]), (21, vec![1, 0]), (24, vec![1])] {
        let (mut ours, mut seal) = armed(&ca, false);
        let mut records = Vec::new();
        seal.append(22, std::iter::once(&[4, 0, 1, 0][..]), &mut records).unwrap();
        seal.append(kind, std::iter::once(&bytes[..]), &mut records).unwrap();
        assert_eq!(ours.receive(&records), Err(Failure::BadRecord), "{kind}");
    }
}

#[test]
fn messages_that_may_not_come_after_the_handshake() {
    let ca = Ca::new("ca");
    let refused = |server: bool, bytes: &[u8]| flood(&ca, server, 22, |_| bytes.to_vec()).0;
    // Tickets are for clients; a request for a certificate, a hello, a Finished, a KeyUpdate that asks what no one may ask.
    assert_eq!(refused(true, &[4, 0, 0, 0]), Failure::BadRecord);
    for message in [&[13, 0, 0, 3, 0, 0, 0][..], &[1, 0, 0, 0], &[20, 0, 0, 0], &[24, 0, 0, 1, 2], &[24, 0, 0, 0]] {
        for server in [true, false] {
            assert_eq!(refused(server, message), Failure::BadRecord, "{message:?}");
        }
    }
    // A KeyUpdate ends its record (RFC 8446 section 5.1).
    assert_eq!(refused(true, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0]), Failure::BadRecord);
    // change_cipher_spec, an alert and a handshake message that are not sealed.
    for record in [&[20, 3, 3, 0, 1, 1][..], &[21, 3, 3, 0, 2, 1, 0], &[22, 3, 3, 0, 4, 0, 0, 0, 0]] {
        let (mut ours, _) = armed(&ca, true);
        assert_eq!(ours.session.open(&mut record.to_vec()), Err(Failure::BadRecord));
    }
}
