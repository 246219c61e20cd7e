//! Gives back what loading and probing took: the object and its sections, the kernel's type
//! information, the buffers of private tunnels. It is all freed, but the C library keeps the
//! pages for as long as the process lives.

/// Returns free memory to the system, where the C library has a call for it (glibc:
/// malloc_trim(3)).
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: releases free pages only; callable at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
