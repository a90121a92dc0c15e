//! `token`: with what proxies join.

use crate::Common;
use crate::daemon::refusal;
use crate::exit::{Exit, Failure};
use crate::show::{self, Format};
use api::pb::{CreateTokenRequest, ListTokensRequest, RevokeTokenRequest, Tokens};
use clap::Subcommand;
use std::time::Duration;

#[derive(Subcommand)]
pub(crate) enum Token {
    /// Make a token; its text, which is a secret, is all that standard output gets
    Create {
        /// The group that proxies join with it
        #[arg(long)]
        group: String,
        /// How many proxies
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
        /// How long it can be used: 30m, 24h, 7d
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = super::time)]
        ttl: Duration,
    },
    /// List tokens, without their texts
    List,
    /// Make a token worth nothing; who has joined with it stays
    Revoke {
        /// As `list` shows it
        id: String,
    },
}

impl Token {
    pub(super) async fn run(self, common: &Common) -> Result<Exit, Failure> {
        let mut daemon = common.connect().await?;
        match self {
            Token::Create { group, uses, ttl } => {
                let ttl_s = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX).max(1);
                let request = CreateTokenRequest { group, uses, ttl_s };
                let token = daemon.operator().create_token(request).await.map_err(refusal)?.into_inner();
                show::answer(common.output, &token, |token| format!("{}\n", token.token))?;
                if common.output == Format::Table {
                    let ends = show::relative(token.expires_ms, show::now_ms());
                    let uses = if token.uses_left == 1 {
                        "one proxy".to_owned()
                    } else {
                        format!("{} proxies", token.uses_left)
                    };
                    show::tell(&format!("token {} lets {uses} join group {}, and ends {ends}", token.id, token.group));
                }
            }
            Token::List => {
                let tokens = daemon.operator().list_tokens(ListTokensRequest {}).await.map_err(refusal)?.into_inner();
                show::answer(common.output, &tokens, |tokens| people(tokens, show::now_ms()))?;
            }
            Token::Revoke { id } => {
                let answer = daemon.operator().revoke_token(RevokeTokenRequest { id }).await.map_err(refusal)?;
                return super::done(common, answer.into_inner());
            }
        }
        Ok(Exit::Done)
    }
}

fn people(tokens: &Tokens, now_ms: u64) -> String {
    let rows = tokens.tokens.iter().map(|token| {
        let ends = show::ends(token.expires_ms, now_ms);
        vec![token.id.clone(), token.group.clone(), token.uses_left.to_string(), ends]
    });
    show::table(&["token", "group", "uses left", "ends"], rows.collect(), "no token can be used")
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::pb;

    #[test]
    fn a_list_has_no_secret() {
        let token = pb::Token {
            id: "t1".to_owned(),
            token: "rw1.x".to_owned(),
            group: "cart".to_owned(),
            uses_left: 2,
            expires_ms: 1,
        };
        let shown = people(&Tokens { tokens: vec![token] }, 121_000);
        assert_eq!(shown, "TOKEN  GROUP  USES LEFT  ENDS\nt1     cart   2          EXPIRED 2 min ago\n");
    }
}
