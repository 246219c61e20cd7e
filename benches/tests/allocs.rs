//! The pinned number of allocations per request holds (REQ-CTRL-003).

use underpass_benches::{counting, run::allocs};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

#[mantra_macros::req_test("REQ-CTRL-003")]
#[test]
fn allocations_per_request_stay_within_their_bound() {
    for cost in allocs::measure(300).unwrap() {
        println!("{cost:?}");
        assert!(cost.is_within_bound(), "{cost:?}");
    }
}
