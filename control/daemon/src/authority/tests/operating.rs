//! Who calls, operators and their roles, edge certificates.

use super::*;
use crate::store::Change;

#[tokio::test]
async fn a_caller_is_who_its_record_says() {
    let place = Place::new().await;
    let (issued, _) = place.proxy().await;
    let shown = peer(&issued.chain);
    let proxy = place.authority.caller(&shown, NOW_MS).await.unwrap().proxy().unwrap();
    assert_eq!(proxy.id, issued.proxy.id);

    let nobody = Peer { certificate: None, ..shown.clone() };
    let refused = place.authority.caller(&nobody, NOW_MS).await.unwrap().proxy().unwrap_err();
    assert!(matches!(refused, Refusal::Unknown(_)), "{refused:?}");

    // Valid by its chain, but not the certificate that the record names.
    let mut copy = shown.certificate.as_deref().unwrap().clone();
    copy.fingerprint = "00".repeat(32);
    let forged = Peer { certificate: Some(Arc::new(copy)), ..shown.clone() };
    assert!(matches!(place.authority.caller(&forged, NOW_MS).await, Err(Refusal::Unknown(_))));

    place.authority.forget(&issued.proxy.id).await.unwrap();
    let forgotten = place.authority.caller(&shown, NOW_MS).await.unwrap_err().to_string();
    assert!(forgotten.contains("was forgotten; join with a new token"), "{forgotten}");
    assert!(matches!(place.authority.forget(&issued.proxy.id).await, Err(Refusal::Missing(_))));
}

#[tokio::test]
async fn an_expired_proxy_may_renew_for_a_week_and_nothing_else() {
    const DAY_MS: u64 = 24 * HOUR_MS;
    let place = Place::new().await;
    let (issued, _) = place.proxy().await;
    let shown = peer(&issued.chain);
    let at = |ms: u64| place.authority.caller(&shown, ms);
    assert!(at(NOW_MS + DAY_MS - 1).await.unwrap().proxy().is_ok());
    let expired = at(NOW_MS + DAY_MS).await.unwrap();
    assert!(matches!(expired.clone().proxy(), Err(Refusal::Unknown(_))));
    assert!(expired.renewing().is_ok());
    assert!(at(NOW_MS + 8 * DAY_MS - 1).await.unwrap().renewing().is_ok());
    let late = at(NOW_MS + 8 * DAY_MS).await.unwrap_err().to_string();
    assert!(late.contains("expired more than 7 days ago; join with a new token"), "{late}");
}

#[tokio::test]
async fn an_operator_may_do_what_its_role_says() {
    let place = Place::new().await;
    let roles = [Role::Read, Role::Write, Role::Admin];
    for own in roles {
        let name = format!("op-{own}");
        let made = place.authority.create_operator(&name, own, &request(&[]).1, "ann", "shop", NOW_MS).await.unwrap();
        let shown = peer(&made.chain);
        assert_eq!(shown.certificate.as_ref().unwrap().uri, format!("spiffe://shop/ringway-operator/{name}"));
        for wanted in roles {
            let caller = place.authority.caller(&shown, NOW_MS).await.unwrap();
            assert_eq!(caller.operator(wanted).is_ok(), own >= wanted, "{own} for {wanted}");
        }
        let caller = place.authority.caller(&shown, NOW_MS).await.unwrap();
        assert!(matches!(caller.proxy(), Err(Refusal::Denied(_))));
    }
    let (issued, _) = place.proxy().await;
    let caller = place.authority.caller(&peer(&issued.chain), NOW_MS).await.unwrap();
    assert!(matches!(caller.operator(Role::Read), Err(Refusal::Denied(_))));
    assert!(matches!(Caller::Nobody.operator(Role::Read), Err(Refusal::Unknown(_))));
}

