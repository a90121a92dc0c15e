//! The configuration file: read, checked, translated. What is wrong with it comes as lines
//! `FILE:LINE:COLUMN: what is wrong, and what would be right`.

use api::Resources;
use plan::{Plan, World};
use std::path::Path;

/// A configuration of more than this is refused unread, bytes.
const MOST_BYTES: u64 = 64 << 20;

/// Reads a file into resources.
///
/// # Errors
/// One line a finding.
pub(crate) fn read(path: &Path) -> Result<Resources, Vec<String>> {
    let name = path.display().to_string();
    let text = text(path).map_err(|reason| vec![at_start(path, &reason)])?;
    let document =
        api::load(&text, &name).map_err(|findings| findings.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    Ok(api::translate(&document))
}

/// Compiles resources that came from a file.
///
/// # Errors
/// One line a rejection. A file whose model is checked has few (limits of a whole plan, such as that of all
/// patterns together), which name the resource, not a line.
pub(crate) fn compile(
    path: &Path,
    resources: &Resources,
    previous: Option<&Plan>,
    generation: u64,
    world: &World,
) -> Result<Plan, Vec<String>> {
    plan::compile(resources, previous, generation, world)
        .map_err(|rejections| rejections.iter().map(|rejection| at_start(path, &rejection.to_string())).collect())
}

/// A finding about a file as a whole.
pub(crate) fn at_start(path: &Path, what: &str) -> String {
    format!("{}:1:1: {what}", path.display())
}

fn text(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    if std::fs::metadata(path).map_err(cannot)?.len() > MOST_BYTES {
        return Err(format!("is larger than {} MiB", MOST_BYTES >> 20));
    }
    let bytes = std::fs::read(path).map_err(cannot)?;
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        format!("is not UTF-8 (in line {line})")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(content: &[u8]) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ringway.yaml");
        std::fs::write(&path, content).unwrap();
        let findings = read(&path).err().unwrap_or_default();
        let prefix = format!("{}:", path.display());
        findings.iter().map(|finding| finding.strip_prefix(&prefix).unwrap().to_owned()).collect()
    }

    #[test]
    fn what_cannot_be_read_is_a_finding() {
        let missing = read(Path::new("/nonexistent/ringway.yaml")).unwrap_err();
        assert_eq!(missing.len(), 1);
        assert!(missing[0].starts_with("/nonexistent/ringway.yaml:1:1: cannot be read"), "{}", missing[0]);
        assert_eq!(findings(b"listeners:\n  \xff: 1\n"), ["1:1: is not UTF-8 (in line 2)"]);
        assert!(!findings(b"listners: {}\n").is_empty());
    }

    #[test]
    fn what_only_the_compiler_refuses_is_a_finding_too() {
        let mut resources = Resources::default();
        resources.listeners.push(Default::default());
        let findings = compile(Path::new("ringway.yaml"), &resources, None, 1, &World::default()).unwrap_err();
        assert!(findings.len() > 1, "{findings:?}");
        assert!(findings.iter().all(|line| line.starts_with("ringway.yaml:1:1: listener: ")), "{findings:?}");
    }

    #[test]
    fn a_good_file_compiles() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ringway.yaml");
        std::fs::write(
            &path,
            "listeners:\n  web: { address: '127.0.0.1:8080', protocol: http, routes: [ { name: all, to: cart } ] }\n\
             services:\n  cart: { endpoints: ['10.0.0.1:80'] }\n",
        )
        .unwrap();
        let resources = read(&path).unwrap();
        let plan = compile(&path, &resources, None, 7, &World::default()).unwrap();
        assert_eq!((plan.generation, plan.listeners.len()), (7, 1));
    }
}
