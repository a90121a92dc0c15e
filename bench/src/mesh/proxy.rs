//! A real `ringway` under the daemon.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::daemon::{Operator, http_get};
use super::{Setup, failed};
use crate::core::free_address;

/// It has to join, and to read ten thousand services.
const READY: Duration = Duration::from_secs(60);

/// The process; killed when dropped.
pub(super) struct Proxy {
    child: Child,
    admin: SocketAddr,
}

impl Proxy {
    /// Joins a group, and waits until it is ready. `cpu`: where its one core runs; absent: wherever.
    pub(super) async fn start(
        setup: &Setup,
        dir: &Path,
        operator: &mut Operator,
        group: &str,
        cpu: Option<usize>,
    ) -> io::Result<Proxy> {
        let (dir, admin) = (dir.join(group), free_address()?);
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("token"), operator.token(group, 1).await?)?;
        let cores = cpu.map_or_else(|| "1".into(), |cpu| format!("[{cpu}]"));
        let file = format!(
            "daemon: {{ token: token, state: state }}\nadmin: {{ address: {admin} }}\ncores: {cores}\n\
             limits: {{ connections: 4000 }}\n"
        );
        std::fs::write(dir.join("ringway.yaml"), file)?;
        let output = std::fs::File::create(dir.join("ringway.out"))?;
        let mut command = Command::new(&setup.ringway);
        command.args(["run", "-c", "ringway.yaml"]).current_dir(&dir);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().map_err(|error| failed(format!("{}: {error}", setup.ringway.display())))?;
        let mut proxy = Proxy { child, admin };
        let until = Instant::now() + READY;
        while !http_get(admin, "/ready").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            if let Some(status) = proxy.child.try_wait()? {
                return Err(failed(format!("ringway ended ({status}); see {}", dir.join("ringway.out").display())));
            }
            if Instant::now() > until {
                return Err(failed(format!("the proxy of `{group}` is not ready within a minute")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(proxy)
    }

    /// Its processes.
    pub(super) fn pids(&self) -> Vec<u32> {
        vec![self.child.id()]
    }

    /// The sum of a metric over its labels.
    pub(super) fn metric(&self, name: &str) -> io::Result<f64> {
        let text = http_get(self.admin, "/metrics")?;
        let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        Ok(text.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
