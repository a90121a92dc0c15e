//! The programs of the demo's services, a process each: they know nothing of TLS, and tell who their proxies say has called.

use crate::ask::Caller;
use ringway_tests::{Conversation, Head, Origin, respond};
use std::net::SocketAddr;
use std::time::Duration;

/// Longer than a proxy keeps a connection that rests: it is always the proxy that closes.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Serves for as long as the process lives. With `next`, what is asked here is asked there too.
pub(crate) fn serve(name: &str, port: &str, next: Option<&str>) -> ! {
    let name = name.to_owned();
    let next = next.map(|port| SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port"))));
    let _origin = Origin::on(&format!("127.0.0.1:{port}"), move |conversation| {
        conversation.wait_up_to(PATIENCE);
        let mut next = next.map(Caller::new);
        while let Some(head) = request(conversation) {
            let answer = answer(&name, &head, next.as_mut());
            conversation.send(answer);
        }
    });
    loop {
        std::thread::park();
    }
}

/// The next request's head. Only one that has a body is kept in mind by the origin: there are many.
fn request(conversation: &mut Conversation) -> Option<Head> {
    let head = conversation.head()?;
    let has_body = head.chunked() || head.field("content-length").is_some_and(|length| length != "0");
    if has_body { conversation.body(head).map(|seen| seen.head) } else { Some(head) }
}

fn answer(name: &str, head: &Head, next: Option<&mut Caller>) -> Vec<u8> {
    let caller = Called::read(head.field("x-forwarded-client-cert").unwrap_or_default());
    let mut text = format!("{name}: called by {}, certificate {}\n", caller.identity, caller.certificate);
    let status = match next.map(|next| next.ask(head.word(0), head.word(1))) {
        None => {
            text += "three apples\n";
            200
        }
        Some(Ok(answer)) => {
            text += &String::from_utf8_lossy(&answer.body);
            answer.status
        }
        Some(Err(error)) => {
            text += &format!("cart: {error}\n");
            502
        }
    };
    respond(status, "Content-Type: text/plain\r\n", text.as_bytes())
}

/// Who called, as the proxy in front knows it from the certificate.
struct Called<'a> {
    identity: &'a str,
    /// The first digits of the certificate's SHA-256.
    certificate: &'a str,
}

impl Called<'_> {
    /// Of `By=...;Hash=...;URI=...`.
    fn read(field: &str) -> Called<'_> {
        let part = |name: &str| field.split(';').find_map(|part| part.strip_prefix(name));
        let digits = part("Hash=").unwrap_or_default();
        Called { identity: part("URI=").unwrap_or("nobody known"), certificate: digits.get(..8).unwrap_or("-") }
    }
}
