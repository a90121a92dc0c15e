//! Certificates, keys and trust bundles that are replaced while requests flow: new handshakes use what is new, open connections go
//! on, nothing fails; what is bad is refused with its reason, and the old stays.

use crate::shop::web;
use ringway_tests::certificates::{Authority, Issued, Leaf, Usage};
use ringway_tests::tls::{Server, Tls, first_of};
use ringway_tests::{Origin, Proxy, Run, answers, check, describe, eventually, respond, until};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const WEB: &str = "spiffe://shop/ns/web/sa/web";
const CART: &str = "spiffe://shop/ns/cart/sa/cart";
const EDGE: &str = "spiffe://shop/ns/edge/sa/edge";

/// A listener and a service with mutual TLS, all from files of one identity.
const IDENTITY: &str = "identity: { certificate: edge.pem, key: edge.key, trust: trust.pem }\n";

fn mutual(origin: &Origin) -> String {
    format!("{IDENTITY}{}", web("tls: {},", &format!("tls: {{ expect: '{CART}' }},"), origin))
}

/// A service with mutual TLS that closes each connection after a few requests, so that it is met again and again.
fn service(authority: &[&Authority], own: &Issued) -> Origin {
    Origin::secure(&Server::new(own).clients(authority, true), |conversation| {
        for n in 0..5 {
            let Some(seen) = conversation.request() else { return };
            let close = if n == 4 { "Connection: close\r\n" } else { "" };
            conversation.send(respond(200, close, describe(&seen).as_bytes()));
        }
    })
}

/// Replaces a file as a whole.
fn replace(folder: &Path, name: &str, contents: &str) {
    let new = folder.join(format!("{name}.new"));
    fs::write(&new, contents).unwrap();
    fs::rename(new, folder.join(name)).unwrap();
}

/// Replaces a file in place, in two halves with a rest between.
fn replace_slowly(folder: &Path, name: &str, contents: &str, rest: Duration) {
    let mut file = fs::File::create(folder.join(name)).unwrap();
    let (first, second) = contents.split_at(contents.len() / 2);
    file.write_all(first.as_bytes()).unwrap();
    std::thread::sleep(rest);
    file.write_all(second.as_bytes()).unwrap();
}

