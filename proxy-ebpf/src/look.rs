//! `up_hop`: looks at a TCP connection of ours from both ends, and enrols the application's.
//!
//! Run by the proxy on demand (`BPF_PROG_TEST_RUN`), never attached to a device: nobody's
//! connections are watched. The application's socket is found as the kernel finds it for a
//! segment of ours, by the same two addresses and ports the other way round.

use core::{ffi::c_void, mem::size_of};

use aya_ebpf::{
    bindings::{
        BPF_ANY, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as TupleV4,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as TupleV6,
    },
    helpers::{bpf_map_update_elem, bpf_sk_lookup_tcp, bpf_sk_release},
    macros::classifier,
    maps::SockHash,
    programs::TcContext,
};
use proxy_ebpf::{
    HopReport, HopRequest, Input, Protection, SocketKey,
    hop::{self, End},
};

use crate::{
    field::{address, is_listener, read},
    maps::{UP_APPS, UP_INPUTS, UP_PASSED, offsets, without},
};

/// Where request and report begin: behind the header, aligned.
const AT: usize = hop::HEADER_BYTES + 2;

#[classifier]
fn up_hop(ctx: TcContext) -> i32 {
    let Ok(request) = ctx.load::<HopRequest>(AT) else { return hop::BAD_REQUEST as i32 };
    let mut report = HopReport::default();
    report.status = look(&ctx, &request, &mut report);
    let _ = ctx.store(AT, &report, 0);
    report.status as i32
}

#[inline(always)]
fn look(ctx: &TcContext, request: &HopRequest, report: &mut HopReport) -> u32 {
    let own = lookup(ctx, request, false);
    if own.is_null() {
        return hop::NO_OWN;
    }
    let address = address(own);
    report.own = end(address);
    // A connection that is bound to a device is not found without it, but its listener is.
    let is_another = is_listener(address);
    // SAFETY: found above, and given back once.
    unsafe { bpf_sk_release(own) };
    if is_another {
        return hop::NO_OWN;
    }
    let peer = lookup(ctx, request, true);
    if peer.is_null() {
        return hop::NO_PEER;
    }
    let status = judge(peer, request, report);
    // SAFETY: found above, and given back once.
    unsafe { bpf_sk_release(peer) };
    status
}

#[inline(always)]
fn judge(peer: *mut c_void, request: &HopRequest, report: &mut HopReport) -> u32 {
    let address = address(peer);
    if is_listener(address) {
        // The connection is not made yet at that end (tcp(7), TCP_DEFER_ACCEPT): what is found for
        // it is whoever will make it.
        return hop::NOT_YET;
    }
    report.peer = end(address);
    let offsets = offsets();
    report.peer_receive_memory = read(address, offsets.sock_rmem_alloc);
    report.peer_receive_limit = read(address, offsets.sock_rcvbuf);
    report.peer_receive_low_water = read(address, offsets.sock_rcvlowat);
    let socket: u64 = read(address, offsets.sock_socket);
    if socket != 0 {
        report.peer_accepted = 1;
        let file: u64 = read(socket, offsets.socket_file);
        if file != 0 {
            report.peer_file_flags = read(file, offsets.file_flags);
        }
    }
    if !joined(&report.own, &report.peer) || !joined(&report.peer, &report.own) {
        return hop::NOT_OURS;
    }
    let must_be_quiet = request.action & hop::IF_QUIET != 0 && !without(Protection::Quiet);
    if must_be_quiet && report.peer.copied_seq != report.own.write_seq {
        return hop::NOT_QUIET;
    }
    if request.action & hop::ENROLL_MSG != 0 {
        let error = enroll(&UP_APPS, peer, request.key);
        if error != 0 {
            report.error = error;
            return hop::REFUSED;
        }
    }
    if request.action & hop::ENROLL_PASS != 0 {
        // Before the first segment comes: the application has read all that it was sent.
        let input = Input { next: report.peer.copied_seq, is_broken: 0 };
        let _ = UP_INPUTS.insert(&address, &input, u64::from(BPF_ANY));
        let error = enroll(&UP_PASSED, peer, request.key);
        if error != 0 {
            report.error = error;
            return hop::REFUSED;
        }
    }
    0
}

/// Whether what `receiver` expects lies within what `sender` has unacknowledged: two ends
/// that only look alike (address translation) agree by a chance of one in thousands of
/// millions for an idle connection, twice.
#[inline(always)]
fn joined(sender: &End, receiver: &End) -> bool {
    receiver.rcv_nxt.wrapping_sub(sender.snd_una) <= sender.write_seq.wrapping_sub(sender.snd_una)
}

#[inline(always)]
fn end(address: u64) -> End {
    let offsets = offsets();
    End {
        address,
        write_seq: read(address, offsets.tcp_write_seq),
        copied_seq: read(address, offsets.tcp_copied_seq),
        rcv_nxt: read(address, offsets.tcp_rcv_nxt),
        snd_una: read(address, offsets.tcp_snd_una),
    }
}

#[inline(always)]
fn enroll(map: &SockHash<SocketKey>, socket: *mut c_void, key: SocketKey) -> i32 {
    // SAFETY: a sockhash with keys of this type, a socket that is held.
    unsafe {
        bpf_map_update_elem(
            core::ptr::from_ref(map).cast_mut().cast(),
            (&raw const key).cast(),
            socket,
            0,
        ) as i32
    }
}

/// The socket that a segment from the peer to us would find, or one from us to the peer.
#[inline(always)]
fn lookup(ctx: &TcContext, request: &HopRequest, reversed: bool) -> *mut c_void {
    let (source, target, sport, dport) = if reversed {
        (request.own_address, request.peer_address, request.own_port, request.peer_port)
    } else {
        (request.peer_address, request.own_address, request.peer_port, request.own_port)
    };
    const THIS_NETNS: u64 = u64::MAX;
    if request.is_v6 == 0 {
        let mut tuple = TupleV4 { saddr: source[0], daddr: target[0], sport, dport };
        // SAFETY: the tuple is as long as the size says.
        unsafe {
            bpf_sk_lookup_tcp(
                ctx.skb.skb.cast(),
                (&raw mut tuple).cast::<bpf_sock_tuple>(),
                size_of::<TupleV4>() as u32,
                THIS_NETNS,
                0,
            )
            .cast()
        }
    } else {
        let mut tuple = TupleV6 { saddr: source, daddr: target, sport, dport };
        // SAFETY: the tuple is as long as the size says.
        unsafe {
            bpf_sk_lookup_tcp(
                ctx.skb.skb.cast(),
                (&raw mut tuple).cast::<bpf_sock_tuple>(),
                size_of::<TupleV6>() as u32,
                THIS_NETNS,
                0,
            )
            .cast()
        }
    }
}
