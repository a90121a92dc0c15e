//! Who may do what; exit codes; what programs and shells read.

use super::Shop;
use ringway_tests::Mesh;
use std::fs;
use std::process::Command;

#[test]
fn an_operator_may_do_what_the_role_says_until_it_is_taken_back() {
    let shop = Shop::new();
    let mesh = Mesh::start();
    mesh.push(&shop.document("web"));
    mesh.write(&shop.document("other"));
    for (name, role) in [("ann", "read"), ("bob", "write")] {
        mesh.done(&["operator", "create", name, "--role", role, "--into", name]);
    }
    let code = |who: &str, arguments: &[&str]| mesh.control_as(who, arguments).code;
    assert_eq!(code("ann", &["status"]), Some(0));
    let denied = mesh.control_as("ann", &["apply", "mesh.yaml"]);
    assert_eq!(denied.code, Some(1));
    assert!(denied.err.contains("operator `ann` has the role read; this needs write"), "{denied:?}");
    assert_eq!(code("bob", &["apply", "mesh.yaml"]), Some(0));
    assert_eq!(code("bob", &["token", "create", "--group", "web"]), Some(1));
    assert!(mesh.json(&["history"])["versions"][0]["author"] == "bob");
    // No key is made over another.
    let again = mesh.control(&["operator", "create", "eve", "--role", "admin", "--into", "bob"]);
    assert!(again.code == Some(1) && again.err.contains("has a credential already"), "{again:?}");
    mesh.done(&["operator", "remove", "bob"]);
    let gone = mesh.control_as("bob", &["status"]);
    assert!(gone.code != Some(0), "{gone:?}");
}

#[test]
fn nobody_else_is_taken_for_the_daemon() {
    let (ours, other) = (Mesh::start(), Mesh::start());
    let said = ours.control(&["--daemon", &other.address(), "status"]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.err.contains("nobody who is trusted"), "{said:?}");
    let said = ours.control(&["--daemon", "127.0.0.1:1", "status"]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.err.contains("is `ringwayd` running"), "{said:?}");
    let said = ours.control_as("nowhere", &["status"]);
    assert!(said.code == Some(1) && said.err.contains("nowhere/operator.pem"), "{said:?}");
    assert_eq!(ours.control_as("nowhere", &["--daemon-dir", "data", "status"]).code, Some(64), "two of them");
}

#[test]
fn a_wrong_command_line_is_not_taken_for_changes() {
    let mesh = Mesh::start();
    for wrong in
        [&["plan"][..], &["paln", "x"], &["token", "create"], &["endpoints", "set", "db"], &["top", "--interval", "1"]]
    {
        assert_eq!(mesh.control(wrong).code, Some(64), "{wrong:?}");
    }
    assert_eq!(mesh.control(&["--help"]).code, Some(0));
}

#[test]
fn what_is_not_there_says_what_to_do() {
    let mesh = Mesh::start();
    assert!(mesh.done(&["history"]).contains("ringwayctl apply"));
    assert!(mesh.done(&["status"]).contains("token create"));
    assert!(mesh.done(&["rejects"]).contains("no proxy refuses"));
    assert!(mesh.done(&["ignored"]).contains("every proxy knows"));
    assert!(mesh.done(&["secret", "list"]).contains("secret put"));
    let none = mesh.control(&["token", "create", "--group", "web"]);
    assert!(none.code == Some(1) && none.err.contains("ringwayctl apply"), "{none:?}");
    let none = mesh.control(&["rollback", "7"]);
    assert!(none.code == Some(1) && none.err.contains("no version 7"), "{none:?}");
    let none = mesh.control(&["apply", "no.yaml"]);
    assert!(none.code == Some(1) && none.err.contains("no.yaml"), "{none:?}");
}

#[test]
fn completions_and_the_manual_know_every_verb() {
    let mesh = Mesh::start();
    let help = mesh.done(&["--help"]);
    let (_, verbs) = help.split_once("Commands:\n").unwrap();
    // Two spaces: what is further in is a description that goes on.
    let verbs = verbs.lines().take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    let verbs = verbs.filter_map(|line| line.split_whitespace().next());
    let verbs: Vec<_> = verbs.filter(|verb| *verb != "help").collect();
    assert!(verbs.contains(&"apply") && verbs.len() > 15, "{verbs:?}");
    let script = mesh.done(&["completion", "bash"]);
    mesh.done(&["man", "--into", "man"]);
    for verb in verbs {
        assert!(
            script.contains(&format!("ringwayctl__subcmd__{verb}")) || script.contains(&format!("ringwayctl__{verb}")),
            "{verb}"
        );
        let page = fs::read_to_string(mesh.folder().join(format!("man/ringwayctl-{verb}.1")));
        assert!(page.is_ok_and(|page| page.starts_with(".ie") || page.contains(".TH")), "{verb}");
    }
    fs::write(mesh.folder().join("completion"), script).unwrap();
    let checked = Command::new("bash").arg("-n").arg(mesh.folder().join("completion")).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    assert!(mesh.done(&["man"]).contains("Exit codes"));
}
