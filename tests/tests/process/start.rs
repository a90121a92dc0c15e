//! Starting: what is told in one line, what refuses to start, and starting again after a kill.

use ringway_tests::{Origin, Proxy, Run, plain};

#[test]
fn one_line_says_kernel_cores_listeners_and_limits() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&format!("{}limits: {{ connections: 1000 }}\n", plain(&[&origin])));
    proxy.printed("io_uring");
    let output = proxy.output();
    let line = output.lines().find(|line| line.contains("io_uring")).unwrap();
    for word in ["kernel", "cores ", "listeners web=", "connections=1000"] {
        assert!(line.contains(word), "{word:?} is not in {line:?}");
    }
    assert_eq!(output.lines().count(), 1, "one line: {output}");
}

#[test]
fn cores_may_be_given_on_the_command_line() {
    let origin = Origin::echo();
    let proxy = Run::new(&format!("{}cores: all\n", plain(&[&origin]))).argument("--cores").argument("1").start();
    proxy.printed("; cores ");
    let output = proxy.output();
    let cores = output.split("; cores ").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
    assert!(cores.parse::<u32>().is_ok(), "one CPU: {cores}");
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn a_bad_file_does_not_start_and_tells_all_its_errors() {
    let output = Run::new("listeners:\n  web: { adress: 127.0.0.1:1, routes: [ { to: app } ] }\n").fail();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("ringway.yaml:2:10: unknown key `adress`"), "{told}");
    assert!(told.contains("unknown service `app`"), "{told}");
}

#[test]
fn more_cores_than_the_affinity_mask_has_are_refused() {
    let origin = Origin::echo();
    let output = Run::new(&format!("{}cores: [1000]\n", plain(&[&origin]))).fail();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("1000"), "{output:?}");
}

#[test]
fn after_kill_9_it_starts_again_at_once_on_the_same_ports() {
    let origin = Origin::echo();
    let mut proxy = Run::new(&plain(&[&origin])).start();
    for _ in 0..3 {
        let mut held: Vec<_> = (0..20).map(|_| proxy.client()).collect();
        for client in &mut held {
            assert_eq!(client.get("/").status, 200);
        }
        // Connections are open on both sides while the process dies: their ports are in every state there is.
        proxy = proxy.kill_and_start();
        assert_eq!(proxy.client().get("/").status, 200);
    }
}
