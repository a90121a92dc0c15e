//! Ends that are narrowed down to one suite, and clients that never resume.

use super::support::*;
use super::*;

fn only(suite: Suite) -> Narrow {
    Narrow { suite: Some(suite), never_resumes: false }
}

#[test]
fn an_end_of_one_suite_agrees_on_no_other() {
    let ca = Ca::new("ca");
    let settings = ca.server(&ca.named(&["a.example"]));
    let server = |narrow| Server::narrowed(settings.clone(), narrow).unwrap();
    let client = |narrow| Client::narrowed(ca.client(), narrow).unwrap();
    for suite in Suite::ALL {
        for (server, client) in
            [(server(only(suite)), client(Narrow::default())), (server(Narrow::default()), client(only(suite)))]
        {
            let mut pair = shake(&server, &client);
            pair.assert_done();
            pair.talk(b"hello");
            assert_eq!(pair.client.session.peer().version, "TLSv1.3");
            assert_eq!(
                (pair.client.session.peer().suite, pair.server.session.peer().suite),
                (suite.name(), suite.name())
            );
        }
    }
    let pair = shake(&server(only(Suite::Aes128Gcm)), &client(only(Suite::Aes256Gcm)));
    assert_eq!(pair.failures(), (Some(Failure::NoCommonCipher), Some(Failure::PeerAlert)));
    let names = Suite::ALL.map(Suite::name);
    assert_eq!(names, ["TLS13_AES_128_GCM_SHA256", "TLS13_AES_256_GCM_SHA384", "TLS13_CHACHA20_POLY1305_SHA256"]);
}

#[test]
fn a_session_of_tls12_names_its_suite() {
    let mixed = mixed(&SUITES_12[..1]);
    assert_eq!(mixed[0].ours.session.peer().suite, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
}

#[test]
fn a_client_that_never_resumes_does_not_with_a_ticket() {
    let ca = Ca::new("ca");
    let mut settings = ca.server(&ca.named(&["a.example"]));
    settings.tickets = Some(TicketKeys { current: [1; 32], previous: None });
    let server = Server::new(settings).unwrap();
    for never_resumes in [false, true] {
        let client = Client::narrowed(ca.client(), Narrow { suite: None, never_resumes }).unwrap();
        let resumed: Vec<bool> = (0..2)
            .map(|_| {
                let mut pair = shake(&server, &client);
                pair.assert_done();
                assert_eq!(pair.client.receive(&[]), Ok((Vec::new(), Opened::Nothing)));
                pair.client.session.peer().resumed
            })
            .collect();
        assert_eq!(resumed, [false, !never_resumes]);
    }
}
