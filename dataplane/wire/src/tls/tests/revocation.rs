//! Lists of revoked certificates: whom they concern, whom they do not, and how long.

use super::refusals::{to_client, to_server};
use super::support::*;
use super::*;
use Failure::{RevocationUnknown, Revoked};

const LONG: Day = (2026, 6, 1);

fn trust(roots: &[&Ca], lists: &[String]) -> Trust {
    let roots: Vec<&[u8]> = roots.iter().map(|ca| ca.pem.as_bytes()).collect();
    let lists: Vec<&[u8]> = lists.iter().map(|list| list.as_bytes()).collect();
    Trust::from_pem(&roots, Vec::new(), &lists).unwrap()
}

/// What both sides make of a certificate.
fn verdict(trust: &Trust, shown: &Pems) -> Option<Failure> {
    let ca = Ca::new("another");
    let to_client = to_client(&ca, Some(shown), |server| server.trust = Some(trust.clone()));
    let to_server = to_server(&ca, shown, |client| client.trust = trust.clone());
    assert_eq!(to_client, to_server);
    to_client
}

#[test]
fn what_is_listed_is_refused() {
    let ca = Ca::new("ca");
    let trust = trust(&[&ca], &[ca.revoking(7)]);
    assert_ne!(trust.digest(), ca.trust(&[]).digest());
    assert_eq!(verdict(&trust, &ca.numbered(7)), Some(Revoked));
    assert_eq!(verdict(&trust, &ca.numbered(8)), None);
    assert_eq!(trust.lists_end_s(), Some(1_780_272_000));
    assert_eq!(ca.trust(&[]).lists_end_s(), None);
}

#[test]
fn who_has_no_list_is_held_against_none() {
    let (listed, other) = (Ca::new("listed"), Ca::new("other"));
    let trust = trust(&[&listed, &other], &[listed.revoking(7)]);
    assert_eq!(verdict(&trust, &other.numbered(7)), None);
    assert_eq!(verdict(&trust, &listed.numbered(7)), Some(Revoked));
}

#[test]
fn the_whole_chain_is_held_against_the_lists() {
    let root = Ca::new("root");
    let (good, bad) = (root.between("good", 1, (2030, 1, 1)), root.between("bad", 7, (2030, 1, 1)));
    // The root's list alone: of leaves it says nothing.
    let lists = [root.revoking(7)];
    assert_eq!(verdict(&trust(&[&root], &lists), &good.numbered(7)), None);
    assert_eq!(verdict(&trust(&[&root], &lists), &bad.numbered(8)), Some(Revoked));
    // The list of the one between alone, and both in either order.
    let lists = [good.revoking(5)];
    assert_eq!(verdict(&trust(&[&root], &lists), &good.numbered(5)), Some(Revoked));
    assert_eq!(verdict(&trust(&[&root], &lists), &good.numbered(6)), None);
    for lists in [[root.revoking(7), good.revoking(5)], [good.revoking(5), root.revoking(7)]] {
        assert_eq!(verdict(&trust(&[&root], &lists), &good.numbered(5)), Some(Revoked));
        assert_eq!(verdict(&trust(&[&root], &lists), &good.numbered(7)), None);
        assert_eq!(verdict(&trust(&[&root], &lists), &bad.numbered(8)), Some(Revoked));
    }
}

#[test]
fn namesakes_have_lists_of_their_own() {
    // As while a root is replaced by one of the same name.
    let (old, new) = (Ca::new("mesh"), Ca::new("mesh"));
    for roots in [[&old, &new], [&new, &old]] {
        for lists in
            [vec![old.revoking(7)], vec![old.revoking(7), new.revoking(8)], vec![new.revoking(8), old.revoking(7)]]
        {
            let both = lists.len() == 2;
            let trust = trust(&roots, &lists);
            assert_eq!(verdict(&trust, &old.numbered(7)), Some(Revoked));
            assert_eq!(verdict(&trust, &new.numbered(7)), None);
            assert_eq!(verdict(&trust, &old.numbered(8)), None);
            assert_eq!(verdict(&trust, &new.numbered(8)), both.then_some(Revoked));
        }
    }
}

#[test]
fn a_list_that_is_out_of_date_says_nothing_of_who_is_well() {
    let (stale, other) = (Ca::new("stale"), Ca::new("other"));
    let trust = trust(&[&stale, &other], &[stale.list(&[7], (2024, 12, 31)), other.list(&[7], LONG)]);
    assert_eq!(verdict(&trust, &stale.numbered(8)), Some(RevocationUnknown));
    assert_eq!(verdict(&trust, &stale.numbered(7)), Some(RevocationUnknown));
    // Others are well.
    assert_eq!(verdict(&trust, &other.numbered(8)), None);
    assert_eq!(trust.lists_end_s(), Some(1_735_603_200));
}

#[test]
fn lists_that_cannot_be_used() {
    let ca = Ca::new("ca");
    let list = ca.revoking(7);
    let read = |list: &[u8]| Trust::from_pem(&[ca.pem.as_bytes()], Vec::new(), &[list]);
    assert!(read(list.as_bytes()).is_ok());
    assert!(read(b"nothing").is_err());
    let cut = &list.as_bytes()[..list.len() / 2];
    assert!(read(cut).is_err(), "a list that is cut off");
    assert!(read(&[list.as_bytes(), cut].concat()).is_err(), "a second one cut off");
}
