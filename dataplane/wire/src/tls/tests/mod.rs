//! Sessions against each other, against rustls' own connections, and with what must be refused.

mod elsewhere;
mod hello;
mod hostile;
mod refusals;
mod resumption;
mod revocation;
mod suite;
mod support;

use super::*;
use rustls::crypto::ring::cipher_suite as suites;
use rustls::{ExtractedSecrets, SupportedCipherSuite};
use support::*;

const SUITES_13: [SupportedCipherSuite; 3] =
    [suites::TLS13_AES_128_GCM_SHA256, suites::TLS13_AES_256_GCM_SHA384, suites::TLS13_CHACHA20_POLY1305_SHA256];
const SUITES_12: [SupportedCipherSuite; 2] =
    [suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256];
const SIZES: [usize; 7] = [0, 1, 100, 16_383, 16_384, 16_385, 100_000];

/// A pair whose certificates were made once: making keys is slow.
fn pair() -> Pair {
    static ENDS: LazyLock<(Server, Client)> = LazyLock::new(|| {
        let ca = Ca::new("ca");
        (Server::new(ca.server(&ca.named(&["a.example"]))).unwrap(), Client::new(ca.client()).unwrap())
    });
    let pair = shake(&ENDS.0, &ENDS.1);
    pair.assert_done();
    pair
}

/// Ours at both sides of rustls, for each suite.
fn mixed(list: &[SupportedCipherSuite]) -> Vec<Mixed> {
    let ca = Ca::new("ca");
    let pems = ca.named(&["a.example"]);
    let (server, client) = (Server::new(ca.server(&pems)).unwrap(), Client::new(ca.client()).unwrap());
    let mut found = Vec::new();
    for suite in list {
        found.push(Mixed::shake(Session::accept(&server).unwrap(), ca.other_client(*suite, None)));
        found.push(Mixed::shake(Session::connect(&client).unwrap(), other_server(*suite, &pems)));
    }
    for mixed in &found {
        assert_eq!(mixed.ours.state, HandshakeState::Done);
        assert!(!mixed.other.is_handshaking());
    }
    found
}

#[test]
fn a_session_is_small() {
    assert!(size_of::<Session>() < 1536, "{}", size_of::<Session>());
}

#[test]
fn handshake_and_data_however_the_bytes_arrive() {
    let ca = Ca::new("ca");
    let server = Server::new(ca.server(&ca.named(&["a.example"]))).unwrap();
    let client = Client::new(ca.client()).unwrap();
    let mut seed = 1_u64;
    let mut random = |length: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % (length.min(900) + 1)
    };
    let mut one = |_| 1;
    let mut all = whole;
    let mut splits: Vec<Split<'_>> = vec![&mut all, &mut one];
    for split in &mut splits {
        let mut pair = shake_split(&server, &client, *split);
        pair.assert_done();
        pair.talk(b"hello");
        assert_eq!(pair.client.session.peer().version, "TLSv1.3");
    }
    for _ in 0..20 {
        let mut pair = shake_split(&server, &client, &mut random);
        pair.assert_done();
        SIZES.iter().for_each(|size| pair.talk(&pattern(*size)));
    }
}

#[test]
fn tls13_against_rustls() {
    for mut mixed in mixed(&SUITES_13) {
        assert_eq!(mixed.ours.session.peer().version, "TLSv1.3");
        assert!(mixed.ours.session.seals_in_place());
        for size in SIZES {
            mixed.talk(&pattern(size));
            let sealed = mixed.ours.seal_in_place(&pattern(size));
            assert!(mixed.feed(&sealed).unwrap() == pattern(size));
        }
    }
}

#[test]
fn tls12_against_rustls() {
    for mut mixed in mixed(&SUITES_12) {
        assert_eq!(mixed.ours.session.peer().version, "TLSv1.2");
        assert!(!mixed.ours.session.seals_in_place());
        SIZES.iter().for_each(|size| mixed.talk(&pattern(*size)));
    }
}

