//! Joining and renewing: who gets a certificate, and what it says.

use super::*;
use rcgen::{BasicConstraints, DnType, IsCa};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::parse_x509_certificate;

fn told<T: std::fmt::Debug>(result: Result<T, Refusal>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn what_a_request_asks_for_is_not_looked_at() {
    let place = Place::new().await;
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "admin");
    params.subject_alt_names = vec![
        SanType::URI("spiffe://shop/ringway-operator/admin".try_into().unwrap()),
        SanType::DnsName("shop.example.com".try_into().unwrap()),
    ];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let csr = params.serialize_request(&key).unwrap().der().to_vec();
    let issued = place.authority.join(&place.token(1).await, &csr, "host", NOW_MS).await.unwrap();

    let leaf = CertificateDer::from_pem_slice(issued.chain.as_bytes()).unwrap();
    let (_, leaf) = parse_x509_certificate(&leaf).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names, [GeneralName::URI("spiffe://shop/group/cart")]);
    let common: Vec<_> = leaf.subject().iter_common_name().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(common, [issued.proxy.id.as_str()]);
    assert!(!leaf.is_ca());
    assert_eq!(leaf.public_key().raw, rcgen::PublicKeyData::subject_public_key_info(&key));
    assert_eq!((issued.proxy.group.as_str(), issued.proxy.name.as_str()), ("cart", "host"));
}

#[tokio::test]
async fn a_request_without_the_key_it_names_is_refused() {
    let place = Place::new().await;
    let token = place.token(1).await;
    let (_, good) = request(&[]);
    let mut changed = good.clone();
    let last = changed.len() - 3;
    changed[last] ^= 1;
    let cases: [(&[u8], &str); 5] = [
        (&changed, "is not signed with its own key"),
        (b"", "is no PKCS #10 in DER"),
        (b"-----BEGIN CERTIFICATE REQUEST-----", "is no PKCS #10 in DER"),
        (&[good.as_slice(), b"x"].concat(), "has something behind it"),
        (&[0; 20_000], "is longer than 16 KiB"),
    ];
    for (csr, why) in cases {
        assert_eq!(told(place.authority.join(&token, csr, "", NOW_MS).await), format!("the certificate request {why}"));
    }
    // None of them cost a use.
    assert!(place.authority.join(&token, &good, "", NOW_MS).await.is_ok());
}

#[tokio::test]
async fn every_kind_of_key_that_is_supported_joins() {
    let place = Place::new().await;
    for kind in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(kind).unwrap();
        let issued = place.authority.join(&place.token(1).await, &request_of(&key, &[]), "", NOW_MS).await.unwrap();
        assert_eq!(verified(&issued.chain, &place.authority.bundle(), NOW_MS, "sslclient"), Ok(()));
    }
}

#[tokio::test]
async fn a_used_token_serves_its_key_and_no_other() {
    let place = Place::new().await;
    let token = place.token(1).await;
    let (key, csr) = request(&[]);
    let first = place.authority.join(&token, &csr, "", NOW_MS).await.unwrap();
    let (_, other) = request(&[]);
    let refused = told(place.authority.join(&token, &other, "", NOW_MS).await);
    assert_eq!(refused, "the token is used up by another key; make a new one");
    // A lost answer burns nothing: the same key is the same proxy, whatever its request looks like.
    let names = [SanType::DnsName("again".try_into().unwrap())];
    let again = place.authority.join(&token, &request_of(&key, &names), "", NOW_MS).await.unwrap();
    assert_eq!(again.proxy.id, first.proxy.id);
    assert_ne!(again.chain, first.chain);
    assert_eq!(place.authority.proxies().await.unwrap().len(), 1);
    assert_eq!(place.authority.tokens(NOW_MS).await.unwrap()[0].uses_left, 0);
}

