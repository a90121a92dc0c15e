//! Anonymous memory: page-aligned, zero, and without cost until it is touched.

use std::ptr::NonNull;

/// Maps memory; aborts when the machine has none, as an allocation would.
pub(crate) fn map_memory(bytes: usize) -> NonNull<u8> {
    // SAFETY: a fresh anonymous mapping touches nothing that exists.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_ANONYMOUS | libc::MAP_PRIVATE,
            -1,
            0,
        )
    };
    assert!(memory != libc::MAP_FAILED, "no memory for {bytes} bytes of buffers");
    // SAFETY: mmap does not return null without MAP_FIXED.
    unsafe { NonNull::new_unchecked(memory.cast()) }
}

/// Unmaps what [`map_memory`] mapped; nobody may hold a pointer into it any more.
pub(crate) fn unmap_memory(memory: NonNull<u8>, bytes: usize) {
    // SAFETY: the mapping is the caller's (the owner's destructor), of this length.
    unsafe { libc::munmap(memory.as_ptr().cast(), bytes) };
}
