//! Two authorities on one store, as two daemons have: what one issues the other trusts, tokens are burnt once, and one that
//! is cut off renews.

use super::*;
use crate::store::tests::etcd::Process;
use std::time::{Duration, Instant};

async fn two(etcd: &Process) -> (Place, Place) {
    let mut places = Vec::new();
    for _ in 0..2 {
        let folder = tempfile::tempdir().unwrap();
        let store = etcd.store().await;
        let key = Some(zeroize::Zeroizing::new("5e".repeat(32)));
        let source = Source { variable: key, ..source(folder.path()) };
        let authority = Authority::open(store.clone(), &source, None, NOW_MS).await.unwrap();
        places.push(Place { folder, store, authority });
    }
    let b = places.remove(1);
    (places.remove(0), b)
}

async fn soon(what: &str, is_so: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < Duration::from_secs(15), "not within 15 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn daemons_that_share_a_store_have_one_root_and_an_intermediate_each() {
    let Some(etcd) = Process::start("one root") else { return };
    let (a, b) = two(&etcd).await;
    assert_eq!(a.authority.bundle(), b.authority.bundle());
    let ((one, _), (other, _)) = (a.proxy().await, b.proxy().await);
    let intermediate = |chain: &str| chain[chain.rfind("-----BEGIN").unwrap()..].to_owned();
    assert_ne!(intermediate(&one.chain), intermediate(&other.chain));
    for (issued, place) in [(&one, &b), (&other, &a)] {
        assert_eq!(verified(&issued.chain, &place.authority.bundle(), NOW_MS, "sslclient"), Ok(()));
        soon("its record is there", async || {
            matches!(place.authority.caller(&peer(&issued.chain), NOW_MS).await, Ok(Caller::Proxy(_)))
        })
        .await;
    }
    // Forgotten at one, gone at the other.
    b.authority.forget(&one.proxy.id).await.unwrap();
    soon("it is forgotten", async || a.authority.caller(&peer(&one.chain), NOW_MS).await.is_err()).await;
    // Another key opens nothing.
    let wrong = Source { variable: Some(zeroize::Zeroizing::new("aa".repeat(32))), ..source(a.folder.path()) };
    let refused = Authority::open(etcd.store().await, &wrong, None, NOW_MS).await.unwrap_err().to_string();
    assert!(refused.contains("sealed with another key"), "{refused}");
    let none = tempfile::tempdir().unwrap();
    let refused =
        Authority::open(etcd.store().await, &source(none.path()), None, NOW_MS).await.unwrap_err().to_string();
    assert!(refused.contains("give `store-key`"), "{refused}");
}

#[tokio::test]
async fn each_daemon_has_a_local_operator_of_its_own() {
    let Some(etcd) = Process::start("local operators") else { return };
    let (a, b) = two(&etcd).await;
    let mut chains = Vec::new();
    for place in [&a, &b, &a] {
        let folder = place.folder.path().join("operator");
        place.authority.keep_local_operator(&folder, "127.0.0.1:9443", "shop", NOW_MS).await.unwrap();
        chains.push(std::fs::read_to_string(folder.join("admin.pem")).unwrap());
    }
    assert_eq!(chains[0], chains[2], "the other's took it");
    for (chain, place) in [(&chains[0], &b), (&chains[1], &a)] {
        soon("it counts at the other", async || {
            let caller = place.authority.caller(&peer(chain), NOW_MS).await;
            caller.and_then(|caller| caller.operator(Role::Admin)).is_ok()
        })
        .await;
    }
    let (_, csr) = request(&[]);
    let taken = a.authority.create_operator("admin.00", Role::Read, &csr, "ann", "shop", NOW_MS).await;
    assert!(matches!(taken, Err(Refusal::Wrong(_))));
}

#[tokio::test]
async fn of_many_keys_at_two_daemons_as_many_join_as_the_token_has_uses() {
    let Some(etcd) = Process::start("uses of a token") else { return };
    let (a, b) = two(&etcd).await;
    let token = a.token(3).await;
    // The other daemon knows it at once, though it may not have heard of it yet.
    let mut joins = tokio::task::JoinSet::new();
    let (a, b) = (Arc::new(a), Arc::new(b));
    for n in 0..8 {
        let (place, token) = (if n % 2 == 0 { a.clone() } else { b.clone() }, token.clone());
        joins.spawn(async move {
            let (_, csr) = request(&[]);
            place.authority.join(&token, &csr, "host", NOW_MS).await
        });
    }
    let results = joins.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    for refusal in results.iter().filter_map(|result| result.as_ref().err()) {
        assert!(refusal.to_string().contains("used up"), "{refusal}");
    }
    soon("all are known", async || b.authority.proxies().await.unwrap().len() == 3).await;
}

#[tokio::test]
async fn a_daemon_that_is_cut_off_renews_and_lets_nobody_join() {
    let Some(mut etcd) = Process::start("renewing without etcd") else { return };
    let (a, b) = two(&etcd).await;
    let (first, _) = a.proxy().await;
    let token = a.token(1).await;
    soon("the other knows it", async || b.authority.proxy(&first.proxy.id).await.unwrap().is_some()).await;
    etcd.kill();
    soon("it notices", async || a.store.cut_off().is_some() && b.store.cut_off().is_some()).await;
    let (_, csr) = request(&[]);
    let refused = a.authority.join(&token, &csr, "host", NOW_MS).await.unwrap_err();
    assert!(refused.to_string().contains("cut off from etcd"), "{refused}");
    assert!(matches!(refused, Refusal::Store(Failure::Away(_))));
    let later_ms = NOW_MS + 13 * HOUR_MS;
    let renewed = a.authority.renew(&first.proxy.id, &csr, None, later_ms).await.unwrap();
    assert_eq!(renewed.proxy.identity, first.proxy.identity);
    assert_eq!(renewed.not_after_ms, later_ms + 24 * HOUR_MS);
    assert!(a.authority.renew("nobody", &csr, None, later_ms).await.is_err());
    // It counts here and elsewhere, and its holder is to renew once more when its record can be written.
    for place in [&a, &b] {
        let caller = place.authority.caller(&peer(&renewed.chain), later_ms).await.unwrap();
        assert_eq!(caller.proxy().unwrap().id, first.proxy.id);
        let record = place.authority.proxy(&first.proxy.id).await.unwrap().unwrap();
        assert_eq!(place.authority.saw_ending(&record, renewed.not_after_ms).await, Ok(false));
        assert_eq!(place.authority.saw_ending(&record, first.not_after_ms).await, Ok(true));
    }
    etcd.revive();
    soon("it is back", async || b.store.cut_off().is_none() && a.store.cut_off().is_none()).await;
    let recorded = b.authority.renew(&first.proxy.id, &csr, None, later_ms).await.unwrap();
    let record = b.authority.proxy(&first.proxy.id).await.unwrap().unwrap();
    assert_eq!(b.authority.saw_ending(&record, recorded.not_after_ms).await, Ok(true));
    assert!(a.authority.join(&token, &csr, "host", NOW_MS).await.is_ok());
}
