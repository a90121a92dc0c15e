//! Documents: checked, planned, put in force, taken back.

use super::{Shop, local};
use ringway_tests::tls::Tls;
use ringway_tests::{Mesh, eventually};
use std::fs;
use std::time::{Duration, Instant};

#[test]
fn two_services_talk_over_mtls_and_nobody_else_gets_in() {
    let shop = Shop::new();
    let (mesh, _cart, _web) = shop.open();
    assert_eq!(shop.ask().unwrap().text(), "from cart");
    // Who has no certificate of the mesh is not heard.
    let roots = fs::read_to_string(mesh.folder().join("data/operator/ca.pem")).unwrap();
    let stranger = Tls::rooted(&roots).any_name().try_connect(local(shop.inside), "any.example");
    let answered = stranger.ok().and_then(|mut client| {
        client.try_send("GET / HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n").ok()?;
        client.try_answer("GET").ok()
    });
    assert!(answered.is_none(), "{answered:?}");
}

#[test]
fn a_rule_takes_effect_with_all_proxies_within_a_second_and_a_rollback_takes_it_back() {
    let shop = Shop::new();
    let (mesh, _cart, _web) = shop.open();
    mesh.write(&shop.document("nobody"));
    let begun = Instant::now();
    let said = mesh.control(&["apply", "mesh.yaml", "--wait", "--comment", "nobody calls cart"]);
    let took = begun.elapsed();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(shop.status(), Some(403), "applied means that all cores work with it");
    // The second of the promise, and what a busy machine adds to starting a process.
    assert!(took < Duration::from_secs(3), "{took:?}");
    let diff = mesh.control(&["diff", "1", "2"]);
    assert_eq!(diff.code, Some(2));
    assert!(
        diff.out.contains("-        allow: [ { name: callers, identity: \"spiffe://shop/group/web\" } ]"),
        "{diff:?}"
    );
    assert!(!diff.out.contains('\x1b'), "colours are for terminals");

    mesh.done(&["rollback", "1", "--wait"]);
    assert_eq!(shop.status(), Some(200));
    let versions = mesh.json(&["history"]);
    let versions = versions["versions"].as_array().unwrap();
    let said: Vec<_> = versions.iter().map(|one| (one["number"].as_u64().unwrap(), &one["comment"])).collect();
    assert_eq!(said, [(3, &"back to version 1".into()), (2, &"nobody calls cart".into()), (1, &"".into())]);
    assert_eq!((&versions[0]["state"], &versions[1]["state"]), (&"in force".into(), &"replaced".into()));
    assert_eq!(mesh.done(&["show"]), shop.document("web"));
}

#[test]
fn a_bad_push_changes_nothing_and_says_where_it_is_wrong() {
    let shop = Shop::new();
    let (mesh, _cart, _web) = shop.open();
    mesh.write(&shop.document("web").replace("expect: group", "expct: group"));
    for verb in ["check", "plan", "apply"] {
        let said = mesh.control(&[verb, "mesh.yaml"]);
        assert_eq!(said.code, Some(1), "{verb}: {said:?}");
        let at = "mesh.yaml:16:60: ";
        assert!(said.all().contains(at) && said.all().contains("expect"), "{verb}: {said:?}");
    }
    assert_eq!(mesh.json(&["status"])["version"], 1);
    assert_eq!(shop.status(), Some(200));
}

#[test]
fn what_only_proxies_would_refuse_is_refused_by_check_with_its_place() {
    let shop = Shop::new();
    let mesh = Mesh::start();
    // A pattern that is small to read and large to compile.
    let large = "[02468ACEGIKMOQSUWYacegikmoqsuwy]{1000}".repeat(9);
    let large = format!("match: {{ headers: {{ x: {{ regex: '{large}' }} }} }}");
    mesh.write(&shop.document("web").replace("{ name: app, to", &format!("{{ name: app, {large}, to")));
    let [check, apply] = ["check", "apply"].map(|verb| mesh.control(&[verb, "mesh.yaml"]));
    assert_eq!((check.code, apply.code), (Some(1), Some(1)), "{check:?} {apply:?}");
    assert!(check.err.starts_with("mesh.yaml:12:41: proxies refuse route/in: "), "{check:?}");
    assert!(check.err.ends_with("; change it, or leave it out\n") && check.err.lines().count() == 1, "{check:?}");
    assert!(apply.all().contains(check.err.trim()), "{apply:?}");
    // Of an Envoy nothing is said before it is right for our own.
    assert_eq!(mesh.control(&["check", "mesh.yaml", "--for", "envoy"]).err, check.err);
}

#[test]
fn a_plan_says_what_would_change_and_its_exit_code_whether() {
    let shop = Shop::new();
    let (mesh, _cart, _web) = shop.open();
    mesh.write(&shop.document("web"));
    let same = mesh.control(&["plan", "mesh.yaml"]);
    assert_eq!((same.code, same.out.as_str()), (Some(0), "version 1 is in force and says the same\n"));
    mesh.write(&shop.document("other"));
    let other = mesh.control(&["plan", "mesh.yaml"]);
    assert_eq!(other.code, Some(2), "{other:?}");
    let says =
        ["--- version 1", "+++ mesh.yaml", "group cart (1 proxy)", "listener in changed", "apply mesh.yaml --base 1"];
    for text in says {
        assert!(other.out.contains(text), "{text}: {other:?}");
    }
    assert!(!other.out.contains("group web"), "web's proxies get nothing new: {other:?}");
    assert_eq!(shop.status(), Some(200), "a plan changes nothing");
}

