//! A disk that does not answer while certificates are looked at: everything else goes on.

use crate::shop::web;
use ringway_tests::certificates::{Authority, Leaf};
use ringway_tests::tls::Tls;
use ringway_tests::{Origin, Run, eventually};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Holds a lease on a file: whoever opens it waits until it is given back, or for the kernel's `lease-break-time`.
const HOLD: &str = "use Fcntl; $SIG{IO} = 'IGNORE'; open(my $f, '+<', $ARGV[0]) or exit 1;
    fcntl($f, 1024, F_WRLCK) or exit 2; $| = 1; print \"held\\n\"; sleep 60";

struct Lease(Child);

impl Lease {
    fn on(path: &std::path::Path) -> Option<Lease> {
        let mut child = Command::new("perl").args(["-e", HOLD]).arg(path).stdout(Stdio::piped()).spawn().ok()?;
        let mut line = String::new();
        let read = BufReader::new(child.stdout.take()?).read_line(&mut line);
        let lease = Lease(child);
        (read.is_ok() && line == "held\n").then_some(lease)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

#[test]
fn a_disk_that_hangs_stalls_nothing_else() {
    let authority = Authority::new("mesh");
    let origin = Origin::echo();
    let listener = "tls: { certificates: [ { certificate: edge.pem, key: edge.key } ] },";
    let run = Run::new(&web(listener, "", &origin)).pair("edge", &authority.issue(&Leaf::of(&["edge.test"])));
    let mut proxy = run.start();
    let (tls, address) = (Tls::trusting(&[&authority]), proxy.address("web"));
    let folder = proxy.folder().to_owned();
    let next = authority.issue(&Leaf::of(&["edge.test"]));
    next.put(&folder, "next");
    let Some(lease) = Lease::on(&folder.join("next.pem")) else {
        println!("SKIPPED a_disk_that_hangs_stalls_nothing_else: no perl, or no leases on this file system");
        return;
    };
    // Both change; the chain does not open.
    std::fs::rename(folder.join("next.pem"), folder.join("edge.pem")).unwrap();
    std::fs::rename(folder.join("next.key"), folder.join("edge.key")).unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        let asked = Instant::now();
        proxy.metrics();
        assert_eq!(tls.connect(address, "edge.test").get("/").status, 200);
        // So that a busy machine is not taken for a stall, but 45 s of the kernel's patience is.
        assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    }
    assert_eq!(proxy.metrics().sum("ringway_plan_generation", &[]), 1.0, "what is in force stays");
    // The file of the configuration is read again, and then the certificates are waited for; elsewhere.
    proxy.signal("HUP");
    assert!(proxy.is_ready());
    drop(lease);
    eventually("the disk answers", || {
        tls.connect(address, "edge.test").met().certificate.as_deref() == Some(&next.der)
    });

    // And one that never answers does not keep the process.
    authority.issue(&Leaf::of(&["edge.test"])).put(&folder, "last");
    let lease = Lease::on(&folder.join("last.pem"));
    std::fs::rename(folder.join("last.pem"), folder.join("edge.pem")).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    proxy.signal("TERM");
    assert!(proxy.ended(Duration::from_secs(20)).success());
    drop(lease);
}