#[tokio::test]
async fn an_operators_rights_can_be_renewed_replaced_and_taken() {
    let place = Place::new().await;
    let authority = &place.authority;
    let make = |role| {
        let csr = request(&[]).1;
        async move { authority.create_operator("bob", role, &csr, "ann", "shop", NOW_MS).await.unwrap() }
    };
    let first = make(Role::Write).await;
    let renewed = authority.renew_operator("bob", &request(&[]).1, "shop", NOW_MS + HOUR_MS).await.unwrap();
    assert_eq!(renewed.operator.role, Role::Write);
    assert_eq!(renewed.not_after_ms, NOW_MS + HOUR_MS + 30 * 24 * HOUR_MS);
    for chain in [&first.chain, &renewed.chain] {
        assert!(authority.caller(&peer(chain), NOW_MS).await.unwrap().operator(Role::Write).is_ok());
    }
    // An operator who lost the key is made anew: what somebody found is worth nothing.
    let replaced = make(Role::Read).await;
    assert!(matches!(authority.caller(&peer(&first.chain), NOW_MS).await, Err(Refusal::Unknown(_))));
    assert!(authority.caller(&peer(&replaced.chain), NOW_MS).await.unwrap().operator(Role::Write).is_err());
    authority.remove_operator("bob").await.unwrap();
    assert!(matches!(authority.caller(&peer(&replaced.chain), NOW_MS).await, Err(Refusal::Unknown(_))));
    assert!(matches!(authority.renew_operator("bob", &request(&[]).1, "shop", NOW_MS).await, Err(Refusal::Unknown(_))));
    let expired = make(Role::Read).await;
    let late = authority.caller(&peer(&expired.chain), NOW_MS + 31 * 24 * HOUR_MS).await.unwrap_err().to_string();
    assert!(late.contains("expired; ask an administrator"), "{late}");
}

#[tokio::test]
async fn operators_have_names_that_can_stand_in_identities() {
    let place = Place::new().await;
    for name in ["", "a b", "a/b", "../x", ".x", "admin", &"x".repeat(65)] {
        let made = place.authority.create_operator(name, Role::Read, &request(&[]).1, "", "shop", NOW_MS).await;
        assert!(matches!(made, Err(Refusal::Wrong(_))), "{name}");
    }
    assert_eq!("write".parse::<Role>(), Ok(Role::Write));
    assert_eq!("root".parse::<Role>().unwrap_err().to_string(), "a role is read, write or admin, not `root`");
    assert!(matches!(place.authority.remove_operator("admin").await, Err(Refusal::Wrong(_))));
    assert!(matches!(place.authority.remove_operator("bob").await, Err(Refusal::Missing(_))));
}

#[tokio::test]
async fn the_local_credential_is_there_and_stays_fresh() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new().await;
    let folder = place.folder.path().join("operator");
    let keep = |now_ms| place.authority.keep_local_operator(&folder, "127.0.0.1:9443", "shop", now_ms);
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    keep(NOW_MS).await.unwrap();
    for name in ["admin.pem", "admin.key", "ca.pem", "daemon"] {
        assert_eq!(std::fs::metadata(folder.join(name)).unwrap().mode() & 0o777, 0o600, "{name}");
    }
    let first = read("admin.pem");
    let caller = place.authority.caller(&peer(&first), NOW_MS).await.unwrap();
    assert!(caller.operator(Role::Admin).is_ok());
    assert_eq!(read("daemon"), "127.0.0.1:9443\n");
    assert_eq!(read("ca.pem"), place.authority.bundle());
    let (chain, key) = (read("admin.pem"), KeyPair::from_pem(&read("admin.key")).unwrap());
    let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    assert_eq!(leaf.public_key().raw, rcgen::PublicKeyData::subject_public_key_info(&key));

    keep(NOW_MS + 14 * 24 * HOUR_MS).await.unwrap();
    assert_eq!(read("admin.pem"), first, "renewed too early");
    keep(NOW_MS + 16 * 24 * HOUR_MS).await.unwrap();
    let renewed = read("admin.pem");
    assert_ne!(renewed, first);
    // A command that read the folder just before, and one that is still at it.
    let before = place.authority.caller(&peer(&first), NOW_MS).await.unwrap();
    assert!(before.operator(Role::Admin).is_ok());
    // What was lost or broken is made again, and the credential that somebody may have found counts no more.
    for name in ["admin.pem", "admin.key"] {
        std::fs::write(folder.join(name), "broken").unwrap();
        keep(NOW_MS + 16 * 24 * HOUR_MS).await.unwrap();
        let now = peer(&read("admin.pem"));
        assert!(place.authority.caller(&now, NOW_MS).await.unwrap().operator(Role::Admin).is_ok());
    }
    assert!(place.authority.caller(&peer(&renewed), NOW_MS).await.is_err());
}

