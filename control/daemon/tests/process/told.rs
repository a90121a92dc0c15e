//! What stands in the log and on the disk after a day's work: nothing that opens a door.

use crate::program::{Daemon, apply, document, joining, token};
use api::pb;
use rcgen::{CertificateParams, KeyPair};
use std::path::{Path, PathBuf};

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

#[tokio::test]
async fn no_token_and_no_key_is_in_the_log_or_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path());
    let mut operator = daemon.operator(folder.path()).await;
    assert_eq!(apply(&mut operator, document(1)).await, Some(1));
    let (used, unused) = (token(&mut operator).await.unwrap(), token(&mut operator).await.unwrap());
    let proxy_key = KeyPair::generate().unwrap();
    let mut stranger = daemon.stranger(folder.path()).await;
    let issued = stranger.join(joining(&used, &proxy_key)).await.unwrap().into_inner();
    assert!(stranger.join(joining(&used, &KeyPair::generate().unwrap())).await.is_err());
    assert!(stranger.join(joining("rw1.nonsense", &proxy_key)).await.is_err());
    let edge_key = KeyPair::generate().unwrap();
    let chain = CertificateParams::new(["shop".to_owned()]).unwrap().self_signed(&edge_key).unwrap().pem();
    let secret = pb::PutSecretRequest {
        name: "edge".to_owned(),
        group: "cart".to_owned(),
        chain: chain.into_bytes(),
        key: edge_key.serialize_pem().into_bytes(),
    };
    operator.put_secret(secret.clone()).await.unwrap();
    let wrong = pb::PutSecretRequest { key: proxy_key.serialize_pem().into_bytes(), ..secret };
    assert!(operator.put_secret(wrong).await.is_err());
    operator.forget(pb::ForgetRequest { proxy: issued.proxy.clone() }).await.unwrap();

    daemon.signal("-TERM");
    let (status, said) = daemon.ended();
    assert_eq!(status.code(), Some(0));
    assert!(said.contains(&format!("`{}` joined group `cart`", issued.proxy)), "{said}");

    // What must not be found: the middle of a token, a line of each key.
    let line = |key: &KeyPair| key.serialize_pem().lines().nth(2).unwrap()[..40].to_owned();
    let secrets = [used[20..60].to_owned(), unused[20..60].to_owned(), line(&proxy_key), line(&edge_key)];
    for secret in &secrets {
        assert!(!said.contains(secret.as_str()), "{secret} is in the log:\n{said}");
    }
    let files = files(folder.path());
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in {}", file.display());
        }
    }
}
