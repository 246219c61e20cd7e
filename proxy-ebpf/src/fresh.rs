//! What of a segment is new to a socket's reader: the rest is cut off.

use aya_ebpf::{bindings::BPF_ANY, programs::SkBuffContext};
use proxy_ebpf::{Input, Protection, SocketAddress};

use crate::{
    field::read,
    maps::{UP_INPUTS, offsets, without},
};

/// Bytes that `bpf_skb_adjust_room` takes off at once, at most.
const STEP: u32 = 0xfff;

/// Steps, at most: a segment that the kernel has put together is as long as 17 pages of 32 KB.
const STEPS: u32 = 140;

/// What a program has to do with a segment.
pub(crate) enum Fresh {
    /// Whatever it is there for: every byte of it is new.
    Whole,
    /// Nothing: none is.
    Nothing,
}

/// Cuts off what `socket` was given before.
#[inline(always)]
pub(crate) fn cut(ctx: &SkBuffContext, socket: SocketAddress) -> Fresh {
    if without(Protection::Overlap) {
        return Fresh::Whole;
    }
    let bytes = ctx.len();
    let seq: u32 = read(ctx.skb.skb as u64, offsets().skb_seq);
    let end = seq.wrapping_add(bytes);
    let Some(input) = UP_INPUTS.get_ptr_mut(&socket) else {
        // Given up for another one: all that can be known is that it begins here.
        let input = Input { next: end, is_broken: 0 };
        let _ = UP_INPUTS.insert(&socket, &input, u64::from(BPF_ANY));
        return Fresh::Whole;
    };
    // SAFETY: an element of the map; the socket is locked while this runs, and has one program.
    let input = unsafe { &mut *input };
    let known = input.next.wrapping_sub(seq);
    if input.is_broken != 0 {
        return Fresh::Nothing;
    }
    // As sequence numbers are compared (RFC 9293, section 3.4).
    if known as i32 <= 0 {
        input.next = end;
        return Fresh::Whole;
    }
    if known >= bytes {
        return Fresh::Nothing;
    }
    input.next = end;
    if !without(Protection::Cut) && cut_off(ctx, known) {
        return Fresh::Whole;
    }
    // No memory. What is new in it is lost with what is old: nothing that follows is delivered,
    // and the proxy makes the end a reset.
    input.is_broken = 1;
    Fresh::Nothing
}

/// Takes the first `bytes` off.
#[inline(always)]
fn cut_off(ctx: &SkBuffContext, bytes: u32) -> bool {
    let mut left = bytes;
    for _ in 0..STEPS {
        if left == 0 {
            return true;
        }
        let step = if left > STEP { STEP } else { left };
        if ctx.adjust_room(-(step as i32), 0, 0).is_err() {
            return false;
        }
        left -= step;
    }
    left == 0
}
