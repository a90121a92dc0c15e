//! Setting up the ring: which features the kernel has, and what to tell a person when it has none.

use io_uring::{IoUring, Probe, opcode};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// What the kernel offers, found by trying.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `uname -r`
    pub release: String,
    /// No array between submission queue and entries (6.6).
    pub no_sq_array: bool,
    /// The ring's descriptor can be registered (5.18).
    pub registered_ring: bool,
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}, io_uring: defer-taskrun multishot buffer-rings", self.release)?;
        if self.no_sq_array {
            f.write_str(" no-sqarray")?;
        }
        if self.registered_ring {
            f.write_str(" registered-ring")?;
        }
        Ok(())
    }
}

/// Why there is no ring, and the remedy.
#[derive(Debug)]
pub enum StartError {
    /// EPERM or EACCES: a seccomp filter, or `kernel.io_uring_disabled`.
    Blocked,
    /// ENOSYS: this kernel was built without io_uring.
    Missing,
    /// EINVAL for the flags we need, or operations are lacking: older than 6.1.
    TooOld {
        /// `uname -r`
        release: String,
    },
    /// ENOMEM: the locked-memory limit.
    LockedMemory,
    /// Anything else.
    Other(io::Error),
}

impl StartError {
    pub(crate) fn from_setup(error: io::Error) -> StartError {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => StartError::Blocked,
            Some(libc::ENOSYS) => StartError::Missing,
            Some(libc::EINVAL) => StartError::TooOld { release: release() },
            Some(libc::ENOMEM) => StartError::LockedMemory,
            _ => StartError::Other(error),
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Blocked => f.write_str(
                "io_uring is blocked here: allow it with `sysctl kernel.io_uring_disabled=0` (1 admits only a group), \
                 or in a container with a seccomp profile that allows io_uring_setup, io_uring_enter and \
                 io_uring_register (deploy/seccomp.json)",
            ),
            StartError::Missing => f.write_str(
                "this kernel has no io_uring: it was built without CONFIG_IO_URING; run a kernel of 6.1 or later that has it",
            ),
            StartError::TooOld { release } => write!(
                f,
                "this kernel ({release}) is too old: io_uring with deferred task work and buffer rings needs 6.1 or later",
            ),
            StartError::LockedMemory => f.write_str(
                "out of locked memory for io_uring: raise the limit (`ulimit -l`, LimitMEMLOCK= in systemd, \
                 --ulimit memlock= in Docker) to at least 8 MiB a core",
            ),
            StartError::Other(error) => write!(f, "io_uring cannot be set up: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Tries out what the kernel offers.
///
/// # Errors
/// The kernel has not what a core needs; which, and the remedy.
pub fn probe() -> Result<Features, StartError> {
    let mut features = Features { release: release(), no_sq_array: true, registered_ring: false };
    let ring = match open_ring(8, 16, &features) {
        Err(StartError::TooOld { .. }) => {
            features.no_sq_array = false;
            open_ring(8, 16, &features)?
        }
        other => other?,
    };
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(StartError::from_setup)?;
    // SEND_ZC came with 6.0, as did multishot receive, which cannot be asked for.
    let needed = [opcode::SendZc::CODE, opcode::RecvMulti::CODE, opcode::AcceptMulti::CODE, opcode::AsyncCancel::CODE];
    if !needed.iter().all(|code| probe.is_supported(*code)) || !ring.params().is_feature_ext_arg() {
        return Err(StartError::TooOld { release: features.release });
    }
    features.registered_ring = register_ring(ring.as_raw_fd()).is_some();
    Ok(features)
}

/// Opens a ring for the calling thread.
pub(crate) fn open_ring(submissions: u32, completions: u32, features: &Features) -> Result<IoUring, StartError> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(completions);
    if features.no_sq_array {
        builder.setup_no_sqarray();
    }
    builder.build(submissions).map_err(StartError::from_setup)
}

/// Registers a ring's descriptor for the calling thread (IORING_REGISTER_RING_FDS), so that entering looks nothing up.
pub(crate) fn register_ring(fd: i32) -> Option<i32> {
    #[repr(C)]
    struct Update {
        offset: u32,
        reserved: u32,
        data: u64,
    }
    const REGISTER_RING_FDS: libc::c_uint = 20;
    let mut update = Update { offset: u32::MAX, reserved: 0, data: fd as u64 };
    // SAFETY: the kernel reads and writes one update.
    let count = unsafe { libc::syscall(libc::SYS_io_uring_register, fd, REGISTER_RING_FDS, &raw mut update, 1) };
    (count == 1).then_some(update.offset as i32)
}

/// Enters a ring: submits `queued` entries and waits for `want` completions, at most `timeout_ns`.
#[inline]
pub(crate) fn enter(fd: i32, queued: u32, want: u32, flags: u32, timeout_ns: Option<u64>) -> Result<u32, i32> {
    #[repr(C)]
    struct Argument {
        sigmask: u64,
        sigmask_bytes: u32,
        min_wait_us: u32,
        timeout: u64,
    }
    const GETEVENTS: u32 = 1;
    let time = timeout_ns.map(|ns| [(ns / 1_000_000_000) as i64, (ns % 1_000_000_000) as i64]);
    let argument = Argument {
        sigmask: 0,
        sigmask_bytes: 8,
        min_wait_us: 0,
        timeout: time.as_ref().map_or(0, |time| time.as_ptr() as u64),
    };
    // SAFETY: the argument and the time it names outlive the call; queued entries keep their memory (see `driver`).
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            fd,
            queued,
            want,
            flags | GETEVENTS,
            &raw const argument,
            size_of::<Argument>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO));
    }
    Ok(result as u32)
}

/// A new eventfd.
pub(crate) fn event() -> io::Result<OwnedFd> {
    // SAFETY: a plain call.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds one to an eventfd.
pub(crate) fn event_write(fd: i32) {
    let one = 1u64;
    // SAFETY: eight bytes are read from `one`. It fails only when the counter is full, which wakes as well.
    unsafe { libc::write(fd, (&raw const one).cast(), 8) };
}

fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "unknown".into(), |text| text.trim().into())
}
