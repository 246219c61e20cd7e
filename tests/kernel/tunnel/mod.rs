//! The law of tunnels, one file per article, over every engine and every place where the
//! parties can be. `copy` is the oracle: what does not hold for it is a fault of the test.
//!
//! A test that opens a tunnel with `open` looks at the way onto its engine, too; one that
//! uses `open_settled` waits until the engine has it.

mod bytes;
mod early;
mod ends;
pub(crate) mod killed;
mod memory;
pub(crate) mod resets;
mod seen;
mod streams;
mod urgent;

use futures_util::FutureExt;
use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    time::Duration,
};

use underpass_tests::{Bed, bed::Topology, clock, tunnel::Way};

const MEGABYTE: u64 = 1 << 20;

/// When a tunnel that is ended by hand is over: half a second is for what is on its way
/// (`FORCED_LINGER`), the rest for a machine that does much else.
const SOON: Duration = clock::scaled(Duration::from_secs(5));

/// Each bed with one way to open a tunnel, the first with all; fewer on an emulated processor.
fn cases(beds: &[Bed]) -> Vec<(&Bed, Way)> {
    let mut cases = all_cases(beds);
    if clock::SCALE > 1 {
        // Each case starts a proxy, which takes seconds to load the programs.
        let few = [Topology::V4, Topology::RemoteClient, Topology::Confined];
        cases.drain(..2);
        cases.retain(|(bed, _)| few.contains(&bed.topology()));
    }
    cases
}

/// The same, on any processor.
fn all_cases(beds: &[Bed]) -> Vec<(&Bed, Way)> {
    let mut cases = vec![(&beds[0], Way::Upgrade), (&beds[0], Way::Tcp)];
    cases.extend(beds.iter().zip([Way::Connect, Way::Upgrade].into_iter().cycle()));
    cases
}

/// Plays all cases at the same time: for tests that mostly wait.
async fn each(beds: &[Bed], test: impl AsyncFn(&Bed, Way)) {
    // One after the other: a proxy that is starting holds up the peers of those that run.
    for (bed, way) in cases(beds) {
        if let Err(panic) = AssertUnwindSafe(test(bed, way)).catch_unwind().await {
            eprintln!("the case was: {bed}, {way:?}");
            resume_unwind(panic);
        }
    }
}
