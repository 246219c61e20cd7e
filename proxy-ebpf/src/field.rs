//! Reading fields of kernel structures by their offsets.
//!
//! TCP sockets are type-stable: a `tcp_sock` that was freed and used again is still a
//! `tcp_sock`, so a read through an old address gives a wrong number, never a fault; and
//! `bpf_probe_read_kernel` does not fault in any case.

use aya_ebpf::helpers::bpf_probe_read_kernel;

use crate::maps::offsets;

/// A socket's address as a number. The verifier lets nobody calculate with a pointer to a
/// socket; what a helper has copied is a number to it.
#[inline(always)]
pub(crate) fn address(socket: *mut core::ffi::c_void) -> u64 {
    let pointer = socket;
    // SAFETY: reads a variable of ours.
    unsafe { bpf_probe_read_kernel((&raw const pointer).cast::<u64>()) }.unwrap_or_default()
}

/// Reads a number at `base + offset`, 0 where that is no memory.
#[inline(always)]
pub(crate) fn read<T: Default>(base: u64, offset: u32) -> T {
    // SAFETY: the helper checks the address and fills or zeroes the whole value.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.unwrap_or_default()
}

/// Whether a connection can still send, or receive.
#[inline(always)]
pub(crate) fn is_alive(socket: u64, sends: bool) -> bool {
    // TCP_ESTABLISHED, TCP_CLOSE_WAIT; TCP_FIN_WAIT1, TCP_FIN_WAIT2 (<net/tcp_states.h>).
    match read::<u8>(socket, offsets().sock_state) {
        1 => true,
        8 => sends,
        4 | 5 => !sends,
        _ => false,
    }
}
