//! The BPF object: one file per program, and the maps they share.
//!
//! Built by `cargo xtask build-ebpf` for `bpfel-unknown-none`, embedded into the proxy by
//! its build script. Invariant: every program counts each of its outcomes, and none ever
//! drops a byte that its reader has not had (`SK_DROP` is for segments without one).
#![no_std]
#![no_main]

mod field;
mod fresh;
mod look;
mod maps;
mod msg;
mod skb;

/// `bpf_probe_read_kernel` is for programs under a licence that is compatible with the
/// GPL; this is how the kernel spells the choice between MIT (ours, beside Apache-2.0) and it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that could get here.
    loop {}
}
