//! `up_msg`: local bypass. Runs inside an application's `sendmsg`, after its bytes have
//! been copied in, and hands them to their receiver without TCP in between.
//!
//! The gate (see [`proxy_ebpf::Route`]) keeps order and bound; where it is closed the bytes
//! take TCP's way to the proxy, which holds the sender back like any slow receiver. The
//! sender's socket is locked while this runs, so a lane has one writer.
//!
//! The receiver's fields are read before the redirect is asked for, and the redirect finds
//! the socket by a key that is never used again: if it is there, what was read was its own.

use aya_ebpf::{
    bindings::{
        BPF_F_INGRESS,
        sk_action::{SK_DROP, SK_PASS},
    },
    helpers::bpf_ktime_get_ns,
    macros::sk_msg,
    programs::SkMsgContext,
};
use aya_log_ebpf::trace;
use proxy_ebpf::{Form, Lane, Protection, Route};

use crate::{
    field::{is_alive, read},
    maps::{UP_APPS, UP_PROGRAMS, UP_TARGETS, offsets, route_of, without},
};

/// What the sockets hold on to. An application's socket outlives the proxy, and holds the
/// program that is attached to it; were that `up_msg`, which holds the map that the socket is
/// in, all of it would stay until the application closes. The array is emptied when the
/// proxy is gone, however it went; then there is nothing here but a pass.
#[sk_msg]
fn up_entry(ctx: SkMsgContext) -> u32 {
    // SAFETY: the programs of the array are of this type.
    let _ = unsafe { UP_PROGRAMS.tail_call(&ctx, 0) };
    SK_PASS
}

#[sk_msg]
fn up_msg(ctx: SkMsgContext) -> u32 {
    // SAFETY: the context of this program type has this field; not followed, only compared.
    let sender = unsafe { (*ctx.msg).__bindgen_anon_3.sk } as u64;
    let Some((route, lane)) = route_of(sender) else { return SK_PASS };
    // SAFETY: an element of the array; this sender is its only writer.
    let lane = unsafe { &mut *lane };
    // SAFETY: the proxy writes this word; a stale one is as good as being a little earlier.
    if unsafe { core::ptr::read_volatile(&raw const lane.open) } == 0 {
        return SK_PASS;
    }
    let size = ctx.size();
    // A connection that was reset, or said its FIN, is TCP's to refuse.
    let sends_on = route.form == Form::HalfBypass as u32;
    if size == 0 || !is_alive(route.sender, true) || !is_alive(route.receiver, sends_on) {
        return SK_PASS;
    }
    if route.form == Form::Bypass as u32 || route.form == Form::Hop as u32 {
        if !in_order(route, 0, true) {
            lane.refused_order += 1;
        } else if !has_room(route) {
            lane.refused_bound += 1;
        } else if UP_APPS.redirect_msg(&ctx, route.target, u64::from(BPF_F_INGRESS))
            == i64::from(SK_PASS)
        {
            moved(lane, size);
        } else {
            lane.refused_target += 1;
            if without(Protection::Target) {
                return SK_DROP;
            }
        }
    } else if route.form == Form::HalfBypass as u32 {
        if !in_order(route, lane.moved_bytes as u32, false) {
            lane.refused_order += 1;
        } else if !can_send(route, size) {
            lane.refused_bound += 1;
        } else if UP_TARGETS.redirect_msg(&ctx, route.target, 0) == i64::from(SK_PASS) {
            moved(lane, size);
        } else {
            lane.refused_target += 1;
            if without(Protection::Target) {
                return SK_DROP;
            }
        }
    }
    // Below the level set at load time the verifier removes this as dead code.
    trace!(&ctx, "{} bytes, {} moved so far", size, lane.moved_bytes);
    SK_PASS
}

/// Whether everything that was sent before has got where these bytes would go.
#[inline(always)]
fn in_order(route: &Route, moved: u32, read_by_app: bool) -> bool {
    if without(Protection::Order) {
        return true;
    }
    let offsets = offsets();
    let sent: u32 = read(route.sender, offsets.tcp_write_seq);
    let field = if read_by_app { offsets.tcp_copied_seq } else { offsets.tcp_write_seq };
    let arrived: u32 = read(route.receiver, field);
    sent.wrapping_sub(route.k) == arrived.wrapping_sub(moved)
}

/// Whether the receiving application has read enough of what it has been given, and wants to be
/// woken for a byte. With SO_RCVLOWAT it is told of any byte past TCP, though it waits for more,
/// and `up_pass` is given those of TCP only when there are as many: what stands before them in the
/// other queue is not to be read for so long (`tcp_bpf_recvmsg_parser`).
#[inline(always)]
fn has_room(route: &Route) -> bool {
    let offsets = offsets();
    if read::<i32>(route.receiver, offsets.sock_rcvlowat) > 1 && !without(Protection::LowWater) {
        return false;
    }
    if without(Protection::Bound) {
        return true;
    }
    let used: i32 = read(route.receiver, offsets.sock_rmem_alloc);
    let limit: i32 = read(route.receiver, offsets.sock_rcvbuf);
    if route.form == Form::Hop as u32 {
        return used <= limit / 2;
    }
    i64::from(used) <= i64::from(limit).max(i64::from(route.budget_bytes))
}

/// Whether our socket takes all of it at once. If it did not, the application's call would
/// wait for a socket that it does not know.
#[inline(always)]
fn can_send(route: &Route, size: u32) -> bool {
    let offsets = offsets();
    if without(Protection::Bound) {
        return true;
    }
    let used: i32 = read(route.receiver, offsets.sock_wmem_queued);
    let limit: i32 = read(route.receiver, offsets.sock_sndbuf);
    // Twice: each piece is charged with the structures around it.
    i64::from(used) + 2 * i64::from(size) <= i64::from(limit)
}

#[inline(always)]
fn moved(lane: &mut Lane, size: u32) {
    lane.moved_bytes += u64::from(size);
    lane.moved_messages += 1;
    // SAFETY: a helper without arguments.
    lane.moved_at = unsafe { bpf_ktime_get_ns() };
}