#[test]
fn parts_become_one_record() {
    let mut pair = pair();
    let mut out = Vec::new();
    pair.client.session.seal(&[b"ab", b"", b"c"], &mut out).unwrap();
    assert_eq!(Session::record_length(&out), Ok(Some(out.len())));
    assert_eq!(pair.server.receive(&out).unwrap().0, b"abc");
}

#[test]
fn close_notify_both_ways() {
    for mut mixed in mixed(&[SUITES_13[0], SUITES_12[0]]) {
        let mut out = Vec::new();
        mixed.ours.session.close(&mut out);
        assert!(!out.is_empty());
        mixed.feed(&out).unwrap();
        let state = mixed.other.process_new_packets().unwrap();
        assert!(state.peer_has_closed());
        // What was only half closed still carries the other way.
        let sealed = mixed.other_seal(b"rest");
        assert_eq!(mixed.ours.receive(&sealed).unwrap().0, b"rest", "{}", mixed.ours.session.peer().version);
        mixed.other.send_close_notify();
        let sealed = mixed.take();
        assert_eq!(mixed.ours.receive(&sealed).unwrap().1, Opened::Closed);
    }
}

#[test]
fn what_is_false_behind_our_close_notify_is_refused() {
    for mut mixed in mixed(&[SUITES_13[0], SUITES_12[0], SUITES_12[1]]) {
        mixed.ours.session.close(&mut Vec::new());
        let mut sealed = mixed.other_seal(b"changed on its way");
        sealed[9] ^= 1;
        assert_eq!(mixed.ours.receive(&sealed), Err(Failure::Decrypt));
        mixed.ours.session.alert(Failure::Decrypt, &mut Vec::new());
        let mut more = mixed.other_seal(b"more");
        assert!(mixed.ours.session.open(&mut more).is_err());
    }
}

#[test]
fn key_updates_both_ways() {
    for mut mixed in mixed(&SUITES_13) {
        for round in 0..100_usize {
            mixed.other.refresh_traffic_keys().unwrap();
            let asked = mixed.take();
            assert_eq!(mixed.ours.receive(&asked).unwrap(), (Vec::new(), Opened::Nothing));
            // It asks for ours too.
            assert!(mixed.ours.session.wants_send());
            mixed.talk(&pattern(round));
            assert!(!mixed.ours.session.wants_send());
            // Bytes under the key that the answer brought.
            mixed.talk(b"more");
        }
    }
}

#[test]
fn a_flood_of_key_updates_is_a_limit() {
    for mut mixed in mixed(&SUITES_13[..1]) {
        let mut last = Ok((Vec::new(), Opened::Nothing));
        for _ in 0..40 {
            mixed.other.refresh_traffic_keys().unwrap();
            let asked = mixed.take();
            last = last.and_then(|_| mixed.ours.receive(&asked));
        }
        assert_eq!(last, Err(Failure::Limit));
    }
}

#[test]
fn a_flipped_bit_does_not_open() {
    let length = pair().client.seal(b"ab").len();
    for bit in 0..length * 8 {
        let mut pair = pair();
        let mut sealed = pair.client.seal(b"ab");
        sealed[bit / 8] ^= 1 << (bit % 8);
        let failure = pair.server.session.open(&mut sealed);
        // Another type is no record that is sealed.
        let expected = if bit < 8 { Failure::BadRecord } else { Failure::Decrypt };
        assert_eq!(failure, Err(expected), "bit {bit}");
    }
}

