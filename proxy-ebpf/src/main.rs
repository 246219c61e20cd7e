//! The BPF object: one file per program, and the maps they share.
//!
//! Built by `cargo xtask build-ebpf` for `bpfel-unknown-none`, embedded into the proxy by
//! its build script. Invariant: every program counts each of its outcomes, and none ever
//! drops a byte by itself (no path returns `SK_DROP`).
#![no_std]
#![no_main]

mod count;
mod maps;

/// Programs that call GPL-only helpers need a compatible licence here; none does.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 18] = *b"MIT OR Apache-2.0\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that could get here.
    loop {}
}
