//! Maps that the programs share with the proxy; names and meaning are in the ABI.

use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray, SockHash},
};
use proxy_ebpf::{ABI_VERSION, Counter, MAX_SOCKETS, SocketKey};

#[map]
static UP_ABI: Array<u32> = Array::with_max_entries(ABI_VERSION, 0);

#[map]
static UP_SOCKETS: SockHash<SocketKey> = SockHash::with_max_entries(MAX_SOCKETS, 0);

#[map]
static UP_COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// Adds to a counter of this CPU.
pub(crate) fn count(counter: Counter, by: u64) {
    if let Some(slot) = UP_COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the pointer comes from the map and is not null; the slot belongs to this
        // CPU, and a stream verdict runs with preemption by another one of ours excluded.
        unsafe { *slot = (*slot).wrapping_add(by) };
    }
}
