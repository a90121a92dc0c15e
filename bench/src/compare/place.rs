//! Where things run: one CPU for the proxy, the others for load and origin, and the limits that they inherit.

use std::io;
use std::path::Path;
use std::process::Command;

use super::cgroup::Cgroup;
use crate::proc;

/// The CPUs and the descriptor limit of a comparison.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) proxy: usize,
    pub(crate) load: usize,
    /// The load's CPU where there are only two.
    pub(crate) origin: usize,
    pub(crate) descriptors: u64,
}

impl Place {
    /// Chooses among the CPUs that this process may use.
    ///
    /// # Errors
    /// When there is only one: the load would then be measured along with the proxy.
    pub(crate) fn choose() -> io::Result<Place> {
        let cpus = proc::allowed_cpus()?;
        let (_, descriptors) = proc::descriptors()?;
        let [first, .., last] = cpus[..] else {
            return Err(io::Error::other("comparing needs two CPUs: one for the proxy, one for load and origin"));
        };
        let origin = if cpus.len() > 2 { cpus[1] } else { first };
        Ok(Place { proxy: last, load: first, origin, descriptors: descriptors.min(1 << 20) })
    }

    /// A command pinned to `cpu`, with all descriptors that are allowed, that ends when this process does.
    pub(crate) fn command(&self, cpu: usize, program: &Path, cgroup: Option<&Cgroup>) -> Command {
        // util-linux has the three calls that this crate would need unsafe code for.
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={0}:{0}", self.descriptors));
        command.args(["setpriv", "--pdeathsig", "TERM", "taskset", "-c", &cpu.to_string()]);
        if let Some(cgroup) = cgroup {
            command.args(["sh", "-c", r#"echo $$ > "$0" && exec "$@""#]).arg(cgroup.members());
        }
        command.arg(program);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_run_pinned_with_all_descriptors() {
        let Ok(place) = Place::choose() else { return };
        let mut command = place.command(place.proxy, Path::new("sh"), None);
        let output = command.args(["-c", "ulimit -n; taskset -cp $$"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = said.lines();
        assert_eq!(lines.next(), Some(place.descriptors.to_string().as_str()));
        assert!(lines.next().unwrap().ends_with(&format!(": {}", place.proxy)), "{said}");
    }
}
