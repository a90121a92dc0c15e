//! A proxy under an ADS server that shares no code with ours (Python, grpcio, xds-protos), in both protocols. What that server
//! heard is held against the rules of xDS, whatever else a test looks at.

use super::authority::Pair;
use super::fake::Fake;
use super::stream::get;
use super::{DOMAIN, file};
use ringway_tests::peers::find;
use ringway_tests::{Client, Origin, Proxy, eventually, free_port, until, workspace};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The server, and what it has said and heard.
struct Server {
    python: PathBuf,
    arguments: Vec<String>,
    /// What it serves.
    told: Value,
    running: Option<(Child, ChildStdin)>,
    /// A start is the number of lines that were there before it.
    starts: Vec<usize>,
    lines: Arc<Mutex<Vec<Value>>>,
    _folder: tempfile::TempDir,
}

impl Server {
    /// At this address, with a certificate of this authority.
    fn new(python: &Path, fake: &Fake, protocol: &str) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let Pair { chain, key } = fake.authority.pair(&format!("spiffe://{DOMAIN}/ringwayd"));
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let [chain, key] = [write("chain", &chain), write("key", &key)];
        let roots = write("roots", &fake.authority.root);
        let arguments = vec![fake.address().to_string(), chain, key, roots, protocol.to_owned()];
        let told = json!({ "listeners": {}, "routes": {}, "clusters": [], "endpoints": {} });
        let (starts, lines) = Default::default();
        Server { python: python.to_owned(), arguments, told, running: None, starts, lines, _folder: folder }
    }

    fn start(&mut self) {
        let mut command = Command::new(&self.python);
        command.arg(workspace().join("tests/tests/daemon/server.py")).args(&self.arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python starts");
        let (out, to) = (child.stdout.take().unwrap(), self.lines.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                to.lock().unwrap().push(serde_json::from_str(&line).expect("a line of JSON"));
            }
        });
        let input = child.stdin.take().unwrap();
        self.starts.push(self.lines.lock().unwrap().len());
        self.running = Some((child, input));
        self.serve(|_| ());
    }

    fn stop(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Serves something else from now on.
    fn serve(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.told);
        if let Some((_, input)) = &mut self.running {
            writeln!(input, "{}", self.told).unwrap();
        }
    }

    /// What was said and heard since the last start, and no other line.
    fn lines(&self) -> Vec<Value> {
        self.lines.lock().unwrap()[*self.starts.last().unwrap()..].to_vec()
    }

    fn until<T>(&self, what: &str, find: impl Fn(&[Value]) -> Option<T>) -> T {
        let found = until(Duration::from_secs(20), || find(&self.lines()));
        found.unwrap_or_else(|| panic!("never {what}: {:#?}", self.lines()))
    }

    /// Waits until all that was said is answered; then nothing breaks the rules.
    fn settled(&self) -> Vec<Value> {
        self.until("an answer to everything", |lines| {
            let answered =
                |said: &Value| lines.iter().any(|line| line["heard"] == said["said"] && line["nonce"] == said["nonce"]);
            lines.iter().filter(|line| line["said"].is_string()).all(answered).then_some(())
        });
        let lines = self.lines();
        match self.arguments[4].as_str() {
            "delta" => rules_of_delta(&lines),
            _ => rules_of_the_whole(&lines),
        }
        lines
    }

    /// What was heard last of a kind.
    fn last(&self, kind: &str) -> Value {
        let lines = self.settled();
        lines.iter().rfind(|line| line["heard"] == kind).unwrap_or_else(|| panic!("{lines:#?}")).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn names(value: &Value) -> BTreeSet<String> {
    value.as_array().into_iter().flatten().map(|name| text(name).to_owned()).collect()
}

/// What holds of both protocols: the node comes first; a stream's first request of a kind answers nothing; an answer names a nonce
/// of its own stream and kind, in the order in which they were said; only an answer refuses, and says which code and why.
fn rules(lines: &[Value], mut each: impl FnMut(&Value, bool)) {
    let mut said: BTreeMap<(u64, String), Vec<String>> = BTreeMap::new();
    let mut answered: BTreeMap<(u64, String), usize> = BTreeMap::new();
    let (mut streams, mut asked) = (BTreeSet::new(), BTreeSet::new());
    for line in lines {
        let Some(stream) = line["stream"].as_u64() else { continue };
        if let Some(kind) = line["said"].as_str() {
            said.entry((stream, kind.to_owned())).or_default().push(text(&line["nonce"]).to_owned());
            continue;
        }
        let key = (stream, text(&line["heard"]).to_owned());
        if streams.insert(stream) {
            assert_eq!(line["node"], "proxy-1", "the first request of a stream says whose it is: {line}");
        }
        let is_first = asked.insert(key.clone());
        let nonce = text(&line["nonce"]);
        assert!(!is_first || nonce.is_empty(), "nothing was said yet: {line}");
        if !nonce.is_empty() {
            let at = said.get(&key).and_then(|said| said.iter().position(|one| one == nonce));
            let at = at.unwrap_or_else(|| panic!("never said: {line}"));
            let before = answered.insert(key, at).unwrap_or_default();
            assert!(at >= before, "an answer to what was answered: {line}");
        }
        if let Some(error) = line["error"].as_str() {
            assert!(!nonce.is_empty() && !error.is_empty() && line["code"] != 0, "a refusal of what, and why? {line}");
        }
        each(line, is_first);
    }
}

fn rules_of_delta(lines: &[Value]) {
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut answers = BTreeSet::new();
    rules(lines, |line, is_first| {
        let kind = text(&line["heard"]);
        let (more, less) = (names(&line["subscribe"]), names(&line["unsubscribe"]));
        let initial = line["initial"].as_object().unwrap();
        assert!(is_first || initial.is_empty(), "what is held is told once: {line}");
        if kind == "Cluster" || kind == "Listener" {
            assert!(more.is_empty() && less.is_empty(), "all are asked for: {line}");
        } else {
            let of_kind = wanted.entry(format!("{kind} {}", line["stream"])).or_default();
            assert!(!is_first || !more.is_empty(), "asks for nothing: {line}");
            assert!(more.is_disjoint(of_kind), "asks again: {line}");
            assert!(less.is_subset(of_kind), "gives back what it has not asked for: {line}");
            of_kind.extend(more);
            of_kind.retain(|name| !less.contains(name));
            assert!(initial.keys().all(|name| of_kind.contains(name)), "has what it does not want: {line}");
        }
        let nonce = text(&line["nonce"]);
        assert!(nonce.is_empty() || answers.insert(nonce.to_owned()), "answered twice: {line}");
    });
}

fn rules_of_the_whole(lines: &[Value]) {
    let version_of = |nonce: &str| {
        let said = lines.iter().find(|line| line["said"].is_string() && line["nonce"] == nonce);
        text(&said.unwrap()["version"]).to_owned()
    };
    // By stream and kind: what was accepted last, and the nonces that were refused.
    let mut accepted: BTreeMap<String, String> = BTreeMap::new();
    let mut refused = BTreeSet::new();
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    rules(lines, |line, is_first| {
        let (kind, nonce, version) = (text(&line["heard"]), text(&line["nonce"]), text(&line["version"]));
        let key = format!("{kind} {}", line["stream"]);
        let before = accepted.get(&key).cloned().unwrap_or_default();
        if is_first {
            accepted.insert(key.clone(), version.to_owned());
        } else if line["error"].is_string() || refused.contains(nonce) {
            refused.insert(nonce.to_owned());
            assert_eq!(version, before, "a refusal stays with what was accepted last: {line}");
        } else if !nonce.is_empty() {
            assert_eq!(version, version_of(nonce), "an acceptance names what is accepted: {line}");
            accepted.insert(key.clone(), version.to_owned());
        }
        let asked = names(&line["names"]);
        let is_all = kind == "Cluster" || kind == "Listener";
        assert!(!is_all || asked.is_empty(), "all are asked for: {line}");
        assert!(is_all || !is_first || !asked.is_empty(), "asks for nothing: {line}");
        wanted.insert(key, asked);
    });
}

/// A proxy that joined a daemon which had nothing to say, and is under this server now.
struct Setting {
    server: Server,
    proxy: Proxy,
    port: u16,
    more: u16,
    one: Origin,
    two: Origin,
}

fn both_protocols(test: &str, check: impl Fn(&mut Setting)) {
    let Some(python) = find("xds", test) else { return };
    for protocol in ["delta", "whole"] {
        let mut fake = Fake::start();
        fake.behave(|behaviour| behaviour.silent = true);
        let proxy = file(&fake).start_unready();
        proxy.printed("joined group edge as proxy-1");
        fake.stop();
        let (one, two) = (Origin::text("one"), Origin::text("two"));
        let server = Server::new(&python, &fake, protocol);
        let mut setting = Setting { server, proxy, port: free_port(), more: free_port(), one, two };
        let Setting { server, port, one, .. } = &mut setting;
        let ports = json!([one.address().port()]);
        server.serve(|told| {
            *told = json!({
                "listeners": { "web": { "port": port, "routes": "web" } },
                "routes": { "web": { "cluster": "app" } },
                "clusters": ["app"],
                "endpoints": { "app": ports },
            });
        });
        server.start();
        eventually("it serves", || answers(setting.port) == Some("one".to_owned()));
        eventually("it says so", || setting.proxy.is_ready());
        check(&mut setting);
    }
}

/// The body of an answer at a port; None: nobody listens, or it is being closed.
fn answers(port: u16) -> Option<String> {
    let mut client = Client::try_to(SocketAddr::from(([127, 0, 0, 1], port))).ok()?;
    client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
    Some(client.try_answer("GET").ok()?.text().to_owned())
}

#[test]
fn an_independent_server_is_obeyed_and_hears_what_the_rules_say() {
    both_protocols("an independent server", |Setting { server, proxy, port, more, two, .. }| {
        let lines = server.settled();
        assert!(lines.iter().all(|line| line["error"].is_null()), "{lines:#?}");
        let said: Vec<_> = lines.iter().filter_map(|line| line["said"].as_str()).collect();
        assert_eq!(said.len(), 4, "each kind once: {said:?}");
        // Endpoints alone.
        server.serve(|told| told["endpoints"]["app"] = json!([two.address().port()]));
        eventually("the endpoints are followed", || get(*port).1 == "two");
        let after = server.settled();
        let news = after[lines.len()..].iter().map(|line| (&line["said"], &line["heard"]));
        let assignment = json!("ClusterLoadAssignment");
        assert!(news.clone().all(|(said, heard)| *said == assignment || *heard == assignment), "{after:#?}");
        assert_eq!(news.count(), 2, "said and answered: {after:#?}");
        // Routes alone, and a listener that comes and goes.
        server.serve(|told| told["routes"]["web"] = json!({ "body": "by itself" }));
        eventually("the route is followed", || get(*port).1 == "by itself");
        server.serve(|told| {
            told["listeners"]["more"] = json!({ "port": *more, "routes": "more" });
            told["routes"]["more"] = json!({ "body": "more" });
        });
        eventually("another listener is there", || answers(*more) == Some("more".to_owned()));
        let names_more =
            |line: &Value| names(&line["subscribe"]).contains("more") || names(&line["names"]).contains("more");
        assert!(server.settled().iter().any(|line| line["heard"] == "RouteConfiguration" && names_more(line)));
        server.serve(|told| drop(told["listeners"].as_object_mut().unwrap().remove("more")));
        eventually("and gone", || answers(*more).is_none());
        server.until("that its routes are given back", |lines| {
            let named = lines.iter().rposition(|line| line["heard"].is_string() && names_more(line))?;
            let mut after = lines[named..].iter().filter(|line| line["heard"] == "RouteConfiguration");
            let is_less = |line: &Value| {
                names(&line["unsubscribe"]).contains("more") || names(&line["names"]) == ["web".to_owned()].into()
            };
            after.any(is_less).then_some(())
        });
        // Its cluster is named by nothing any more.
        server.serve(|told| (told["clusters"], told["endpoints"]) = (json!([]), json!({})));
        server.until("that the endpoints are given back", |lines| {
            let mut asked = lines.iter().filter(|line| line["heard"] == "ClusterLoadAssignment");
            let is_less = |line: &Value| names(&line["unsubscribe"]).contains("app") || line["names"] == json!([]);
            asked.any(is_less).then_some(())
        });
        let lines = server.settled();
        assert!(lines.iter().all(|line| line["error"].is_null()), "{lines:#?}");
        assert_eq!(get(*port).1, "by itself");
        assert!(proxy.is_ready());
    });
}

#[test]
fn an_independent_server_hears_what_is_refused_and_the_rest_is_taken() {
    both_protocols("an independent server that is refused", |Setting { server, proxy, port, more, .. }| {
        let good = server.last("Listener");
        server.serve(|told| {
            told["listeners"]["web"]["broken"] = json!(true);
            told["listeners"]["more"] = json!({ "port": *more, "routes": "more" });
            told["routes"]["more"] = json!({ "body": "more" });
        });
        eventually("the good one is taken", || answers(*more) == Some("more".to_owned()));
        let refusal = server.until("a refusal", |lines| lines.iter().find(|line| line["error"].is_string()).cloned());
        let lines = server.settled();
        let said = lines.iter().rfind(|line| line["said"] == "Listener").unwrap();
        assert_eq!((&refusal["heard"], &refusal["nonce"]), (&said["said"], &said["nonce"]), "of that response");
        assert!(text(&refusal["error"]).starts_with("listener/web: filter_chains[0].filters: "), "{refusal}");
        assert!(!text(&refusal["error"]).contains("more"), "{refusal}");
        assert_eq!(refusal["code"], 3, "INVALID_ARGUMENT");
        assert_eq!(lines.iter().filter(|line| line["error"].is_string()).count(), 1, "{lines:#?}");
        if server.arguments[4] == "whole" {
            assert_eq!(refusal["version"], good["version"], "what was accepted last");
        }
        assert_eq!(get(*port).1, "one", "the last good one stays");
        // A good one heals it.
        server.serve(|told| drop(told["listeners"]["web"].as_object_mut().unwrap().remove("broken")));
        server.until("another one", |lines| {
            (lines.iter().rfind(|line| line["said"] == "Listener")? != said).then_some(())
        });
        assert!(server.last("Listener")["error"].is_null());
        eventually("nothing is refused", || proxy.metrics().sum("ringway_daemon_resources_rejected", &[]) == 0.0);
    });
}

#[test]
fn an_independent_server_that_comes_back_is_told_what_is_held() {
    both_protocols("an independent server that comes back", |Setting { server, port, more, two, .. }| {
        server.serve(|told| {
            told["listeners"]["more"] = json!({ "port": *more, "routes": "more" });
            told["routes"]["more"] = json!({ "body": "more" });
        });
        eventually("both are there", || answers(*more) == Some("more".to_owned()));
        let before = server.settled();
        // What was refused is not held.
        server.serve(|told| told["listeners"]["web"]["broken"] = json!(true));
        server.until("a refusal", |lines| lines.iter().find(|line| line["error"].is_string()).cloned());
        server.stop();
        assert_eq!((get(*port).1, get(*more).1), ("one".into(), "more".into()), "without a server");
        server.serve(|told| {
            drop(told["listeners"]["web"].as_object_mut().unwrap().remove("broken"));
            told["endpoints"]["app"] = json!([two.address().port()]);
            drop(told["listeners"].as_object_mut().unwrap().remove("more"));
        });
        server.start();
        eventually("what has changed is in force", || get(*port).1 == "two");
        eventually("what is gone is gone", || answers(*more).is_none());
        let lines = server.settled();
        let said: Vec<_> = lines.iter().filter_map(|line| line["said"].as_str()).collect();
        let is_whole = server.arguments[4] == "whole";
        let first =
            |kind: &str| lines.iter().find(|line| line["heard"] == kind).unwrap_or_else(|| panic!("{lines:#?}"));
        if is_whole {
            let kept = |kind: &str| before.iter().rfind(|line| line["said"] == kind).unwrap()["version"].clone();
            for kind in ["Listener", "Cluster", "RouteConfiguration", "ClusterLoadAssignment"] {
                assert_eq!(first(kind)["version"], kept(kind), "{kind}");
            }
            assert!(!said.contains(&"Cluster"), "it is as it was: {said:?}");
            return;
        }
        // By kind: name to version of what was said, the last of each.
        let mut held: BTreeMap<&str, BTreeMap<String, Value>> = BTreeMap::new();
        for line in before.iter().filter(|line| line["said"].is_string()) {
            let named = line["names"].as_object().unwrap();
            held.entry(text(&line["said"]))
                .or_default()
                .extend(named.iter().map(|(name, at)| (name.clone(), at.clone())));
        }
        assert_eq!(held["Listener"].len(), 2, "{held:?}");
        for (kind, held) in held {
            assert_eq!(first(kind)["initial"], json!(held), "{kind}");
        }
        let said: BTreeSet<_> = said.into_iter().collect();
        assert_eq!(said, ["Listener", "ClusterLoadAssignment"].into(), "the changes alone: {lines:#?}");
    });
}
