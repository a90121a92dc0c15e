//! Secrets at rest: sealed with one key (ChaCha20-Poly1305) that does not stand in the store. A sealed text is bound to
//! the place where it stands, so that nobody can move it elsewhere.

use super::Refusal;
use crate::encode::{base64, hex, random, unbase64, unhex};
use crate::files;
use crate::store::{Change, Failure, Store};
use crypto::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Holds a sealed text by which another key is recognised.
const PROOF: &str = "authority/seal";
/// The variable that may hold the key.
pub(crate) const VARIABLE: &str = "RINGWAYD_STORE_KEY";

/// Seals and opens.
pub(crate) struct Seal(LessSafeKey);

/// Where the key comes from.
#[derive(Clone, Default)]
pub(crate) struct Source {
    /// `store-key` of the daemon's file.
    pub(crate) file: Option<PathBuf>,
    /// The variable's value.
    pub(crate) variable: Option<Zeroizing<String>>,
    /// Where the key is made and found when nobody gives one.
    pub(crate) default: PathBuf,
}

impl Seal {
    /// The seal of this store, which is made with the store.
    ///
    /// # Errors
    /// There is no key, it is no key, or the store was sealed with another.
    pub(crate) async fn open(store: &Store, source: &Source) -> Result<Seal, Refusal> {
        let proof = store.get::<String>(PROOF).await?;
        let (key, place) = source.key(proof.is_none()).map_err(Refusal::Broken)?;
        let seal = Seal::new(&key);
        match proof {
            Some(proof) => {
                let opened = seal.open_text(PROOF, &proof.value);
                let other = || Refusal::Broken(format!("the store is sealed with another key than that of {place}"));
                opened.map(|_| ()).ok_or_else(other)?;
            }
            None => {
                let proof = seal.seal(PROOF, b"ringwayd");
                match store.commit(Change::new().expect(PROOF, None).put(PROOF, &proof)).await {
                    // Another daemon of the same store was first.
                    Err(Failure::Conflict { .. }) => return Box::pin(Seal::open(store, source)).await,
                    done => done?,
                };
            }
        }
        Ok(seal)
    }

    pub(crate) fn new(key: &[u8; 32]) -> Seal {
        Seal(LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("a key of 32 bytes")))
    }

    /// Seals what shall stand at this place.
    pub(crate) fn seal(&self, place: &str, plain: &[u8]) -> String {
        let nonce = random::<NONCE_LEN>();
        let mut sealed = Zeroizing::new(plain.to_vec());
        let place = Aad::from(place.as_bytes());
        let unique = Nonce::assume_unique_for_key(nonce);
        self.0.seal_in_place_append_tag(unique, place, &mut *sealed).expect("shorter than 256 GiB");
        base64(&[&nonce[..], &sealed].concat())
    }

    /// What was sealed for this place; none if it was changed, or sealed for another place or with another key.
    pub(crate) fn open_text(&self, place: &str, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(unbase64(sealed)?);
        let nonce = Nonce::try_assume_unique_for_key(bytes.get(..NONCE_LEN)?).ok()?;
        let plain = self.0.open_within(nonce, Aad::from(place.as_bytes()), &mut bytes, NONCE_LEN..).ok()?;
        Some(Zeroizing::new(plain.to_vec()))
    }
}

impl Source {
    /// The key, and where it came from. With a new store and no other source it is made.
    fn key(&self, new: bool) -> Result<(Zeroizing<[u8; 32]>, String), String> {
        let (text, place) = match (&self.variable, &self.file) {
            (Some(_), Some(_)) => return Err(format!("both {VARIABLE} and `store-key` are given; give one of them")),
            (Some(text), None) => (text.clone(), VARIABLE.to_owned()),
            (None, Some(path)) => (read(path)?, path.display().to_string()),
            (None, None) => {
                let place = self.default.display().to_string();
                if new && !self.default.exists() {
                    let text = Zeroizing::new(format!("{}\n", hex(&random::<32>())));
                    files::write(&self.default, text.as_bytes())?;
                }
                let help = |why| format!("{why}; the store is sealed with it: restore it, or give `store-key`");
                (read(&self.default).map_err(help)?, place)
            }
        };
        let form =
            || format!("{place} holds no key: 32 bytes in hexadecimal or base64, such as `openssl rand -hex 32`");
        Ok((key_of(&text).ok_or_else(form)?, place))
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    let text = std::fs::read_to_string(path);
    text.map(Zeroizing::new).map_err(|error| format!("cannot read the key of the store {}: {error}", path.display()))
}

fn key_of(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let text = text.trim();
    let bytes = Zeroizing::new(if text.len() == 64 { unhex(text) } else { unbase64(text) }?);
    let mut key = Zeroizing::new([0; 32]);
    (bytes.len() == key.len()).then(|| key.copy_from_slice(&bytes))?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_at_its_place_with_its_key_alone() {
        let seal = Seal::new(&[1; 32]);
        let sealed = seal.seal("a", b"secret");
        assert_eq!(seal.open_text("a", &sealed).unwrap().as_slice(), b"secret");
        assert_ne!(sealed, seal.seal("a", b"secret"), "a nonce was used twice");
        assert!(seal.open_text("b", &sealed).is_none());
        assert!(Seal::new(&[2; 32]).open_text("a", &sealed).is_none());
        let mut changed = unbase64(&sealed).unwrap();
        changed[14] ^= 1;
        assert!(seal.open_text("a", &base64(&changed)).is_none());
        assert!(seal.open_text("a", "").is_none());
        assert!(seal.open_text("a", "AAAA").is_none());
    }

    #[tokio::test]
    async fn a_store_knows_its_key_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let default = folder.path().join("store.key");
        let source = Source { default: default.clone(), ..Source::default() };
        let sealed = Seal::open(&store, &source).await.unwrap().seal("a", b"secret");
        assert!(Seal::open(&store, &source).await.unwrap().open_text("a", &sealed).is_some());

        let told = |result: Result<Seal, Refusal>| result.map(|_| ()).unwrap_err().to_string();
        let with = |text: &str| Source { variable: Some(Zeroizing::new(text.to_owned())), ..source.clone() };
        let other = told(Seal::open(&store, &with(&"ab".repeat(32))).await);
        assert_eq!(other, "the store is sealed with another key than that of RINGWAYD_STORE_KEY");
        let short = told(Seal::open(&store, &with("abcd")).await);
        assert!(short.contains("holds no key: 32 bytes") && !short.contains("abcd"), "{short}");
        let file = Some(folder.path().join("nowhere"));
        let nowhere = told(Seal::open(&store, &Source { file: file.clone(), ..source.clone() }).await);
        assert!(nowhere.contains("cannot read the key of the store"), "{nowhere}");
        let both = told(Seal::open(&store, &Source { file, ..with("") }).await);
        assert!(both.contains("give one of them"), "{both}");

        // The same key from elsewhere opens it too.
        let text = std::fs::read_to_string(&default).unwrap();
        assert!(Seal::open(&store, &with(&text)).await.is_ok());
        let in_base64 = base64(&unhex(text.trim()).unwrap());
        assert!(Seal::open(&store, &with(&in_base64)).await.is_ok());
        // A store whose key is lost must not get another one.
        std::fs::remove_file(&default).unwrap();
        let lost = told(Seal::open(&store, &source).await);
        assert!(lost.contains("restore it"), "{lost}");
        assert!(!default.exists());
    }
}
