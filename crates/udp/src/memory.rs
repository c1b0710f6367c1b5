//! What the allocator keeps, given back to the system. It stands here because unsafe code stands nowhere else.

/// Gives memory that is free back to the system, which the C library keeps otherwise, whatever it is. Takes some ms for a heap of
/// some tens of MB, and who allocates waits meanwhile.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn release_memory() {
    // SAFETY: it takes no pointer, and any thread may call it at any time.
    let _released = unsafe { libc::malloc_trim(0) };
}

/// Nothing: other C libraries give memory back by themselves, or not at all.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn release_memory() {}
