//! How it starts, what it says when it cannot, how it ends.

use crate::program::{Daemon, PROGRAM, at, command};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A start that does not come to be: exit 1, and the one line that was told.
fn refused(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn it_starts_on_nothing_and_ends_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("a/b");
    for signal in ["-TERM", "-INT"] {
        let daemon = Daemon::start(&data);
        assert!(daemon.page("/ready").starts_with("HTTP/1.1 200 "));
        assert!(daemon.page("/metrics").contains("\nringwayd_version 0\n"));
        assert_eq!(fs::read_to_string(data.join("operator/daemon")).unwrap(), format!("{}\n", daemon.address));
        daemon.signal(signal);
        let (status, said) = daemon.ended();
        assert_eq!((status.code(), said.as_str()), (Some(0), ""));
    }
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o700);
    let mut files = 0;
    for folder in [data.clone(), data.join("operator")] {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let wanted = if entry.file_type().unwrap().is_dir() { 0o700 } else { 0o600 };
            assert_eq!(entry.metadata().unwrap().mode() & 0o777, wanted, "{}", entry.path().display());
            files += 1;
        }
    }
    assert_eq!(files, 7);
}

#[test]
fn its_authority_is_the_same_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut roots = None;
    for round in 0..10 {
        let mut daemon = Daemon::start(folder.path());
        let root = fs::read_to_string(folder.path().join("operator/ca.pem")).unwrap();
        assert_eq!(*roots.get_or_insert(root.clone()), root, "round {round}");
        daemon.child.kill().unwrap();
    }
    // At any moment of its start, too.
    for round in 0..20 {
        let mut child = command(folder.path()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(round * 3));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let _daemon = Daemon::start(folder.path());
    assert_eq!(fs::read_to_string(folder.path().join("operator/ca.pem")).ok(), roots);
}

#[test]
fn a_first_start_that_is_killed_at_any_moment_leaves_what_starts() {
    for round in 0..40 {
        let folder = tempfile::tempdir().unwrap();
        let mut child = command(folder.path()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(round * 700));
        child.kill().unwrap();
        child.wait().unwrap();
        let daemon = Daemon::start(folder.path());
        assert!(daemon.page("/ready").starts_with("HTTP/1.1 200 "));
    }
}

#[test]
fn a_second_one_on_the_same_folder_says_so_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path());
    let said = refused(&mut command(folder.path()));
    assert!(said.contains("store.redb is open in another process: one ringwayd a data directory"), "{said}");
    assert!(daemon.page("/ready").starts_with("HTTP/1.1 200 "));
}

#[test]
fn an_address_that_is_taken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = refused(&mut at(folder.path(), &address, "127.0.0.1:0"));
    assert!(said.contains(&format!("cannot listen on {address}: ")), "{said}");
    let said = refused(&mut at(folder.path(), "127.0.0.1:0", &address));
    assert!(said.contains(&format!("admin: cannot listen on {address}: ")), "{said}");
}

#[test]
fn the_key_of_the_store_may_come_from_the_environment_and_must_be_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let keyed = |key: &str| {
        let mut command = command(folder.path());
        command.env("RINGWAYD_STORE_KEY", key);
        command
    };
    let key = "5e".repeat(32);
    drop(Daemon::started(keyed(&key)));
    assert!(!folder.path().join("store.key").exists());
    let other = "6f".repeat(32);
    let said = refused(&mut keyed(&other));
    assert!(said.contains("the store is sealed with another key than that of RINGWAYD_STORE_KEY"), "{said}");
    assert!(!said.contains(&other), "{said}");
    let said = refused(&mut command(folder.path()));
    assert!(said.contains("the store is sealed with it: restore it, or give `store-key`"), "{said}");
    drop(Daemon::started(keyed(&key)));
}

#[test]
fn a_disk_without_room_is_told_and_what_was_there_stays() {
    let folder = tempfile::tempdir().unwrap();
    let limited = |blocks: u32| {
        // A file that may not grow: as a full disk, but for the word of the kernel.
        let mut command = Command::new("sh");
        command.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\""), "sh", PROGRAM]);
        command.args(["run", "--address", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"]).arg(folder.path());
        command.env_remove("RINGWAYD_STORE_KEY");
        command
    };
    let said = refused(&mut limited(0));
    assert!(said.contains("store.redb cannot be written, the disk is full: free some space"), "{said}");
    drop(Daemon::start(folder.path()));
    let root = fs::read_to_string(folder.path().join("operator/ca.pem")).unwrap();
    refused(&mut limited(0));
    drop(Daemon::start(folder.path()));
    assert_eq!(fs::read_to_string(folder.path().join("operator/ca.pem")).unwrap(), root);
}

#[test]
fn its_file_is_checked_with_positions() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringwayd.yaml");
    let check = || Command::new(PROGRAM).args(["check", "-c"]).arg(&file).output().unwrap();
    fs::write(&file, "trust-domain: shop\n").unwrap();
    assert_eq!(check().status.code(), Some(0));
    fs::write(&file, "trust-domain: shop\nadress: 127.0.0.1:1\nstore: etcd\n").unwrap();
    let output = check();
    let said = String::from_utf8(output.stderr).unwrap();
    let name = file.display();
    assert_eq!(output.status.code(), Some(1));
    let wanted = format!(
        "{name}:2:1: unknown key `adress` in the daemon's file; did you mean `address`?\n\
         {name}:3:8: `etcd` needs to know where it is: `{{ etcd: {{ endpoints: [\"http://host:2379\"] }} }}`\n"
    );
    assert_eq!(said, wanted);
    let output = command(folder.path()).arg("-c").arg(&file).output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(1), wanted));
    let usage = Command::new(PROGRAM).arg("walk").output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}
