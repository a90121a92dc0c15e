//! A hello in many records, and the clock that its sender's certificate is held against.

use super::support::*;
use super::*;

/// A handshake message in one record as the same message in records of at most `most` bytes.
fn in_records(record: &[u8], most: usize) -> Vec<u8> {
    let pieces = record[Session::HEADER..].chunks(most);
    pieces.flat_map(|piece| [&[22, 3, 1, (piece.len() >> 8) as u8, piece.len() as u8], piece].concat()).collect()
}

#[test]
fn rfc8446_5_1_a_hello_may_span_records() {
    let ca = Ca::new("ca");
    let server = Server::new(ca.server(&ca.named(&["a.example"]))).unwrap();
    let client = Client::new(ca.client()).unwrap();
    for (most, piece) in [(1, usize::MAX), (100, usize::MAX), (33, 50), (100, 1), (16_384, 7)] {
        let (mut asking, mut hello) = (Session::connect(&client).unwrap(), Vec::new());
        asking.handshake(&mut [], &mut hello);
        let (mut session, mut input, mut out) = (Session::accept(&server).unwrap(), Vec::new(), Vec::new());
        for bytes in in_records(&hello, most).chunks(piece) {
            input.extend_from_slice(bytes);
            let step = session.handshake(&mut input, &mut out);
            input.drain(..step.consumed);
            assert_eq!(step.state, HandshakeState::More, "records of {most}, pieces of {piece}");
        }
        assert!(input.is_empty() && !out.is_empty(), "the server has answered: {most} {piece}");
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
    let ca = Ca::new("ca");
    let mut client = ca.client();
    client.certificate = Some(ca.identified("spiffe://example.org/a").credential());
    let mut server = ca.server(&ca.named(&["a.example"]));
    server.clients = Clients::Required;
    server.clock.follow(NOW_S * S, S);
    let (server, client) = (Server::new(server).unwrap(), Client::new(client).unwrap());
    shake(&server, &client).assert_done();
    Session::accept(&server).unwrap().tick(100 * 365 * 86_400 * S);
    assert_eq!(shake(&server, &client).server.failure(), Some(Failure::Expired));
}