#[tokio::test]
async fn a_token_of_three_uses_serves_three_keys() {
    let place = Place::new().await;
    let token = place.token(3).await;
    let mut ids = std::collections::BTreeSet::new();
    for n in 0..4 {
        let (_, csr) = request(&[]);
        let joined = place.authority.join(&token, &csr, "", NOW_MS).await;
        assert_eq!(joined.is_ok(), n < 3);
        ids.extend(joined.map(|issued| issued.proxy.id).ok());
    }
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn of_many_who_come_at_once_with_one_use_one_joins() {
    let place = Place::new().await;
    let token = place.token(1).await;
    // A second daemon on the same store: it does not wait for the lock of the first.
    let second = Authority::open(place.store.clone(), &source(place.folder.path()), None, NOW_MS).await.unwrap();
    let daemons = [Arc::new(place.authority), Arc::new(second)];
    let tasks: Vec<_> = (0..16)
        .map(|n| {
            let (authority, token) = (daemons[n % 2].clone(), token.clone());
            let (_, csr) = request(&[]);
            tokio::spawn(async move { authority.join(&token, &csr, "", NOW_MS).await })
        })
        .collect();
    let mut joined = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => joined += 1,
            Err(refusal) => assert!(matches!(refusal, Refusal::Denied(_)), "{refusal:?}"),
        }
    }
    assert_eq!(joined, 1);
    assert_eq!(daemons[0].proxies().await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_expired_or_revoked_token_is_refused_even_to_its_key() {
    let place = Place::new().await;
    let (_, csr) = request(&[]);
    let (info, token) = place.authority.create_token(token_for("cart", 2), NOW_MS).await.unwrap();
    let end_ms = NOW_MS + HOUR_MS;
    assert!(place.authority.join(&token, &csr, "", end_ms - 1).await.is_ok());
    let expired = told(place.authority.join(&token, &csr, "", end_ms + 7000).await);
    assert_eq!(expired, "the token expired 7 s ago; make a new one");

    place.authority.revoke_token(&info.id).await.unwrap();
    let revoked = told(place.authority.join(&token, &csr, "", NOW_MS).await);
    assert!(revoked.starts_with("the token is not known here: it was revoked"), "{revoked}");
    assert!(place.store.list::<String>("token-uses/").await.unwrap().is_empty());
    let none = told(place.authority.revoke_token(&info.id).await);
    assert!(none.starts_with("there is no token"), "{none}");
    assert_eq!(place.authority.proxies().await.unwrap().len(), 1, "who joined stays");
}

#[tokio::test]
async fn tokens_that_expired_a_day_ago_are_gone() {
    let place = Place::new().await;
    let token = place.token(2).await;
    let (_, csr) = request(&[]);
    place.authority.join(&token, &csr, "", NOW_MS).await.unwrap();
    assert_eq!(place.authority.tokens(NOW_MS + 24 * HOUR_MS).await.unwrap().len(), 1);
    assert_eq!(place.authority.tokens(NOW_MS + 25 * HOUR_MS).await.unwrap().len(), 0);
    assert!(place.store.list::<String>("token-uses/").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_changed_token_is_refused_wherever_it_was_changed() {
    let place = Place::new().await;
    let (_, csr) = request(&[]);
    let text = place.token(1).await;
    let mut refused = 0;
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        match place.authority.join(&changed, &csr, "", NOW_MS).await {
            // Addresses and roots are for the proxy; the daemon does not look at them.
            Ok(_) => {
                let (a, b) = (api::token::Token::decode(&changed).unwrap(), api::token::Token::decode(&text).unwrap());
                assert_eq!((a.id, a.secret), (b.id, b.secret), "another secret was accepted");
            }
            Err(Refusal::Wrong(_) | Refusal::Unknown(_)) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    // The secret alone has 43 letters.
    assert!(refused > 50, "{refused}");
}

#[tokio::test]
async fn a_token_has_bounds() {
    let place = Place::new().await;
    let create = |uses, ttl_s| {
        let new = NewToken { ttl_s, ..token_for("cart", uses) };
        place.authority.create_token(new, NOW_MS)
    };
    let (usual, _) = create(0, 0).await.unwrap();
    assert_eq!((usual.uses_left, usual.expires_ms), (1, NOW_MS + HOUR_MS));
    assert!(told(create(100_001, 1).await).contains("at most 100000 uses"));
    assert!(told(create(1, 31_536_001).await).contains("at most 31536000 seconds"));
}

#[tokio::test]
async fn a_proxy_renews_as_what_it_is() {
    let place = Place::new().await;
    let (issued, key) = place.proxy().await;
    let id = issued.proxy.id.clone();
    // With the same key, and with another: the certificate that it showed proves who it is.
    let wanted = [SanType::URI("spiffe://shop/group/admin".try_into().unwrap())];
    for csr in [request_of(&key, &wanted), request(&wanted).1] {
        let renewed = place.authority.renew(&id, &csr, None, NOW_MS + HOUR_MS).await.unwrap();
        assert_eq!(renewed.proxy.id, id);
        assert_eq!(peer(&renewed.chain).certificate.unwrap().uri, "spiffe://shop/group/cart");
        assert_eq!(renewed.not_after_ms, NOW_MS + 25 * HOUR_MS);
    }
    let none = told(place.authority.renew("cart-00000000", &request(&[]).1, None, NOW_MS).await);
    assert!(none.contains("was forgotten"), "{none}");
}

#[tokio::test]
async fn records_keep_the_certificate_in_use_and_few_others() {
    let place = Place::new().await;
    let (issued, _) = place.proxy().await;
    let id = issued.proxy.id.clone();
    let shown = peer(&issued.chain);
    let used = shown.certificate.as_ref().unwrap().fingerprint.clone();
    place.authority.caller(&shown, NOW_MS).await.unwrap();
    for _ in 0..50 {
        place.authority.renew(&id, &request(&[]).1, None, NOW_MS).await.unwrap();
    }
    let proxy = place.authority.proxy(&id).await.unwrap().unwrap();
    assert_eq!(proxy.certificates.len(), 8);
    assert_eq!(proxy.in_use().unwrap().fingerprint, used);
    assert!(place.authority.caller(&shown, NOW_MS).await.unwrap().proxy().is_ok());
    // Another is reported to be in use, and the connection goes on with the one that it began with.
    let newest = proxy.certificates.last().unwrap().fingerprint.clone();
    place.authority.saw(&id, &newest).await.unwrap();
    for _ in 0..50 {
        place.authority.renew(&id, &request(&[]).1, Some(&used), NOW_MS).await.unwrap();
    }
    assert!(place.authority.caller(&shown, NOW_MS).await.unwrap().proxy().is_ok());
    assert_eq!(place.authority.proxy(&id).await.unwrap().unwrap().certificates.len(), 8);
    // What nobody can use any more goes.
    place.authority.renew(&id, &request(&[]).1, None, NOW_MS + 30 * 24 * HOUR_MS).await.unwrap();
    assert_eq!(place.authority.proxy(&id).await.unwrap().unwrap().certificates.len(), 1);
}

#[tokio::test]
async fn records_of_who_cannot_come_back_are_swept() {
    let place = Place::new().await;
    let authority = &place.authority;
    let (lost, _) = place.proxy().await;
    // Its token lives longer than its certificate: with the same key it is the same proxy.
    let long =
        authority.create_token(NewToken { ttl_s: 10 * 24 * 3600, ..token_for("cart", 1) }, NOW_MS).await.unwrap().1;
    let (_, csr) = request(&[]);
    let held = authority.join(&long, &csr, "", NOW_MS).await.unwrap();
    let week_later = NOW_MS + (24 + 7 * 24) * HOUR_MS;
    assert_eq!(authority.sweep_proxies(week_later - HOUR_MS).await.unwrap(), [""; 0]);
    assert_eq!(authority.sweep_proxies(week_later + HOUR_MS).await.unwrap(), [lost.proxy.id.as_str()]);
    assert!(authority.proxy(&lost.proxy.id).await.unwrap().is_none());
    let again = authority.join(&long, &csr, "", week_later + HOUR_MS).await.unwrap();
    assert_eq!(again.proxy.id, held.proxy.id);
    // It has a certificate again, and a week and a day.
    let later = week_later + 5 * 24 * HOUR_MS;
    assert_eq!(authority.sweep_proxies(later).await.unwrap(), [""; 0]);
    assert_eq!(authority.sweep_proxies(week_later + (25 + 7 * 24) * HOUR_MS + 1).await.unwrap(), [held.proxy.id]);
}