#[test]
fn who_planned_against_another_version_is_told_and_nothing_is_lost() {
    let shop = Shop::new();
    let mesh = Mesh::start();
    mesh.push(&shop.document("web"));
    mesh.push(&shop.document("other"));
    mesh.write(&shop.document("third"));
    let late = mesh.control(&["apply", "mesh.yaml", "--base", "1"]);
    assert_eq!(late.code, Some(1), "{late:?}");
    assert!(late.all().contains("version 2") && late.all().contains("you saw version 1"), "{late:?}");
    assert_eq!(mesh.done(&["show"]), shop.document("other"));
    mesh.done(&["apply", "mesh.yaml", "--base", "2"]);
}

#[test]
fn what_nobody_does_by_accident_needs_force() {
    let shop = Shop::new();
    let (mesh, _cart, _web) = shop.open();
    let document = shop.document("web");
    mesh.write(&document.replace("        allow: [ { name: callers, identity: \"spiffe://shop/group/web\" } ]\n", ""));
    let said = mesh.control(&["-o", "json", "apply", "mesh.yaml"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let last: serde_json::Value = serde_json::from_str(said.out.lines().last().unwrap()).unwrap();
    assert_eq!(last["outcome"], "needs_force", "{last}");
    assert!(last["findings"][0].as_str().unwrap().contains("allow"), "{last}");
    assert_eq!(mesh.json(&["status"])["version"], 1);
    mesh.done(&["apply", "mesh.yaml", "--force", "--wait"]);
    assert_eq!(mesh.json(&["status"])["version"], 2);
}

#[test]
fn a_request_is_explained_by_the_document_in_force() {
    let shop = Shop::new();
    let mesh = Mesh::start();
    let nothing = mesh.control(&["explain", "cart", "GET", "/x"]);
    assert_eq!(nothing.code, Some(1), "{nothing:?}");
    mesh.push(&shop.document("web"));
    let ask = |identity: &str| mesh.done(&["explain", "cart", "GET", "/x", "--listener", "in", "--identity", identity]);
    let (web, other) = (ask("spiffe://shop/group/web"), ask("spiffe://shop/group/other"));
    assert!(web.contains("callers") && web.contains("app"), "{web}");
    assert!(other.contains("403"), "{other}");
}

#[test]
fn the_daemon_dies_and_requests_go_on_then_it_is_back_and_pushes_do() {
    let shop = Shop::new();
    let (mut mesh, cart, web) = shop.open();
    mesh.kill();
    assert_eq!(mesh.control(&["status"]).code, Some(3));
    assert_eq!(shop.status(), Some(200));
    // A proxy that starts without its daemon has what it had.
    let cart = cart.kill_and_start();
    eventually("the same as before", || shop.status() == Some(200));
    mesh.revive();
    eventually("both are back", || {
        mesh.proxies("cart").iter().chain(&mesh.proxies("web")).filter(|proxy| proxy["connected"] == true).count() == 2
    });
    mesh.push(&shop.document("nobody"));
    assert_eq!(shop.status(), Some(403));
    drop((cart, web));
}

#[test]
fn a_push_on_trial_goes_on_by_itself_or_is_ended() {
    let shop = Shop::new();
    let (mesh, _cart, _web) = shop.open();
    for wrong in [&["--canary", "100%"][..], &["--canary", "10"], &["--watch", "5s"]] {
        assert_eq!(mesh.control(&[&["apply", "mesh.yaml"], wrong].concat()).code, Some(64), "{wrong:?}");
    }
    let apply = ["apply", "mesh.yaml", "--canary", "50%", "--watch"];
    mesh.write(&shop.document("web").replace("name: app, to", "name: tried, to"));
    let good = mesh.control(&[&apply[..], &["4s", "--abort-on", "errors>5%"]].concat());
    assert_eq!(good.code, Some(0), "{good:?}");
    assert!(
        good.out.contains("on trial")
            && good.out.contains("in force, after its trial: cart: ")
            && good.out.contains(" requests, too few to judge by"),
        "{good:?}"
    );

    mesh.write(&shop.document("nobody"));
    std::thread::scope(|scope| {
        let trial = scope.spawn(|| mesh.control(&[&apply[..], &["10m"]].concat()));
        eventually("it is on trial", || mesh.done(&["status"]).contains("on trial: version 3 by `admin`"));
        eventually("cart's proxy has it", || shop.status() == Some(403));
        mesh.done(&["rollback", "2"]);
        let ended = trial.join().unwrap();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.out.contains("an operator ended it"), "{ended:?}");
    });
    eventually("cart's proxy has what is in force", || shop.status() == Some(200));
    assert_eq!(mesh.json(&["status"])["version"], 2);
}