/// A certificate for `shop.example.com` that some public authority could have made, and its key.
fn edge() -> Pair {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["shop.example.com".to_owned()]).unwrap();
    let chain = params.self_signed(&key).unwrap().pem();
    Pair { chain: chain.into_bytes(), key: key.serialize_pem().into_bytes() }
}

#[tokio::test]
async fn an_edge_certificate_comes_back_as_it_was_put() {
    let place = Place::new().await;
    let changes = place.authority.changes();
    let pair = edge();
    let put = |group: &'static str, name: &'static str| place.authority.put_secret(group, name, &pair, "ann", NOW_MS);
    let info = put("edge", "shop").await.unwrap();
    assert_eq!((info.subject.as_str(), info.author.as_str()), ("shop.example.com", "ann"));
    assert!(changes.has_changed().unwrap());
    put("a/b", "c").await.unwrap();
    put("a", "b/c").await.unwrap();
    let (secrets, damaged) = place.authority.secrets().await.unwrap();
    assert!(damaged.is_empty());
    assert_eq!(secrets.len(), 3, "two names met in one place");
    assert_eq!(secrets[&("edge".to_owned(), "shop".to_owned())], pair);
    place.authority.remove_secret("edge", "shop").await.unwrap();
    assert_eq!(place.authority.secret_infos().await.unwrap().len(), 2);
    assert!(matches!(place.authority.remove_secret("edge", "shop").await, Err(Refusal::Missing(_))));
}

#[tokio::test]
async fn what_cannot_serve_is_refused_when_it_is_put() {
    let place = Place::new().await;
    let (good, other) = (edge(), edge());
    let text = |text: &str| text.as_bytes().to_vec();
    let cases = [
        (Pair { key: other.key.clone(), ..good.clone() }, "the key does not belong to the first certificate"),
        (Pair { chain: text("hello"), ..good.clone() }, "the chain has no certificate"),
        (Pair { key: text("hello"), ..good.clone() }, "the key is no private key in PEM"),
        (Pair { key: good.chain.clone(), ..good.clone() }, "the key is no private key in PEM"),
        (Pair { chain: vec![b' '; 200_000], ..good.clone() }, "at most 128 KiB"),
    ];
    for (pair, why) in cases {
        let refused = place.authority.put_secret("edge", "shop", &pair, "", NOW_MS).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
        assert!(!refused.contains("PRIVATE"), "{refused}");
    }
    // 4097
    let expired = place.authority.put_secret("edge", "shop", &good, "", 67_122_432_000_000).await;
    assert!(expired.unwrap_err().to_string().contains("has expired"));
    for (group, name) in [("", "a"), ("a", ""), ("a:b", "c"), ("a", "b c")] {
        assert!(place.authority.put_secret(group, name, &good, "", NOW_MS).await.is_err(), "{group} {name}");
    }
}

#[tokio::test]
async fn a_sealed_certificate_cannot_be_given_to_another_group() {
    let place = Place::new().await;
    place.authority.put_secret("edge", "shop", &edge(), "", NOW_MS).await.unwrap();
    let record = place.store.get::<serde_json::Value>("secrets/edge:shop").await.unwrap().unwrap().value;
    place.store.commit(Change::new().put("secrets/other:shop", &record)).await.unwrap();
    let (good, damaged) = place.authority.secrets().await.unwrap();
    assert_eq!((good.len(), damaged.len()), (1, 1));
    assert!(damaged[0].to_string().contains("is damaged; put it again"), "{damaged:?}");
}
