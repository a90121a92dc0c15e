//! The house checks itself: who may name whom, where unsafe code may stand, how long files may be, and that what
//! documents and examples say is there.
#![forbid(unsafe_code)]

use ringway_tests::{check, workspace};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// DESIGN.md's table of rooms: what each one may depend on. `*` is everything that is not above it.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("dataplane/ring", &["io-uring", "libc", "crossbeam-utils", "crossbeam-queue", "crossbeam-epoch", "loom"]),
    ("dataplane/wire", &["rustls", "rustls-pki-types", "rustls-webpki", "crypto", "graviola", "httparse", "memchr"]),
    ("dataplane/balance", &["crossbeam-utils", "loom"]),
    ("dataplane/plan", &["wire", "balance", "regex-automata", "api"]),
    ("dataplane/flow", &["ring", "wire", "plan", "balance"]),
    ("dataplane/agent", &["*"]),
    ("dataplane", &["*"]),
    (
        "control/api",
        &[
            "wire",
            "granit-parser",
            "serde",
            "envoy-types",
            "prost",
            "regex-syntax",
            "crypto",
            "tonic",
            "tonic-prost",
            "tonic-prost-build",
            "protox",
            "base64",
        ],
    ),
    ("control/daemon", &["*", "-ring", "-flow", "-agent"]),
    ("control/cli", &["*", "-ring", "-flow", "-agent", "-daemon"]),
    ("bench", &["*", "-agent", "-flow", "-plan"]),
];

/// From the ground up: nobody names a room that stands to the right of its own.
const UPWARDS: &[&str] = &["ring", "wire", "balance", "api", "plan", "flow", "agent", "ringway", "daemon", "cli"];

/// What a file may have; those that have more are named, with how many, so that they do not grow unseen.
const MOST_LINES: usize = 700;
const LONG_FILES: &[(&str, usize)] = &[];

/// All files with one of these endings, without what is built.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![workspace().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_built = name == "target" || name == "corpus" || name == "artifacts" || name == ".git";
            if entry.file_type().unwrap().is_dir() {
                folders.extend((!is_built).then_some(path));
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty());
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(workspace()).unwrap().display().to_string()
}

/// The dependencies of a package that stand in its programs: not those for tests alone.
fn dependencies(folder: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(workspace().join(folder).join("Cargo.toml")).unwrap();
    let mut of_programs = false;
    let mut names = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            let section = line.trim_matches(['[', ']']);
            of_programs = section.ends_with("dependencies") && !section.ends_with("dev-dependencies");
            // [dependencies.name]
            assert!(!section.contains("dependencies."), "{folder}: one line a dependency: {line}");
        } else if of_programs
            && !line.starts_with('#')
            && let Some((name, _)) = line.split_once(['.', '=', ' '])
        {
            names.insert(name.to_owned());
        }
    }
    names
}

#[test]
fn rooms_name_only_what_the_design_lets_them() {
    for (room, allowed) in MAY_NAME {
        let named = dependencies(room);
        assert!(room.ends_with("ring") || !named.is_empty() || *room == "dataplane/wire", "{room} names nothing?");
        for name in &named {
            let banned = allowed.contains(&format!("-{name}").as_str());
            let listed = allowed.contains(&"*") || allowed.contains(&name.as_str());
            assert!(listed && !banned, "{room} may not name {name}");
        }
    }
}

#[test]
fn no_dependency_points_upwards() {
    for (room, _) in MAY_NAME.iter().filter(|(room, _)| *room != "bench") {
        let own = if *room == "dataplane" { "ringway" } else { room.rsplit('/').next().unwrap() };
        let height = UPWARDS.iter().position(|name| *name == own).unwrap();
        for name in dependencies(room) {
            let other = UPWARDS.iter().position(|room| *room == name);
            assert!(other.is_none_or(|other| other < height), "{room} names {name}, which stands above it");
        }
    }
}

#[test]
fn every_member_of_the_workspace_is_in_the_table() {
    let text = fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let (_, members) = text.split_once("members = [").unwrap();
    let (members, _) = members.split_once(']').unwrap();
    let members: BTreeSet<_> = members.lines().filter_map(|line| line.split('"').nth(1)).collect();
    let known: BTreeSet<_> = MAY_NAME.iter().map(|(room, _)| *room).chain(["tests"]).collect();
    assert_eq!(members, known);
}

#[test]
fn unsafe_code_is_forbidden_in_every_room_but_ring() {
    for (room, _) in MAY_NAME.iter().filter(|(room, _)| *room != "dataplane/ring") {
        let roots = ["src/lib.rs", "src/main.rs"].map(|root| workspace().join(room).join(root));
        let roots: Vec<_> = roots.iter().filter(|root| root.exists()).collect();
        assert!(!roots.is_empty(), "{room}");
        for root in roots {
            let text = fs::read_to_string(root).unwrap();
            assert!(text.contains("#![forbid(unsafe_code)]"), "{}", relative(root));
        }
    }
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    for path in files(&[".rs"]).iter().filter(|path| relative(path).starts_with("dataplane/ring/src")) {
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap();
            if !(code.contains("unsafe {") || code.contains("unsafe impl")) {
                continue;
            }
            let before = lines[..n].iter().rev().take(12);
            let said = line.contains("SAFETY:") || before.into_iter().any(|line| line.contains("SAFETY:"));
            assert!(said, "{}:{}: no `// SAFETY:` above\n{line}", relative(path), n + 1);
        }
    }
}

