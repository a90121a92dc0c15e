//! Finding the programs of this workspace, built.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent")
}

/// The `ringway` program: what `RINGWAY_BIN` names, or built beside the running program, in its profile.
///
/// # Panics
/// It does not build.
pub fn build() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match std::env::var_os("RINGWAY_BIN") {
        Some(path) => PathBuf::from(path),
        None => build_beside_us(&["ringway"]).join("ringway"),
    })
}

/// The folder of `ringwayd` and `ringwayctl`: what `RINGWAY_CONTROL` names, or built beside the running program.
///
/// # Panics
/// They do not build.
pub fn build_control() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match std::env::var_os("RINGWAY_CONTROL") {
        Some(path) => PathBuf::from(path),
        // The proxy too: one call of cargo instead of two.
        None => build_beside_us(&["ringway", "ringwayd", "ringwayctl"]),
    })
}

/// The `ringwayd` program.
///
/// # Panics
/// It does not build.
pub fn build_daemon() -> PathBuf {
    build_control().join("ringwayd")
}

/// The `ringway-bench` program.
///
/// # Panics
/// It does not build.
pub fn build_bench() -> PathBuf {
    build_beside_us(&["ringway-bench"]).join("ringway-bench")
}

/// Builds programs into the folder of the running one.
fn build_beside_us(programs: &[&str]) -> PathBuf {
    let own = std::env::current_exe().expect("own path");
    // target/PROFILE/demo, or target/PROFILE/deps/test-hash.
    let mut folder = own.parent().expect("a folder");
    let is_test = folder.ends_with("deps");
    if is_test {
        folder = folder.parent().expect("a folder");
    }
    let target = folder.parent().expect("a target folder");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // All packages and a test: so cargo chooses the features of dependencies as in `cargo test --workspace`, and
    // nothing is compiled twice.
    command.args(["build", "--workspace", "--test", "house"]);
    command.args(programs.iter().flat_map(|program| ["--bin", program]));
    command.arg("--target-dir");
    command.arg(target).current_dir(workspace());
    if is_test {
        command.arg("--quiet");
    }
    if folder.ends_with("release") {
        command.arg("--release");
    }
    let status = command.status().expect("cargo runs");
    assert!(status.success(), "{programs:?} do not build");
    folder.to_path_buf()
}
