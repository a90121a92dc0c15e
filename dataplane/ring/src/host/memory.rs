//! Anonymous memory: page-aligned, zero, and without cost until it is touched.

use std::ptr::NonNull;

/// Keeps the kernel from backing this process with huge pages (prctl PR_SET_THP_DISABLE): an allocator that asks for
/// them is charged two megabytes for each page that it touches. To be called first.
pub fn small_pages() {
    // SAFETY: a plain call; where the kernel does not know it, nothing changes.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

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
