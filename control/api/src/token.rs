//! The text with which a proxy joins: where daemons are, how to know that it is them, and a secret that the daemon
//! takes once.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message as _;
use std::fmt;

use crate::pb::TokenContents;

const PREFIX: &str = "rw1.";
/// The longest text of a token, bytes; whoever reads one from a file need not read further.
pub const MAX_BYTES: usize = 8 * 1024;
const MAX_DAEMONS: usize = 16;
const MAX_ROOTS: usize = 4;

/// A token's contents.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Its name, which is no secret.
    pub id: String,
    /// What proves it.
    pub secret: [u8; 32],
    /// `host:port` of daemons; at least one.
    pub daemons: Vec<String>,
    /// SHA-256 of the SubjectPublicKeyInfo (DER) of each root that a daemon's certificate may chain to; at least one.
    pub roots: Vec<[u8; 32]>,
}

/// Without the secret: what is printed ends in logs.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Token { id, secret: _, daemons, roots } = self;
        f.debug_struct("Token").field("id", id).field("daemons", daemons).field("roots", roots).finish_non_exhaustive()
    }
}

impl Token {
    /// The text, one line without an end.
    pub fn encode(&self) -> String {
        let contents = TokenContents {
            id: self.id.clone(),
            secret: self.secret.to_vec(),
            daemons: self.daemons.clone(),
            roots: self.roots.iter().map(|root| root.to_vec()).collect(),
        };
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(contents.encode_to_vec()))
    }

    /// Reads a text; white space around it does not matter.
    ///
    /// # Errors
    /// What is wrong with it, without quoting it.
    pub fn decode(text: &str) -> Result<Token, &'static str> {
        const CUT: &str = "the token is cut off or changed; copy it again, whole";
        let text = text.trim();
        if text.len() > MAX_BYTES {
            return Err("this is longer than a token; it should hold one line that begins with `rw1.`");
        }
        let body =
            text.strip_prefix(PREFIX).ok_or("a token begins with `rw1.`; make one with `ringwayctl token create`")?;
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| CUT)?;
        let contents = TokenContents::decode(bytes.as_slice()).map_err(|_| CUT)?;
        let roots: Option<Vec<[u8; 32]>> = contents.roots.iter().map(|root| root.as_slice().try_into().ok()).collect();
        let secret = contents.secret.as_slice().try_into().map_err(|_| CUT)?;
        let TokenContents { id, daemons, .. } = contents;
        let counts = (1..=MAX_DAEMONS).contains(&daemons.len());
        match roots {
            Some(roots) if counts && !id.is_empty() && (1..=MAX_ROOTS).contains(&roots.len()) => {
                Ok(Token { id, secret, daemons, roots })
            }
            _ => Err(CUT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        let daemons = vec!["ctl:9443".to_owned(), "10.0.0.1:9443".to_owned()];
        Token { id: "t1".to_owned(), secret: [7; 32], daemons, roots: vec![[1; 32], [2; 32]] }
    }

    #[test]
    fn a_token_survives_its_text() {
        let text = token().encode();
        assert!(text.starts_with("rw1.") && !text.contains(['=', '+', '/', '\n']), "{text}");
        assert_eq!(Token::decode(&format!("\n {text}\n")), Ok(token()));
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_repeated() {
        let text = token().encode();
        let bare = |change: fn(&mut Token)| {
            let mut token = token();
            change(&mut token);
            token.encode()
        };
        let cases = [
            String::new(),
            "hello".to_owned(),
            "rw1.".to_owned(),
            "rw1.!!!".to_owned(),
            text[..text.len() - 9].to_owned(),
            format!("{text}{}", "A".repeat(MAX_BYTES)),
            bare(|t| t.roots.clear()),
            bare(|t| t.daemons.clear()),
            bare(|t| t.id.clear()),
        ];
        for case in cases {
            let why = Token::decode(&case).expect_err(&case);
            assert!(!why.contains(&case) || case.is_empty() || case == "rw1.", "{why}");
        }
    }

    #[test]
    fn the_secret_is_not_printed() {
        let printed = format!("{:?}", token());
        assert!(!printed.contains("7, 7"), "{printed}");
    }
}
