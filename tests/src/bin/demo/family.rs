//! Processes that do not outlive the demo, however it ends.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A process group of its own: Ctrl-C in the terminal reaches the demo alone. Its first member waits for the end of a
/// pipe that only the demo holds, and then ends the whole group; so nothing is left over even when the demo is killed.
pub(crate) struct Family {
    watch: Child,
}

impl Family {
    pub(crate) fn new() -> io::Result<Family> {
        let mut watch = Command::new("sh");
        watch.args(["-c", "read _; kill -9 0"]).process_group(0);
        watch.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Family { watch: watch.spawn()? })
    }

    /// Starts one more.
    pub(crate) fn start(&self, command: &mut Command) -> Result<Child, String> {
        let group = i32::try_from(self.watch.id()).expect("process ids are positive");
        let started = command.process_group(group).stdin(Stdio::null()).spawn();
        started.map_err(|error| format!("{}: {error}", command.get_program().display()))
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        drop(self.watch.stdin.take());
        let _status = self.watch.wait();
    }
}
