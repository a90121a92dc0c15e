//! Tokens: what a proxy joins with. The store has a digest of the secret; each key that used a token has an entry that
//! says which proxy it became, so that the same key may ask again.

use super::{Authority, Refusal};
use crate::encode::{hex, random, sha256};
use crate::store::{Change, Entry, Failure};
use api::token::Token;
use serde::{Deserialize, Serialize};

/// When nobody says how long.
const USUAL_TTL_S: u32 = 60 * 60;
const LONGEST_TTL_S: u32 = 365 * 24 * 60 * 60;
const MOST_USES: u32 = 100_000;
/// Expired tokens are listed for so long.
const SHOWN_MS: u64 = 24 * 60 * 60 * 1000;

/// What a token shall be.
#[derive(Clone, Debug, Default)]
pub struct NewToken {
    /// The group that proxies join.
    pub group: String,
    /// The SPIFFE ID that they get.
    pub identity: String,
    /// How many keys may use it; 0 is one.
    pub uses: u32,
    /// Seconds that it lives; 0 is an hour.
    pub ttl_s: u32,
    /// The operator's name.
    pub author: String,
    /// `host:port` where proxies find daemons.
    pub daemons: Vec<String>,
}

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Its name.
    pub id: String,
    /// The group that proxies join.
    pub group: String,
    /// The SPIFFE ID that they get.
    pub identity: String,
    /// How many more keys may use it.
    pub uses_left: u32,
    /// Milliseconds since 1970.
    pub expires_ms: u64,
    /// The operator's name.
    pub author: String,
    /// SHA-256 of the secret, hexadecimal.
    secret: String,
}

impl Authority {
    /// Makes a token: what is known of it, and its text, which nobody can see again.
    ///
    /// # Errors
    /// More uses, or a longer life, than there may be.
    pub async fn create_token(&self, new: NewToken, now_ms: u64) -> Result<(TokenInfo, String), Refusal> {
        let NewToken { group, identity, uses, ttl_s, author, daemons } = new;
        if uses > MOST_USES {
            return Err(Refusal::Wrong(format!("a token has at most {MOST_USES} uses, not {uses}")));
        }
        if ttl_s > LONGEST_TTL_S {
            return Err(Refusal::Wrong(format!("a token lives at most {LONGEST_TTL_S} seconds, not {ttl_s}")));
        }
        let ttl_s = if ttl_s == 0 { USUAL_TTL_S } else { ttl_s };
        let roots = self.held().roots().spkis();
        let token = Token { id: hex(&random::<6>()), secret: random(), daemons, roots };
        let info = TokenInfo {
            id: token.id.clone(),
            group,
            identity,
            uses_left: uses.max(1),
            expires_ms: now_ms + u64::from(ttl_s) * 1000,
            author,
            secret: hex(&sha256(&token.secret)),
        };
        let place = key(&info.id);
        self.store.commit(Change::new().expect(&place, None).put(&place, &info)).await?;
        self.sweep(now_ms).await?;
        Ok((info, token.encode()))
    }

    /// All tokens; expired ones for a day.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn tokens(&self, now_ms: u64) -> Result<Vec<TokenInfo>, Refusal> {
        self.sweep(now_ms).await?;
        let list = self.store.list::<TokenInfo>("tokens/").await?;
        Ok(list.into_iter().map(|(_, entry)| entry.value).collect())
    }

    /// Makes a token useless. Who joined with it stays.
    ///
    /// # Errors
    /// There is none of this name.
    pub async fn revoke_token(&self, id: &str) -> Result<(), Refusal> {
        let none = || Refusal::Missing(format!("there is no token `{id}`; `ringwayctl token list` shows all"));
        let found = self.store.get::<TokenInfo>(&key(id)).await?.ok_or_else(none)?;
        self.remove(&found).await
    }

    /// The record of a token whose secret this is, if it still may be used by somebody.
    pub(super) async fn proven(&self, text: &str, now_ms: u64) -> Result<Entry<TokenInfo>, Refusal> {
        let token = Token::decode(text).map_err(|why| Refusal::Wrong(why.to_owned()))?;
        // An id that is not there and a secret that is wrong are one: nobody learns which ids there are.
        let unknown = "the token is not known here: it was revoked, or another mesh made it; make a new one";
        let unknown = || Refusal::Unknown(unknown.to_owned());
        let place = key(&token.id);
        // Another daemon may have made it a moment ago.
        let found = match self.store.get::<TokenInfo>(&place).await? {
            None if self.store.is_shared() => self.store.get_newest(&place).await?,
            found => found,
        };
        let found = found.ok_or_else(unknown)?;
        // A digest tells nothing about the secret by the time that comparing takes.
        if hex(&sha256(&token.secret)) != found.value.secret {
            return Err(unknown());
        }
        if found.value.expires_ms <= now_ms {
            let ago_s = (now_ms - found.value.expires_ms) / 1000;
            return Err(Refusal::Denied(format!("the token expired {ago_s} s ago; make a new one")));
        }
        Ok(found)
    }

    /// There is a token of this id that has not expired.
    pub(super) async fn token_holds(&self, id: &str, now_ms: u64) -> Result<bool, Refusal> {
        Ok(self.store.get::<TokenInfo>(&key(id)).await?.is_some_and(|token| token.value.expires_ms > now_ms))
    }

    /// The proxy that this key became with this token.
    pub(super) async fn joined(&self, token: &str, spki: &str) -> Result<Option<String>, Refusal> {
        Ok(self.store.get::<String>(&use_key(token, spki)).await?.map(|entry| entry.value))
    }

    /// Removes what expired a day ago.
    async fn sweep(&self, now_ms: u64) -> Result<(), Refusal> {
        for (_, entry) in self.store.list::<TokenInfo>("tokens/").await? {
            if entry.value.expires_ms + SHOWN_MS <= now_ms {
                match self.remove(&entry).await {
                    Err(Refusal::Store(Failure::Conflict { .. })) | Ok(()) => {}
                    Err(refusal) => return Err(refusal),
                }
            }
        }
        Ok(())
    }

    async fn remove(&self, token: &Entry<TokenInfo>) -> Result<(), Refusal> {
        let place = key(&token.value.id);
        let change = Change::new().expect(&place, Some(token.revision)).delete(&place);
        self.store.commit(change.clear(use_key(&token.value.id, ""))).await?;
        Ok(())
    }
}

/// The change by which a key takes one use and becomes this proxy.
pub(super) fn spend(token: &Entry<TokenInfo>, spki: &str, proxy: &str) -> Change {
    let (place, used) = (key(&token.value.id), use_key(&token.value.id, spki));
    let less = TokenInfo { uses_left: token.value.uses_left.saturating_sub(1), ..token.value.clone() };
    Change::new()
        .expect(&place, Some(token.revision))
        .put(place, &less)
        .expect(&used, None)
        .put(used, &proxy.to_owned())
}

fn key(id: &str) -> String {
    format!("tokens/{id}")
}

fn use_key(id: &str, spki: &str) -> String {
    format!("token-uses/{id}/{spki}")
}
