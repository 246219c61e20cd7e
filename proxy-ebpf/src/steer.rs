//! `up_steer`: which worker gets a new connection. The BPF object of one listener.
//!
//! An object of its own, loaded once for each listener, because it needs little of what the
//! tunnels' programs need: no type information of the kernel, no sockhash, no CAP_NET_ADMIN. It
//! does need CAP_PERFMON beside CAP_BPF: without that the verifier also follows what a processor
//! may guess, where a loop that is bounded by a loaded number has no end.
//!
//! **When.** TCP looks its listener up when a SYN comes, and this program runs then
//! (`reuseport_select_sock` in net/core/sock_reuseport.c). The request that is made of the SYN
//! keeps that listener (`rsk_listener`); the ACK that completes it is not asked about again. So
//! a burst of SYNs is over before a worker has accepted, or counted, the first of them. What a
//! worker says of itself (`load`) is therefore not enough: the program counts what it has given
//! to a seat, the worker what it has taken, and the difference is on its way and weighs as much
//! as an open connection. What never arrives (a SYN flood, a client that is gone) is forgotten by
//! the worker (`proxy/src/listener/steer.rs`).
//!
//! It also runs for segments that open nothing: the ACK behind a SYN cookie, and what comes
//! late for a connection that is gone. They are steered like others and not counted.
//!
//! Equal seats are taken in turn by the hash of the connection. All are looked at: with the
//! counts exact there is no herd that a choice between two random ones would have to avoid, and
//! at 256 workers it is 512 cache lines for each SYN.
//!
//! Invariant: a seat that is closed, or whose socket is gone, is never chosen. A socket leaves
//! the array with its `close`, a worker that drains closes its seat before that. Where no socket
//! is found though a seat is open, the choice is the kernel's own, by hash; where no seat is
//! open, the connection is refused, as it would be a moment later.
#![no_std]
#![no_main]

mod object;

use aya_ebpf::{
    bindings::{
        BPF_F_MMAPABLE,
        sk_action::{SK_DROP, SK_PASS},
    },
    helpers::bpf_get_smp_processor_id,
    macros::{map, sk_reuseport},
    maps::{Array, PerCpuArray, ReusePortSockArray},
    programs::SkReuseportContext,
};
use proxy_ebpf::{
    ABI_VERSION, MAX_SEATS, Seat,
    seat::{BY_CPU, Choice},
};

/// Flags of a TCP header: where, and the two that tell a SYN from its answer.
const TCP_FLAGS_AT: usize = 13;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Filled in by the loader.
#[unsafe(no_mangle)]
static UP_WORKERS: u32 = 0;

/// Filled in by the loader.
#[unsafe(no_mangle)]
static UP_STEER_MODE: u32 = 0;

#[map]
static UP_ABI: Array<u32> = Array::with_max_entries(ABI_VERSION, 0);

// The loader makes the arrays as long as there are workers or CPUs.

#[map]
static UP_SEATS: Array<Seat> = Array::with_max_entries(MAX_SEATS, BPF_F_MMAPABLE);

#[map]
static UP_LISTENERS: ReusePortSockArray = ReusePortSockArray::with_max_entries(MAX_SEATS, 0);

#[map]
static UP_CPUS: Array<u32> = Array::with_max_entries(1, 0);

#[map]
static UP_CHOICES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Choice::ALL.len() as u32, 0);

#[sk_reuseport]
fn up_steer(ctx: SkReuseportContext) -> u32 {
    // SAFETY: statics of ours; volatile because the loader, not the compiler, knows what is in
    // them. To the verifier they are constants.
    let (workers, mode) = unsafe {
        (core::ptr::read_volatile(&raw const UP_WORKERS), {
            core::ptr::read_volatile(&raw const UP_STEER_MODE)
        })
    };
    if workers == 0 || workers > MAX_SEATS {
        return SK_PASS;
    }
    if mode == BY_CPU
        && let Some(seat) = seat_of_cpu()
        && give(&ctx, seat)
    {
        return done(Choice::Cpu, SK_PASS);
    }

    let first = ctx.hash() % workers;
    let mut least = u64::MAX;
    let mut chosen = MAX_SEATS;
    for step in 0..workers {
        let mut seat = first + step;
        if seat >= workers {
            seat -= workers;
        }
        if let Some(load) = load(seat)
            && load < least
        {
            (least, chosen) = (load, seat);
        }
    }
    if chosen == MAX_SEATS {
        return done(Choice::Refused, SK_DROP);
    }
    if give(&ctx, chosen) {
        return done(Choice::Load, SK_PASS);
    }
    // Its socket went without a word: whoever has one.
    for seat in 0..workers {
        if give(&ctx, seat) {
            return done(Choice::Load, SK_PASS);
        }
    }
    done(Choice::Hash, SK_PASS)
}

/// What the worker of a seat has to do, with what is on its way to it; `None` if it takes
/// nothing any more.
#[inline(always)]
fn load(seat: u32) -> Option<u64> {
    let seat = UP_SEATS.get_ptr(seat)?;
    // SAFETY: an element of the array; volatile because workers write to it meanwhile, and a
    // stale word is as good as being a little earlier.
    let (load, taken, closed, given) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*seat).load),
            core::ptr::read_volatile(&raw const (*seat).taken),
            core::ptr::read_volatile(&raw const (*seat).closed),
            core::ptr::read_volatile(&raw const (*seat).given),
        )
    };
    if closed != 0 {
        return None;
    }
    let mut on_the_way = given.wrapping_sub(taken);
    // More were taken than given: some came by the kernel's own choice.
    if on_the_way > u64::MAX / 2 {
        on_the_way = 0;
    }
    Some(load.wrapping_add(on_the_way) & (u64::MAX / 2))
}

/// Has the kernel take the socket of a seat, if that is open and has one.
#[inline(always)]
fn give(ctx: &SkReuseportContext, index: u32) -> bool {
    let Some(seat) = UP_SEATS.get_ptr_mut(index) else { return false };
    // SAFETY: as in `load`.
    if unsafe { core::ptr::read_volatile(&raw const (*seat).closed) } != 0 {
        return false;
    }
    if UP_LISTENERS.select_reuseport(ctx, index).is_err() {
        return false;
    }
    if opens(ctx) {
        // SAFETY: an element of the array; see `Seat::given` for other CPUs.
        unsafe { (*seat).given += 1 };
    }
    true
}

/// Whether this segment opens a connection. The data begin with the TCP header.
#[inline(always)]
fn opens(ctx: &SkReuseportContext) -> bool {
    let start = ctx.data();
    if start + TCP_FLAGS_AT + 1 > ctx.data_end() {
        return false;
    }
    // SAFETY: within the data, as was just seen.
    let flags = unsafe { *((start + TCP_FLAGS_AT) as *const u8) };
    flags & (SYN | ACK) == SYN
}

#[inline(always)]
fn seat_of_cpu() -> Option<u32> {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() } as u32;
    UP_CPUS.get(cpu)?.checked_sub(1)
}

/// Counts the outcome and gives it to the kernel.
#[inline(always)]
fn done(choice: Choice, action: u32) -> u32 {
    if let Some(count) = UP_CHOICES.get_ptr_mut(choice as u32) {
        // SAFETY: an element of this CPU's own.
        unsafe { *count += 1 };
    }
    action
}