#[test]
fn files_stay_short() {
    let mut long = Vec::new();
    for path in files(&[".rs", ".sh"]) {
        let (name, lines) = (relative(&path), fs::read_to_string(&path).unwrap().lines().count());
        let most = LONG_FILES.iter().find(|(file, _)| *file == name).map_or(MOST_LINES, |(_, most)| *most);
        if lines > most {
            long.push(format!("{name} has {lines} lines; {most} are allowed"));
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn nothing_is_left_undone() {
    // Written apart, so that this file passes.
    let words = [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("FIX", "ME"), concat!("dbg", "!(")];
    for path in files(&[".rs", ".toml", ".yaml", ".md", ".sh"]) {
        let text = fs::read_to_string(&path).unwrap();
        for (n, line) in text.lines().enumerate() {
            let found = words.iter().find(|word| line.contains(*word));
            assert!(found.is_none(), "{}:{}: {found:?}", relative(&path), n + 1);
        }
    }
}

#[test]
fn modules_say_what_they_are_for() {
    for path in files(&[".rs"]) {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} does not begin with what it is for", relative(&path));
    }
}

#[test]
fn the_readmes_commands_and_links_exist() {
    let text = fs::read_to_string(workspace().join("README.md")).expect("README.md");
    for command in ["cargo demo", "cargo test --workspace"] {
        assert!(text.contains(command), "README.md does not name `{command}`");
    }
    let aliases = fs::read_to_string(workspace().join(".cargo/config.toml")).unwrap();
    assert!(aliases.contains("demo = "), "`cargo demo` is no alias");
    let run = fs::read_to_string(workspace().join(".ci/run")).unwrap();
    assert!(run.contains("cargo test --workspace"), ".ci/run does not call the README's command");
}

#[test]
fn links_between_pages_lead_somewhere() {
    for page in files(&[".md"]) {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next()) {
            if link.is_empty() || link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            assert!(page.parent().unwrap().join(link).exists(), "{}: {link} is not there", relative(&page));
        }
    }
}

#[test]
fn examples_pass_check() {
    let folder = workspace().join("deploy/examples");
    let mut count = 0;
    // Those that need certificates have a folder of their own, and are run where these are made.
    for entry in fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        let output = check(&fs::read_to_string(entry.path()).unwrap());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && told.is_empty(), "{}: {told}", entry.path().display());
        count += 1;
    }
    assert!(count >= 3);
}

#[test]
fn the_mesh_and_its_proxy_pass_check() {
    let mesh = |text: &str, name: &str| {
        let findings = api::mesh::load(text, name).err().unwrap_or_default();
        assert!(findings.is_empty(), "{findings:#?}");
    };
    let page = fs::read_to_string(workspace().join("deploy/CONFIGURATION.md")).unwrap();
    let (_, block) = page.split_once("```yaml\ntrust-domain:").expect("the mesh's block");
    mesh(&format!("trust-domain:{}", block.split_once("```").expect("its end").0), "CONFIGURATION.md");
    let folder = workspace().join("deploy/mesh");
    mesh(&fs::read_to_string(folder.join("shop.yaml")).unwrap(), "shop.yaml");
    let output = check(&fs::read_to_string(folder.join("proxy.yaml")).unwrap());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_page_of_the_language_passes_check_and_names_every_ending() {
    let page = fs::read_to_string(workspace().join("deploy/CONFIGURATION.md")).unwrap();
    let (_, block) = page.split_once("```yaml\n").expect("a block");
    let (text, _) = block.split_once("```").expect("its end");
    let output = check(text);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for ending in flow::LABELS {
        assert!(page.contains(&format!("`{ending}`")), "{ending} is not on the page");
    }
}

/// The names of metrics as they stand on the page, from the list that a snapshot test of `agent` holds.
fn metric_names() -> BTreeSet<String> {
    let list = fs::read_to_string(workspace().join("dataplane/agent/src/metrics/names.txt")).unwrap();
    let mut names = BTreeSet::new();
    for line in list.lines() {
        let (name, kind) = line.split_once(' ').unwrap();
        let ends: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            _ => &[""],
        };
        names.extend(ends.iter().map(|end| format!("{name}{end}")));
    }
    names
}

#[test]
fn documents_name_metrics_that_exist() {
    let names = metric_names();
    let mut count = 0;
    for path in files(&[".md", ".json", ".yaml", ".yml"]) {
        let text = fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices("ringway_") {
            let before = text[..at].chars().next_back();
            let rest = &text[at..];
            let end =
                rest.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_').unwrap_or(rest.len());
            let (name, behind) = rest.split_at(end);
            if before.is_some_and(|c| c.is_alphanumeric() || "-_/.".contains(c)) || behind.starts_with(['*', ':', '.'])
            {
                continue;
            }
            assert!(names.contains(name), "{}: there is no metric {name}", relative(&path));
            count += 1;
        }
    }
    assert!(count > 0, "the dashboard names none?");
}

#[test]
fn the_dashboard_and_the_seccomp_profile_are_json() {
    for path in files(&[".json"]) {
        let text = fs::read_to_string(&path).unwrap();
        let value: Result<serde_json::Value, _> = serde_json::from_str(&text);
        assert!(value.is_ok(), "{}: {value:?}", relative(&path));
    }
    let text = fs::read_to_string(workspace().join("deploy/seccomp.json")).unwrap();
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(text.contains(&format!("\"{call}\"")), "the seccomp profile does not allow {call}");
    }
}
