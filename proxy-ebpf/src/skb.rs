//! `up_skb`: sends what an own socket receives out on the other one of its tunnel.
//!
//! Runs in softirq where a segment has arrived. Bytes that it passes are read and written on
//! by the proxy; none is redirected before they have been (`passed == taken`). What it
//! redirects waits in the kernel for a worker thread to send it: what is on its way is the
//! bytes moved, less those that have left, which the receiver's `write_seq` tells.
//! Above the budget it passes, and TCP holds the sender back once the proxy stops reading.

use aya_ebpf::{
    bindings::sk_action::{SK_DROP, SK_PASS},
    helpers::bpf_ktime_get_ns,
    macros::stream_verdict,
    programs::SkBuffContext,
};
use aya_log_ebpf::trace;
use proxy_ebpf::{Lane, Protection, Route, SocketAddress};

use crate::{
    field::{is_alive, read},
    fresh::{Fresh, cut},
    maps::{UP_TARGETS, offsets, route_of, without},
};

/// Segments that may be on their way: a small one takes about a kilobyte of kernel memory
/// whatever is in it.
const MAX_PIECES: u64 = 512;

#[stream_verdict]
fn up_skb(ctx: SkBuffContext) -> u32 {
    let socket = socket_of(&ctx);
    if ctx.len() == 0 && !without(Protection::BareFin) {
        return end();
    }
    if let Fresh::Nothing = cut(&ctx, socket) {
        return SK_DROP;
    }
    let bytes = ctx.len();
    let Some((route, lane)) = route_of(socket) else { return SK_PASS };
    // SAFETY: an element of the array; this socket is its only writer.
    let lane = unsafe { &mut *lane };
    if is_open(lane) && is_alive(route.receiver, true) && fits(route, lane, bytes) {
        if UP_TARGETS.redirect_skb(&ctx, route.target, 0) == i64::from(SK_PASS) {
            lane.moved_bytes += u64::from(bytes);
            lane.moved_messages += 1;
            // SAFETY: a helper without arguments.
            lane.moved_at = unsafe { bpf_ktime_get_ns() };
            trace!(&ctx, "{} bytes, {} moved so far", bytes, lane.moved_bytes);
            return SK_PASS;
        }
        lane.refused_target += 1;
    }
    lane.passed_bytes += u64::from(bytes);
    SK_PASS
}

/// Passes everything: what goes by here is where `FIONREAD` looks for it.
#[stream_verdict]
fn up_pass(ctx: SkBuffContext) -> u32 {
    trace!(&ctx, "passed {} bytes", ctx.len());
    if ctx.len() == 0 && !without(Protection::BareFin) {
        return end();
    }
    match cut(&ctx, socket_of(&ctx)) {
        Fresh::Whole => SK_PASS,
        Fresh::Nothing => SK_DROP,
    }
}

/// The socket that has received it.
#[inline(always)]
fn socket_of(ctx: &SkBuffContext) -> SocketAddress {
    // SAFETY: the context of this program type has this field; not followed, only compared.
    unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk as SocketAddress }
}

/// What becomes of a FIN without bytes. TCP has seen it: the reader finds the end behind the
/// last byte without this segment. Redirected, or passed while something else is queued,
/// it would reach the kernel's worker thread, which takes a segment without bytes for a
/// broken connection (EPIPE) and stops sending.
#[inline(always)]
fn end() -> u32 {
    SK_DROP
}

/// Whether redirects are allowed and nothing that was passed is still on its way.
#[inline(always)]
fn is_open(lane: &mut Lane) -> bool {
    // SAFETY: the proxy writes these two words. `open` first: it is set after `taken`.
    let (open, taken) = unsafe {
        (
            core::ptr::read_volatile(&raw const lane.open),
            core::ptr::read_volatile(&raw const lane.taken_bytes),
        )
    };
    if open == 0 {
        return false;
    }
    if taken != lane.passed_bytes && !without(Protection::SkbOrder) {
        lane.refused_order += 1;
        return false;
    }
    true
}

/// Whether what is on its way leaves room for so many bytes more.
#[inline(always)]
fn fits(route: &Route, lane: &mut Lane, bytes: u32) -> bool {
    let sent: u32 = read(route.receiver, offsets().tcp_write_seq);
    let due = route.k.wrapping_add(lane.moved_bytes as u32).wrapping_add(lane.taken_bytes as u32);
    let queued = due.wrapping_sub(sent);
    if queued == 0 {
        lane.pieces = 0;
    }
    lane.pieces += 1;
    let fits = queued.wrapping_add(bytes) <= route.budget_bytes && lane.pieces <= MAX_PIECES;
    if without(Protection::SkbBound) {
        return true;
    }
    if !fits {
        lane.refused_bound += 1;
    }
    fits
}
