//! `up_count`: counts what an enrolled socket receives and lets it pass.
//!
//! Attached as stream verdict to the sockhash. It is the proof that build, load, attach,
//! counters and log work on a kernel, and the pattern for the programs that redirect.

use aya_ebpf::{bindings::sk_action::SK_PASS, macros::stream_verdict, programs::SkBuffContext};
use aya_log_ebpf::trace;
use proxy_ebpf::Counter;

use crate::maps::count;

#[stream_verdict]
fn up_count(ctx: SkBuffContext) -> u32 {
    let bytes = ctx.len();
    if bytes == 0 {
        count(Counter::EmptyMessages, 1);
    } else {
        count(Counter::PassedMessages, 1);
        count(Counter::PassedBytes, u64::from(bytes));
    }
    // Below the level set at load time the verifier removes this as dead code.
    trace!(&ctx, "passed {} bytes", bytes);
    SK_PASS
}
