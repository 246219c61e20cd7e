//! Reading fields of kernel structures by their offsets.
//!
//! TCP sockets are type-stable: a `tcp_sock` that was freed and used again is still a
//! `tcp_sock`, so a read through an old address gives a wrong number, never a fault; and
//! `bpf_probe_read_kernel` does not fault in any case.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::maps::offsets;

/// A socket's address as a number. The verifier lets nobody calculate with a pointer to a
/// socket; what a helper has copied is a number to it.
#[inline(always)]
pub(crate) fn address(socket: *mut core::ffi::c_void) -> u64 {
    let pointer = socket;
    read((&raw const pointer) as u64, 0)
}

/// Reads a number at `base + offset`, 0 where that is no memory.
#[inline(always)]
pub(crate) fn read<T: Default>(base: u64, offset: u32) -> T {
    let mut value = T::default();
    let address = (base + u64::from(offset)) as *const core::ffi::c_void;
    // SAFETY: the helper checks the address, and fills or zeroes the whole value. What it
    // returns is not looked at: each branch would double the paths that the verifier walks.
    unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, address) };
    value
}

/// Whether a socket is one that connections come to, not one of them.
#[inline(always)]
pub(crate) fn is_listener(socket: u64) -> bool {
    // TCP_LISTEN (<net/tcp_states.h>).
    read::<u8>(socket, offsets().sock_state) == 10
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
