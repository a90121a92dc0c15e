//! What the proxy would do with a request that is never sent, by its file.

pub use plan::Question;

use crate::{file, tell, world};
use std::path::Path;
use std::process::ExitCode;

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
    plan::ask(&plan, &resources, &asked).map_err(Refused::Usage)
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
