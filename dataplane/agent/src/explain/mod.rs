//! What the proxy would do with a request that is never sent. The request is written as a head and parsed as any other, so
//! that the same is refused and the same bytes are matched.

mod question;

pub use question::Question;

use crate::{file, tell, world};
use api::Resources;
use plan::{Kind, Listener, ListenerId, Plan};
use question::Asked;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use wire::h1::{Head, Parsed, Reject};

/// The exit code of a command line that is wrong.
const USAGE: u8 = 2;

/// Why there is no explanation.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    /// The file is wrong.
    Findings(Vec<String>),
    /// The question is.
    Usage(String),
}

/// Prints what the configuration says about a request. Nothing is sent, resolved or bound.
///
/// The exit code is 0; 1 with one line a finding on standard error when the file is wrong; 2 when the question is.
pub fn explain(path: &Path, question: &Question) -> ExitCode {
    match answer(path, question) {
        Ok(text) => {
            tell::print(&text);
            ExitCode::SUCCESS
        }
        Err(Refused::Findings(findings)) => {
            tell::tell_findings(&findings);
            ExitCode::FAILURE
        }
        Err(Refused::Usage(reason)) => {
            tell::tell(reason);
            ExitCode::from(USAGE)
        }
    }
}

fn answer(path: &Path, question: &Question) -> Result<String, Refused> {
    let asked = question.check().map_err(Refused::Usage)?;
    let resources = file::read(path).map_err(Refused::Findings)?;
    let plan = file::compile(path, &resources, None, 1, &world::of_check(&resources)).map_err(Refused::Findings)?;
    if plan.process.daemon.is_some() {
        let reason = "this proxy's configuration comes from its daemon: ask there, with `ringwayctl explain`";
        return Err(Refused::Usage(reason.to_owned()));
    }
    let listener = choose(&plan, &resources, &asked).map_err(Refused::Usage)?;
    Ok(decide(&plan, listener, &asked))
}

/// What is decided, in lines.
fn decide(plan: &Plan, id: ListenerId, asked: &Asked) -> String {
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
            let request = plan::Request {
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
fn choose(plan: &Plan, resources: &Resources, asked: &Asked) -> Result<ListenerId, String> {
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
    for listener in &plan.listeners {
        let before = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{before}{} ({})", listener.name, listener.address);
    }
    if text.is_empty() { "one, of which there is none".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
listeners:
  web:
    address: 127.0.0.1:8080
    protocol: http
    hosts:
      - { names: [shop.example.com], routes: [ { name: cart, match: { path: /cart/* }, to: cart } ] }
  other: { address: '127.0.0.1:8081', protocol: http, routes: [ { name: all, to: cart } ] }
  wild:
    address: 127.0.0.1:8082
    protocol: http
    hosts: [ { names: ['*.example.org'], routes: [ { name: org, match: { headers: { x-beta: '1' } }, to: cart } ] } ]
  db: { address: '127.0.0.1:5432', protocol: tcp, to: cart }
  tls: { address: '127.0.0.1:8443', protocol: tls-passthrough, hosts: [ { names: ['*.example.net'], to: cart } ] }
services:
  cart: { endpoints: ['10.0.0.1:80'] }
";

    fn ask(file: &str, question: Question) -> Result<String, Refused> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ringway.yaml");
        std::fs::write(&path, file).unwrap();
        answer(&path, &question)
    }

    fn get(url: &str) -> Question {
        Question { method: "GET".into(), url: url.into(), ..Question::default() }
    }

    #[test]
    fn the_listener_is_the_one_of_the_port_or_of_the_host_or_the_one_that_is_named() {
        let listener = |url: &str, name: Option<&str>| {
            let text = ask(FILE, Question { listener: name.map(Into::into), ..get(url) }).unwrap();
            text.split([' ', ',', ':', '\n']).nth(1).unwrap().to_owned()
        };
        assert_eq!(listener("http://shop.example.com:8081/cart", None), "other");
        assert_eq!(listener("http://SHOP.example.com./cart", None), "web");
        assert_eq!(listener("http://a.example.org:1/", None), "wild", "a port that nobody has does not choose");
        assert_eq!(listener("https://nobody.example.com/", None), "other", "it has every host");
        assert_eq!(listener("http://shop.example.com:8081/", Some("web")), "web");
        assert_eq!(listener("/cart", Some("wild")), "wild");
    }

    #[test]
    fn a_listener_that_is_not_there_is_a_wrong_question() {
        let reason = |name: &str| match ask(FILE, Question { listener: Some(name.into()), ..get("/") }) {
            Err(Refused::Usage(reason)) => reason,
            other => panic!("{other:?}"),
        };
        assert!(reason("wbe").starts_with("there is no listener `wbe`: choose "), "{}", reason("wbe"));
        assert!(reason("wbe").contains("web (127.0.0.1:8080)") && reason("wbe").contains("db ("));
    }

    #[test]
    fn of_a_connection_the_host_is_the_name_that_it_asks_for() {
        let asked = |url: &str| ask(FILE, get(url)).unwrap();
        assert!(asked("https://A.example.net:8443/x").starts_with("listener tls: forward to cart\n"));
        for url in ["https://example.net:8443/", "https://192.0.2.1:8443/"] {
            assert!(asked(url).starts_with("listener tls: no host has the name, closed\n"), "{url}");
        }
        assert!(asked("https://192.0.2.1:8443/").contains("\nname: none\n"));
        let db = ask(FILE, Question { listener: Some("db".into()), ..get("/") }).unwrap();
        assert!(db.starts_with("listener db: forward to cart\n"), "{db}");
    }

    #[test]
    fn what_is_asked_is_read_as_a_core_reads_it() {
        let text = ask(FILE, get("http://shop.example.com/x/../%63art//a?b=1")).unwrap();
        assert!(text.contains("route cart") && text.contains("forward to cart"), "{text}");
        let text = ask(FILE, get("http://shop.example.com/cart%2Fa")).unwrap();
        assert_eq!(text, "listener web: refused, 400: forbidden character in the path (forbidden_in_path)\n");
        let with = |headers: &[&str]| {
            let headers = headers.iter().map(ToString::to_string).collect();
            ask(FILE, Question { headers, ..get("http://a.example.org/") }).unwrap()
        };
        assert!(with(&["X-Beta: 1"]).contains("route org"));
        assert!(with(&["x-beta:2"]).contains("404"));
        assert!(with(&["content-length: 1", "content-length: 2"]).contains("refused, 400"));
    }

    #[test]
    fn a_wrong_file_is_told_with_its_findings() {
        let Err(Refused::Findings(findings)) = ask("listners: {}\n", get("http://a/")) else { panic!("no findings") };
        assert!(findings[0].contains("ringway.yaml:1:1: "), "{findings:?}");
        let wrong = ask("listners: {}\n", Question { source: Some("x".into()), ..get("http://a/") });
        assert!(matches!(wrong, Err(Refused::Usage(_))), "the question is looked at first");
    }
}
