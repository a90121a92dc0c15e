//! What the kernel says about this process, from `/proc/self`.

use std::fs;

/// Resident memory, bytes; 0 when it is not known.
pub(crate) fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Open descriptors; the one that counts them is not among them.
pub(crate) fn open_descriptors() -> u64 {
    fs::read_dir("/proc/self/fd").map_or(0, |entries| (entries.count() as u64).saturating_sub(1))
}

/// The soft limit of locked memory, as the kernel writes it: bytes, or `unlimited`.
pub(crate) fn locked_memory_limit() -> String {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
    line.and_then(|line| line.split_whitespace().next()).unwrap_or("unknown").to_owned()
}

/// What a thread of this process is doing, by its name: its state, and where in the kernel it waits.
pub(crate) fn thread_state(name: &str) -> String {
    let unknown = || "unknown".to_owned();
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return unknown() };
    for thread in threads.flatten() {
        let read = |file: &str| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
        if read("comm").trim() == name {
            let status = read("status");
            let state = status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or("unknown").trim();
            return format!("state {state}, wchan {}", read("wchan").trim());
        }
    }
    unknown()
}

/// What this machine is called.
pub(crate) fn name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Random bytes from the kernel.
pub(crate) fn random_bytes<const N: usize>() -> std::io::Result<[u8; N]> {
    use std::io::Read;
    let mut bytes = [0; N];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A random number from the kernel.
pub(crate) fn random_u64() -> std::io::Result<u64> {
    random_bytes().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_descriptors_and_a_thread() {
        assert!(resident_bytes() > 1 << 16);
        let before = open_descriptors();
        let open = fs::File::open("/proc/self/status").unwrap();
        assert!(open_descriptors() >= 3 && before >= 3);
        drop(open);
        assert_ne!(locked_memory_limit(), "unknown");
        assert!(!name().is_empty() && !name().contains(char::is_whitespace));
        let seen = std::thread::Builder::new().name("seen".into()).spawn(|| thread_state("seen")).unwrap();
        assert!(seen.join().unwrap().starts_with("state R"));
        assert_eq!(thread_state("nobody"), "unknown");
    }
}
