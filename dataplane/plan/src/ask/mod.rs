//! What a proxy would do with a request that is never sent. The request is written as a head and parsed as any other, so
//! that the same is refused and the same bytes are matched.

mod question;

pub use question::{Asked, Question};

use crate::{Kind, Listener, ListenerId, Plan};
use api::Resources;
use std::fmt::Write;
use wire::h1::{Head, Parsed, Reject};

/// What a plan says about a request, in lines; `resources` are those that the plan was made from.
///
/// # Errors
/// Why it is not clear which listener is asked, and how to choose one.
pub fn ask(plan: &Plan, resources: &Resources, asked: &Asked<'_>) -> Result<String, String> {
    choose(plan, resources, asked).map(|listener| decide(plan, listener, asked))
}

/// What is decided, in lines.
fn decide(plan: &Plan, id: ListenerId, asked: &Asked<'_>) -> String {
    let listener = plan.listener(id);
    let http = match &listener.kind {
        Kind::Http(http) => http,
        // Of a connection nothing is read, or the name that its TLS asks for, which is never an address (RFC 6066 section 3).
        Kind::Tcp(_) => return plan.explain_bytes(id, None, &asked.peer()).to_string(),
        Kind::Passthrough(_) => {
            let is_address = asked.host.starts_with('[') || asked.host.parse::<std::net::Ipv4Addr>().is_ok();
            let name = Some(&*asked.host).filter(|host| !host.is_empty() && !is_address);
            return plan.explain_bytes(id, name, &asked.peer()).to_string();
        }
    };
    let bytes = asked.head();
    let mut head = Head::default();
    let mut scratch = Vec::new();
    match normal(&mut head, &bytes, &http.head, &mut scratch) {
        Ok(path) => {
            let request = crate::Request {
                method: head.method,
                method_bytes: head.method_span.of(&bytes),
                authority: head.authority.of(&bytes),
                path,
                query: head.query.of(&bytes),
                fields: &head.fields,
                head: &bytes,
                peer: asked.peer(),
            };
            plan.explain(id, &request).to_string()
        }
        Err(reject) => {
            format!(
                "listener {}: refused, {}: {} ({})\n",
                listener.name,
                reject.status(),
                reject.text(),
                reject.label()
            )
        }
    }
}

/// Parses a head, as a core does, and gives its path in the form that is matched.
fn normal<'a>(
    head: &mut Head,
    bytes: &'a [u8],
    limits: &wire::h1::Limits,
    scratch: &'a mut Vec<u8>,
) -> Result<&'a [u8], Reject> {
    match head.parse_request(bytes, limits)? {
        // What is asked was checked to be one head; if it is not, it is refused as one that is cut off.
        Parsed::Partial => return Err(Reject::BadRequestLine),
        Parsed::Complete { length } if length != bytes.len() => return Err(Reject::BadRequestLine),
        Parsed::Complete { .. } => {}
    }
    let sent = head.path.of(bytes);
    match wire::path::normalise(sent, scratch)? {
        true => Ok(scratch),
        false => Ok(sent),
    }
}

/// The listener that is named; or the first with the URL's port; or the first HTTP one that has the host, by name before by `*`.
fn choose(plan: &Plan, resources: &Resources, asked: &Asked<'_>) -> Result<ListenerId, String> {
    let id = |at: usize| ListenerId(at as u16);
    if let Some(name) = asked.listener {
        return match plan.listeners.iter().position(|listener| *listener.name == *name) {
            Some(at) => Ok(id(at)),
            None => Err(format!("there is no listener `{name}`: choose {}", listed(plan))),
        };
    }
    let http = || plan.listeners.iter().enumerate().filter(|(_, listener)| matches!(listener.kind, Kind::Http(_)));
    let mut all = plan.listeners.iter().enumerate();
    let by_port = all.find(|(_, listener)| asked.port.is_some() && port(listener) == asked.port);
    let by_host = |fits: fn(&str, &str) -> bool| {
        http().find(|(_, listener)| {
            let routes = resources.routes.iter().filter(|routes| routes.name == *listener.name);
            let mut names = routes.flat_map(|routes| &routes.virtual_hosts).flat_map(|host| &host.domains);
            names.any(|name| fits(name, &asked.host))
        })
    };
    let found = by_port.or_else(|| by_host(has_name)).or_else(|| by_host(|name, _| name == "*"));
    match found {
        Some((at, _)) => Ok(id(at)),
        None => Err(format!("no listener has the host `{}`: choose one by `--listener`, {}", asked.host, listed(plan))),
    }
}

/// Whether a name of a host, or its suffix behind `*`, is this host's.
fn has_name(name: &str, host: &str) -> bool {
    match name.strip_prefix('*') {
        Some("") => false,
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => name == host,
    }
}

fn port(listener: &Listener) -> Option<u16> {
    match &listener.address {
        balance::Address::Ip(socket) => Some(socket.port()),
        _ => None,
    }
}

/// The listeners, and where.
fn listed(plan: &Plan) -> String {
    let mut text = String::new();
    for listener in plan.listeners.iter() {
        let before = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{before}{} ({})", listener.name, listener.address);
    }
    if text.is_empty() { "one, of which there is none".to_owned() } else { text }
}
