//! What a thief finds gives nobody another's identity.

use super::*;

/// No file below this folder has any of these bytes in it, but for `except`.
fn nowhere(folder: &Path, except: &str, secrets: &[(&str, Vec<u8>)]) {
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() || entry.file_name() == except {
            continue;
        }
        let bytes = std::fs::read(entry.path()).unwrap();
        read += bytes.len();
        for (what, secret) in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_slice());
            assert!(!found, "{what} stands in {}", entry.path().display());
        }
    }
    assert!(read > 10_000, "nothing was looked at");
}

#[tokio::test]
async fn a_stolen_store_has_no_key_no_token_and_no_edge_certificate() {
    let place = Place::new().await;
    let (info, token) = place.authority.create_token(token_for("cart", 5), NOW_MS).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let chain = CertificateParams::new(["shop".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    let pair = Pair { chain: chain.into_bytes(), key: key.serialize_pem().into_bytes() };
    place.authority.put_secret("edge", "shop", &pair, "", NOW_MS).await.unwrap();
    place.proxy().await;

    let root = place.authority.held().roots().list[0].clone();
    let root_key =
        place.authority.seal.open_text(&format!("authority/root/{}", root.id), root.key.as_ref().unwrap()).unwrap();
    assert!(KeyPair::try_from(root_key.as_slice()).is_ok(), "this is what must not be found");
    let secret = api::token::Token::decode(&token).unwrap().secret;
    let pem = String::from_utf8(pair.key.clone()).unwrap();
    let pem_line = pem.lines().nth(1).unwrap();
    let base64 = |bytes: &[u8]| crate::encode::base64(bytes).trim_end_matches('=').as_bytes().to_vec();
    // 24 bytes out of the middle: a multiple of three from the start, so that base64 of it stands in base64 of all.
    let middle = &root_key[48..72];
    nowhere(
        place.folder.path(),
        "store.key",
        &[
            ("the root's key", middle.to_vec()),
            ("the root's key in base64", base64(middle)),
            ("the root's key in hexadecimal", crate::encode::hex(middle).into_bytes()),
            ("a token's secret", secret.to_vec()),
            ("a token's secret in hexadecimal", crate::encode::hex(&secret).into_bytes()),
            ("a token", token.as_bytes()[20..60].to_vec()),
            ("an edge certificate's key", pem_line.as_bytes()[..40].to_vec()),
        ],
    );
    // The look would have found something: what is no secret stands there.
    let bytes = std::fs::read(place.folder.path().join("store.redb")).unwrap();
    assert!(bytes.windows(info.id.len()).any(|window| window == info.id.as_bytes()));
}

#[tokio::test]
async fn a_stolen_store_does_not_open_without_its_key() {
    let place = Place::new().await;
    let elsewhere = tempfile::tempdir().unwrap();
    drop(place.authority);
    drop(place.store);
    std::fs::copy(place.folder.path().join("store.redb"), elsewhere.path().join("store.redb")).unwrap();
    let store = Store::open(elsewhere.path()).unwrap();
    let opened = Authority::open(store.clone(), &source(elsewhere.path()), None, NOW_MS).await;
    assert!(opened.unwrap_err().to_string().contains("the store is sealed with it"));
    std::fs::write(elsewhere.path().join("store.key"), "00".repeat(32)).unwrap();
    let opened = Authority::open(store, &source(elsewhere.path()), None, NOW_MS).await;
    assert!(opened.unwrap_err().to_string().contains("sealed with another key"));
}

#[tokio::test]
async fn a_stolen_certificate_or_request_gives_no_other_identity() {
    let place = Place::new().await;
    let token = place.token(1).await;
    let (_, csr) = request(&[]);
    let issued = place.authority.join(&token, &csr, "", NOW_MS).await.unwrap();
    // Whoever repeats what was on the wire gets a certificate for a key that only the proxy has.
    let repeated = place.authority.join(&token, &csr, "", NOW_MS).await.unwrap();
    let key_of = |chain: &str| {
        let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
        x509_parser::parse_x509_certificate(&leaf).unwrap().1.public_key().raw.to_vec()
    };
    assert_eq!(key_of(&repeated.chain), key_of(&issued.chain));
    // The disk of one proxy (its certificate and key) renews that proxy, and no other.
    let (other, _) = place.proxy().await;
    let caller = place.authority.caller(&peer(&issued.chain), NOW_MS).await.unwrap();
    let stolen = caller.renewing().unwrap();
    assert_eq!(stolen.id, issued.proxy.id);
    assert_ne!(stolen.id, other.proxy.id);
    // And nothing at all once it is known.
    place.authority.forget(&stolen.id).await.unwrap();
    assert!(place.authority.caller(&peer(&issued.chain), NOW_MS).await.is_err());
    assert!(place.authority.join(&token, &csr, "", NOW_MS).await.is_err());
}

#[test]
fn nothing_secret_is_printed() {
    let pair = Pair { chain: b"chain".to_vec(), key: b"the key".to_vec() };
    assert!(!format!("{pair:?}").contains("the key"));
}

#[tokio::test]
async fn debugging_an_authority_shows_no_key() {
    let place = Place::new().await;
    let printed = format!("{:?}", place.authority);
    assert!(
        printed.len() < 600 && !printed.contains(place.authority.held().roots().list[0].key.as_deref().unwrap()),
        "{printed}"
    );
}
