//! Why the recorder copies small chunks: a handle of one keeps a buffer of hyper that is many
//! times as large. Counts of bytes, never times.

use underpass_benches::{counting, run::pinned};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

#[mantra_macros::req_test("REQ-REC-001")]
#[test]
fn a_handle_of_a_small_chunk_costs_many_times_the_chunk() {
    let (by_handle, copied) = (pinned::of(50, true).unwrap(), pinned::of(50, false).unwrap());
    println!("{by_handle} bytes by handle, {copied} copied");
    assert!(by_handle > 20.0 * 50.0, "{by_handle}");
    assert!(copied < by_handle / 4.0, "{copied} against {by_handle}");
    // One of the size that is kept by its handle costs no more than a few times itself.
    let large = pinned::of(48 << 10, true).unwrap();
    assert!(large < 4.0 * f64::from(48 << 10), "{large}");
}
