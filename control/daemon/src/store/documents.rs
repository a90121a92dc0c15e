//! Documents as numbered versions. A text is stored once, in pieces named by its digest; a version names a text; one
//! entry says which version is in force, and moves by comparing.

use super::{Change, Entry, Failure, Store};
use crate::encode::{hex, sha256};
use serde::{Deserialize, Serialize};

const HEAD: &str = "documents/head";
const NEWEST: &str = "documents/newest";
/// The pieces of texts.
pub(super) const TEXTS: &str = "documents/text/";
/// The most bytes of a piece: etcd takes 1.5 MiB in a request.
const PIECE_BYTES: usize = 512 * 1024;

/// A document that was pushed. Numbers begin with 1, have no gaps, and are never used again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its number.
    pub number: u64,
    /// When it came, milliseconds since 1970 by the daemon's clock.
    pub at_ms: u64,
    /// The operator's name.
    pub author: String,
    /// What the operator said about it.
    pub comment: String,
    /// SHA-256 of the text, hexadecimal.
    pub digest: String,
    /// The version whose text this is again, where somebody rolled back.
    pub again: Option<u64>,
}

/// What is said about a version when it is pushed.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// The operator's name.
    pub author: String,
    /// A line for the history.
    pub comment: String,
    /// The version whose text this is again.
    pub again: Option<u64>,
}

/// Which version is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The version's number.
    pub number: u64,
}

impl Store {
    /// The version in force; none before the first push.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn head(&self) -> Result<Option<Head>, Failure> {
        Ok(self.get(HEAD).await?.map(|entry| entry.value))
    }

    /// Adds a version, and puts it in force if `base` still is (`None`: if none is).
    ///
    /// # Errors
    /// A conflict when another version is in force than `base`, or somebody pushes at the same time.
    pub async fn push(&self, base: Option<u64>, text: &str, about: About) -> Result<Version, Failure> {
        let head = self.get::<Head>(HEAD).await?;
        if head.as_ref().map(|head| head.value.number) != base {
            return Err(Failure::Conflict { key: HEAD.to_owned() });
        }
        let (change, version) = self.addition(text, about).await?;
        let moved = Head { number: version.number };
        self.commit(change.expect(HEAD, revision(&head)).put(HEAD, &moved)).await?;
        Ok(version)
    }

    /// Adds a version that is not in force (yet).
    ///
    /// # Errors
    /// A conflict when somebody pushes at the same time.
    pub async fn add(&self, text: &str, about: About) -> Result<Version, Failure> {
        let (change, version) = self.addition(text, about).await?;
        self.commit(change).await?;
        Ok(version)
    }

    /// Puts a version in force if `base` still is.
    ///
    /// # Errors
    /// A conflict when another one is; broken when there is no such version.
    pub async fn put_in_force(&self, base: Option<u64>, number: u64) -> Result<(), Failure> {
        let head = self.get::<Head>(HEAD).await?;
        if head.as_ref().map(|head| head.value.number) != base {
            return Err(Failure::Conflict { key: HEAD.to_owned() });
        }
        if self.version(number).await?.is_none() {
            return Err(Failure::Broken(format!("there is no version {number}")));
        }
        self.commit(Change::new().expect(HEAD, revision(&head)).put(HEAD, &Head { number })).await?;
        Ok(())
    }

    /// One version.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn version(&self, number: u64) -> Result<Option<Version>, Failure> {
        Ok(self.get(&version_key(number)).await?.map(|entry| entry.value))
    }

    /// The last versions, at most so many, the newest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn history(&self, most: usize) -> Result<Vec<Version>, Failure> {
        let newest = self.get::<u64>(NEWEST).await?.map_or(0, |entry| entry.value);
        let mut list = Vec::new();
        for number in (1..=newest).rev().take(most) {
            list.extend(self.version(number).await?);
        }
        Ok(list)
    }

    /// A document's text.
    ///
    /// # Errors
    /// The store cannot be read, or the text is not the one that was pushed.
    pub async fn document(&self, version: &Version) -> Result<String, Failure> {
        let mut bytes = Vec::new();
        let mut piece = 0;
        while let Some(found) = self.get_bytes(&piece_key(&version.digest, piece)).await? {
            bytes.extend(found.value);
            piece += 1;
        }
        if hex(&sha256(&bytes)) != version.digest {
            return Err(Failure::Broken(format!("the document of version {} is damaged", version.number)));
        }
        String::from_utf8(bytes).map_err(|_| Failure::Broken("a document is UTF-8".to_owned()))
    }

    /// Stores the text, and makes the change that gives it the next number.
    async fn addition(&self, text: &str, about: About) -> Result<(Change, Version), Failure> {
        let newest = self.get::<u64>(NEWEST).await?;
        let number = newest.as_ref().map_or(0, |entry| entry.value) + 1;
        let digest = hex(&sha256(text.as_bytes()));
        // Nothing names the pieces before the version does, so they may come first, one by one.
        for (piece, bytes) in text.as_bytes().chunks(PIECE_BYTES).enumerate() {
            let key = piece_key(&digest, piece);
            if self.get_bytes(&key).await?.is_none() {
                self.commit(Change::new().put_bytes(key, bytes.to_vec())).await?;
            }
        }
        let About { at_ms, author, comment, again } = about;
        let version = Version { number, at_ms, author, comment, digest, again };
        let change =
            Change::new().expect(NEWEST, revision(&newest)).put(NEWEST, &number).put(version_key(number), &version);
        Ok((change, version))
    }
}

fn revision<T>(entry: &Option<Entry<T>>) -> Option<u64> {
    entry.as_ref().map(|entry| entry.revision)
}

fn version_key(number: u64) -> String {
    format!("documents/version/{number:020}")
}

fn piece_key(digest: &str, piece: usize) -> String {
    format!("{TEXTS}{digest}/{piece:04}")
}
