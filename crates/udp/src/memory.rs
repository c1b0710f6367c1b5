//! What the allocator keeps and what it gives back to the system. It stands here because unsafe code stands nowhere else.

/// Free memory at the end of a heap that the C library keeps. Reads of bulk flows take and free 128 KiB all the time; by
/// itself it keeps twice that, and each further piece costs page faults and system calls anew: a tenth of a bulk flow's CPU.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: libc::c_int = 16 << 20;
/// From this size on memory is mapped for itself and goes back to the system as soon as it is free.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED: libc::c_int = 1 << 20;

/// Makes the C library keep enough free memory for bulk flows. To be called once, at the start. What settings of its own the
/// environment has (`MALLOC_TRIM_THRESHOLD_` and others, mallopt(3)) give way to it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn keep_memory() {
    // SAFETY: it takes no pointer, and no other thread runs yet that would call it.
    let _kept = unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT) };
    // SAFETY: as above.
    let _mapped = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED) };
}

/// Nothing: other C libraries have no such settings.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_memory() {}

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