/// Clients that ask without end, some on kept connections, some on new ones, until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    workers: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn new(proxy: &Proxy, tls: &Tls) -> Load {
        let (stop, done, address) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), proxy.address("web"));
        let workers = (0..4).map(|worker| {
            let (stop, done, tls) = (stop.clone(), done.clone(), tls.clone());
            std::thread::spawn(move || {
                let mut client = tls.connect(address, "edge.test");
                while !stop.load(Ordering::SeqCst) {
                    if worker % 2 == 0 {
                        client = tls.connect(address, "edge.test");
                    }
                    // Rotations want a part of the processor too.
                    std::thread::sleep(Duration::from_millis(2));
                    client.send("POST /load HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 5\r\n\r\nhello");
                    let answer = client.try_answer("POST").expect("an answer through every rotation");
                    assert_eq!((answer.status, answer.json()["body_bytes"].as_u64()), (200, Some(5)));
                    done.fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        let workers = workers.collect();
        Load { stop, done, workers }
    }

    /// Requests go on.
    fn goes_on(&self, count: usize) {
        let before = self.done.load(Ordering::SeqCst);
        eventually("requests go on", || {
            self.done.load(Ordering::SeqCst) >= before + count || self.workers.iter().any(|worker| worker.is_finished())
        });
        assert!(self.workers.iter().all(|worker| !worker.is_finished()), "a request failed");
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        for worker in self.workers {
            worker.join().expect("no failed request");
        }
        self.done.load(Ordering::SeqCst)
    }
}

/// The certificate that a new connection is shown.
fn shown(proxy: &Proxy, tls: &Tls) -> Option<Vec<u8>> {
    let mut client = tls.try_connect(proxy.address("web"), "edge.test").ok()?;
    client.try_send("GET /shown HTTP/1.1\r\nHost: edge.test\r\n\r\n").ok()?;
    let answer = client.try_answer("GET").ok()?;
    client.met().certificate.filter(|_| answer.status == 200)
}

/// Waits until new connections are shown this certificate.
fn takes(proxy: &Proxy, tls: &Tls, der: &[u8]) -> Duration {
    let begun = Instant::now();
    let taken = until(Duration::from_secs(20), || (shown(proxy, tls).as_deref() == Some(der)).then_some(()));
    assert!(taken.is_some(), "the new certificate is not shown:\n{}", proxy.output());
    begun.elapsed()
}

fn edge(authority: &Authority) -> Issued {
    authority.issue(&Leaf::of(&[EDGE, "edge.test"]))
}

#[test]
fn six_hundred_rotations_under_load_lose_nothing() {
    // RINGWAY_ROTATIONS=N makes another number of them.
    let rotations = std::env::var("RINGWAY_ROTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(600);
    let (authority, other) = (Authority::new("mesh"), Authority::new("other"));
    let bundles = [authority.pem(), authority.pem() + &other.pem(), other.pem() + &authority.pem()];
    let origin = service(&[&authority], &authority.issue(&Leaf::of(&[CART])));
    let own = edge(&authority);
    let run = Run::new(&(mutual(&origin) + "cores: 2\n")).pair("edge", &own);
    let proxy = run.file_of("trust.pem", &authority.pem()).start();
    let tls = Tls::trusting(&[&authority]).with(&authority.issue(&Leaf::of(&[WEB])));
    let mut held = tls.connect(proxy.address("web"), "edge.test");
    assert_eq!(held.get("/held").status, 200);
    let load = Load::new(&proxy, &tls);
    let mut generation = proxy.metrics().sum("ringway_plan_generation", &[]);
    for n in 0..rotations {
        let next = edge(&authority);
        let folder = proxy.folder();
        match n % 4 {
            // The key first, then the certificate; or the other way; between the two the pair does not fit.
            0 => {
                replace(folder, "edge.key", &next.key);
                replace(folder, "edge.pem", &next.chain);
            }
            1 => {
                replace(folder, "edge.pem", &next.chain);
                replace(folder, "edge.key", &next.key);
            }
            2 => {
                next.put(folder, "edge");
            }
            // The bundle with them: sessions and kept connections of before do not go on.
            _ => {
                replace(folder, "trust.pem", &bundles[n / 4 % 3]);
                next.put(folder, "edge");
            }
        }
        proxy.signal("HUP");
        eventually("the rotation is taken", || {
            let now = proxy.metrics().sum("ringway_plan_generation", &[]);
            let taken = now > generation;
            generation = generation.max(now);
            taken
        });
        if n % 20 == 0 {
            takes(&proxy, &tls, &next.der);
            load.goes_on(4);
            assert_eq!(held.get("/held").status, 200, "an open connection goes on");
        }
    }
    let last = edge(&authority);
    last.put(proxy.folder(), "edge");
    proxy.signal("HUP");
    takes(&proxy, &tls, &last.der);
    load.goes_on(50);
    assert!(held.met().certificate.as_deref() == Some(&own.der));
    assert_eq!(held.get("/held").status, 200);
    let done = load.end();
    assert!(done > rotations, "{done} requests in {rotations} rotations");
    assert_eq!(origin.faults(), Vec::<String>::new());
    assert_eq!(origin.refused(), Vec::<String>::new());
    // Towards the service too: it has seen the last one by now, or at least many.
    let mut seen: Vec<_> = origin.met().into_iter().filter_map(|met| met.certificate).collect();
    seen.sort();
    seen.dedup();
    assert!(seen.len() > rotations / 30, "{} certificates were shown to the service", seen.len());
}

#[test]
fn files_are_watched_and_taken_without_a_signal() {
    let authority = Authority::new("mesh");
    let origin = service(&[&authority], &authority.issue(&Leaf::of(&[CART])));
    let run = Run::new(&mutual(&origin)).pair("edge", &edge(&authority));
    let proxy = run.file_of("trust.pem", &authority.pem()).start();
    let tls = Tls::trusting(&[&authority]).with(&authority.issue(&Leaf::of(&[WEB])));
    let load = Load::new(&proxy, &tls);
    let applied = || proxy.metrics().total("ringway_certificate_reloads_total", &[("result", "applied")]);
    let before = applied();
    for n in 0..6 {
        let next = edge(&authority);
        if n % 2 == 0 {
            replace(proxy.folder(), "edge.key", &next.key);
            replace(proxy.folder(), "edge.pem", &next.chain);
        } else {
            // Longer than the watch's step: it sees half a file.
            replace_slowly(proxy.folder(), "edge.pem", &next.chain, Duration::from_millis(1300));
            replace_slowly(proxy.folder(), "edge.key", &next.key, Duration::from_millis(1300));
        }
        assert!(takes(&proxy, &tls, &next.der) < Duration::from_secs(8));
        load.goes_on(4);
    }
    eventually("six are counted", || applied() >= before + 6.0);
    load.end();
    assert_eq!(origin.refused(), Vec::<String>::new());
}

#[test]
fn files_that_are_links_are_followed() {
    // As volumes are laid out by orchestrators: a link to a folder is replaced, the files' own paths never change.
    let authority = Authority::new("mesh");
    let origin = Origin::echo();
    let listener = "tls: { certificates: [ { certificate: now/own.pem, key: now/own.key } ] },";
    let run = Run::new(&web(listener, "", &origin));
    let folder = run.folder().to_path_buf();
    let put = |n: u32| {
        let (issued, place) = (edge(&authority), folder.join(format!("v{n}")));
        fs::create_dir(&place).unwrap();
        issued.put(&place, "own");
        std::os::unix::fs::symlink(&place, folder.join("next")).unwrap();
        fs::rename(folder.join("next"), folder.join("now")).unwrap();
        issued
    };
    put(1);
    let proxy = run.start();
    for n in 2..4 {
        let next = put(n);
        takes(&proxy, &Tls::trusting(&[&authority]), &next.der);
    }
}

/// What was refused so far.
fn refused(proxy: &Proxy) -> f64 {
    proxy.metrics().total("ringway_certificate_reloads_total", &[("result", "refused")])
}

#[test]
fn a_bad_pair_is_refused_with_its_reason_and_the_old_one_stays() {
    let authority = Authority::new("mesh");
    let origin = Origin::echo();
    let listener = "tls: { certificates: [ { certificate: own.pem, key: own.key } ] },";
    let mut own = edge(&authority);
    let proxy = Run::new(&web(listener, "", &origin)).pair("own", &own).start();
    let tls = Tls::trusting(&[&authority]);
    let mut held = tls.connect(proxy.address("web"), "edge.test");
    let other = edge(&authority);
    let cut = |text: &str| text[..text.len() * 2 / 3].to_owned();
    let cases: Vec<(&str, String, String)> = vec![
        ("a key of another", own.chain.clone(), other.key.clone()),
        ("an expired one", authority.issue(&Leaf::of(&["edge.test"]).expired()).chain, String::new()),
        ("half a certificate", cut(&other.chain), other.key.clone()),
        ("half a key", other.chain.clone(), cut(&other.key)),
        ("nothing", String::new(), other.key.clone()),
        ("no key", other.chain.clone(), String::new()),
        ("no PEM", "certificate".into(), "key".into()),
        ("a key for a certificate", other.key.clone(), other.chain.clone()),
    ];
    for (what, chain, key) in cases {
        let expired = what == "an expired one";
        let before = (refused(&proxy), proxy.output().lines().count());
        if expired {
            let issued = authority.issue(&Leaf::of(&["edge.test"]).expired());
            issued.put(proxy.folder(), "own");
        } else {
            replace(proxy.folder(), "own.pem", &chain);
            replace(proxy.folder(), "own.key", &key);
        }
        eventually(&format!("{what} is refused"), || refused(&proxy) > before.0);
        let told = || proxy.output().lines().skip(before.1).map(str::to_owned).collect::<Vec<_>>();
        let names_it = |line: &String| line.contains("own.pem") || line.contains("own.key");
        eventually(&format!("{what} is told with its file"), || told().iter().any(names_it));
        let first = told();
        if expired {
            assert!(first.iter().any(|line| line.contains("expired")), "{first:?}");
        }
        assert!(shown(&proxy, &tls).as_deref() == Some(&own.der), "{what}: the old one stays");
        assert_eq!(held.get("/").status, 200, "{what}");
        // Told once, not with every look.
        std::thread::sleep(Duration::from_millis(2500));
        assert!(told().len() <= first.len() + 2, "{what}: {:?}", told());
        // SIGHUP does not force it.
        proxy.signal("HUP");
        std::thread::sleep(Duration::from_millis(300));
        assert!(shown(&proxy, &tls).as_deref() == Some(&own.der), "{what}: the old one stays");
        // And a good one is taken after it.
        own = edge(&authority);
        own.put(proxy.folder(), "own");
        takes(&proxy, &tls, &own.der);
    }
    fs::remove_file(proxy.folder().join("own.pem")).unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    assert!(shown(&proxy, &tls).as_deref() == Some(&own.der), "a file that is gone changes nothing");
    other.put(proxy.folder(), "own");
    takes(&proxy, &tls, &other.der);
}

#[test]
fn a_bundle_with_both_roots_lets_a_root_be_replaced_without_a_gap() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let both = [&old, &new];
    let origin = service(&both, &old.issue(&Leaf::of(&[CART])));
    let run = Run::new(&mutual(&origin)).pair("edge", &edge(&old)).file_of("trust.pem", &old.pem());
    let proxy = run.start();
    let old_client = Tls::trusting(&both).with(&old.issue(&Leaf::of(&[WEB])));
    let new_client = Tls::trusting(&both).with(&new.issue(&Leaf::of(&[WEB])));
    let load = Load::new(&proxy, &old_client);
    new_client.refused(proxy.address("web"), "edge.test");
    // First the trust in both, then certificates of the new one, then no trust in the old one.
    replace(proxy.folder(), "trust.pem", &(old.pem() + &new.pem()));
    eventually("the new root is trusted", || shown(&proxy, &new_client).is_some());
    load.goes_on(20);
    let next = edge(&new);
    replace(proxy.folder(), "edge.key", &next.key);
    replace(proxy.folder(), "edge.pem", &next.chain);
    takes(&proxy, &old_client, &next.der);
    load.goes_on(20);
    let mut held = old_client.connect(proxy.address("web"), "edge.test");
    assert_eq!(held.get("/held").status, 200);
    load.end();
    let load = Load::new(&proxy, &new_client);
    // The service is of the old root: it stays trusted for a moment longer than its clients; here it is the listener's turn only.
    replace(proxy.folder(), "trust.pem", &new.pem());
    let gone = until(Duration::from_secs(10), || {
        old_client.try_connect(proxy.address("web"), "edge.test").ok().and_then(|mut client| {
            let asked =
                client.try_send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n").and_then(|()| client.try_answer("GET"));
            asked.is_err().then_some(())
        })
    });
    assert!(
        gone.is_some() || load.workers.iter().any(|worker| worker.is_finished()),
        "the old root is trusted for ever"
    );
    load.stop.store(true, Ordering::SeqCst);
    // An open connection of the old one goes on; its requests go to a service that is not trusted any more.
    let status = held.get("/held").status;
    assert!(matches!(status, 200 | 503), "{status}");
}

#[test]
fn a_listener_and_a_service_trust_what_each_is_given() {
    // As above, with a bundle for each side: so that nothing at all is lost.
    let (old, new, services) = (Authority::new("old"), Authority::new("new"), Authority::new("services"));
    let origin = Origin::secure(
        &Server::new(&services.issue(&Leaf::of(&["cart.test"]))),
        answers(|seen| respond(200, "", describe(seen).as_bytes())),
    );
    let listener =
        "tls: { certificates: [ { certificate: edge.pem, key: edge.key } ], clients: required, trust: clients.pem },";
    let run =
        Run::new(&web(listener, "tls: { expect: cart.test, trust: services.pem },", &origin)).pair("edge", &edge(&old));
    let run = run.file_of("clients.pem", &old.pem()).file_of("services.pem", &services.pem());
    let proxy = run.start();
    let both = [&old, &new];
    let old_client = Tls::trusting(&both).with(&old.issue(&Leaf::of(&[WEB])));
    let new_client = Tls::trusting(&both).with(&new.issue(&Leaf::of(&[WEB])));
    let load = Load::new(&proxy, &old_client);
    let mut held = old_client.connect(proxy.address("web"), "edge.test");
    assert_eq!(held.get("/").status, 200);
    replace_slowly(proxy.folder(), "clients.pem", &(old.pem() + &new.pem()), Duration::from_millis(1300));
    eventually("the new root is trusted", || shown(&proxy, &new_client).is_some());
    load.goes_on(20);
    load.end();
    let load = Load::new(&proxy, &new_client);
    replace(proxy.folder(), "clients.pem", &new.pem());
    eventually("the old root is not trusted any more", || {
        let Ok(mut client) = old_client.try_connect(proxy.address("web"), "edge.test") else { return true };
        client.try_send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n").and_then(|()| client.try_answer("GET")).is_err()
    });
    load.goes_on(20);
    load.end();
    // What was open goes on.
    assert_eq!(held.get("/").status, 200);
}

#[test]
fn a_revocation_list_is_watched_too() {
    let authority = Authority::new("mesh");
    let origin = Origin::echo();
    let own = authority.issue(&Leaf::of(&[WEB]));
    let listener = "tls: { certificates: [ { certificate: edge.pem, key: edge.key } ], clients: required, trust: { roots: [ca.pem], crl: crl.pem } },";
    let run = Run::new(&web(listener, "", &origin)).pair("edge", &edge(&authority));
    let proxy = run.file_of("ca.pem", &authority.pem()).file_of("crl.pem", &authority.revoke(&[])).start();
    let tls = Tls::trusting(&[&authority]).with(&own).resuming();
    assert!(shown(&proxy, &tls).is_some());
    replace(proxy.folder(), "crl.pem", &authority.revoke(&[&own]));
    let refuses = || {
        let Ok(mut client) = tls.try_connect(proxy.address("web"), "edge.test") else { return true };
        client.try_send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n").and_then(|()| client.try_answer("GET")).is_err()
    };
    eventually("it is revoked, with its ticket", refuses);
    let other = Tls::trusting(&[&authority]).with(&authority.issue(&Leaf::of(&[WEB])));
    assert!(shown(&proxy, &other).is_some());
}

#[test]
fn a_revocation_list_that_ends_refuses_its_issuer_alone_until_there_is_another() {
    let (authority, other) = (Authority::new("mesh"), Authority::new("other"));
    let origin = Origin::echo();
    let listener = "tls: { certificates: [ { certificate: edge.pem, key: edge.key } ], clients: required, trust: { roots: [ca.pem, other.pem], crl: crl.pem } },";
    let run = Run::new(&web(listener, "", &origin)).pair("edge", &edge(&authority));
    let run = run.file_of("ca.pem", &authority.pem()).file_of("other.pem", &other.pem());
    let proxy = run.file_of("crl.pem", &authority.revoke_for(4, &[])).start();
    let tls = Tls::trusting(&[&authority]).with(&authority.issue(&Leaf::of(&[WEB]))).resuming();
    assert!(shown(&proxy, &tls).is_some());
    let refuses = |tls: &Tls| {
        let Ok(mut client) = tls.try_connect(proxy.address("web"), "edge.test") else { return true };
        client.try_send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n").and_then(|()| client.try_answer("GET")).is_err()
    };
    let reason = [("side", "downstream"), ("reason", "revocation_unknown")];
    eventually("the list has ended, the ticket with it, and that is counted", || {
        refuses(&tls) && proxy.metrics().sum("ringway_tls_handshake_failures_total", &reason) > 0.0
    });
    let days = proxy.metrics();
    let list = days.all("ringway_certificate_expiry_days", &[("kind", "crl")]).next().map(|sample| sample.value);
    assert!(list.is_some_and(|days| days <= 0.0), "{list:?}");
    eventually("it is told", || proxy.output().contains("a list of revoked certificates is out of date"));
    let others = Tls::trusting(&[&authority]).with(&other.issue(&Leaf::of(&[WEB])));
    assert!(shown(&proxy, &others).is_some());
    // One that has ended already is not taken in its place, but another is.
    replace(proxy.folder(), "crl.pem", &authority.revoke_for(-5, &[]));
    eventually("it is refused", || proxy.output().contains("its next update is overdue"));
    replace(proxy.folder(), "crl.pem", &authority.revoke(&[]));
    eventually("the new list is in force", || !refuses(&tls));
}

#[test]
fn days_left_are_told_of_each_certificate() {
    const DAY: i64 = 86_400;
    let authority = Authority::new("mesh");
    let origin = Origin::echo();
    let listener = "tls: { certificates: [ { certificate: a.pem, key: a.key }, { certificate: b.pem, key: b.key } ], clients: optional, trust: ca.pem },";
    let run = Run::new(&web(listener, "", &origin)).file_of("ca.pem", &authority.pem());
    let run = run.pair("a", &authority.issue(&Leaf::of(&["a.test"]).valid(-DAY, 10 * DAY)));
    let proxy = run.pair("b", &authority.issue(&Leaf::of(&["b.test"]).valid(-DAY, DAY / 2))).start();
    let days = |part: &str| {
        let metrics = proxy.metrics();
        let all: Vec<_> = metrics.all("ringway_certificate_expiry_days", &[]).cloned().collect();
        let found = all.iter().find(|sample| sample.labels["name"].contains(part));
        found.unwrap_or_else(|| panic!("{part}: {all:?}")).value
    };
    for (part, least, most) in [("a.", 9.9, 10.0), ("b.", 0.4, 0.5), ("ca.", 364.0, 365.0)] {
        assert!((least..=most).contains(&days(part)), "{part} {}", days(part));
    }
    authority.issue(&Leaf::of(&["b.test"]).valid(-DAY, 20 * DAY)).put(proxy.folder(), "b");
    eventually("the new one's days", || days("b.") > 19.0);
}

#[test]
fn check_reads_certificates() {
    let authority = Authority::new("mesh");
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path();
    let good = authority.issue(&Leaf::of(&["a.test"]));
    good.put(path, "good");
    authority.issue(&Leaf::of(&["a.test"]).expired()).put(path, "expired");
    authority.issue(&Leaf::of(&["a.test"])).put(path, "other");
    fs::write(path.join("ca.pem"), authority.pem()).unwrap();
    fs::write(path.join("empty.pem"), "").unwrap();
    assert_eq!(first_of(&good.chain), good.der);
    fs::write(path.join("stale.pem"), authority.revoke_for(-5, &[])).unwrap();
    fs::write(path.join("list.pem"), authority.revoke_for(60, &[])).unwrap();
    let text = |certificate: &str, key: &str, trust: &str| {
        let place = path.display();
        format!(
            "listeners:\n  web: {{ address: 127.0.0.1:8443, tls: {{ certificates: [ {{ certificate: {place}/{certificate}, key: {place}/{key} }} ], \
             clients: required, trust: {place}/{trust} }}, routes: [ {{ respond: {{ status: 200 }} }} ] }}\n"
        )
    };
    let output = check(&text("good.pem", "good.key", "ca.pem"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (certificate, key, trust, named) in [
        ("none.pem", "good.key", "ca.pem", "none.pem"),
        ("good.pem", "none.key", "ca.pem", "none.key"),
        ("good.pem", "good.key", "none.pem", "none.pem"),
        ("good.pem", "other.key", "ca.pem", "good.pem"),
        ("expired.pem", "expired.key", "ca.pem", "expired.pem"),
        ("empty.pem", "good.key", "ca.pem", "empty.pem"),
        ("good.pem", "good.key", "empty.pem", "empty.pem"),
        ("good.key", "good.pem", "ca.pem", "good."),
    ] {
        let output = check(&text(certificate, key, trust));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{certificate} {key} {trust}: {told}");
        assert!(told.contains(named), "{certificate} {key} {trust}: {told}");
    }
    let listed = |list: &str| {
        let plain = format!("trust: {}/ca.pem", path.display());
        let trust = format!("trust: {{ roots: [{0}/ca.pem], crl: {0}/{list} }}", path.display());
        check(&text("good.pem", "good.key", "ca.pem").replace(&plain, &trust))
    };
    assert!(listed("list.pem").status.success());
    let told = listed("stale.pem");
    assert_eq!(told.status.code(), Some(1));
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("stale.pem: a list of revoked certificates is out of date"), "{told}");
    // Nobody of ours is a client here: it need not be fit to be one.
    let server = authority.issue(&Leaf::of(&["a.test"]).usage(Usage::Server));
    server.put(path, "server");
    assert!(check(&text("server.pem", "server.key", "ca.pem")).status.success());
}

#[test]
fn a_proxy_does_not_start_with_a_bad_pair() {
    let authority = Authority::new("mesh");
    let origin = Origin::echo();
    let listener = "tls: { certificates: [ { certificate: own.pem, key: own.key } ] },";
    let own = Issued { key: edge(&authority).key, ..edge(&authority) };
    let output = Run::new(&web(listener, "", &origin)).pair("own", &own).fail();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("own.pem"), "{output:?}");
}
