//! Requests over connections that are kept.

use ringway_tests::{Answer, Client};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A connection that rested longer might be closed on the other side just when it is used.
const REST: Duration = Duration::from_secs(5);

/// Asks one address, over one connection as long as that lives.
pub(crate) struct Caller {
    to: SocketAddr,
    kept: Option<(Client, Instant)>,
}

impl Caller {
    pub(crate) fn new(to: SocketAddr) -> Caller {
        Caller { to, kept: None }
    }

    /// One request without a body, and its answer; what went wrong, in words.
    pub(crate) fn ask(&mut self, method: &str, path: &str) -> Result<Answer, String> {
        let rested = self.kept.take_if(|(_, used)| used.elapsed() < REST);
        let mut client = match rested {
            Some((client, _)) => client,
            None => Client::try_to(self.to).map_err(|error| format!("no connection: {error}"))?,
        };
        let request = format!("{method} {path} HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: 0\r\n\r\n");
        client.try_send(request).map_err(|error| format!("not sent: {error}"))?;
        let answer = client.try_answer(method).map_err(|error| format!("no answer: {error}"))?;
        if !answer.until_close && !answer.head.connection("close") {
            self.kept = Some((client, Instant::now()));
        }
        Ok(answer)
    }

    /// The status that a request gets; 0: no answer.
    pub(crate) fn status(&mut self, method: &str, path: &str) -> u16 {
        self.ask(method, path).map_or(0, |answer| answer.status)
    }
}

/// An answer in a line: its status, and the first line of its body.
pub(crate) fn line(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    let first = text.lines().next().unwrap_or_default();
    match first.starts_with(&answer.status.to_string()) {
        true => first.to_owned(),
        false => format!("{} {first}", answer.status),
    }
}
