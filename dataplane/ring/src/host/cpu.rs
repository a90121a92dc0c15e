//! CPUs: which the process may use, keeping a thread on one, and giving way on all of them.

/// The CPUs of the process's affinity mask, in order.
pub fn allowed() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is an empty set, and the call writes at most its size.
    let (result, set) = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        (libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set), set)
    };
    if result != 0 {
        return vec![0];
    }
    // SAFETY: the index is below the set's size.
    (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}

/// Keeps the calling thread on one CPU.
///
/// # Errors
/// The CPU is not among those allowed.
pub fn pin(cpu: usize) -> std::io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(std::io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: an all-zero cpu_set_t is an empty set; the index is below its size.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Has the calling thread, and those that it starts from now on, give way to the other threads of the process where they want
/// the same CPU: it is `by` nicer (`nice(2)`), and 1.25 times per step smaller is its share.
///
/// # Errors
/// The kernel refuses it, as a seccomp profile may.
pub fn give_way(by: u8) -> std::io::Result<()> {
    // SAFETY: nice(2) takes no pointer. It may return -1 rightly, so that errno tells whether it failed.
    let (result, errno) = unsafe {
        let errno = libc::__errno_location();
        *errno = 0;
        (libc::nice(by.into()), *errno)
    };
    if result == -1 && errno != 0 { Err(std::io::Error::from_raw_os_error(errno)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `nice` of the calling thread, by proc(5).
    fn niceness() -> i64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn a_thread_that_gives_way_changes_no_other() {
        let before = niceness();
        let (own, child) = std::thread::spawn(|| {
            give_way(3).unwrap();
            (niceness(), std::thread::spawn(niceness).join().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!((own, child), ((before + 3).min(19), (before + 3).min(19)));
        assert_eq!(niceness(), before);
    }
}
