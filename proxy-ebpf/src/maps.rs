//! Maps that the programs share with the proxy; names and meaning are in the ABI.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LruHashMap, ProgramArray, SockHash},
};
use proxy_ebpf::{
    ABI_VERSION, Input, Lane, MAX_INPUTS, MAX_SOCKETS, Offsets, Protection, Route, SocketAddress,
    SocketKey, lane::MAX_LANES,
};

/// Filled in by the loader.
#[unsafe(no_mangle)]
static UP_OFFSETS: Offsets = Offsets {
    tcp_write_seq: 0,
    tcp_copied_seq: 0,
    tcp_rcv_nxt: 0,
    tcp_snd_una: 0,
    sock_state: 0,
    sock_rcvbuf: 0,
    sock_rmem_alloc: 0,
    sock_sndbuf: 0,
    sock_wmem_queued: 0,
    sock_rcvlowat: 0,
    sock_socket: 0,
    socket_file: 0,
    file_flags: 0,
    skb_seq: 0,
};

/// Filled in by the loader of a build for tests.
#[unsafe(no_mangle)]
static UP_WITHOUT: u32 = 0;

#[map]
static UP_ABI: Array<u32> = Array::with_max_entries(ABI_VERSION, 0);

#[map]
static UP_LANES: Array<Lane> = Array::with_max_entries(MAX_LANES, BPF_F_MMAPABLE);

#[map]
static UP_ROUTES: HashMap<SocketAddress, Route> =
    HashMap::with_max_entries(MAX_LANES, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static UP_INPUTS: LruHashMap<SocketAddress, Input> =
    LruHashMap::with_max_entries(MAX_INPUTS, 0);

#[map]
pub(crate) static UP_PROGRAMS: ProgramArray = ProgramArray::with_max_entries(1, 0);

#[map]
pub(crate) static UP_APPS: SockHash<SocketKey> = SockHash::with_max_entries(MAX_SOCKETS, 0);

#[map]
pub(crate) static UP_PASSED: SockHash<SocketKey> = SockHash::with_max_entries(MAX_SOCKETS, 0);

#[map]
pub(crate) static UP_TARGETS: SockHash<SocketKey> = SockHash::with_max_entries(MAX_SOCKETS, 0);

#[map]
pub(crate) static UP_SOURCES: SockHash<SocketKey> = SockHash::with_max_entries(MAX_SOCKETS, 0);

/// Where the fields lie in this kernel. To the verifier these are constants.
#[inline(always)]
pub(crate) fn offsets() -> Offsets {
    // SAFETY: a static of ours; volatile because the loader, not the compiler, knows what
    // is in it.
    unsafe { core::ptr::read_volatile(&raw const UP_OFFSETS) }
}

/// Whether a test has taken this away. A constant to the verifier, too.
#[inline(always)]
pub(crate) fn without(protection: Protection) -> bool {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const UP_WITHOUT) & protection.bit() != 0 }
}

/// The route of a socket and the lane that it counts on.
#[inline(always)]
pub(crate) fn route_of(socket: SocketAddress) -> Option<(&'static Route, *mut Lane)> {
    // SAFETY: entries are changed by whole replacement only, and a program runs under RCU.
    let route = unsafe { UP_ROUTES.get(&socket) }?;
    let lane = UP_LANES.get_ptr_mut(route.lane)?;
    Some((route, lane))
}
