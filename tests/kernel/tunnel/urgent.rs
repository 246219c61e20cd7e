//! Urgent data (TCP's URG): bytes like others by the time they arrive.

use mantra_macros::req_test;
use underpass_tests::{Bed, Engine, Plan, Wire, over_all_engines, pattern};

use super::{MEGABYTE, cases};

over_all_engines!(urgent_bytes_keep_their_place);

/// Among messages, and behind bulk, where `auto` is with splice(2), which stops at them.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn urgent_bytes_keep_their_place(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        let mut tunnel = Plan::new(bed, way, engine).open_settled().await;
        urgent(&mut tunnel.client, &mut tunnel.server).await;
        urgent(&mut tunnel.server, &mut tunnel.client).await;
    }
}

async fn urgent(from: &mut Wire, to: &mut Wire) {
    // Half bypass is the server's own send: what is urgent stays so.
    to.inline_urgent();
    let mut at = 0;
    for before in [3, 4 * MEGABYTE, 1] {
        tokio::join!(from.send_rest(at, at + before), to.check_pattern(at, before));
        at += before;
        from.send_urgent(pattern::at(at, 1)[0]).await;
        to.check_pattern(at, 1).await;
        at += 1;
    }
    from.send(pattern::at(at, 3000)).await;
    to.check_pattern(at, 3000).await;
}
