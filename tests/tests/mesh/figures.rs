//! The scenarios of `ringway-bench mesh`, very small: each runs to its end with the programs of today, and prints its figures.
//! What the figures are is not asked.

use ringway_tests::{build_bench, build_control, until};
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn the_scenarios_of_the_bench_run_to_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("table.md");
    std::fs::write(&table, "# Others\n\nstay\n").unwrap();
    let mut command = Command::new(build_bench());
    command.args(["mesh", "--smoke", "--programs"]).arg(build_control());
    command.arg("--write").arg(&table).arg("--keep").arg(folder.path().join("run"));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let output = std::thread::spawn(move || child.wait_with_output());
    let ended = until(Duration::from_secs(300), || output.is_finished().then_some(()));
    if ended.is_none() {
        let _gone = Command::new("kill").args(["-9", &id.to_string()]).status();
    }
    let output = output.join().unwrap().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(ended.is_some() && output.status.success(), "{told}");
    let written = std::fs::read_to_string(&table).unwrap();
    assert!(written.starts_with("# Others\n\nstay\n\n# The mesh\n"), "{written}");
    for scenario in ["push", "services", "endpoint", "outage", "rotations"] {
        assert!(written.contains(&format!("| {scenario} | ")), "{scenario} has no figure: {written}\n{told}");
    }
    assert!(!written.contains("NaN"), "{written}");
}
