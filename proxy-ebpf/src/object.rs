//! What every object carries, whatever its programs do.

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
