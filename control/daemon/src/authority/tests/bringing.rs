//! Roots that somebody brings, made by openssl: with their keys, or with an intermediate alone.

use super::*;
use std::path::PathBuf;

/// openssl's notBefore is now: what it makes is not valid at [`NOW_MS`].
fn now_ms() -> u64 {
    crate::state::now_ms()
}

/// A folder with an authority that openssl made.
struct Elsewhere(TempDir);

impl Elsewhere {
    fn new() -> Elsewhere {
        Elsewhere(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, line: &str) {
        let output = Command::new("openssl").current_dir(self.0.path()).args(line.split(' ')).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn key(&self, name: &str, kind: &str) {
        self.openssl(&format!("genpkey {kind} -out {name}.key"));
    }

    fn root(&self, name: &str, kind: &str) {
        self.key(name, kind);
        let extensions = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign";
        self.openssl(&format!(
            "req -x509 -key {name}.key -subj /O=Shop/CN={name} -days 3650 {extensions} -out {name}.pem"
        ));
    }

    fn intermediate(&self, name: &str, root: &str, days: u32) {
        self.key(name, EC);
        self.openssl(&format!("req -new -key {name}.key -subj /O=Shop/CN={name} -out {name}.csr"));
        std::fs::write(
            self.path("ext"),
            "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n",
        )
        .unwrap();
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {root}.pem -CAkey {root}.key -days {days} -extfile ext -out {name}.pem"
        ));
    }

    fn with_key(&self, root: &str) -> RootFiles {
        let path = |end: &str| self.path(&format!("{root}.{end}"));
        RootFiles { certificate: path("pem"), signer: Signer::Key(path("key")) }
    }

    fn with_intermediate(&self, root: &str, intermediate: &str) -> RootFiles {
        let path = |name: &str, end: &str| self.path(&format!("{name}.{end}"));
        let signer = Signer::Intermediate { certificate: path(intermediate, "pem"), key: path(intermediate, "key") };
        RootFiles { certificate: path(root, "pem"), signer }
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }
}

const EC: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
const RSA: &str = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";

