//! Each protection of tunnels, shown by the harm that is seen without it.
//!
//! A test here plays one and the same scenario with everything in place, when it must hold,
//! and once more by a proxy that lacks one protection ([`Protection`]), when it must fail as
//! the protection's reason says. So each of them proves that it can fail. Where the probe at
//! start finds the harm by itself, the proxy would not use the mechanism: that is
//! [`Protection::Probe`], taken away along with the others, and shown by itself in
//! `probe.rs`.
//!
//! What goes wrong when sockets are spliced naively, and where it is shown:
//!
//! | harm | test |
//! |---|---|
//! | no back pressure between own sockets | `bounds::between_own_sockets` |
//! | loss on close between own sockets | `closing::what_the_kernel_was_given_is_sent_first` |
//! | no back pressure in local bypass | `bounds::bypass`, `bounds::half_bypass` |
//! | bytes overtake others | `order` |
//! | bytes that were read come again | `enrolment::an_empty_queue`, `a_quiet_reader`, `a_segment_that_is_old_in_part` |
//! | early bytes are stuck | `probe::doctor_sees_what_is_missing` |
//! | FIONREAD says 0 | `applications::fionread` |
//! | a short read is not the last | `applications::a_read_that_comes_short` |
//! | splice(2) says EAGAIN | `applications::splice_is_what_doctor_says` |
//! | unread bytes go with a map entry | `applications::entries_stay` |
//! | a socket that cannot be enrolled | `enrolment::a_refused_socket` |
//! | unread bytes go with a socket that leaves | `leaving` |
//! | a stream with a hole ends as if it were whole | `enrolment::a_segment_that_cannot_be_cut` |
//! | a reader is woken for fewer bytes than it wants | `low_water` |
//!
//! Of the law of tunnels the order of bytes is in `order`, `enrolment` and `ends::early`,
//! memory in `bounds`, ends in `closing` and `ends`, what is seen of a tunnel in `seen`,
//! failing well in `probe`, and that nothing is left behind in `left`. That all engines keep
//! to one suite is that suite itself (`tunnel/`).
//!
//! The check of sequence numbers against address translation is shown by itself, in `look.rs`.
//!
//! Not shown, because nothing was found that tells the difference from outside: the quarantine of
//! counters that were given back, the wait between closing both directions and the leaving of a
//! sender, and the look at the states of both sockets in `up_msg` (without it a send behind one's
//! own FIN is EPIPE all the same on 6.18).

mod applications;
mod bounds;
mod closing;
mod ends;
mod enrolment;
mod leaving;
mod left;
mod low_water;
mod order;
mod probe;
mod seen;

use std::{fmt, time::Duration};

use proxy_ebpf::Protection;
use tokio::time::timeout;
use underpass_tests::{Fate, Proxy, Wire, clock, engine::ready, eventually};

const MEGABYTE: u64 = 1 << 20;

/// More than any bound lets a sender get rid of.
const MORE: u64 = 96 * MEGABYTE;

/// Times that a scenario is played until the harm is seen: some take a race.
const TRIES: usize = 16;

/// Plays a scenario with everything in place, when it `holds`, and without `gone`, when there
/// is `harm`.
async fn shown<T: fmt::Debug>(
    gone: &[Protection],
    play: impl AsyncFn(&[Protection]) -> T,
    holds: impl Fn(&T) -> bool,
    harm: impl Fn(&T) -> bool,
) {
    let kept = play(&[]).await;
    println!("with everything in place: {kept:?}");
    assert!(holds(&kept), "with everything in place: {kept:?}");
    let gone = [&[Protection::Probe], gone].concat();
    for _ in 0..TRIES {
        let seen = play(&gone).await;
        println!("without {gone:?}: {seen:?}");
        if harm(&seen) {
            return;
        }
    }
    panic!("without {gone:?} there was no harm: nothing shows that they protect");
}

/// How long a reader waits: for ever, as it were, if nothing is expected to be stuck.
fn patience(gone: &[Protection]) -> Duration {
    match gone.contains(&Protection::Probe) {
        true => 5 * clock::STALL,
        false => clock::BOUND,
    }
}

/// Whether one direction of the only tunnel comes to be moved by this engine.
async fn comes_to(proxy: &Proxy, direction: &str, engine: &str) -> bool {
    let moved = async {
        loop {
            let rows = proxy.tunnels().await;
            if rows.first().is_some_and(|row| row["engine"][direction]["name"] == engine) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(8 * clock::STALL, moved).await.is_ok()
}

/// One end fills everything between it and the other, and goes on when that one begins to
/// read: the first bytes have gone by the kernel's way, then others by TCP's, and then there
/// is room again.
async fn bulk(from: &mut Wire, to: &mut Wire, gone: &[Protection]) -> Fate {
    let sent = from.send_until_stalled(0, MORE).await;
    let all = sent + 8 * MEGABYTE;
    let sending = async {
        from.send_rest(sent, all).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        fate = to.fate_of(0, all, patience(gone)) => fate,
        () = sending => unreachable!(),
    }
}

/// Waits until the other kernel has everything that this end has sent.
async fn acknowledged(wire: &Wire) {
    eventually("all to be acknowledged", async || wire.unacknowledged() == 0).await;
}