#[test]
fn a_replayed_record_does_not_open() {
    for mut mixed in mixed(&[SUITES_13[0], SUITES_13[2], SUITES_12[0]]) {
        let sealed = mixed.other_seal(b"once");
        assert_eq!(mixed.ours.receive(&sealed).unwrap().0, b"once");
        assert_eq!(mixed.ours.receive(&sealed), Err(Failure::Decrypt));
        // The other end is told why.
        let mut out = Vec::new();
        mixed.ours.session.alert(Failure::Decrypt, &mut out);
        let told = mixed.feed(&out).unwrap_err();
        assert_eq!(told, rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
    }
}

#[test]
fn nothing_opens_after_a_record_that_did_not() {
    // Else a record could be left out by one that is false.
    let mut pair = pair();
    let mut first = pair.client.seal(b"first");
    let mut second = pair.client.seal(b"second");
    first[7] ^= 1;
    assert_eq!(pair.server.session.open(&mut first), Err(Failure::Decrypt));
    assert!(pair.server.session.open(&mut second).is_err());
}

#[test]
fn rfc5288_3_any_explicit_nonce_will_do() {
    // Others count from anywhere, or not at all.
    for Mixed { mut ours, other } in mixed(&SUITES_12[..1]) {
        let ExtractedSecrets { tx: (sequence, keys), rx } = other.dangerous_extract_secrets().unwrap();
        let rustls::ConnectionTrafficSecrets::Aes128Gcm { key, iv } = keys else { panic!("another suite") };
        let mut odd: [u8; 12] = iv.as_ref().try_into().unwrap();
        odd[4..].copy_from_slice(b"whatever");
        let keys = rustls::ConnectionTrafficSecrets::Aes128Gcm { key, iv: odd.into() };
        let mut seal = record::Direction::sealing((sequence, keys), true).unwrap();
        for size in SIZES[..5].iter().chain(&[0, 3]) {
            let (mut out, bytes) = (Vec::new(), pattern(*size));
            seal.append(23, std::iter::once(&bytes[..]), &mut out).unwrap();
            assert!(ours.receive(&out).unwrap().0 == bytes);
        }
        drop(rx);
    }
}

#[test]
fn tls12_warnings_end_nothing_but_a_flood_of_them_does() {
    for Mixed { mut ours, other } in mixed(&SUITES_12[1..]) {
        let ExtractedSecrets { tx, .. } = other.dangerous_extract_secrets().unwrap();
        // no_renegotiation (RFC 5246 section 7.2.2)
        let mut last = Ok(Opened::Nothing);
        let mut count = 0;
        while last == Ok(Opened::Nothing) {
            last = ours.session.open(&mut seal_12(&tx, count, 21, &[1, 100]));
            count += 1;
        }
        assert_eq!((last, count), (Err(Failure::Limit), 33));
    }
    for Mixed { mut ours, other } in mixed(&SUITES_12[1..]) {
        let ExtractedSecrets { tx, .. } = other.dangerous_extract_secrets().unwrap();
        assert_eq!(ours.session.open(&mut seal_12(&tx, 0, 21, &[2, 40])), Err(Failure::PeerAlert));
    }
}

#[test]
fn tls12_renegotiation_is_refused() {
    // Part of a message, a whole HelloRequest, a hello: rustls would panic at what follows a part.
    for bytes in [&[1, 0][..], &[0, 0, 0, 0], &[1, 0, 0, 2, 3, 3]] {
        for Mixed { mut ours, other } in mixed(&SUITES_12[1..]) {
            let ExtractedSecrets { tx, rx } = other.dangerous_extract_secrets().unwrap();
            assert_eq!(ours.session.open(&mut seal_12(&tx, 0, 23, b"data")), Ok(Opened::Data(5..9)));
            assert_eq!(ours.session.open(&mut seal_12(&tx, 1, 22, bytes)), Err(Failure::BadRecord));
            assert!(ours.session.open(&mut seal_12(&tx, 2, 23, b"more")).is_err(), "nothing opens any more");
            // The other end is told: a fatal alert, unexpected_message.
            let mut out = Vec::new();
            ours.session.alert(Failure::BadRecord, &mut out);
            assert_eq!(record::Direction::opening(rx, true).unwrap().open(&mut out), Ok((21, 5..7)));
            assert_eq!(out[5..7], [2, 10]);
        }
    }
}
