//! How children are started: in their namespace, with descriptors for 10,000 tunnels, and
//! bound to end with us.

use std::{os::unix::process::CommandExt as _, process::Command, sync::Arc};

use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};

use super::netns::Namespace;

/// Descriptors: two for each of 10,000 tunnels, and pipes.
const DESCRIPTORS: u64 = 65_536;

/// The host something runs on; `None` is ours.
pub(crate) type Host = Option<Arc<Namespace>>;

/// Prepares a command for `host`. The kernel sends `end` to the child when the thread
/// that starts it is gone (PR_SET_PDEATHSIG), so only the main thread starts children.
pub(crate) fn prepare(command: &mut Command, host: &Host, end: Signal) {
    if let Some(namespace) = host {
        namespace.enter(command);
    }
    let confine = move || {
        set_parent_process_death_signal(Some(end))?;
        if setrlimit(Resource::Nofile, limit(DESCRIPTORS)).is_err() {
            setrlimit(Resource::Nofile, limit(own_limit()))?;
        }
        Ok(())
    };
    // SAFETY: prctl(2) and setrlimit(2) are async-signal-safe, nothing is allocated.
    unsafe { command.pre_exec(confine) };
}

/// Descriptors that a child gets: as many as are wanted, where the limit is ours to raise
/// (CAP_SYS_RESOURCE) or high enough.
pub(crate) fn descriptors() -> u64 {
    let own = own_limit();
    if own >= DESCRIPTORS {
        return DESCRIPTORS;
    }
    // Raised for ourselves as a test; it does no harm.
    if setrlimit(Resource::Nofile, limit(DESCRIPTORS)).is_ok() { DESCRIPTORS } else { own }
}

fn own_limit() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(DESCRIPTORS)
}

fn limit(descriptors: u64) -> Rlimit {
    Rlimit { current: Some(descriptors), maximum: Some(descriptors) }
}
