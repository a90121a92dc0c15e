//! A control group for one proxy, so that the kernel counts all memory it causes: sockets and slab too. Needs cgroup v2 with the
//! memory controller and the right to make groups (root, outside a container as a rule); without it, memory by group is "not measured".

use std::fs;
use std::path::{Path, PathBuf};

use crate::proc::GROUP;

const ROOT: &str = "/sys/fs/cgroup";

/// A group of its own; removed with this value, when its members have ended.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the group, or none where that is not possible.
    pub(crate) fn make(name: &str) -> Option<Cgroup> {
        Cgroup::make_under(Path::new(ROOT), name)
    }

    fn make_under(root: &Path, name: &str) -> Option<Cgroup> {
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).ok()?;
        if !controllers.split_whitespace().any(|controller| controller == "memory") {
            return None;
        }
        // Often on already; where processes of the root group forbid it, `memory.current` will be missing below.
        let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
        let path = root.join(format!("{GROUP}{}-{name}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let cgroup = Cgroup { path };
        fs::read_to_string(cgroup.path.join("memory.current")).ok().map(|_| cgroup)
    }

    /// The file that a process writes its id to in order to join.
    pub(crate) fn members(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_memory_controller_there_is_no_group() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Cgroup::make_under(dir.path(), "a").is_none());
        fs::write(dir.path().join("cgroup.controllers"), "cpu io\n").unwrap();
        assert!(Cgroup::make_under(dir.path(), "a").is_none());
    }

    #[test]
    fn a_group_that_does_not_count_memory_is_refused_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), "cpu memory\n").unwrap();
        assert!(Cgroup::make_under(dir.path(), "a").is_none());
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().filter(|entry| entry.path().is_dir()).collect();
        assert!(left.is_empty());
    }
}
