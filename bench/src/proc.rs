//! What the kernel says about processes: CPU time from the scheduler, memory, children, CPUs allowed.
//!
//! CPU time is the sum of `/proc/PID/task/*/schedstat` (nanoseconds on a CPU, proc_pid_schedstat(5)) over all threads,
//! io_uring's workers among them: the kernel charges them to the process that asked.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

/// Memory of a group of processes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Sum of `VmRSS`: what `ps` shows; pages that processes share count once for each.
    pub(crate) rss: u64,
    /// Sum of `Pss` from `smaps_rollup`: shared pages divided among their sharers; 0 when the kernel does not tell.
    pub(crate) pss: u64,
    /// The whole machine's slab and page tables: where sockets and their buffers' heads live. Of use as a difference.
    pub(crate) kernel: u64,
    /// What the processes' own control group is charged for, sockets included; none when they have no group of their own.
    pub(crate) cgroup: Option<u64>,
}

/// Control groups of measured processes have names that begin so.
pub(crate) const GROUP: &str = "ringway-bench-";

/// Nanoseconds that all threads of these processes have spent on a CPU. A thread that ended takes its share along;
/// no proxy measured here ends threads under load ([`ticks_ns`] would show it).
pub(crate) fn run_ns(pids: &[u32]) -> io::Result<u64> {
    let mut sum = 0;
    for pid in pids {
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end between the listing and the reading.
            if let Ok(text) = fs::read_to_string(entry?.path().join("schedstat")) {
                sum += first_number(&text).unwrap_or(0);
            }
        }
    }
    Ok(sum)
}

/// The same from `/proc/PID/stat` (user and system time in hundredths of a second, ended threads included): a cross-check.
pub(crate) fn ticks_ns(pids: &[u32]) -> io::Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        sum += stat_ticks(&text).unwrap_or(0);
    }
    // USER_HZ is 100 on every architecture that Rust's std supports with io_uring.
    Ok(sum * 10_000_000)
}

/// Memory of these processes, and the kernel's.
pub(crate) fn memory(pids: &[u32]) -> io::Result<Memory> {
    let mut memory = Memory::default();
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        memory.rss += kib_field(&status, "VmRSS:").unwrap_or(0);
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        memory.pss += kib_field(&rollup, "Pss:").unwrap_or(0);
        memory.cgroup = memory.cgroup.or_else(|| group_memory(*pid));
    }
    let machine = fs::read_to_string("/proc/meminfo")?;
    for name in ["Slab:", "PageTables:"] {
        memory.kernel += kib_field(&machine, name).unwrap_or(0);
    }
    Ok(memory)
}

/// The most resident memory that these processes ever had, each at its own time, bytes.
pub(crate) fn peak_rss(pids: &[u32]) -> io::Result<u64> {
    pids.iter().try_fold(0, |sum, pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(sum + kib_field(&status, "VmHWM:").unwrap_or(0))
    })
}

/// A process and all its descendants, the process first.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut members = vec![pid];
    let mut at = 0;
    while let Some(&parent) = members.get(at) {
        members.extend(children(parent));
        at += 1;
    }
    members
}

/// A child is listed under the thread that made it.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// The CPUs that this process may run on.
pub(crate) fn allowed_cpus() -> io::Result<Vec<usize>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let list = field(&status, "Cpus_allowed_list:").unwrap_or("0");
    Ok(cpu_list(list))
}

/// Descriptor limit of this process: (soft, hard).
pub(crate) fn descriptors() -> io::Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/self/limits")?;
    let line = field(&text, "Max open files").unwrap_or("1024 1024");
    let mut words = line.split_whitespace().map(|word| word.parse().unwrap_or(u64::MAX));
    Ok((words.next().unwrap_or(1024), words.next().unwrap_or(1024)))
}

fn group_memory(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let group = own_group(&text)?;
    fs::read_to_string(format!("/sys/fs/cgroup{group}/memory.current")).ok()?.trim().parse().ok()
}

/// The path of a version 2 group that was made for measuring: others hold other processes too.
fn own_group(text: &str) -> Option<&str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    path.rsplit('/').next()?.starts_with(GROUP).then_some(path)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// utime + stime, the 14th and 15th fields of proc_pid_stat(5), counted behind the name's closing parenthesis.
fn stat_ticks(text: &str) -> Option<u64> {
    let rest = &text[text.rfind(')')? + 1..];
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn kib_field(text: &str, name: &str) -> Option<u64> {
    Some(first_number(field(text, name)?)? * 1024)
}

/// `0-2,5` as numbers.
fn cpu_list(list: &str) -> Vec<usize> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let mut ends = part.splitn(2, '-').map(|word| word.trim().parse::<usize>());
        match (ends.next(), ends.next()) {
            (Some(Ok(first)), Some(Ok(last))) => cpus.extend(first..=last),
            (Some(Ok(only)), None) => cpus.push(only),
            _ => {}
        }
    }
    cpus
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn lists_of_cpus() {
        assert_eq!(cpu_list("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(cpu_list("3\n"), [3]);
        assert_eq!(cpu_list("0-1,4-5"), [0, 1, 4, 5]);
        assert!(cpu_list("").is_empty());
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let text = "42 (a b) c) S 1 42 42 0 -1 4194560 1 0 0 0 700 30 0 0 20 0 1 0 5 1 1";
        assert_eq!(stat_ticks(text), Some(730));
        assert_eq!(stat_ticks("no parenthesis"), None);
    }

    #[test]
    fn kib_become_bytes() {
        assert_eq!(kib_field("Name:\tx\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12 * 1024));
        assert_eq!(kib_field("Name:\tx\n", "VmRSS:"), None);
    }

    #[test]
    fn only_a_group_made_for_measuring_is_read() {
        assert_eq!(own_group("4:memory:/x\n0::/ringway-bench-7-nginx\n"), Some("/ringway-bench-7-nginx"));
        assert_eq!(own_group("0::/user.slice\n"), None);
        assert_eq!(own_group("4:memory:/ringway-bench-7\n"), None);
    }

    #[test]
    fn spinning_is_charged_by_both_accounts_and_sleeping_is_not() {
        let pids = [std::process::id()];
        let (run, ticks) = (run_ns(&pids).unwrap(), ticks_ns(&pids).unwrap());
        let until = Instant::now() + Duration::from_millis(200);
        while Instant::now() < until {}
        let (run, ticks) = (run_ns(&pids).unwrap() - run, ticks_ns(&pids).unwrap() - ticks);
        // Other tests run beside this one and share its CPUs, so only the lower bounds are firm.
        assert!(run > 40_000_000, "{run}");
        assert!(ticks > 20_000_000, "{ticks}");
    }

    #[test]
    fn memory_of_this_process_is_not_nothing() {
        let memory = memory(&[std::process::id()]).unwrap();
        assert!(memory.rss > 100 * 1024);
        assert!(memory.kernel > 0);
    }

    #[test]
    fn a_child_belongs_to_the_family() {
        let mut child = std::process::Command::new("sleep").arg("5").spawn().unwrap();
        let members = family(std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(members[0], std::process::id());
        assert!(members.contains(&child.id()), "{members:?}");
    }
}