async fn opened(folder: &Path, brought: RootFiles, now_ms: u64) -> Result<Authority, Refusal> {
    let store = loop {
        // One that was dropped closes its file a moment later.
        match Store::open(folder) {
            Ok(store) => break store,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    };
    Authority::open(store, &source(folder), Some(brought), now_ms).await
}

async fn joined(authority: &Authority) -> Issued {
    let token = authority.create_token(token_for("cart", 1), now_ms()).await.unwrap().1;
    authority.join(&token, &request(&[]).1, "", now_ms()).await.unwrap()
}

#[tokio::test]
async fn a_root_that_is_brought_with_its_key_is_the_one_that_signs() {
    for kind in [EC, RSA, "-algorithm Ed25519"] {
        let elsewhere = Elsewhere::new();
        elsewhere.root("root", kind);
        let folder = tempfile::tempdir().unwrap();
        let files = elsewhere.with_key("root");
        let authority = opened(folder.path(), files.clone(), now_ms()).await.unwrap();
        let issued = joined(&authority).await;
        assert_eq!(verified(&issued.chain, &elsewhere.text("root.pem"), now_ms(), "sslclient"), Ok(()), "{kind}");
        assert_eq!(authority.roots()[0].1, "O=Shop, CN=root");
        // It stands sealed in the store: the files may go.
        drop(authority);
        std::fs::remove_file(elsewhere.path("root.key")).unwrap();
        let authority = opened(folder.path(), files, now_ms()).await.unwrap();
        assert_eq!(authority.notice(now_ms()), None);
        let issued = joined(&authority).await;
        assert_eq!(verified(&issued.chain, &elsewhere.text("root.pem"), now_ms(), "sslclient"), Ok(()));
    }
}

#[tokio::test]
async fn with_an_intermediate_the_roots_key_stays_where_it_is() {
    const DAY_MS: u64 = 24 * HOUR_MS;
    let elsewhere = Elsewhere::new();
    elsewhere.root("root", EC);
    elsewhere.intermediate("first", "root", 100);
    std::fs::rename(elsewhere.path("root.key"), elsewhere.path("away")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files = elsewhere.with_intermediate("root", "first");
    let authority = opened(folder.path(), files.clone(), now_ms()).await.unwrap();
    let issued = joined(&authority).await;
    assert_eq!(verified(&issued.chain, &elsewhere.text("root.pem"), now_ms(), "sslclient"), Ok(()));
    assert!(issued.chain.contains(&elsewhere.text("first.pem")));

    // In the second half of its life another one is taken without a restart, as soon as it is there.
    assert_eq!(authority.notice(now_ms()), None);
    let late_ms = now_ms() + 60 * DAY_MS;
    assert_eq!(authority.refresh(late_ms).await, Ok(0));
    assert_eq!(authority.notice(late_ms).unwrap(), "the intermediate expires in 39 days; put another one in its place");
    std::fs::rename(elsewhere.path("away"), elsewhere.path("root.key")).unwrap();
    elsewhere.intermediate("second", "root", 300);
    for end in ["pem", "key"] {
        std::fs::copy(elsewhere.path(&format!("second.{end}")), elsewhere.path(&format!("first.{end}"))).unwrap();
    }
    assert_eq!(authority.refresh(late_ms).await, Ok(1));
    assert_eq!(authority.refresh(late_ms).await, Ok(1));
    assert_eq!(authority.notice(late_ms), None);
    assert!(joined(&authority).await.chain.contains(&elsewhere.text("second.pem")));
    // And stands in the store.
    drop(authority);
    std::fs::remove_file(elsewhere.path("first.pem")).unwrap();
    let authority = opened(folder.path(), files, now_ms()).await.unwrap();
    assert!(joined(&authority).await.chain.contains(&elsewhere.text("second.pem")));
}

#[tokio::test]
async fn what_does_not_belong_together_is_refused_in_words() {
    let elsewhere = Elsewhere::new();
    elsewhere.root("root", EC);
    elsewhere.root("other", EC);
    elsewhere.intermediate("below", "root", 10);
    elsewhere.key("leaf", EC);
    elsewhere.openssl("req -x509 -key leaf.key -subj /CN=leaf -addext basicConstraints=CA:FALSE -out leaf.pem");
    std::fs::write(elsewhere.path("hello.pem"), "hello").unwrap();
    std::fs::write(elsewhere.path("hello.key"), "hello").unwrap();
    let mixed = RootFiles { signer: Signer::Key(elsewhere.path("other.key")), ..elsewhere.with_key("root") };
    let cases = [
        (mixed, "other.key is not the key of"),
        (elsewhere.with_intermediate("other", "below"), "below.pem is not signed by the root"),
        (elsewhere.with_key("leaf"), "leaf.pem is no certificate of an authority"),
        (elsewhere.with_key("hello"), "hello.pem has no certificate in PEM"),
        (
            RootFiles { signer: Signer::Key(elsewhere.path("hello.key")), ..elsewhere.with_key("root") },
            "has no key in PKCS #8",
        ),
        (elsewhere.with_key("nowhere"), "cannot read "),
    ];
    for (files, why) in cases {
        let folder = tempfile::tempdir().unwrap();
        let refused = opened(folder.path(), files, now_ms()).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    let folder = tempfile::tempdir().unwrap();
    let late_ms = now_ms() + 11 * 24 * HOUR_MS;
    let expired = opened(folder.path(), elsewhere.with_intermediate("root", "below"), late_ms).await;
    assert!(expired.unwrap_err().to_string().contains("below.pem has expired"));
}

#[tokio::test]
async fn a_change_of_roots_goes_over_to_the_one_that_is_brought() {
    let elsewhere = Elsewhere::new();
    elsewhere.root("old", EC);
    elsewhere.root("new", RSA);
    let folder = tempfile::tempdir().unwrap();
    let authority = opened(folder.path(), elsewhere.with_key("old"), now_ms()).await.unwrap();
    let same = authority.rotate(false, now_ms()).await.unwrap_err().to_string();
    assert!(same.contains("names the root that is in use; put the new one there first"), "{same}");
    drop(authority);
    let authority = opened(folder.path(), elsewhere.with_key("new"), now_ms()).await.unwrap();
    let notice = authority.notice(now_ms()).unwrap();
    assert!(notice.contains("new.pem is another root than the one in use"), "{notice}");
    for stage in [Stage::Trusting, Stage::Issuing, Stage::Serving, Stage::Steady] {
        assert_eq!(authority.rotate(false, now_ms()).await, Ok(Step::Done(stage)));
    }
    let issued = joined(&authority).await;
    assert_eq!(verified(&issued.chain, &elsewhere.text("new.pem"), now_ms(), "sslclient"), Ok(()));
    assert_eq!(issued.bundle, authority.bundle());
    assert_eq!(authority.notice(now_ms()), None);
}
